"""Block-circulant matrices: every b×b block is given by its first column (C-LSTM, E-RNN)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

from pydantic import ConfigDict, with_config

from modelflex.core.circulant import fit_circulant
from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.layout import circulant_geometry
from modelflex.core.regression import check_ridge
from modelflex.core.weight import Matrix
from modelflex.errors import UserError
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("circulant")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Circulant(Structure):
    """A matrix of b×b circulant blocks, entry (i, k) of a block = generator[(i − k) mod b].

    Attributes:
        block: b, at least 1 (1 is a dense matrix).
        fit: "mean" averages the wrapped diagonals (the L2 projection); "least_squares" finds the
            generators that best predict the original products on calibration inputs.
        ridge: pull towards the trained matrix, as a share of the input's variances.
    """

    block: int = 4
    fit: Literal["mean", "least_squares"] = "least_squares"
    ridge: float = 0.05

    reference = (
        "Wang et al., C-LSTM: Enabling Efficient LSTM using Structured Compression Techniques on "
        "FPGAs, FPGA 2018 (arXiv 1803.06305)"
    )
    search_range = {"block": (1, 2, 4, 8, 16), "fit": ("mean", "least_squares")}

    def __post_init__(self) -> None:
        if self.block < 1:
            raise UserError(f"circulant block is {self.block}", "at least 1")
        check_ridge(self.ridge)

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        return (Planned("circulant", circulant_geometry(out, inputs, self.block)),)

    def fit_weight(self, fit: Fit) -> Matrix:
        return fit_circulant(fit, self.block, self.data_aware, self.ridge)

    def naive(self) -> Circulant:
        return replace(self, fit="mean")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"
