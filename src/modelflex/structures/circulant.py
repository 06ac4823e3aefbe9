"""Block-circulant matrices: every b×b block is given by its first column (C-LSTM, E-RNN)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.core.layout import circulant_geometry
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
        if not 0 <= self.ridge < float("inf"):
            raise UserError(f"ridge is {self.ridge}", "a finite number ≥ 0")

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        return (Planned("circulant", circulant_geometry(out, inputs, self.block)),)

    def fit_weight(self, fit: Fit) -> Matrix:
        b, (out, inputs) = self.block, fit.matrix.shape
        circulant_geometry(out, inputs, b)
        hessian, values = None, fold_rows(fit.matrix, b) / b
        if fit.moments is not None:
            cov = fit.moments.cov_z
            hessian = fold_hessian(cov, b)
            if self.fit == "least_squares":
                pull = self.ridge * np.diag(cov) + damping(cov)
                wanted = fold_rows(fit.moments.cov_tz + fit.matrix * pull, b)
                values = np.linalg.solve(fold_hessian(cov + np.diag(pull), b), wanted.T).T
        part = fit.encode.encode(values, hessian, fit.gates)
        stored = replace(part, codes=part.codes.reshape(out // b, inputs // b, b))
        return Matrix(stored, None, fit.link, fit.gates, "circulant", inputs)

    def naive(self) -> Circulant:
        return replace(self, fit="mean")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"


def _columns(inputs: int, b: int, i: int) -> Array:
    """The input that generator entry (q, j) meets in row i of a block: q·b + (i − j) mod b, [in]."""
    return (np.arange(inputs // b)[:, None] * b + (i - np.arange(b)) % b).ravel()


def fold_rows(matrix: Array, b: int) -> Array:
    """Σ_i R_i P_iᵀ: sum a matrix [out, in] along the wrapped diagonals of its blocks → [out/b, in]."""
    out, inputs = matrix.shape
    rows = matrix.reshape(out // b, b, inputs)
    return sum((rows[:, i, _columns(inputs, b, i)] for i in range(b)), np.zeros((out // b, inputs)))


def fold_hessian(h: Array, b: int) -> Array:
    """Σ_i P_i H P_iᵀ [in, in]: the curvature of the squared error in the generators of a block row."""
    folded = np.zeros_like(h)
    for i in range(b):
        columns = _columns(h.shape[0], b, i)
        folded += h[np.ix_(columns, columns)]
    return folded
