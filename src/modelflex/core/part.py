"""Stored arrays: integer codes with their scales, or float32 numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array, Scale

FLOAT_BITS = 32


@dataclass(frozen=True, eq=False)
class Part:
    """One stored array.

    Attributes:
        codes: the integers that are multiplied, or float32 numbers when `bits` is 32.
        bits: bits stored for a code.
        scale: one factor for each `rows_per_scale` rows of the first axis; None for floats.
        rows_per_scale: rows of `codes` that share a factor.
        odd: the grid is the odd integers −(2^b−1), …, −1, 1, …, 2^b−1 (no zero, all 2^b codes used);
            otherwise −(2^(b−1)−1) … 2^(b−1)−1.
    """

    codes: Array
    bits: int
    scale: Scale | None = None
    rows_per_scale: int = 1
    odd: bool = False

    def row_scales(self) -> Array:
        """The factor of every row, float64 [rows]."""
        if self.scale is None:
            return np.ones(self.codes.shape[0])
        return np.repeat(self.scale.value(), self.rows_per_scale)[: self.codes.shape[0]]

    def value(self) -> Array:
        """The numbers that the codes stand for, float64, of the shape of `codes`."""
        rows = self.row_scales().reshape((-1,) + (1,) * (self.codes.ndim - 1))
        return self.codes.astype(np.float64) * rows

    @property
    def code_bytes(self) -> int:
        """Bytes of the packed codes."""
        return (self.codes.size * self.bits + 7) // 8

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales."""
        return 0 if self.scale is None else self.scale.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes stored: packed codes and scales."""
        return self.code_bytes + self.scale_bytes


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
