"""Piecewise linear σ and tanh in integers: tables, their reference kernel, and their largest errors.

Both functions are odd about their centre (tanh about 0, σ about ½), so a table covers |x| only.
docs/arithmetic.md (*Piecewise functions*) has the definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from modelflex.core.fixed import FX_BITS, FX_ONE, INT32_MIN, Array, from_fx, rounding_shift
from modelflex.core.kernels import sigmoid, tanh

SLOPE_BITS = 16
"""Fractional bits of a slope."""
SPAN = 16 << FX_BITS
"""Tables are constant from |x| = 16 on, where both functions are within 2⁻²³ of their ends."""
VALUE_BYTES, SLOPE_BYTES, BREAK_BYTES = 2, 2, 4
"""Bytes of one stored value (uint16), slope (uint16) and breakpoint (int32)."""


@dataclass(frozen=True)
class Squashing:
    """A function that is odd about its centre and rises to an end that it never reaches.

    Attributes:
        centre: its value at 0, in fx.
        top: the largest distance from the centre that a table may hold, one fx unit below the end.
        stretch: it is centre + tanh(x / stretch) / stretch.
    """

    centre: int
    top: int
    stretch: int

    def real(self, x: Array) -> Array:
        """Its real values, float64."""
        return self.centre / FX_ONE + np.tanh(x / self.stretch) / self.stretch

    def rise(self, v: Array) -> Array:
        """Its real distance from the centre at fx numbers v, in fx units, float64."""
        return FX_ONE / self.stretch * np.tanh(from_fx(v) / self.stretch)

    def rounded(self, rises: Array) -> Array:
        """The nearest distances from the centre that a table may hold, int64."""
        return np.minimum(np.rint(rises), self.top).astype(np.int64)


FUNCTIONS: Mapping[str, Squashing] = {
    "tanh": Squashing(0, FX_ONE - 1, 1),
    "sigmoid": Squashing(FX_ONE // 2, FX_ONE // 2 - 1, 2),
}


@dataclass(frozen=True, eq=False)
class Piecewise:
    """Segment i starts at |x| = breaks[i] with the distance values[i] from the centre, and rises.

    Attributes:
        centre: the result at 0 less values[0], in fx.
        breaks: int32 [n], increasing from 0, below 2²⁰.
        values: int32 [n], 0 … 2¹⁶ − 1.
        slopes: int32 [n] with 16 fractional bits, 0 … 2¹⁶; the last is 0.
    """

    centre: int
    breaks: Array
    values: Array
    slopes: Array

    def __post_init__(self) -> None:
        b, y, m = (a.astype(np.int64) for a in (self.breaks, self.values, self.slopes))
        if not b.size == y.size == m.size or b[:1].tolist() != [0] or np.any(np.diff(b) <= 0):
            raise ValueError("segments need one value and slope each, and breaks that rise from 0")
        if b[-1] > SPAN or m[-1] != 0 or y.min() < 0 or y.max() >= FX_ONE:
            raise ValueError("the last segment must be flat, and values lie below 1")
        ends = y[:-1] + rounding_shift(m[:-1] * (np.diff(b) - 1), SLOPE_BITS)
        if m.min() < 0 or m.max() > 1 << SLOPE_BITS or np.any(ends > y[1:]):
            raise ValueError("a piecewise function must not decrease, nor rise faster than x")

    @property
    def segments(self) -> int:
        """How many, the last flat one included."""
        return int(self.breaks.size)


def make_piecewise(function: str, breaks: Array, values: Array, slopes: Array) -> Piecewise:
    """A table for one of `FUNCTIONS` from integers of any type."""
    columns = (np.asarray(a).astype(np.int32) for a in (breaks, values, slopes))
    return Piecewise(FUNCTIONS[function].centre, *columns)


def piecewise(v: Array, table: Piecewise) -> Array:
    """fx int32 → fx int32: centre ± (values[i] + rsh(slopes[i]·(|v| − breaks[i]), 16))."""
    a = np.abs(v.astype(np.int64))
    i = np.searchsorted(table.breaks, a, side="right") - 1
    y = table.values[i] + rounding_shift(table.slopes[i] * (a - table.breaks[i]), SLOPE_BITS)
    return (table.centre + np.where(v < 0, -y, y)).astype(np.int32)


def chords(knots: Array, values: Array) -> Array:
    """Slopes of a table that joins its values by lines, rounded down so that it never decreases."""
    rise: Array = np.diff(np.asarray(values, np.int64))
    run: Array = np.diff(np.asarray(knots, np.int64))
    return np.append((rise << SLOPE_BITS) // run, 0)


def largest_error(function: str, run: Callable[[Array], Array]) -> float:
    """The largest distance of an fx function from the real one, over all 2³² inputs.

    Every input in [−16, 16) is evaluated. Beyond, `run` must be constant; the real function moves
    monotonically to its end there, so the distance is largest at one side, and both are looked at.
    """
    real, worst = FUNCTIONS[function].real, 0.0
    for first in range(-SPAN, SPAN, SPAN // 8):
        v = np.arange(first, first + SPAN // 8, dtype=np.int32)
        worst = max(worst, float(np.abs(from_fx(run(v)) - real(from_fx(v))).max()))
    far = np.array([INT32_MIN, SPAN], np.int32)
    ends = real(np.array([-math.inf, math.inf]))
    return max(worst, float(np.abs(from_fx(run(far)) - ends).max()))


@cache
def exact_error(function: str) -> float:
    """The largest error of the definitions of `tanh` and `sigmoid` in docs/arithmetic.md."""
    return largest_error(function, {"tanh": tanh, "sigmoid": sigmoid}[function])
