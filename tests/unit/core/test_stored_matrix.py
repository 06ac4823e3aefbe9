"""Stored matrices: their bytes are those of an artefact, and their products are exact in C."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.activities.delta import Delta
from modelflex.core.bits import unpack_bits
from modelflex.core.fixed import Array, Scale
from modelflex.core.layout import LAYOUTS, SPARSE, part_geometry
from modelflex.core.part import GRIDS, Grid, Part
from modelflex.core.stored_matrix import MAX_INDEX_BITS, stored_matrix
from modelflex.core.stored_parts import part_tensors
from modelflex.core.tracer import Link, Product
from modelflex.errors import UserError
from modelflex.testing.products import grid_bits, random_stored_product

try:
    import modelflex._native as native
except ModuleNotFoundError:
    native = None  # type: ignore[assignment]
compiled = pytest.mark.skipif(native is None, reason="built without a C compiler")


@st.composite
def products(draw: st.DrawFn) -> Product:
    kind = draw(st.sampled_from(GRIDS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random_stored_product(
        rng,
        draw(st.sampled_from(LAYOUTS)),
        kind,
        draw(st.sampled_from(grid_bits(kind))),
        largest=draw(st.sampled_from([2, 4, 9])),
        activation_bits=draw(st.integers(2, 16)),
        activity=draw(st.sampled_from([None, Delta(threshold=0.0)])),
        grouped=draw(st.booleans()),
        windows=draw(st.booleans()),
    )


seeds = st.integers(0, 2**32).map(np.random.default_rng)


def small_product(part: Part, layout: str = "dense", activity: Any = None) -> Product:
    geometry = part_geometry(layout, part.codes, part.index, 6)
    link = Link(8, Scale.nearest(1.0), activity)
    return Product("w/0", "w", part, layout, geometry, link, None, 0, None, None)


# --- bytes ---------------------------------------------------------------------------------------
@given(products())
def test_arrays_are_those_of_an_artefact(product: Product) -> None:
    made, part = stored_matrix(product), product.part
    tensors, _ = part_tensors("w", part)
    assert made.codes.size == part.code_bytes
    assert made.nbytes == part.nbytes - part.scale_bytes
    assert (made.out, made.inputs) == product.integers().shape
    for name in ("table", "multipliers", "index"):
        found, stored = getattr(made, name), tensors.get(f"w.{name}")
        assert (found is None) == (stored is None)
        if stored is not None:
            np.testing.assert_array_equal(found, stored)
    assert made.by_columns == (product.link.activity is not None and product.layout not in SPARSE)
    if not made.by_columns:
        np.testing.assert_array_equal(made.codes, tensors["w.codes"])


def test_codes_by_columns() -> None:
    scale = Scale(np.ones(1, np.int16), 0)
    codes = np.array([[7, -3, 0, 1, 2, 3], [2, 5, -6, -1, -2, -3]], np.int32)
    delta = Delta(threshold=0.0)
    made = stored_matrix(small_product(Part(codes, 4, scale, 2), activity=delta))
    assert made.by_columns
    assert (
        made.codes.tobytes().hex() == "275da0f1e2d3"
    )  # 7 2 −3 5 0 −6 …, the first in the low half
    # Generators of blocks of 3, two block rows and two block columns: block columns come first.
    blocks = Part(codes.reshape(2, 2, 3), 4, scale, 2)
    numbers = unpack_bits(
        stored_matrix(small_product(blocks, "circulant", delta)).codes, 12, 4
    ).astype(int)
    assert numbers.tolist() == [7, 13, 0, 2, 5, 10, 1, 2, 3, 15, 14, 13]
    rows = stored_matrix(small_product(Part(codes, 4, scale, 2)))
    assert not rows.by_columns
    assert stored_matrix(small_product(Part(codes, 4, scale, 2)), skip_zeros=True).by_columns


def test_sizes_of_sparse_layouts() -> None:
    scale = Scale(np.ones(1, np.int16), 0)
    blocks = Part(np.ones((4, 2), np.int32), 4, scale, 4, index=np.array([[2], [0]]), index_bits=2)
    made = stored_matrix(small_product(blocks, "block_sparse", Delta(threshold=0.0)))
    assert (made.layout, made.block, made.kept, made.block_rows) == ("blocks", 2, 1, 2)
    assert not made.by_columns
    places = np.array([[[0, 2], [1, 2]]])
    pairs = Part(np.ones((1, 4), np.int32), 4, scale, 1, index=places, index_bits=2)
    made = stored_matrix(small_product(pairs, "n_m"))
    assert (made.layout, made.block, made.kept, made.block_rows) == ("n_m", 3, 2, 1)
    assert made.index is not None
    assert made.index.tolist() == [0b10_01_10_00]


def test_what_kernels_cannot_count_is_refused() -> None:
    scale = Scale(np.ones(1, np.int16), 0)
    wide = Part(
        np.ones((1, 1), np.int32), 4, scale, 1, index=np.array([[0]]), index_bits=MAX_INDEX_BITS + 1
    )
    with pytest.raises(UserError, match="indices of 25 bits"):
        stored_matrix(small_product(wide, "row_sparse"))
    floats = replace(small_product(Part(np.ones((2, 6), np.float32), 32)), link=None)
    with pytest.raises(ValueError, match="float"):
        stored_matrix(floats)


# --- products ------------------------------------------------------------------------------------
def bound(product: Product) -> int:
    """What every sum of a product stays below (docs/arithmetic.md, claim 1)."""
    rows = int(np.abs(product.integers().astype(np.int64)).sum(axis=1).max(initial=0))
    return rows * (1 << product.link.bits) + 10_000


def widths(product: Product) -> list[type]:
    return [np.int64] if bound(product) >= 1 << 31 else [np.int32, np.int64]


def seen(product: Product, values: Array) -> Array:
    """The columns [in, positions] that a vector or map is for the matrix."""
    if product.windows is None:
        return values.astype(np.int64)[:, None]
    return product.windows.gather(values.astype(np.int64)[None, :])[0].T


def taps(product: Product) -> Array | None:
    return None if product.windows is None else product.windows.taps.astype(np.int32)


@compiled
@given(products(), seeds, st.booleans(), st.booleans())
def test_linear_is_exact(
    product: Product, rng: np.random.Generator, skip_zeros: bool, with_bias: bool
) -> None:
    half = 1 << (product.link.bits - 1)
    x = rng.integers(-half, half, product.inputs).astype(np.int16)
    x[rng.random(x.size) < 0.3] = 0
    if rng.random() < 0.2:
        x[:] = -half
    wanted = product.integers().astype(np.int64) @ seen(product, x)
    bias = None if product.bias is None or not with_bias else product.bias.reshape(wanted.shape)
    if bias is not None:
        wanted += bias
    for width in widths(product):
        out = np.full(wanted.shape, 77, width)
        start = None if bias is None else bias[:, 0].astype(width)
        native.matrix_linear(
            stored_matrix(product, skip_zeros=skip_zeros), x, start, out, taps(product)
        )
        np.testing.assert_array_equal(out, wanted)


@compiled
@given(products(), seeds, st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.integers(1, 9))
def test_accumulate_is_exact(
    product: Product, rng: np.random.Generator, share: float, block: int
) -> None:
    block = int(rng.choice([1, product.block, product.inputs, block]))
    mask = (rng.random(-(-product.inputs // block)) < share).astype(np.uint8)
    most = (1 << product.link.bits) - 1
    delta = rng.integers(-most, most + 1, product.inputs).astype(np.int32)
    if rng.random() < 0.2:
        delta[:] = most
    delta[np.repeat(mask, block)[: delta.size] == 0] = 0
    wanted = product.integers().astype(np.int64) @ seen(product, delta)
    total = rng.integers(-9999, 9999, wanted.shape)
    for width in widths(product):
        out = total.astype(width)
        native.matrix_accumulate(stored_matrix(product), delta, mask, block, out, taps(product))
        np.testing.assert_array_equal(out, total + wanted)


@compiled
def test_what_does_not_fit_is_refused() -> None:
    part = Part(np.ones((2, 6), np.int32), 4, Scale(np.ones(1, np.int16), 0), 2)
    made = stored_matrix(small_product(part))
    x, out = np.ones(6, np.int16), np.empty(2, np.int32)
    delta, mask = np.ones(6, np.int32), np.ones(6, np.uint8)
    native.matrix_linear(made, x, None, out)
    assert out.tolist() == [6, 6]
    far = np.full((1, 6), 6, np.int32)
    rows = Part(
        np.ones((2, 2), np.int32), 4, part.scale, 2, index=np.zeros((2, 2), int), index_bits=3
    )
    sparse = stored_matrix(small_product(rows, "row_sparse"))
    tables = replace(part, grid=Grid("levels", np.ones((1, 16), np.int8)))
    coded = stored_matrix(small_product(tables))
    refused = [
        (
            "another size",
            lambda: native.matrix_linear(replace(made, codes=made.codes[:5]), x, None, out),
        ),
        ("another size", lambda: native.matrix_linear(replace(made, bits=8), x, None, out)),
        ("contradict", lambda: native.matrix_linear(replace(made, inputs=7), x, None, out)),
        ("contradict", lambda: native.matrix_linear(replace(made, bits=1), x, None, out)),
        ("contradict", lambda: native.matrix_linear(replace(made, rows=0), x, None, out)),
        ("contradict", lambda: native.matrix_linear(replace(made, block=0), x, None, out)),
        ("contradict", lambda: native.matrix_linear(replace(sparse, kept=3), x, None, out)),
        ("leads out", lambda: native.matrix_linear(bad_index, x, None, out)),
        ("missing", lambda: native.matrix_linear(replace(sparse, index=None), x, None, out)),
        ("missing", lambda: native.matrix_linear(replace(coded, table=None), x, None, out)),
        ("range", lambda: native.matrix_linear(replace(made, groups=-1), x, None, out)),
        ("range", lambda: native.matrix_linear(replace(made, bits="4"), x, None, out)),
        ("unknown", lambda: native.matrix_linear(replace(made, grid="round"), x, None, out)),
        ("unknown", lambda: native.matrix_linear(replace(made, layout="wide"), x, None, out)),
        ("input", lambda: native.matrix_linear(made, x[:5], None, out)),
        ("output", lambda: native.matrix_linear(made, x, None, out[:1])),
        ("bias", lambda: native.matrix_linear(made, x, out[:1], out)),
        ("beyond", lambda: native.matrix_linear(made, x, None, out, far)),
        ("taps", lambda: native.matrix_linear(made, x, None, out, far[:, :5].copy())),
        ("mask", lambda: native.matrix_accumulate(made, delta, mask[:5], 1, out)),
        ("mask_block", lambda: native.matrix_accumulate(made, delta, mask, 0, out)),
        ("17 bits", lambda: native.matrix_accumulate(made, delta << 17, mask, 1, out)),
        ("not sent", lambda: native.matrix_accumulate(made, delta, mask * 0, 1, out)),
    ]
    bad_index = replace(sparse, index=np.array([255, 15], np.uint8))
    for word, call in refused:
        with pytest.raises(ValueError, match=word):
            call()
