"""Low rank plus sparse: what a few directions cannot explain is kept number by number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, final

from pydantic import ConfigDict, with_config

from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.low_rank import check_share, fit_chain, plan_chain, product, rank_of
from modelflex.core.regression import check_ridge
from modelflex.core.sparsity import Blocks, check_density
from modelflex.core.sums import fit_with_sparse
from modelflex.core.weight import Sum
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("low_rank_plus_sparse")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class LowRankPlusSparse(Structure):
    """U·V + S with S keeping equally many numbers in each row.

    Attributes:
        share: of the dense matrix's numbers that U and V have together, above 0, at most 1.
        density: share of a row that S keeps, above 0; at least one number.
        fit: "nearest" to the trained matrix, or "least_squares" of the original products from the
            inputs that the compressed network really multiplies.
        ridge: pull towards the trained matrix, as a share of the input's variances.
    """

    share: float = 0.1
    density: float = 0.02
    fit: Literal["nearest", "least_squares"] = "least_squares"
    ridge: float = 0.05

    reference = "Zhou and Tao, GoDec: Randomized Low-rank & Sparse Matrix Decomposition, ICML 2011"
    search_range = {
        "share": (0.2,),
        "density": (0.05,),
        "fit": ("nearest", "least_squares"),
    }

    def __post_init__(self) -> None:
        check_share(self.share)
        check_density(self.density)
        check_ridge(self.ridge)

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        sparse = Blocks(self.density)
        return (
            *plan_chain(out, inputs, rank_of(self.share, out, inputs), None),
            Planned(sparse.layout, sparse.geometry(out, inputs)),
        )

    def fit_weight(self, fit: Fit) -> Sum:
        rank = rank_of(self.share, *fit.matrix.shape)
        aware, ridge = self.data_aware, self.ridge
        return fit_with_sparse(
            fit,
            self.density,
            aware,
            ridge,
            partial(product, rank=rank),
            partial(fit_chain, rank=rank, aware=aware, ridge=ridge),
        )

    def naive(self) -> LowRankPlusSparse:
        return replace(self, fit="nearest")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"
