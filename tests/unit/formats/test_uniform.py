"""Uniform integers: errors of min–max rounding, ranges, groups, and the effect of data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.bits import pack_codes, unpack_codes
from modelflex.core.levels import largest_integer, nearest_integers
from modelflex.errors import UserError
from modelflex.formats.uniform import ODD_BITS, SHARES, Uniform, percentile


@given(
    st.integers(0, 2**31), st.integers(2, 16), st.sampled_from(["tensor", "gate", "row"]),
    st.floats(-6, 6),
)  # fmt: skip
def test_min_max_error_is_at_most_half_a_step(
    seed: int, bits: int, scales: str, size: float
) -> None:
    values = np.random.default_rng(seed).normal(size=(8, 12)) * 10.0**size
    part = Uniform(bits, scales, "max", "nearest").encode(values, None, 4)
    spacing = part.row_scales()[:, None] * (2 if part.grid.kind == "odd" else 1)
    # Scales are rounded to 15 bits, so the largest value may lie a little beyond the last code.
    slack = np.abs(values) * 2.0**-14
    assert np.all(np.abs(part.value() - values) <= spacing / 2 * (1 + 1e-9) + slack)


@pytest.mark.parametrize("bits", range(2, 17))
def test_codes_are_those_of_the_grid(bits: int) -> None:
    kind = "odd" if bits <= ODD_BITS else "symmetric"
    top = largest_integer(kind, bits)
    values = np.linspace(-1, 1, 4001) * 1.5 * top
    codes = nearest_integers(values, kind, bits)
    allowed = np.arange(-top, top + 1, 2 if kind == "odd" else 1)
    assert allowed.size == 2**bits - (0 if kind == "odd" else 1)
    assert set(np.unique(codes)) <= set(allowed)
    if bits <= 8:
        nearest = np.abs(values[:, None] - allowed[None]).min(axis=1)
        np.testing.assert_allclose(np.abs(codes - values), nearest, atol=1e-9)


def test_clip_by_error_is_the_best_of_a_scan() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=(4, 200)) ** 3
    best = Uniform(4, "row", "mse", "nearest").encode(values, None, 1)
    errors = []
    for share in SHARES:
        step = np.abs(values).max(axis=1, keepdims=True) / 7 * share
        codes = np.clip(np.round(values / step), -7, 7)
        errors.append(np.sum((codes * step - values) ** 2, axis=1))
    found = np.sum((best.value() - values) ** 2, axis=1)
    np.testing.assert_allclose(found, np.min(errors, axis=0), rtol=1e-3)


@given(st.integers(0, 2**31), st.floats(0.5, 100))
def test_percentile_is_that_of_the_stored_values(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    sizes, stored = rng.random((3, 17)), rng.random((3, 17)) < 0.6
    stored[0] = False
    found = percentile(sizes, stored, share)
    assert found[0] == 0
    for row in (1, 2):
        kept = sizes[row][stored[row]]
        wanted = np.percentile(kept, share, method="inverted_cdf") if kept.size else 0.0
        assert found[row] == wanted


def test_percentile_clips_outliers_only() -> None:
    values = np.append(np.linspace(-1, 1, 999), 50.0)[None]
    part = Uniform(8, "row", "percentile", "nearest", percentile=99.5).encode(values, None, 1)
    assert part.value().max() == pytest.approx(0.996, abs=0.01)
    assert np.abs(part.value() - values)[0, :-1].max() < 0.01


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


@given(
    st.integers(0, 2**31), st.sampled_from([2, 4, 8]), st.sampled_from(["tensor", "gate", "row"]),
    st.sampled_from([1, 3, 12]), st.booleans(),
)  # fmt: skip
def test_groups_have_multipliers(
    seed: int, bits: int, scales: str, group: int, aware: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(8, 12)) * np.exp(rng.normal(size=(8, 12 // group)).repeat(group, 1))
    z = rng.normal(size=(50, 12))
    config = Uniform(bits, scales, "mse", "gptq", group)
    part = config.encode(values, z.T @ z / 50 if aware else None, 4)
    assert part.multipliers is not None
    assert part.multipliers.shape == (8, 12 // group)
    assert part.multipliers.min() >= 1
    assert part.multipliers.max() <= 63
    assert part.side_bytes == config.side_bytes(8, 12, 4)
    back = unpack_codes(pack_codes(part), part.codes.shape, bits, part.grid)
    np.testing.assert_array_equal(back * part.group_factors(), part.codes)


def test_groups_follow_sizes_that_a_row_scale_cannot() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(16, 64)) * np.repeat([1.0, 0.02, 0.3, 0.1], 16)
    plain, grouped = (
        Uniform(4, "row", "mse", "nearest", g).encode(values, None, 1).value() for g in (0, 16)
    )
    size = np.abs(values).mean(axis=0)
    relative = [np.abs(v - values).mean(axis=0) / size for v in (plain, grouped)]
    assert relative[0].max() > 0.9  # the small columns are lost
    assert relative[1].max() < 0.25


@pytest.mark.parametrize("clip", ["max", "percentile", "mse"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_zero_rows_stay_small(bits: int, clip: str) -> None:
    values = np.zeros((4, 6))
    values[0] = 1.0
    part = Uniform(bits, "row", clip, "nearest").encode(values, None, 1)
    assert np.all(np.abs(part.value()[1:]) < 1e-3)
    if bits > ODD_BITS:
        np.testing.assert_array_equal(part.codes[1:], 0)


@pytest.mark.parametrize("bits", [0, 1, 17, 32])
def test_bits_that_are_refused(bits: int) -> None:
    with pytest.raises(UserError, match="2 … 16"):
        Uniform(bits)


@pytest.mark.parametrize("share", [0.0, -1.0, 100.1, float("nan")])
def test_percentiles_that_are_refused(share: float) -> None:
    with pytest.raises(UserError, match="percentile"):
        Uniform(4, percentile=share)


def test_rows_and_columns_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="equal size"):
        Uniform(4, "gate").encode(np.ones((6, 2)), None, 4)
    for use in (
        lambda: Uniform(4, group=5).encode(np.ones((4, 12)), None, 1),
        lambda: Uniform(4, group=5).side_bytes(4, 12, 1),
    ):
        with pytest.raises(UserError, match="12 columns in groups of 5"):
            use()
    with pytest.raises(UserError, match="group is -1"):
        Uniform(4, group=-1)


def test_naive_keeps_the_bits() -> None:
    for bits, scales in itertools.product((2, 8), ("gate", "row")):
        assert Uniform(bits, scales).naive() == Uniform(bits, "tensor", "max", "nearest")
