"""What stands for one affine map: products, how they are put together, and the bias."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.layout import expand
from modelflex.core.part import FLOAT_BITS, Part, pack_bias
from modelflex.core.recorder import Value
from modelflex.core.refinement import operations
from modelflex.core.tracer import Link, Tracer
from modelflex.core.windows import Windows, pointwise
from modelflex.errors import UserError


class Weight(ABC):
    """One affine map y = A·x + b in a stored form.

    Its products have the sites name/0, name/1, … in the order of `products`. The bias belongs to the last.
    """

    @property
    @abstractmethod
    def products(self) -> tuple[Matrix, ...]:
        """The products, in the order of their sites."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs) of the map."""

    @abstractmethod
    def dense(self) -> Array:
        """The matrix A that the parts mean, float64 [out, in]."""

    @abstractmethod
    def lower(
        self, tracer: Tracer, name: str, x: Value, first: int = 0, windows: Windows | None = None
    ) -> Value:
        """Record how A·x + b is computed for x [in]; the result has shape [out].

        Its products get the sites name/first, name/(first + 1), …

        Args:
            windows: where the map is applied to x; the result has the shape [out, positions] then.
        """

    @abstractmethod
    def with_bias(self, bias: Part | None) -> Self:
        """The same map with another bias."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The stored array of every product."""
        return tuple(product.part for product in self.products)

    @property
    def links(self) -> tuple[Link, ...]:
        """The input format of every product; empty for floats."""
        return tuple(product.link for product in self.products if product.link is not None)

    @property
    def bias(self) -> Part | None:
        """For floats, a float32 part [out]; for integers, a part [out] in units of the accumulator
        of the last product (its scale is a power of two), or None.
        """
        return self.products[-1].own_bias

    @property
    def gates(self) -> int:
        """Equal row groups of the map (4 for an LSTM); scales may be shared within a group."""
        return self.products[-1].row_groups

    @property
    def is_float(self) -> bool:
        """True for an uncompressed weight."""
        return not self.links

    def bias_value(self) -> Array:
        """b of y = A·x + b, in real units, float64 [out]; zeros when there is none."""
        if self.bias is None:
            return np.zeros(self.shape[0])
        units = 1.0 if self.is_float else self.accumulator_scale()
        return self.bias.value() * units

    def accumulator_scale(self) -> Array:
        """The real value of one unit of the last product's accumulator, float64 [out]."""
        rows = self.parts[-1].row_scales()
        return np.repeat(rows, self.shape[0] // rows.size) * self.links[-1].step

    @property
    def nbytes(self) -> int:
        """Bytes stored, the bias included."""
        links = sum(link.nbytes for link in self.links)
        biases = (product.own_bias for product in self.products)
        return sum(p.nbytes for p in (*self.parts, *biases) if p is not None) + links


@final
@dataclass(frozen=True, eq=False)
class Matrix(Weight):
    """A single product.

    Attributes:
        part: the stored array.
        own_bias: see `Weight.bias`.
        link: its input format and activity; None for floats.
        row_groups: see `Weight.gates`.
        layout: how the codes lie (core/layout.py).
        inputs: columns of the matrix.
    """

    part: Part
    own_bias: Part | None
    link: Link | None
    row_groups: int
    layout: str
    inputs: int

    @property
    def products(self) -> tuple[Matrix, ...]:
        return (self,)

    @property
    def shape(self) -> tuple[int, int]:
        codes = self.part.codes
        rows = codes.shape[0] * codes.shape[2] if self.layout == "circulant" else codes.shape[0]
        return rows, self.inputs

    def dense(self) -> Array:
        return expand(self.layout, self.part.value(), self.part.index, self.inputs)

    def lower(
        self, tracer: Tracer, name: str, x: Value, first: int = 0, windows: Windows | None = None
    ) -> Value:
        return tracer.product(
            f"{name}/{first}", self.part, self.link, self.layout, x, self.own_bias, windows
        )

    def with_bias(self, bias: Part | None) -> Matrix:
        return replace(self, own_bias=bias)


@final
@dataclass(frozen=True, eq=False)
class Chain(Weight):
    """A = A_n · … · A_1: `factors` are applied to x in their order."""

    factors: tuple[Matrix, ...]

    @property
    def products(self) -> tuple[Matrix, ...]:
        return self.factors

    @property
    def shape(self) -> tuple[int, int]:
        return self.factors[-1].shape[0], self.factors[0].shape[1]

    def dense(self) -> Array:
        matrix = self.factors[0].dense()
        for factor in self.factors[1:]:
            matrix = factor.dense() @ matrix
        return matrix

    def lower(
        self, tracer: Tracer, name: str, x: Value, first: int = 0, windows: Windows | None = None
    ) -> Value:
        for number, factor in enumerate(self.factors):
            x = factor.lower(tracer, name, x, first + number, windows)
            if windows is not None:
                windows = pointwise(factor.shape[0], windows.positions)
        return x

    def with_bias(self, bias: Part | None) -> Chain:
        return Chain((*self.factors[:-1], self.factors[-1].with_bias(bias)))


@final
@dataclass(frozen=True, eq=False)
class Sum(Weight):
    """A = A_1 + … + A_n: every one of `terms` is applied to x."""

    terms: tuple[Matrix | Chain, ...]

    @property
    def products(self) -> tuple[Matrix, ...]:
        return tuple(product for term in self.terms for product in term.products)

    @property
    def shape(self) -> tuple[int, int]:
        return self.terms[0].shape

    def dense(self) -> Array:
        return np.sum([term.dense() for term in self.terms], axis=0)

    def lower(
        self, tracer: Tracer, name: str, x: Value, first: int = 0, windows: Windows | None = None
    ) -> Value:
        total: Value | None = None
        for term in self.terms:
            y = term.lower(tracer, name, x, first, windows)
            total = y if total is None else tracer.add_terms(total, y, name)
            first += len(term.products)
        if total is None:
            raise ValueError("a sum of no terms")
        return total

    def with_bias(self, bias: Part | None) -> Sum:
        return Sum((*self.terms[:-1], self.terms[-1].with_bias(bias)))


@final
@dataclass(frozen=True, eq=False)
class Terms(Weight):
    """A·x + b = b′ + Σ_n u_n·(v_n·x + c_n), of which a prefix of the terms is an answer already.

    Attributes:
        v: what each term multiplies x with, [terms·groups, in]; row n·groups + g is of term n and the
            rows of group g. Its bias c takes the mean of x away where b′ has A's result for it.
            Dense, or a sparse layout with the same number of places in each row.
        u: [out, terms]; column n is added as often as v says.
        groups: equal groups of consecutive rows of the map with a v of their own (the gates in
            Rizakis et al., ARC 2018); 1 where all rows share it.
    """

    v: Matrix
    u: Matrix
    groups: int

    @property
    def count(self) -> int:
        """Terms in all."""
        return self.u.inputs

    @property
    def products(self) -> tuple[Matrix, ...]:
        return (self.v, self.u)

    @property
    def shape(self) -> tuple[int, int]:
        return self.u.shape[0], self.v.inputs

    def dense(self) -> Array:
        return self.prefix(self.count)

    def bias_value(self) -> Array:
        """b with all terms, b′ + Σ_n u_n·c_n; b′ alone is `u.bias_value()`."""
        return self.prefix_bias(self.count)

    def prefix(self, terms: int) -> Array:
        """What the first `terms` terms mean, float64 [out, in]."""
        rows = self.shape[0] // self.groups
        u = self.u.dense()[:, :terms].reshape(self.groups, rows, terms)
        v = self.v.dense()[: terms * self.groups].reshape(terms, self.groups, self.v.inputs)
        return np.matmul(u, v.transpose(1, 0, 2)).reshape(self.shape)

    def prefix_bias(self, terms: int) -> Array:
        """What the first `terms` terms add to every result, b′ + Σ_n u_n·c_n, float64 [out]."""
        bias = self.u.bias_value()
        if self.v.own_bias is None:
            return bias
        u = self.u.dense()[:, :terms].reshape(self.groups, self.shape[0] // self.groups, terms)
        c = self.v.bias_value()[: terms * self.groups].reshape(terms, self.groups).T
        return bias + np.matmul(u, c[:, :, None]).reshape(-1)

    def operations(self, terms: int) -> int:
        """Multiplications and additions of the first `terms` terms; see `refinement.operations`."""
        return terms * operations(self.shape[0], self.v.part.codes.shape[1], self.groups)

    def lower(
        self, tracer: Tracer, name: str, x: Value, first: int = 0, windows: Windows | None = None
    ) -> Value:
        if windows is not None:
            raise UserError(
                f"weight '{name}' is a sum of terms and applied at {windows.positions} positions",
                "a map that is applied once a step",
                "leave convolutions as they are",
            )
        return tracer.refine(name, self.v, self.u, self.groups, x)

    def with_bias(self, bias: Part | None) -> Terms:
        return replace(self, u=self.u.with_bias(bias))


def float_weight(matrix: Array, bias: Array | None, gates: int) -> Matrix:
    """An uncompressed weight from a matrix [out, in] and a bias [out]."""
    stored = None if bias is None else pack_bias(bias, None, FLOAT_BITS)
    part = Part(np.ascontiguousarray(matrix, np.float32), FLOAT_BITS)
    return Matrix(part, stored, None, gates, "dense", matrix.shape[1])
