"""What stands for one affine map: stored parts, the links that feed them, and the bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, final

import numpy as np

from modelflex.core.fixed import Array, Scale
from modelflex.core.layout import expand

if TYPE_CHECKING:
    from modelflex.core.extension import Activity
    from modelflex.core.tracer import Tracer, Value

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


@dataclass(frozen=True, eq=False)
class Link:
    """What enters one product: the code format of its input and which products are computed.

    Attributes:
        bits: bits of the input codes, two's complement.
        scale: the real value of one code step (a single factor).
        activity: None computes every product; otherwise a state machine made of primitives.
    """

    bits: int
    scale: Scale
    activity: Activity | None = None

    @property
    def step(self) -> float:
        """The real value of one code step."""
        return float(self.scale.value()[0])


@dataclass(frozen=True, eq=False)
class Weight(ABC):
    """One affine map y = A·x + b in a stored form; a structure's file defines the final class.

    Attributes:
        parts: the stored arrays, in the order in which they are applied to x.
        bias: for floats, a float32 part [out]; for integers, a part [out] in units of the
            accumulator of the last product (its scale is a power of two), or None.
        links: one for each product of an integer weight; empty for floats.
        gates: equal row groups of the map (4 for an LSTM); scales may be shared within a group.
    """

    parts: tuple[Part, ...]
    bias: Part | None
    links: tuple[Link, ...]
    gates: int

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the map."""

    @abstractmethod
    def dense(self) -> Array:
        """The matrix A that the parts mean, float64 [out, in]."""

    @abstractmethod
    def lower(self, tracer: Tracer, site: str, x: Value) -> Value:
        """Record how A·x + b is computed for x [in]; the result has shape [out]."""

    @property
    def is_float(self) -> bool:
        """True for an uncompressed weight."""
        return not self.links

    def bias_value(self) -> Array:
        """The bias in real units, float64 [out]; zeros when there is none."""
        if self.bias is None:
            return np.zeros(self.shape[0])
        units = 1.0 if self.is_float else self.accumulator_scale()
        return self.bias.value() * units

    def accumulator_scale(self) -> Array:
        """The real value of one unit of the last product's accumulator, float64 [out]."""
        rows = self.parts[-1].row_scales()
        return np.repeat(rows, self.shape[0] // rows.size) * self.links[-1].step

    def with_bias(self, bias: Part | None) -> Self:
        """The same map with another bias."""
        return replace(self, bias=bias)

    @property
    def nbytes(self) -> int:
        """Bytes stored, the bias included."""
        return sum(p.nbytes for p in self.parts) + (0 if self.bias is None else self.bias.nbytes)


@final
@dataclass(frozen=True, eq=False)
class Matrix(Weight):
    """A weight of one product: its single part in one layout (see core/layout.py)."""

    layout: str

    @property
    def shape(self) -> tuple[int, int]:
        codes = self.parts[0].codes
        if self.layout == "circulant":
            p, q, b = codes.shape
            return p * b, q * b
        return codes.shape[0], codes.shape[1]

    def dense(self) -> Array:
        return expand(self.layout, self.parts[0].value())

    def lower(self, tracer: Tracer, site: str, x: Value) -> Value:
        return tracer.product(self, f"{site}/0", 0, self.layout, x, bias=self.bias)


def float_weight(matrix: Array, bias: Array | None, gates: int) -> Matrix:
    """An uncompressed weight from a matrix [out, in] and a bias [out]."""
    stored = None if bias is None else pack_bias(bias, None, FLOAT_BITS)
    part = Part(np.ascontiguousarray(matrix, np.float32), FLOAT_BITS)
    return Matrix((part,), stored, (), gates, "dense")


def pack_bias(bias: Array, units: Array | None, bits: int) -> Part:
    """Store a bias: float32 when `units` is None, else `bits`-bit codes in accumulator units.

    Args:
        bias: real values, float64 [out].
        units: the real value of one accumulator unit, float64 [out].
        bits: 8, 16 or 32; all codes share one power-of-two factor.
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


def bias_codes(weight: Weight) -> Array:
    """The bias in accumulator units as integers, int64 [out]; zeros when there is none."""
    if weight.bias is None:
        return np.zeros(weight.shape[0], np.int64)
    scale: Any = weight.bias.scale
    return weight.bias.codes.astype(np.int64) << -scale.exponent
