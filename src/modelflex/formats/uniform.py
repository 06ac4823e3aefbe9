"""Uniform symmetric integers: 2 to 16 bits, with one scale a tensor, a gate or a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format, damping
from modelflex.core.fixed import Array, Scale
from modelflex.core.part import Part
from modelflex.errors import UserError
from modelflex.registry import FORMATS

ODD_BITS = 3
"""Up to here the grid is the odd integers: few levels can't be spared for a zero."""


TINY = 1e-6


@final
@FORMATS.register("uniform")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Uniform(Format):
    """value = scale · code; codes are symmetric (see `Part.odd` for grids of 2 and 3 bits).

    Attributes:
        bits: 2 … 16.
        scales: rows that share a scale: the whole "tensor", a "gate", or one "row".
        clip: "max" covers the largest value; "mse" is the range of least squared error, weighted
            by the inputs' second moments where they are known.
        rounding: "nearest", or "gptq": columns one after another, each error compensated by the
            columns not yet rounded (Frantar et al., GPTQ, ICLR 2023).
    """

    bits: int
    scales: Literal["tensor", "gate", "row"] = "row"
    clip: Literal["max", "mse"] = "mse"
    rounding: Literal["nearest", "gptq"] = "gptq"

    reference = (
        "Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323); min–max rounding for the naive variant"
    )
    search_range = {"bits": (2, 3, 4, 8, 16), "scales": ("tensor", "gate", "row")}

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"uniform bits are {self.bits}", "2 … 16")

    @property
    def stored_bits(self) -> int:
        return self.bits

    def scale_count(self, rows: int, gates: int) -> int:
        return {"tensor": 1, "gate": gates, "row": rows}[self.scales]

    def naive(self) -> Uniform:
        return replace(self, scales="tensor", clip="max", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(self, values: Array, hessian: Array | None, gates: int) -> Part:
        rows = values.shape[0]
        groups = self.scale_count(rows, gates)
        if rows % groups:
            raise UserError(f"{rows} rows in {groups} scale groups", "groups of equal size")
        grid = Grid(self.bits, self.bits <= ODD_BITS)
        sizes = self._steps(values.reshape(groups, -1), hessian, grid, values.shape[1])
        scale = Scale.nearest(sizes)
        steps = np.repeat(scale.value(), rows // groups)[:, None]
        if self.rounding == "gptq" and hessian is not None:
            codes = gptq(values / steps, hessian, grid)
        else:
            codes = grid.round(values / steps)
        return Part(codes.astype(np.int32), self.bits, scale, rows // groups, grid.odd)

    def _steps(self, groups: Array, hessian: Array | None, grid: Grid, n: int) -> Array:
        """The code step of every group of values [groups, rows·n]."""
        peak = np.abs(groups).max(axis=1)
        # A group of zeros gets the smallest scale there is: the odd grids cannot store a zero.
        peak = np.where(peak > 0, peak, max(float(peak.max()), TINY) * 2.0**-14)
        full = peak / grid.top
        if self.clip == "max":
            return full
        weights = np.ones(n) if hessian is None else np.diag(hessian)
        weights = np.tile(weights, groups.shape[1] // n)
        best, least = full, np.full(full.shape, np.inf)
        for share in np.linspace(1.0, 0.14, 44):
            step = (full * share)[:, None]
            error = ((grid.round(groups / step) * step - groups) ** 2) @ weights
            best = np.where(error < least, full * share, best)
            least = np.minimum(error, least)
        return best


@dataclass(frozen=True)
class Grid:
    """The integers that codes of `bits` bits may take."""

    bits: int
    odd: bool

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1 if self.odd else (1 << (self.bits - 1)) - 1

    def round(self, x: Array) -> Array:
        """The nearest integer of the grid (ties upwards on the odd grid, to even otherwise)."""
        near = 2 * np.floor(x / 2) + 1 if self.odd else np.rint(x)
        return np.clip(near, -self.top, self.top)


def gptq(values: Array, hessian: Array, grid: Grid, chunk: int = 32) -> Array:
    """Round values [rows, n] (in code steps) column by column, the largest curvature first.

    With U the upper Cholesky factor of H⁻¹: q = round(w_j); W_k −= (w_j − q)/U_jj · U_jk for k > j.
    Columns are worked off in chunks so that most of the update is a matrix product.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    h = hessian[np.ix_(order, order)] + damping(hessian) * np.eye(order.size)
    inverse = np.linalg.inv(h)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w = np.ascontiguousarray(values[:, order].T)  # one column of the matrix is contiguous
    n = w.shape[0]
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        errors = np.empty((end - start, w.shape[1]))
        for j in range(start, end):
            q = grid.round(w[j])
            errors[j - start] = (w[j] - q) / upper[j, j]
            w[j] = q
            if j + 1 < end:
                w[j + 1 : end] -= upper[j, j + 1 : end, None] * errors[j - start]
        if end < n:
            w[end:] -= upper[start:end, end:].T @ errors
    codes = np.empty_like(w)
    codes[order] = w
    return codes.T
