"""Layers against explicit sets of addresses and loops over windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic.workload import (
    MAX_MACS,
    MAX_WORDS,
    Convolution,
    Gemm,
    batched,
)

Address = tuple[int, int, int, int]


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    r, q, channels, filters, s, t, batch = (draw(st.integers(1, 4)) for _ in range(7))
    height, width = r + draw(st.integers(0, 6)), q + draw(st.integers(0, 6))
    return Convolution("c", height, width, r, q, channels, filters, s, t, batch)


def windows(layer: Convolution) -> list[list[Address]]:
    """The addresses (input, row, column, channel) of every window that fits, in order."""
    found = []
    for image in range(layer.batch):
        for top in range(0, layer.height, layer.stride_height):
            for left in range(0, layer.width, layer.stride_width):
                bottom, right = top + layer.filter_height, left + layer.filter_width
                if bottom <= layer.height and right <= layer.width:
                    found.append(
                        list(
                            itertools.product(
                                [image],
                                range(top, bottom),
                                range(left, right),
                                range(layer.channels),
                            )
                        )
                    )
    return found


@settings(max_examples=200, deadline=None)
@given(convolutions())
def test_sizes_of_a_convolution_are_those_of_its_windows(layer: Convolution) -> None:
    seen = windows(layer)
    shape = layer.shape
    assert (shape.m, shape.n, shape.k) == (len(seen), layer.filters, len(seen[0]))
    assert layer.batch * layer.output_height * layer.output_width == len(seen)
    assert shape.ifmap_words == len(set(itertools.chain(*seen)))


@settings(max_examples=200, deadline=None)
@given(convolutions(), st.integers(1, 60), st.integers(1, 60))
def test_no_adjacent_windows_have_more_words_than_a_slice(
    layer: Convolution, pixels: int, terms: int
) -> None:
    seen = windows(layer)
    bound = layer.shape.ifmap_slice(np.array(pixels), np.array(terms))
    for begin in range(max(1, len(seen) - pixels + 1)):
        words = {a for window in seen[begin : begin + pixels] for a in window[:terms]}
        assert len(words) <= bound
    assert bound <= layer.shape.ifmap_words


@settings(max_examples=100, deadline=None)
@given(convolutions())
def test_slices_of_one_window_and_of_all_are_exact(layer: Convolution) -> None:
    def words(pixels: int, terms: int) -> int:
        return int(layer.shape.ifmap_slice(np.array(pixels), np.array(terms)))

    assert words(1, layer.k) == layer.k
    assert words(layer.m, layer.k) == words(10**6, 10**6) == layer.shape.ifmap_words


@pytest.mark.parametrize(
    ("batch", "pixels", "words"),
    [
        # Ten windows a row: any 20 adjacent ones lie in three rows of them, which are
        # 3 + 2·2 rows high; the last of the 22 columns is in no window.
        (1, 20, 7 * 21 * 8),
        # All but one of two inputs of 9 rows each, 3 + 8·2 rows high.
        (2, 179, 2 * 19 * 21 * 8),
    ],
)
def test_a_slice_of_many_windows_is_the_band_that_they_cover(
    batch: int, pixels: int, words: int
) -> None:
    layer = Convolution("c", 20, 22, 3, 3, 8, 1, 2, 2, batch)
    assert layer.shape.ifmap_slice(np.array(pixels), np.array(layer.k)) == words


@given(*(st.integers(1, 50) for _ in range(5)))
def test_slices_of_a_product_are_its_words(m: int, n: int, k: int, pixels: int, terms: int) -> None:
    shape = Gemm("g", m, n, k).shape
    assert tuple(int(v) for v in shape[:4]) == (m, n, k, m * k)
    got = shape.ifmap_slice(np.array(pixels), np.array(terms))
    assert got == len(set(itertools.product(range(m)[:pixels], range(k)[:terms])))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1, 1), "layer 'g': M is 0; expected a whole number above zero"),
        ((1, -4, 1), "layer 'g': N is -4"),
        ((1, 1, 0), "layer 'g': K is 0"),
        ((2**20, 1, 2**21), "layer 'g': M×N×K = 1048576×1×2097152 overflows the counters"),
        ((2**18, 2**18, 2**17), "layer 'g': M×N×K"),
        ((2**20, 2**21, 1), "layer 'g': M×N×K"),
        ((1, 2**20, 2**21), "layer 'g': M×N×K"),
        ((10**30, 1, 1), "layer 'g': M×N×K"),
    ],
)
def test_nonsense_products_are_refused(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError) as error:
        Gemm("g", *sizes)
    assert str(error.value).startswith(message)


def test_the_largest_products_are_accepted() -> None:
    assert int(Gemm("g", MAX_WORDS, 1, 1).shape.ifmap_words) == MAX_WORDS
    m = 2**17
    assert m * m * (MAX_MACS // m**2) == MAX_MACS
    Gemm("g", m, m, MAX_MACS // m**2)


@given(convolutions(), st.integers(1, 3))
def test_a_batch_repeats_the_rows_of_the_ifmap(layer: Convolution, batch: int) -> None:
    one = Convolution(**(vars(layer) | {"batch": 1}))
    for alone in (one, Gemm("g", one.m, one.n, one.k)):
        m, n, k, words = (int(v) for v in alone.shape[:4])
        got = tuple(int(v) for v in batched(alone, batch).shape[:4])
        assert got == (m * batch, n, k, words * batch)


@pytest.mark.parametrize("layer", [Gemm("g", 1, 2, 3), Convolution("c", 4, 4, 1, 1, 1, 1)])
@pytest.mark.parametrize("batch", [0, -1, 2**60])
def test_nonsense_batches_are_refused(layer: Gemm | Convolution, batch: int) -> None:
    with pytest.raises(UserError):
        batched(layer, batch)


CONVOLUTION = {
    "height": 8, "width": 9, "filter_height": 3, "filter_width": 2, "channels": 4, "filters": 5,
    "stride_height": 1, "stride_width": 2, "batch": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("height", 0, "input height is 0; expected a whole number above zero"),
        ("width", -1, "input width is -1"),
        ("filter_height", 0, "filter height is 0"),
        ("filter_width", 0, "filter width is 0"),
        ("channels", 0, "channels is 0"),
        ("filters", -2, "filters is -2"),
        ("stride_height", 0, "stride is 0"),
        ("stride_width", -1, "stride is -1"),
        ("batch", 0, "batch is 0"),
        (
            "filter_height",
            9,
            "the filter's height is 9, the input's 8; expected a filter that fits",
        ),
        ("filter_width", 10, "the filter's width is 10, the input's 9"),
        ("channels", 2**40, "M×N×K = 48×5×6597069766656 overflows the counters"),
    ],
)
def test_nonsense_convolutions_are_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(UserError) as error:
        Convolution("c", **(CONVOLUTION | {field: value}))
    assert str(error.value).startswith(f"layer 'c': {message}")
