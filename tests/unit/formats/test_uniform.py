"""Uniform integers: errors of min–max rounding, ranges, and GPTQ against nearest rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.formats.uniform import ODD_BITS, Grid, Uniform, gptq


@given(
    st.integers(0, 2**31), st.integers(2, 16), st.sampled_from(["tensor", "gate", "row"]),
    st.floats(-6, 6),
)  # fmt: skip
def test_min_max_error_is_at_most_half_a_step(
    seed: int, bits: int, scales: str, size: float
) -> None:
    values = np.random.default_rng(seed).normal(size=(8, 12)) * 10.0**size
    part = Uniform(bits, scales, "max", "nearest").encode(values, None, 4)
    spacing = part.row_scales()[:, None] * (2 if part.odd else 1)
    # Scales are rounded to 15 bits, so the largest value may lie a little beyond the last code.
    slack = np.abs(values) * 2.0**-14
    assert np.all(np.abs(part.value() - values) <= spacing / 2 * (1 + 1e-9) + slack)


@pytest.mark.parametrize("bits", range(2, 17))
def test_codes_are_those_of_the_grid(bits: int) -> None:
    grid = Grid(bits, bits <= ODD_BITS)
    values = np.linspace(-1, 1, 4001) * 1.5 * grid.top
    codes = grid.round(values)
    allowed = np.arange(-grid.top, grid.top + 1, 2 if grid.odd else 1)
    assert allowed.size == 2**bits - (0 if grid.odd else 1)
    assert set(np.unique(codes)) <= set(allowed)
    nearest = np.abs(values[:, None] - allowed[None]).min(axis=1) if bits <= 8 else None
    if nearest is not None:
        np.testing.assert_allclose(np.abs(codes - values), nearest, atol=1e-9)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(6))
def test_gptq_is_no_worse_than_nearest_rounding(bits: int, seed: int) -> None:
    """The error weighted by H, on correlated inputs (Frantar et al., figure 1's claim)."""
    rng = np.random.default_rng(seed)
    n = 48
    mixing = rng.normal(size=(n, n)) @ np.diag(np.geomspace(1, 0.05, n))
    z = rng.normal(size=(400, n)) @ mixing.T
    h = z.T @ z / 400
    grid = Grid(bits, bits <= ODD_BITS)
    values = rng.normal(size=(16, n)) * grid.top / 3

    def error(codes: np.ndarray) -> float:
        e = codes - values
        return float(np.einsum("ri,ij,rj", e, h, e))

    assert error(gptq(values, h, grid)) <= error(grid.round(values))


def test_gptq_with_independent_inputs_is_nearest_rounding() -> None:
    rng = np.random.default_rng(0)
    values, grid = rng.normal(size=(5, 9)) * 3, Grid(4, False)
    h = np.diag(rng.uniform(0.5, 2, 9))
    np.testing.assert_array_equal(gptq(values, h, grid), grid.round(values))


def test_gptq_does_not_depend_on_the_chunk() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(100, 20)) @ rng.normal(size=(20, 20))
    values, h, grid = rng.normal(size=(4, 20)) * 3, z.T @ z / 100, Grid(4, False)
    np.testing.assert_array_equal(gptq(values, h, grid, chunk=3), gptq(values, h, grid, chunk=64))


def test_clip_by_error_beats_the_full_range_and_is_the_best_of_a_scan() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4, 200)) ** 3
    errors = {
        clip: np.sum((Uniform(4, "row", clip, "nearest").encode(values, None, 1).value() - values) ** 2)
        for clip in ("max", "mse")
    }  # fmt: skip
    assert errors["mse"] < errors["max"]


@pytest.mark.parametrize(("scales", "count"), [("tensor", 1), ("gate", 4), ("row", 8)])
def test_rows_share_scales(scales: str, count: int) -> None:
    values = np.arange(1, 9)[:, None] * np.ones((8, 3))
    part = Uniform(8, scales, "max", "nearest").encode(values, None, 4)
    assert part.scale is not None
    assert part.scale.mantissa.size == count
    steps = part.row_scales()
    size = 8 // count
    for group in range(count):
        rows = slice(group * size, (group + 1) * size)
        np.testing.assert_allclose(steps[rows], values[rows].max() / 127, rtol=2**-14)


@pytest.mark.parametrize("clip", ["max", "mse"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_rows_stay_small(bits: int, clip: str) -> None:
    values = np.zeros((4, 6))
    values[0] = 1.0
    part = Uniform(bits, "row", clip, "nearest").encode(values, None, 1)
    assert np.all(np.isfinite(part.value()))
    if bits > ODD_BITS:
        np.testing.assert_array_equal(part.codes[1:], 0)


@pytest.mark.parametrize("bits", [0, 1, 17, 32])
def test_bits_that_are_refused(bits: int) -> None:
    with pytest.raises(UserError, match="2 … 16"):
        Uniform(bits)


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="equal size"):
        Uniform(4, "gate").encode(np.ones((6, 2)), None, 4)


def test_naive_keeps_the_bits() -> None:
    for bits, scales in itertools.product((2, 8), ("gate", "row")):
        assert Uniform(bits, scales).naive() == Uniform(bits, "tensor", "max", "nearest")
