"""Low rank: a matrix as the product of a tall and a wide one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

from pydantic import ConfigDict, with_config

from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.low_rank import check_share, fit_chain, plan_chain, rank_of
from modelflex.core.regression import check_ridge
from modelflex.core.tracer import Activity
from modelflex.core.weight import Chain
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES, STRUCTURES


@final
@STRUCTURES.register("low_rank")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class LowRank(Structure):
    """U·V with U [out, rank] and V [rank, in].

    Attributes:
        share: of the dense matrix's numbers that U and V have together, above 0, at most 1; it
            decides the rank (at least 1) where `rank` is None.
        rank: 1 … min(out, in).
        fit: "svd" is the nearest matrix of the rank; "whitened" predicts the original products
            best from the inputs that the compressed network really multiplies.
        ridge: pull towards the trained matrix, as a share of the input's variances.
        inner_threshold: delta on the intermediate result V·x, in its standard deviations; None
            computes all of U.
    """

    share: float = 0.1
    rank: int | None = None
    fit: Literal["svd", "whitened"] = "whitened"
    ridge: float = 0.05
    inner_threshold: float | None = None

    reference = (
        "Eckart and Young, Psychometrika 1, 1936 (svd); Yuan et al., ASVD, 2023 (arXiv 2312.05821) and "
        "Wang et al., SVD-LLM, ICLR 2025 (arXiv 2403.07378) (whitened)"
    )
    search_range = {
        "share": (0.1, 0.2, 0.4),
        "fit": ("svd", "whitened"),
        "inner_threshold": (None, 0.2),
    }

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.rank is not None and self.rank < 1:
            raise UserError(f"rank is {self.rank}", "at least 1")
        check_ridge(self.ridge)
        self._inner()  # refuses a threshold that is none

    def _rank(self, out: int, inputs: int) -> int:
        return rank_of(self.share, out, inputs) if self.rank is None else self.rank

    def _inner(self) -> Activity | None:
        if self.inner_threshold is None:
            return None
        made: Activity = ACTIVITIES.get("delta")(threshold=self.inner_threshold, unit="std")
        return made

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        return plan_chain(out, inputs, self._rank(out, inputs), self._inner())

    def fit_weight(self, fit: Fit) -> Chain:
        self.plan(*fit.matrix.shape)
        rank = self._rank(*fit.matrix.shape)
        return fit_chain(fit, rank, self.data_aware, self.ridge, self._inner())

    def naive(self) -> LowRank:
        return replace(self, fit="svd")

    @property
    def data_aware(self) -> bool:
        return self.fit == "whitened"
