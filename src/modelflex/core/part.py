"""Stored arrays: integer codes with their scales and how they are numbered, or float32 numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from modelflex.core.fixed import Array, Scale

FLOAT_BITS = 32
MULTIPLIER_BITS: Final = 6
"""Bits of a group's multiplier, 1 … 63."""
GRIDS: Final = ("symmetric", "odd", "power", "levels", "signs")


@dataclass(frozen=True, eq=False)
class Grid:
    """Which integers codes may be, and the number under which each is stored.

    Attributes:
        kind: with b bits,
            "symmetric": −(2^(b−1)−1) … 2^(b−1)−1, two's complement;
            "odd": −(2^b−1), …, −1, 1, …, 2^b−1 (no zero, all 2^b codes used), (code + 2^b − 1)/2;
            "power": 0 and ±2^i, i = 0 … 2^(b−1)−2: number i+1, and 2^(b−1) + i+1 for the negative;
            "levels": any 2^b integers, from a table;
            "signs": Σ_i ±a_i over b integers of a table; bit i set is +a_i (multi-bit codes).
        table: int8 [tables, 2^b] or [tables, b]; each serves the same number of consecutive rows.
    """

    kind: str = "symmetric"
    table: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return 0 if self.table is None else self.table.size

    def levels(self, bits: int) -> Array:
        """int64 [tables or 1, 2^b]: the integer behind every number (unused numbers repeat zero)."""
        number = np.arange(1 << bits)
        half = 1 << (bits - 1)
        if self.kind == "symmetric":
            levels = np.where(number < half, number, number - (1 << bits))
            levels[half] = 0
        elif self.kind == "odd":
            levels = 2 * number - ((1 << bits) - 1)
        elif self.kind == "power":
            exponent = number % half - 1
            size = np.where(exponent >= 0, 1 << np.maximum(exponent, 0), 0)
            levels = np.where(number < half, size, -size)
        elif self.table is None:
            raise ValueError(f"a grid of {self.kind} needs a table")
        elif self.kind == "levels":
            return self.table.astype(np.int64)
        elif self.kind == "signs":
            signs = 2 * ((number[:, None] >> np.arange(bits)) & 1) - 1
            return self.table.astype(np.int64) @ signs.T
        else:
            raise ValueError(f"unknown grid '{self.kind}'")
        return levels[None, :].astype(np.int64)


def operand_bits(kind: str, bits: int) -> int:
    """Width of the integers that a grid's numbers mean, as a multiplier of integers sees them."""
    return {"symmetric": bits, "odd": bits, "power": 1 << (bits - 1)}.get(kind, 8)


SYMMETRIC: Final = Grid()


@dataclass(frozen=True, eq=False)
class Part:
    """One stored array.

    Attributes:
        codes: the integers that are multiplied (a grid's level times its group's multiplier), or
            float32 numbers when `bits` is 32.
        bits: bits stored for a code.
        scale: one factor for each `rows_per_scale` rows of the first axis; None for floats.
        rows_per_scale: rows of `codes` that share a factor.
        grid: which integers are allowed and how they are numbered.
        multipliers: int32 [rows, groups] in 1 … 63, one for each of equal groups of consecutive
            columns of a row; None where there are no groups.
        index: where the codes of a sparse layout lie (see core/layout.py); None for the others.
        index_bits: bits stored for an index.
    """

    codes: Array
    bits: int
    scale: Scale | None = None
    rows_per_scale: int = 1
    grid: Grid = SYMMETRIC
    multipliers: Array | None = None
    index: Array | None = None
    index_bits: int = 0

    def row_scales(self) -> Array:
        """The factor of every row, float64 [rows]."""
        if self.scale is None:
            return np.ones(self.codes.shape[0])
        return np.repeat(self.scale.value(), self.rows_per_scale)[: self.codes.shape[0]]

    def value(self) -> Array:
        """The numbers that the codes stand for, float64, of the shape of `codes`."""
        rows = self.row_scales().reshape((-1,) + (1,) * (self.codes.ndim - 1))
        return self.codes.astype(np.float64) * rows

    def group_factors(self) -> Array:
        """The multiplier of every code, int64, of the shape of `codes`."""
        if self.multipliers is None:
            return np.ones(self.codes.shape, np.int64)
        rows = self.codes.shape[0]
        width = self.codes.size // rows // self.multipliers.shape[1]
        factors = np.repeat(self.multipliers.astype(np.int64), width, axis=1)
        return factors.reshape(self.codes.shape)

    @property
    def code_bytes(self) -> int:
        """Bytes of the packed codes."""
        return (self.codes.size * self.bits + 7) // 8

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales."""
        return 0 if self.scale is None else self.scale.nbytes

    @property
    def side_bytes(self) -> int:
        """Bytes that every run reads whatever is active: scales, tables and multipliers."""
        groups = 0 if self.multipliers is None else self.multipliers.size
        return self.scale_bytes + self.grid.nbytes + (groups * MULTIPLIER_BITS + 7) // 8

    @property
    def index_bytes(self) -> int:
        """Bytes of the indices."""
        return 0 if self.index is None else (self.index.size * self.index_bits + 7) // 8

    @property
    def nbytes(self) -> int:
        """Bytes stored in all."""
        return self.code_bytes + self.side_bytes + self.index_bytes


def pack_bias(bias: Array, units: Array | None, bits: int) -> Part:
    """Store a bias: float32 when `units` is None, else `bits`-bit codes in accumulator units.

    Args:
        bias: real values, float64 [out].
        units: the real value of one accumulator unit, float64 [out].
        bits: 8 or 16; all codes share one power-of-two factor.
    """
    if units is None:
        return Part(bias.astype(np.float32), FLOAT_BITS)
    wanted = bias / units
    limit = 2.0 ** (bits - 1) - 1
    shift = 0
    while np.abs(wanted).max(initial=0.0) / 2.0**shift > limit:
        shift += 1
    codes = np.clip(np.rint(wanted / 2.0**shift), -limit, limit).astype(np.int64)
    return Part(codes, bits, Scale.power_of_two(-shift), rows_per_scale=bias.size)


def bias_codes(bias: Part) -> Array:
    """A stored integer bias in accumulator units, int64 [out]."""
    exponent = 0 if bias.scale is None else bias.scale.exponent
    return bias.codes.astype(np.int64) << -exponent
