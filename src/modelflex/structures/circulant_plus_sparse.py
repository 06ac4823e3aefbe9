"""Block-circulant plus sparse: the numbers that circulant blocks cannot follow are kept beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, final

from pydantic import ConfigDict, with_config

from modelflex.core.circulant import expanded, fit_circulant
from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.layout import circulant_geometry
from modelflex.core.regression import check_ridge
from modelflex.core.sparsity import Blocks, check_density
from modelflex.core.sums import fit_with_sparse
from modelflex.core.weight import Sum
from modelflex.errors import UserError
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("circulant_plus_sparse")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class CirculantPlusSparse(Structure):
    """C + S with C of b×b circulant blocks and S with equally many numbers in each row.

    Attributes:
        block: b, at least 1.
        density: share of a row that S keeps, above 0; at least one number.
        fit: "nearest" to the trained matrix, or "least_squares" of the original products from the
            inputs that the compressed network really multiplies.
        ridge: pull towards the trained matrix, as a share of the input's variances.
    """

    block: int = 8
    density: float = 0.02
    fit: Literal["nearest", "least_squares"] = "least_squares"
    ridge: float = 0.05

    reference = (
        "Zhou and Tao, GoDec, ICML 2011 (structured + sparse by turns); Wang et al., C-LSTM, FPGA 2018 "
        "(arXiv 1803.06305)"
    )
    search_range = {
        "block": (4, 8),
        "density": (0.05,),
        "fit": ("nearest", "least_squares"),
    }

    def __post_init__(self) -> None:
        if self.block < 1:
            raise UserError(f"circulant block is {self.block}", "at least 1")
        check_density(self.density)
        check_ridge(self.ridge)

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        sparse = Blocks(self.density)
        return (
            Planned("circulant", circulant_geometry(out, inputs, self.block)),
            Planned(sparse.layout, sparse.geometry(out, inputs)),
        )

    def fit_weight(self, fit: Fit) -> Sum:
        self.plan(*fit.matrix.shape)
        aware, ridge = self.data_aware, self.ridge
        return fit_with_sparse(
            fit,
            self.density,
            aware,
            ridge,
            partial(expanded, b=self.block),
            partial(fit_circulant, b=self.block, aware=aware, ridge=ridge),
        )

    def naive(self) -> CirculantPlusSparse:
        return replace(self, fit="nearest")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"
