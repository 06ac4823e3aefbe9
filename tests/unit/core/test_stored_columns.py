"""Where the numbers of sparse layouts lie, against loops over single numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.core.layout import expand, stored_columns

small, seeds = st.integers(1, 4), st.integers(0, 2**32 - 1)


def places(rng: np.random.Generator, rows: int, among: int, kept: int) -> Array:
    """Different places of every row, in any order."""
    return np.array([rng.permutation(among)[:kept] for _ in range(rows)])


def check(layout: str, stored: Array, index: Array, inputs: int, columns: list[list[int]]) -> None:
    found = stored_columns(layout, stored.shape, index, inputs)
    assert found.dtype == np.int64
    assert found.tolist() == columns
    matrix = np.zeros((len(stored), inputs), stored.dtype)
    for row, line in enumerate(columns):
        for place, column in enumerate(line):
            matrix[row, column] = stored[row, place]
    np.testing.assert_array_equal(expand(layout, stored, index, inputs), matrix)


@given(small, small, st.integers(0, 5), seeds)
def test_row_sparse(rows: int, kept: int, more: int, seed: int) -> None:
    rng, inputs = np.random.default_rng(seed), kept + more
    index = places(rng, rows, inputs, kept)
    check("row_sparse", rng.normal(size=(rows, kept)), index, inputs, index.tolist())


@given(small, small, small, small, st.integers(0, 3), seeds)
def test_block_sparse(bands: int, height: int, width: int, kept: int, more: int, seed: int) -> None:
    """Row r of the matrix belongs to band r // height; place p of a row to its block p // width."""
    rng, blocks = np.random.default_rng(seed), kept + more
    index = places(rng, bands, blocks, kept)
    columns = [
        [int(index[row // height, p // width]) * width + p % width for p in range(kept * width)]
        for row in range(bands * height)
    ]
    stored = rng.normal(size=(bands * height, kept * width))
    check("block_sparse", stored, index, blocks * width, columns)


@given(small, small, small, st.integers(0, 3), seeds)
def test_n_of_m(rows: int, groups: int, n: int, more: int, seed: int) -> None:
    """Place p of a row belongs to its group p // n of m columns."""
    rng, m = np.random.default_rng(seed), n + more
    index = np.stack([places(rng, groups, m, n) for _ in range(rows)])
    columns = [
        [p // n * m + int(index[row, p // n, p % n]) for p in range(groups * n)]
        for row in range(rows)
    ]
    check("n_m", rng.normal(size=(rows, groups * n)), index, groups * m, columns)
