"""What stands for one affine map: stored parts, the links that feed them, and the bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.layout import expand
from modelflex.core.part import FLOAT_BITS, Part, pack_bias
from modelflex.core.tracer import Link, Tracer, Value


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
        link = self.links[0] if self.links else None
        return tracer.product(f"{site}/0", self.parts[0], link, self.layout, x, self.bias)


def float_weight(matrix: Array, bias: Array | None, gates: int) -> Matrix:
    """An uncompressed weight from a matrix [out, in] and a bias [out]."""
    stored = None if bias is None else pack_bias(bias, None, FLOAT_BITS)
    part = Part(np.ascontiguousarray(matrix, np.float32), FLOAT_BITS)
    return Matrix((part,), stored, (), gates, "dense")
