"""What the rows of a matrix may hold: levels that are linear in a few parameters shared by rows.

A scale, the entries of a codebook and the sizes of signs are all such parameters θ, and a level is θ·φ with
fixed features φ. Codes and parameters of every number format are therefore fitted alike (core/rounding.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self, final

import numpy as np

from modelflex.core.fixed import Array, Scale
from modelflex.core.gptq import IntegerSteps, Nearest, nearest_whole
from modelflex.core.part import Grid, Part
from modelflex.errors import UserError

Sharing = Literal["tensor", "gate", "row"]

TABLE_MAX = 127
"""The largest entry of a table (int8), and the largest sum of entries."""
SMALLEST_SHARE = 2.0**-14
"""A scale is at least this share of the largest, about the least that int16 mantissas tell apart."""
TINY = 1e-6


def share_count(sharing: Sharing, rows: int, gates: int) -> int:
    """Into how many groups of consecutive rows an array is split.

    Raises:
        UserError: the groups are not of equal size.
    """
    groups = {"tensor": 1, "gate": gates, "row": rows}[sharing]
    if rows % groups:
        raise UserError(f"{rows} rows in {groups} scale groups", "groups of equal size")
    return groups


def as_scale(sizes: Array) -> Scale:
    """Sizes ≥ 0 [groups] as scales; those of groups of zeros are raised above zero."""
    return Scale.nearest(np.maximum(sizes, max(float(sizes.max()), TINY) * SMALLEST_SHARE))


def _merged(scale: Scale, other: Scale, better: Array) -> Scale:
    return as_scale(np.where(better, other.value(), scale.value()))


def _taken(scale: Scale, groups: Array) -> Scale:
    return Scale(scale.mantissa[groups], scale.exponent)


def group_rows(groups: Array, each: int) -> Array:
    """The rows of groups of `each` consecutive ones."""
    return np.asarray((groups[:, None] * each + np.arange(each)).ravel())


class Levels(ABC):
    """Integers times a scale, as they are stored."""

    scale: Scale
    each: int
    """Consecutive rows that share a factor and a table."""

    @property
    @abstractmethod
    def nearest(self) -> Nearest:
        """The values nearest to x [rows] of a column."""

    @abstractmethod
    def numbers(self, x: Array) -> Array:
        """Which level is nearest to each of x [rows, n]."""

    @abstractmethod
    def codes(self, numbers: Array) -> Array:
        """The stored integers of levels [rows, n], as floats."""

    @abstractmethod
    def features(self, numbers: Array, rows: slice) -> Array:
        """φ of levels [r, n] of some rows: [r, parameters, n]."""

    @abstractmethod
    def parameters(self) -> Array:
        """θ, [groups, parameters]."""

    @abstractmethod
    def with_parameters(self, theta: Array) -> Self:
        """The same kind of levels with other θ [groups, parameters], rounded to what is stored."""

    @abstractmethod
    def taken(self, groups: Array) -> Self:
        """The levels of some groups of rows, one after another: int [some], repeats are allowed."""

    @abstractmethod
    def merged(self, other: Self, better: Array) -> Self:
        """These levels, with the other's for the groups where `better` [groups] is true."""

    @abstractmethod
    def part(self, codes: Array) -> Part:
        """Codes [rows, n] as a stored array."""

    @cached_property
    def steps(self) -> Array:
        """The factor of every row, [rows]."""
        return np.repeat(self.scale.value(), self.each)

    def values(self, numbers: Array) -> Array:
        """What levels [rows, n] stand for."""
        return self.codes(numbers) * self.steps[:, None]


def largest_integer(kind: str, bits: int) -> int:
    """The largest integer of a symmetric, odd or power grid."""
    if kind == "power":
        return 1 << ((1 << (bits - 1)) - 2)
    return (1 << bits) - 1 if kind == "odd" else (1 << (bits - 1)) - 1


def nearest_integers(x: Array, kind: str, bits: int) -> Array:
    """The nearest integers of a symmetric, odd or power grid (ties up on the odd one, to even on the
    symmetric, away from zero on that of powers).
    """
    top = largest_integer(kind, bits)
    if kind == "power":
        # Half way between 2^i and 2^(i+1) is 1.5·2^i, where ⌊log2(4/3·|x|)⌋ steps up.
        size = np.abs(x)
        exponent = np.frexp(np.maximum(size, 0.5) * (4 / 3))[1] - 1
        near = np.ldexp(np.copysign(1.0, x), np.maximum(exponent, 0))
        return np.clip(np.where(size < 0.5, 0.0, near), -top, top)
    return nearest_whole(x, top, kind == "odd")


@final
@dataclass(frozen=True, eq=False)
class Multiples(Levels):
    """Fixed integers times a factor.

    Attributes:
        kind, bits: which integers: symmetric, odd or power (core/part.py).
        scale, each: see `Levels`.
        multipliers: int32 [rows, groups] of equal groups of columns; None where there are none.
        columns: of the array; needed with multipliers.
    """

    kind: str
    bits: int
    scale: Scale
    each: int
    multipliers: Array | None = None
    columns: int = 0

    @cached_property
    def _factors(self) -> Array | None:
        """The multiplier of every place, [rows, n]."""
        if self.multipliers is None:
            return None
        width = self.columns // self.multipliers.shape[1]
        return np.repeat(self.multipliers.astype(np.float64), width, axis=1)

    @cached_property
    def _sizes(self) -> Array | None:
        """The value of code 1 at every place, [n, rows]; None without multipliers."""
        return (
            None if self._factors is None else np.multiply(self._factors.T, self.steps, order="C")
        )

    @cached_property
    def nearest(self) -> Nearest:
        sizes = self.steps[None, :] if self._sizes is None else self._sizes
        if self.kind != "power":
            return IntegerSteps(largest_integer(self.kind, self.bits), self.kind == "odd", sizes)

        def near(x: Array, column: int) -> Array:
            size = sizes[column if len(sizes) > 1 else 0]
            return nearest_integers(x / size, self.kind, self.bits) * size

        return near

    def numbers(self, x: Array) -> Array:
        size = self.steps[:, None] if self._sizes is None else self._sizes.T
        return nearest_integers(x / size, self.kind, self.bits)

    def codes(self, numbers: Array) -> Array:
        return numbers if self._factors is None else numbers * self._factors

    def features(self, numbers: Array, rows: slice) -> Array:
        some = numbers if self._factors is None else numbers * self._factors[rows]
        return some[:, None, :]

    def parameters(self) -> Array:
        return self.scale.value()[:, None]

    def with_parameters(self, theta: Array) -> Multiples:
        # A negative factor would be worse than none at all.
        return replace(self, scale=as_scale(np.maximum(theta[:, 0], 0.0)))

    def taken(self, groups: Array) -> Multiples:
        multipliers = self.multipliers
        if multipliers is not None:
            multipliers = multipliers[group_rows(groups, self.each)]
        return replace(self, scale=_taken(self.scale, groups), multipliers=multipliers)

    def merged(self, other: Multiples, better: Array) -> Multiples:
        return replace(self, scale=_merged(self.scale, other.scale, better))

    def part(self, codes: Array) -> Part:
        grid, whole = Grid(self.kind), codes.astype(np.int32)
        return Part(whole, self.bits, self.scale, self.each, grid, self.multipliers)


@final
@dataclass(frozen=True, eq=False)
class Tables(Levels):
    """The levels basis·θ with an own θ, int8 times a factor, for every group of rows.

    Attributes:
        kind, bits: "levels" (θ are the levels) or "signs" (levels are sums of ±θ_i).
        scale, each: see `Levels`.
        table: θ in units of the scale, int8 [groups, parameters].
    """

    kind: str
    bits: int
    scale: Scale
    each: int
    table: Array

    @staticmethod
    def near(kind: str, bits: int, each: int, theta: Array) -> Tables:
        """The stored form of θ [groups, parameters]."""
        basis = _basis(kind, bits)
        # Every entry may be rounded by a half, and their sums still have to fit.
        top = TABLE_MAX + 0.5 - np.abs(basis).sum(axis=1).max() / 2
        scale = as_scale(np.abs(theta @ basis.T).max(axis=1) / top)
        table = np.rint(theta / scale.value()[:, None])
        return Tables(
            kind, bits, scale, each, np.clip(table, -TABLE_MAX, TABLE_MAX).astype(np.int8)
        )

    @cached_property
    def _basis(self) -> Array:
        return _basis(self.kind, self.bits)

    @cached_property
    def _levels(self) -> Array:
        """The integer of every level, [rows, 2^bits]."""
        return np.repeat(self.table @ self._basis.T, self.each, axis=0)

    @cached_property
    def _order(self) -> Array:
        """Numbers of the levels of every row, increasing, [rows, 2^bits]."""
        return np.argsort(self._levels, axis=1, kind="stable")

    @cached_property
    def _rising(self) -> Array:
        """The values of every row, increasing, [rows, 2^bits]."""
        return np.take_along_axis(self._levels, self._order, axis=1) * self.steps[:, None]

    @cached_property
    def _middles(self) -> Array:
        """Where the next level becomes the nearest, [2^bits − 1, rows]."""
        return np.ascontiguousarray((self._rising[:, 1:] + self._rising[:, :-1]).T / 2)

    @cached_property
    def _first(self) -> Array:
        """Where the levels of every row start in an array of them all, [rows]."""
        return np.arange(0, self._levels.size, self._levels.shape[1])

    @property
    def nearest(self) -> Nearest:
        return self._nearest

    def _nearest(self, x: Array, _: int) -> Array:
        above = (x > self._middles).view(np.int8)
        return self._rising.take(self._first + np.add.reduce(above, axis=0, dtype=np.int8))

    def numbers(self, x: Array) -> Array:
        place = np.zeros(x.shape, np.int64)
        for middle in self._middles:
            place += x > middle[:, None]
        return self._order.take(place + self._first[:, None])

    def codes(self, numbers: Array) -> Array:
        return self._levels.take(numbers + self._first[:, None])

    def features(self, numbers: Array, rows: slice) -> Array:
        return np.ascontiguousarray(self._basis[numbers].transpose(0, 2, 1))

    def parameters(self) -> Array:
        return self.table * self.scale.value()[:, None]

    def with_parameters(self, theta: Array) -> Tables:
        return Tables.near(self.kind, self.bits, self.each, theta)

    def taken(self, groups: Array) -> Tables:
        return replace(self, scale=_taken(self.scale, groups), table=self.table[groups])

    def merged(self, other: Tables, better: Array) -> Tables:
        table = np.where(better[:, None], other.table, self.table)
        return replace(self, scale=_merged(self.scale, other.scale, better), table=table)

    def part(self, codes: Array) -> Part:
        return Part(
            codes.astype(np.int32), self.bits, self.scale, self.each, Grid(self.kind, self.table)
        )


def _basis(kind: str, bits: int) -> Array:
    """The levels [2^bits, parameters] for θ = 1, in the order of their numbers."""
    if kind == "levels":
        return np.eye(1 << bits)
    return 2.0 * ((np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1) - 1.0
