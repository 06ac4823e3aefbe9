"""What a sweep keeps, against searches over all rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep_found import MAX_SIDE, Best, Front, Least, Sample, bins

values = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, np.nan])
tables = st.lists(st.tuples(values, values, values), min_size=1, max_size=60)


def in_chunks(table: list[tuple[float, ...]], chunk: int) -> Iterator[dict[str, Array]]:
    array = np.array(table)
    number = np.arange(len(array))
    for start in range(0, len(array), chunk):
        part = slice(start, start + chunk)
        columns = dict(zip("abc", array[part].T, strict=True))
        yield {**columns, "number": number[part], "fits": ~np.isnan(array[part]).any(axis=1)}


@given(table=tables, chunk=st.integers(1, 20))
def test_the_front_is_what_no_row_beats(table: list[Any], chunk: int) -> None:
    front = Front(("a", "b", "c"))
    for rows in in_chunks(table, chunk):
        front.add(rows)
    known = [(i, row) for i, row in enumerate(table) if not np.isnan(row).any()]
    expected = set()
    for i, row in known:
        beaten = any(
            all(x <= y for x, y in zip(other, row, strict=True)) and (other != row or j < i)
            for j, other in known
            if j != i
        )
        if not beaten:
            expected.add(i)
    found = front.rows().get("number", np.array([], int)).tolist()
    assert set(found) == expected
    assert len(found) == len(expected)
    assert not front.thinned
    assert [table[i] for i in found] == sorted(table[i] for i in found)


def test_a_long_front_is_thinned_and_says_so() -> None:
    front = Front(("a", "b", "c"), limit=10)
    line = np.arange(1.0, 101.0)
    table = [(x, 101.0 - x, 1.0) for x in line]
    for rows in in_chunks(table, 8):
        front.add(rows)
    kept = front.rows()
    assert front.thinned
    assert len(kept["a"]) <= 10
    assert set(zip(kept["a"], kept["b"], kept["c"], strict=True)) <= set(table)
    assert kept["a"][0] == 1.0


@given(table=tables, chunk=st.integers(1, 20))
def test_the_best_row_is_the_least_in_order_of_the_columns(table: list[Any], chunk: int) -> None:
    best = Best(("b", "a", "c"))
    known = [(b, a, c, i) for i, (a, b, c) in enumerate(table) if not np.isnan((a, b, c)).any()]
    for rows in in_chunks(table, chunk):
        best.add(rows)
    assert best.row.get("number") == (min(known)[3] if known else None)


@given(
    points=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 200), values), min_size=1, max_size=80
    )
)
def test_the_map_holds_the_least_of_each_place(points: list[tuple[int, int, float]]) -> None:
    least = Least(4, 201)
    y, x, found = (np.array(column) for column in zip(*points, strict=True))
    for part in (slice(0, 30), slice(30, None)):
        least.add(y[part], x[part], found[part])
    place = bins(201)
    expected = np.full((4, MAX_SIDE), np.nan)
    for row, column, value in points:
        expected[row, place[column]] = np.fmin(expected[row, place[column]], value)
    np.testing.assert_array_equal(least.values(), expected)


def test_places_of_a_long_axis_hold_neighbours() -> None:
    assert bins(5).tolist() == [0, 1, 2, 3, 4]
    place = bins(1000)
    assert set(np.diff(place).tolist()) == {0, 1}
    assert place[-1] == MAX_SIDE - 1
    assert set(np.bincount(place).tolist()) <= {7, 8}


@given(table=tables, chunk=st.integers(1, 20), stride=st.integers(1, 9))
def test_the_sample_is_every_so_many_th_row(table: list[Any], chunk: int, stride: int) -> None:
    sample, start = Sample(stride), 0
    for rows in in_chunks(table, chunk):
        sample.add(start, rows)
        start += len(rows["fits"])
    expected = [i for i in range(0, len(table), stride) if not np.isnan(table[i]).any()]
    assert sample.rows()["number"].tolist() == expected
