"""Fixed-point numbers: the `fx` type, rounding shifts, scales and the tanh table.

docs/arithmetic.md specifies all of this; the interpreter, the native kernels and exported code
implement exactly these definitions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FX_BITS = 16
"""Fractional bits of `fx`, the int32 type of every elementwise value."""
FX_ONE = 1 << FX_BITS
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
MANTISSA_MAX = 2**15 - 1
"""Mantissas of scales and multipliers are int16."""
MAX_SHIFT = 62
"""Right shifts stay below the width of the 64-bit intermediates."""


def rounding_shift(a: Array, s: int) -> Array:
    """rsh(a, s) = ⌊(a + 2^(s−1)) / 2^s⌋ for s ≥ 1, an exact left shift for s ≤ 0 (int64 in, int64 out)."""
    if s >= 1:
        return (a + (1 << (s - 1))) >> s
    return a << -s


def saturate(a: Array) -> Array:
    """Clamp int64 values to int32."""
    return np.clip(a, INT32_MIN, INT32_MAX).astype(np.int32)


def to_fx(x: Array) -> Array:
    """sat(rint(x·2¹⁶)), ties to even: how real inputs enter an integer program."""
    return saturate(
        np.clip(np.rint(np.asarray(x, np.float64) * FX_ONE), -(2.0**40), 2.0**40).astype(np.int64)
    )


def from_fx(v: Array) -> Array:
    """The real values of fx numbers, float64."""
    return np.asarray(v, np.float64) / FX_ONE


def _tanh_table() -> Array:
    # math.tanh is correctly rounded far below 2^-15 / 2, so the table is the same on every machine.
    return np.array([min(round(2**15 * math.tanh(i / 32)), 32767) for i in range(257)], np.int32)


TANH_TABLE = _tanh_table()
"""int32 [257]: T[i] = min(round(2¹⁵·tanh(i/32)), 32767)."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Positive real factors `mantissa · 2^(−exponent)`: int16 mantissas sharing one exponent.

    This is how scales ship, so every value a scale can take is one that the device computes with.
    """

    mantissa: Array
    exponent: int

    @staticmethod
    def nearest(values: Array | float) -> Scale:
        """The closest scale to positive `values` [n]; the largest mantissa uses all 15 bits."""
        wanted = np.atleast_1d(np.asarray(values, np.float64))
        top = float(wanted.max())
        if not np.all(np.isfinite(wanted)) or top <= 0 or wanted.min() < 0:
            raise ValueError("scales must be finite and not negative, with one above zero")
        exponent = 14 - math.floor(math.log2(top))
        if round(top * 2.0**exponent) > MANTISSA_MAX:
            exponent -= 1
        mantissa = np.maximum(np.rint(wanted * 2.0**exponent), 1).astype(np.int16)
        return Scale(mantissa, exponent)

    @staticmethod
    def power_of_two(exponent: int) -> Scale:
        """The single factor 2^(−exponent)."""
        return Scale(np.array([1], np.int16), exponent)

    def value(self) -> Array:
        """float64 [n]."""
        return self.mantissa.astype(np.float64) * 2.0**-self.exponent

    @property
    def nbytes(self) -> int:
        """Two bytes a mantissa and one for the exponent."""
        return 2 * self.mantissa.size + 1


@dataclass(frozen=True, eq=False)
class Multiplier:
    """Integer factors `mantissa · 2^(−shift)` that requantise a product: int16 mantissas, one shift."""

    mantissa: Array
    shift: int


def as_multiplier(factors: Array) -> Multiplier:
    """Round positive real factors [n] to int16 mantissas with one shift of at most 62 bits."""
    scale = Scale.nearest(factors)
    mantissa, shift = scale.mantissa.astype(np.int64), scale.exponent
    if shift > MAX_SHIFT:  # Factors below 2^-48: what is lost is below one unit of the result.
        mantissa, shift = rounding_shift(mantissa, min(shift - MAX_SHIFT, MAX_SHIFT)), MAX_SHIFT
    return Multiplier(mantissa.astype(np.int16), shift)
