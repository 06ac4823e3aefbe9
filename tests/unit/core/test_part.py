"""Stored arrays and biases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.fixed import Scale
from modelflex.core.layout import circulant_geometry, dense_geometry, expand, part_geometry
from modelflex.core.part import FLOAT_BITS, Grid, Part, bias_codes, pack_bias
from modelflex.core.weight import float_weight


def test_values_are_codes_times_the_scale_of_their_rows() -> None:
    codes = np.arange(24).reshape(4, 3, 2)
    part = Part(codes, 5, Scale(np.array([3, 5], np.int16), 2), rows_per_scale=2)
    assert part.row_scales().tolist() == [0.75, 0.75, 1.25, 1.25]
    np.testing.assert_array_equal(part.value()[1], codes[1] * 0.75)
    np.testing.assert_array_equal(part.value()[2], codes[2] * 1.25)
    assert part.code_bytes == 15  # 24 · 5 bits
    assert part.scale_bytes == 5  # two mantissas and one exponent
    assert part.nbytes == 20
    assert Part(np.zeros((3, 1)), 5).code_bytes == 2  # 15 bits


def test_tables_multipliers_and_indices_are_counted() -> None:
    codes = np.ones((4, 6), np.int32)
    scale = Scale(np.ones(2, np.int16), 0)
    tables = Grid("levels", np.zeros((2, 8), np.int8))
    part = Part(codes, 3, scale, 2, tables, np.ones((4, 3), np.int32))
    assert part.code_bytes == 9  # 24 · 3 bits
    assert part.side_bytes == 5 + 16 + 9  # scales, two tables of 2^3, 12 multipliers of 6 bits
    assert part.nbytes == 39
    sparse = Part(codes, 3, scale, 2, index=np.zeros((4, 6), np.int64), index_bits=5)
    assert (sparse.side_bytes, sparse.index_bytes, sparse.nbytes) == (5, 15, 29)  # 24 · 5 bits


def test_multipliers_serve_equal_groups_of_a_row() -> None:
    part = Part(np.ones((2, 6)), 4, Scale.nearest(1.0), 2, multipliers=np.array([[1, 2], [3, 63]]))
    assert part.group_factors().tolist() == [[1, 1, 1, 2, 2, 2], [3, 3, 3, 63, 63, 63]]


@pytest.mark.parametrize(
    ("grid", "bits", "levels"),
    [
        (Grid(), 3, [[0, 1, 2, 3, 0, -3, -2, -1]]),
        (Grid("odd"), 1, [[-1, 1]]),
        (Grid("odd"), 2, [[-3, -1, 1, 3]]),
        (Grid("power"), 3, [[0, 1, 2, 4, 0, -1, -2, -4]]),
        (Grid("levels", np.array([[5, -7], [0, 127]], np.int8)), 1, [[5, -7], [0, 127]]),
        (Grid("signs", np.array([[3, 10]], np.int8)), 2, [[-13, -7, 7, 13]]),
    ],
)
def test_levels_of_every_grid(grid: Grid, bits: int, levels: list[list[int]]) -> None:
    assert grid.levels(bits).tolist() == levels


def test_floats_have_no_scale() -> None:
    weight = float_weight(np.ones((2, 3)), np.array([1.0, 2.0]), 1)
    assert weight.is_float
    assert weight.nbytes == 4 * (6 + 2)
    assert weight.bias_value().tolist() == [1.0, 2.0]
    assert float_weight(np.ones((2, 3)), None, 1).bias_value().tolist() == [0.0, 0.0]


@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12),
    st.floats(1e-6, 10),
    st.sampled_from([8, 16, 32]),
)
def test_biases_are_nearest_in_accumulator_units(bias: list[float], unit: float, bits: int) -> None:
    values, units = np.array(bias), np.full(len(bias), unit)
    part = pack_bias(values, units, bits)
    assert part.scale is not None
    limit = 2 ** (bits - 1) - 1
    assert np.abs(part.codes).max() <= limit
    shift = -part.scale.exponent
    assert shift >= 0
    assert part.scale.mantissa.tolist() == [1]
    # One power of two for all, no larger than the largest value needs.
    if shift:
        assert np.abs(values / unit).max() / 2.0 ** (shift - 1) > limit
    whole = bias_codes(part)
    np.testing.assert_array_equal(whole, part.codes << shift)
    np.testing.assert_allclose(whole * unit, values, rtol=0, atol=unit * 2**shift * 0.5000001)
    assert part.nbytes == len(bias) * bits // 8 + 3


def test_float_biases_are_kept() -> None:
    part = pack_bias(np.array([0.1, -2.0]), None, FLOAT_BITS)
    assert part.bits == FLOAT_BITS
    assert part.codes.dtype == np.float32


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**31))
def test_expansion_follows_the_definition(p: int, q: int, b: int, seed: int) -> None:
    stored = np.random.default_rng(seed).integers(-99, 99, (p, q, b))
    matrix = expand("circulant", stored)
    geo = circulant_geometry(p * b, q * b, b)
    assert geo == part_geometry("circulant", stored, None, q * b)
    assert matrix.shape == (geo.out, geo.inputs)
    for i in range(p * b):
        for k in range(q * b):
            assert matrix[i, k] == stored[i // b, k // b, (i - k) % b]
    assert (geo.codes, geo.units, geo.unit_codes, geo.rows) == (p * q * b, q, p * b, p)
    assert geo.macs == p * b * q * b
    one = dense_geometry(p, q)
    assert (one.codes, one.units, one.unit_codes, one.rows, one.block) == (p * q, q, p, p, 1)


def test_a_block_of_one_is_dense_in_all_but_name() -> None:
    assert circulant_geometry(6, 4, 1) == dense_geometry(6, 4)


@pytest.mark.parametrize("layout", ["dense"])
def test_dense_expansion_is_the_array(layout: str) -> None:
    stored = np.arange(6).reshape(2, 3)
    assert expand(layout, stored) is stored
