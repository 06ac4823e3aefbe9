"""Fixed-point numbers against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core import kernels
from modelflex.core.fixed import (
    FX_ONE,
    MANTISSA_MAX,
    TANH_TABLE,
    Multiplier,
    Scale,
    as_multiplier,
    from_fx,
    rounding_shift,
    saturate,
    to_fx,
)
from modelflex.testing import oracle

positive = st.floats(1e-30, 1e30)


@given(st.lists(st.integers(-(2**61), 2**61), min_size=1, max_size=20), st.integers(1, 62))
def test_right_shifts_round_half_up(values: list[int], s: int) -> None:
    found = rounding_shift(np.array(values, np.int64), s)
    assert found.tolist() == [math.floor(Fraction(v, 2**s) + Fraction(1, 2)) for v in values]


@given(st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=20), st.integers(-30, 0))
def test_left_shifts_are_exact(values: list[int], s: int) -> None:
    found = rounding_shift(np.array(values, np.int64), s)
    assert found.tolist() == [v * 2**-s for v in values]


def test_ends_saturate() -> None:
    values = np.array([-(2**62), -(2**31) - 1, -(2**31), 0, 2**31 - 1, 2**31, 2**62])
    low, high = -(2**31), 2**31 - 1
    assert saturate(values).tolist() == [low, low, low, 0, high, high, high]
    assert to_fx(np.array([1e30, -1e30, 32768.0, -32768.0])).tolist() == [high, low, high, low]


def test_inputs_round_ties_to_even() -> None:
    ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5]) / FX_ONE
    assert to_fx(ties).tolist() == [0, 2, 2, 0, -2]
    assert from_fx(to_fx(np.array([0.25, -3.0]))).tolist() == [0.25, -3.0]


@given(st.lists(positive, min_size=1, max_size=6))
def test_scales_are_the_nearest_with_one_exponent(values: list[float]) -> None:
    scale = Scale.nearest(np.array(values))
    unit = Fraction(2) ** -scale.exponent
    top = int(scale.mantissa.max())
    assert 2**14 <= top <= MANTISSA_MAX
    for mantissa, value in zip(scale.mantissa.tolist(), values, strict=True):
        assert mantissa >= 1
        error = abs(mantissa * unit - Fraction(value))
        assert error <= unit / 2 or mantissa == 1
    assert abs(top * unit - Fraction(max(values))) <= Fraction(max(values)) / 2**15


@pytest.mark.parametrize("values", [[0.0], [-1.0, 2.0], [float("nan")], [float("inf")]])
def test_scales_that_are_no_scales(values: list[float]) -> None:
    with pytest.raises(ValueError, match="scales"):
        Scale.nearest(np.array(values))


def test_scales_at_powers_of_two() -> None:
    for power in range(-40, 41):
        for value in (2.0**power, np.nextafter(2.0**power, 0), 2.0**power * (1 + 2**-14)):
            scale = Scale.nearest(value)
            assert abs(float(scale.value()[0]) / value - 1) <= 2**-15
    assert Scale.power_of_two(3).value().tolist() == [0.125]
    assert Scale.nearest(1.0).nbytes == 3


@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=6))
def test_multipliers_are_within_half_a_mantissa(values: list[float]) -> None:
    found = as_multiplier(np.array(values))
    mantissas, shift = oracle.multiplier([Fraction(v) for v in values])
    assert (found.mantissa.tolist(), found.shift) == (mantissas, shift)
    top = max(values)
    best = int(found.mantissa[values.index(top)]) * Fraction(2) ** -found.shift
    assert abs(best / Fraction(top) - 1) <= Fraction(1, 2**15)


@given(st.integers(40, 140), st.integers(1, 2**31 - 1))
def test_tiny_multipliers_keep_results_within_one_unit(power: int, acc: int) -> None:
    """Below 2^-48 the shift stops at 62; what is lost is below one unit of the result."""
    factor = 1.37 * 2.0**-power
    found = as_multiplier(np.array([factor]))
    assert found.shift <= 62
    found = int(rounding_shift(np.array([acc * int(found.mantissa[0])]), found.shift)[0])
    assert abs(found - Fraction(factor) * acc) <= 1


def test_large_multipliers_shift_left() -> None:
    found = as_multiplier(np.array([2.0**20]))
    assert found.shift < 0
    assert int(rounding_shift(np.array([3 * int(found.mantissa[0])]), found.shift)[0]) == 3 * 2**20


ints = st.lists(
    st.one_of(
        st.integers(-(2**31), 2**31 - 1),
        st.integers(-(2**20), 2**20),
        st.sampled_from([-(2**31), 2**31 - 1, 0, -1, 2**19, 2**19 - 1, -(2**19), 2047, 2048]),
    ),
    min_size=1,
    max_size=30,
)


@given(ints, ints)
def test_elementwise_kernels_equal_plain_integers(one: list[int], other: list[int]) -> None:
    n = min(len(one), len(other))
    a, b = one[:n], other[:n]
    x, y = np.array(a, np.int32), np.array(b, np.int32)
    plain = oracle.Integers()
    for name in ("add", "sub", "mul"):
        assert getattr(kernels, name)(x, y).tolist() == getattr(plain, name)(a, b)
    for name in ("tanh", "sigmoid"):
        assert getattr(kernels, name)(x).tolist() == getattr(plain, name)(a)


@given(ints, st.integers(1, MANTISSA_MAX), st.integers(-16, 62), st.integers(2, 16))
def test_quantising_equals_plain_integers(values: list[int], mu: int, s: int, bits: int) -> None:
    found = kernels.quantize(np.array(values, np.int32), multiplier([mu], s), bits)
    assert found.tolist() == [oracle.clamp(oracle.rsh(v * mu, s), bits) for v in values]


@given(
    st.lists(st.integers(-(2**46), 2**46), min_size=4, max_size=4),
    st.lists(st.integers(1, MANTISSA_MAX), min_size=2, max_size=2),
    st.integers(0, 62),
)
def test_rescaling_equals_plain_integers(acc: list[int], mu: list[int], s: int) -> None:
    """Two rows share a mantissa; sums from floats are the same as from integers."""
    wanted = [oracle.clamp(oracle.rsh(a * mu[i // 2], s), 32) for i, a in enumerate(acc)]
    for dtype in (np.int64, np.float64):
        assert kernels.rescale(np.array([acc], dtype), multiplier(mu, s)).tolist() == [wanted]


def multiplier(mantissas: list[int], shift: int) -> Multiplier:
    return Multiplier(np.array(mantissas, np.int16), shift)


def test_nonlinearities_are_near_the_real_ones() -> None:
    x = np.concatenate([np.arange(-(2**20), 2**20, 37), [-(2**31), 2**31 - 1]]).astype(np.int32)
    real = from_fx(x)
    assert TANH_TABLE.size == 257
    assert np.abs(from_fx(kernels.tanh(x)) - np.tanh(real)).max() < 2.7e-4
    with np.errstate(over="ignore"):
        logistic = 1 / (1 + np.exp(-real))
    assert np.abs(from_fx(kernels.sigmoid(x)) - logistic).max() < 1.4e-4 + 2.0**-16
    assert np.abs(kernels.float_sigmoid(real.astype(np.float32)) - logistic).max() < 1e-6
    assert np.array_equal(kernels.tanh(x[x > -(2**31)]), -kernels.tanh(-x[x > -(2**31)]))
