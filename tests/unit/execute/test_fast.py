"""Fast products against exact integer products, bit for bit, for every instruction set of this CPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.activities.delta import Delta
from modelflex.core.fixed import Array, Scale
from modelflex.core.layout import LAYOUTS, part_geometry
from modelflex.core.part import GRIDS, Grid, Part
from modelflex.core.stored_matrix import stored_matrix
from modelflex.core.tracer import Link, Product
from modelflex.testing.products import grid_bits, random_stored_product

native = pytest.importorskip("modelflex._native", reason="built without a C compiler")

INSTRUCTION_SETS = ("avx512vnni", "avx2", "neon")


@pytest.fixture(params=INSTRUCTION_SETS, autouse=True, scope="module")
def _chosen(request: pytest.FixtureRequest) -> Iterator[None]:
    try:
        native.limit_isa(request.param)
    except ValueError:
        pytest.skip(f"this CPU or this build has no {request.param}")
    yield
    native.limit_isa(None)


def made_product(
    codes: Array, bits: int, layout: str = "dense", delta: bool = False, grid: Any = None
) -> Product:
    """A product of given codes; by columns under delta."""
    scale = Scale(np.ones(1, np.int16), 0)
    part = Part(codes.astype(np.int32), bits, scale, codes.shape[0], grid or Grid())
    inputs = codes.shape[1] * (codes.shape[2] if layout == "circulant" else 1)
    geometry = part_geometry(layout, codes, None, inputs)
    link = Link(8, Scale.nearest(1.0), Delta(threshold=0.0) if delta else None)
    return Product("w/0", "w", part, layout, geometry, link, None, 0, None, None)


def codes_of(rng: np.random.Generator, bits: int, shape: tuple[int, ...]) -> Array:
    """Input codes: random, small, few large, all equal or at an end."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    kind = rng.integers(7)
    if kind == 6:
        return np.full(shape, rng.integers(low, high + 1), np.int16)
    if kind == 5:  # few are large
        small = rng.integers(low // 2, high // 2 + 1, shape)
        return np.where(rng.random(shape) < 0.01, low, small).astype(np.int16)
    if kind == 0:
        return np.full(shape, low, np.int16)
    if kind == 1:
        return np.full(shape, high, np.int16)
    if kind == 2:
        return rng.choice([low, high, 0], shape).astype(np.int16)
    if kind == 3:
        return rng.integers(max(low, -2), min(high, 2) + 1, shape).astype(np.int16)
    return rng.integers(low, high + 1, shape).astype(np.int16)


def fits_32_bits(matrix: Array, bits: int) -> bool:
    return int(np.abs(matrix).sum(axis=1).max(initial=0)) << bits < (1 << 31) - 100_000


def check(product: Product, bits: int, rng: np.random.Generator, steps: int) -> bool:
    """Compares the dense product and an accumulation; whether there is a fast one at all."""
    stored, matrix = stored_matrix(product), product.integers().astype(np.int64)
    if not fits_32_bits(matrix, bits):
        return False
    out, inputs = matrix.shape
    x = codes_of(rng, bits, (steps, inputs))
    bias = rng.integers(-50_000, 50_000, out).astype(np.int32) if rng.integers(2) else None
    found = np.full((steps, out), 12345, np.int32)
    if not native.packed_linear(stored, bits, x, bias, found):
        return False
    start = 0 if bias is None else bias.astype(np.int64)
    np.testing.assert_array_equal(found, x.astype(np.int64) @ matrix.T + start)

    block = int(
        rng.choice([1, product.part.codes.shape[-1] if product.layout == "circulant" else 3])
    )
    old = codes_of(rng, bits, (inputs,)).astype(np.int32)
    mask = (rng.random(-(-inputs // block)) < rng.choice([0.0, 0.1, 0.5, 1.0])).astype(np.uint8)
    delta = (x[0] - old) * np.repeat(mask, block)[:inputs].astype(np.int32)
    total = rng.integers(-50_000, 50_000, out).astype(np.int32)
    expected = total + matrix @ delta
    assert native.packed_accumulate(stored, bits, delta, total)
    np.testing.assert_array_equal(total, expected)
    return True


@given(
    st.sampled_from(LAYOUTS),
    st.sampled_from([(kind, bits) for kind in GRIDS for bits in grid_bits(kind)]),
    st.integers(2, 16),
    st.sampled_from([2, 4, 9]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 9),
    st.integers(0, 2**32),
)
def test_every_layout_and_grid(
    layout: str,
    grid: tuple[str, int],
    activation_bits: int,
    largest: int,
    delta: bool,
    grouped: bool,
    steps: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    product = random_stored_product(
        rng,
        layout,
        *grid,
        largest=largest,
        activation_bits=activation_bits,
        activity=Delta(threshold=0.0) if delta else None,
        grouped=grouped,
    )
    check(product, activation_bits, rng, steps)


def grids(rng: np.random.Generator, bits: int, rows: int) -> dict[str, tuple[Grid, Array]]:
    """Grids of `bits` bits with the levels that each row may take, int [rows, levels]."""
    shares = 2 if rows % 16 == 0 else 1
    made = {"symmetric": Grid(), "odd": Grid("odd"), "power": Grid("power")}
    made["levels"] = Grid("levels", rng.integers(-128, 128, (shares, 1 << bits)).astype(np.int8))
    made["signs"] = Grid("signs", rng.integers(0, 127 // bits + 1, (shares, bits)).astype(np.int8))
    kept = {}
    for name, grid in made.items():
        if bits in grid_bits(name) or name in ("levels", "signs"):
            levels = grid.levels(bits)
            kept[name] = (grid, np.repeat(levels, rows // levels.shape[0], axis=0))
    return kept


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("delta", [False, True])
@given(st.integers(1, 75), st.integers(1, 300), st.integers(1, 9), st.integers(0, 2**32))
def test_dense_of_few_bits(
    bits: int, delta: bool, rows: int, inputs: int, steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rows // 16 * 16 if rng.integers(2) and rows >= 16 else rows
    for name, (grid, levels) in grids(rng, bits, rows).items():
        numbers = rng.integers(0, levels.shape[1], (rows, inputs))
        if rng.integers(3) == 0:  # all codes of a row at the end of the grid
            numbers[:] = np.argmax(np.abs(levels), axis=1)[:, None]
        codes = np.take_along_axis(levels, numbers, axis=1)
        done = check(made_product(codes, bits, delta=delta, grid=grid), 8, rng, steps)
        assert done or not fits_32_bits(codes, 8) or name == "power", name


@pytest.mark.parametrize("block", [4, 8, 16])
@pytest.mark.parametrize("delta", [False, True])
@given(st.integers(1, 11), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_circulant_blocks(
    block: int, delta: bool, rows: int, columns: int, steps: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (rows, columns, block))
    if rng.integers(3) == 0:
        codes = rng.choice([-127, 127], codes.shape)
    assert check(made_product(codes, 8, "circulant", delta), 8, rng, steps)


@given(st.integers(1, 70), st.integers(1, 90), st.integers(1, 9), st.integers(0, 2**32))
def test_sixteen_bits(rows: int, inputs: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-300, 301, (rows, inputs))
    codes[rng.integers(rows)] = 0
    assert check(made_product(codes, 16), 16, rng, steps)


@given(st.integers(1, 150), st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32))
def test_floats(rows: int, inputs: int, steps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(rows, inputs)).astype(np.float32)
    x = rng.normal(size=(steps, inputs)).astype(np.float32)
    bias = rng.normal(size=rows).astype(np.float32) if rng.integers(2) else None
    found = np.full((steps, rows), np.nan, np.float32)
    native.packed_linear_f32(w, x, bias, found)
    start = 0.0 if bias is None else bias.astype(np.float64)
    exact = x.astype(np.float64) @ w.astype(np.float64).T + start
    size = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64).T + np.abs(start)
    assert np.all(np.abs(found - exact) <= 2e-7 * (inputs + 2) * size)


def test_an_unknown_instruction_set_is_refused() -> None:
    before = native.isa()
    with pytest.raises(ValueError, match="instruction set"):
        native.limit_isa("mmx")
    assert native.isa() == before
