"""Uniform symmetric integers: 2 to 16 bits, with one scale a tensor, a gate or a row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array, Scale
from modelflex.core.gptq import gptq
from modelflex.core.part import ODD, SYMMETRIC, Part
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
    """value = scale · code; codes are symmetric (see `core.part.Grid` for grids of 2 and 3 bits).

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

    @property
    def grid_kind(self) -> str:
        return "odd" if self.bits <= ODD_BITS else "symmetric"

    def _groups(self, rows: int, gates: int) -> int:
        groups = {"tensor": 1, "gate": gates, "row": rows}[self.scales]
        if rows % groups:
            raise UserError(f"{rows} rows in {groups} scale groups", "groups of equal size")
        return groups

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return 2 * self._groups(rows, gates) + 1

    def naive(self) -> Uniform:
        return replace(self, scales="tensor", clip="max", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = self._groups(rows, gates)
        grid = Levels(self.bits, self.bits <= ODD_BITS)
        kept = values if mask is None else np.where(mask, values, 0.0)
        sizes = self._steps(kept.reshape(groups, -1), hessian, grid, values.shape[1])
        scale = Scale.nearest(sizes)
        steps = np.repeat(scale.value(), rows // groups)[:, None]
        if self.rounding == "gptq" and hessian is not None:
            codes = gptq(values / steps, hessian, lambda column, _: grid.round(column), mask)
        else:
            codes = grid.round(kept / steps)
            if mask is not None:
                codes = np.where(mask, codes, 0.0)
        stored = ODD if grid.odd else SYMMETRIC
        return Part(codes.astype(np.int32), self.bits, scale, rows // groups, stored)

    def _steps(self, groups: Array, hessian: Array | None, grid: Levels, n: int) -> Array:
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
class Levels:
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
