"""The simulator's cycles and SRAM accesses against processing elements that multiply.

The elements pass words on at every tick and really multiply integer matrices: what they compute
must be the product, and how long that takes and what enters and leaves is counted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import Points
from modelflex.platforms.systolic.simulate import simulate
from modelflex.platforms.systolic.workload import Gemm

small = st.integers(1, 6)


@dataclass
class Ran:
    """What a fold gave: its results, ticks, and words that passed between the array and SRAM."""

    result: Array
    ticks: int
    reads: tuple[int, int]
    """Of the operand along the rows, and of the operand of the columns."""


def shifted(old: list[list[Any]], entering: list[Any], down: bool) -> list[list[Any]]:
    """Registers after one tick: every word moves one element on."""
    if down:
        return [entering, *old[:-1]]
    return [[word, *row[:-1]] for word, row in zip(entering, old, strict=True)]


def skewed(words: Array, tick: int, lanes: int) -> list[Any]:
    """What enters each lane at a tick: lane i gets column i of `words`, i ticks late.

    Lanes beyond the operand's edge clock zeros. None: nothing enters.
    """
    t, used = words.shape
    return [
        (words[tick - i, i] if i < used else 0) if 0 <= tick - i < t else None for i in range(lanes)
    ]


def output_stationary(a: Array, b: Array, rows: int, columns: int) -> Ran:
    """A·B on the array; each element keeps one sum until it has met all T terms."""
    terms = a.shape[1]
    right = [[None] * columns for _ in range(rows)]
    down = [[None] * columns for _ in range(rows)]
    sums, met = np.zeros((rows, columns), np.int64), np.zeros((rows, columns), np.int64)
    ticks = 0
    while np.any(met < terms):
        right = shifted(right, skewed(a.T, ticks, rows), down=False)
        down = shifted(down, skewed(b, ticks, columns), down=True)
        for i, j in itertools.product(range(rows), range(columns)):
            x, y = right[i][j], down[i][j]
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                sums[i, j] += x * y
                met[i, j] += 1
        ticks += 1
    return Ran(sums[: a.shape[0], : b.shape[1]], ticks, (a.size, b.size))


def weight_stationary(x: Array, w: Array, sums: Array, rows: int, columns: int) -> Ran:
    """sums + X·W: W is shifted in from above, then X passes to the right and sums move down."""
    held = [[0] * columns for _ in range(rows)]
    padded = np.zeros((rows, columns), np.int64)
    padded[: w.shape[0], : w.shape[1]] = w
    for row in reversed(padded.tolist()):
        held = shifted(held, row, down=True)
    right: list[list[Any]] = [[None] * columns for _ in range(rows)]
    partial: list[list[Any]] = [[None] * columns for _ in range(rows)]
    left: list[list[int]] = [[] for _ in range(columns)]
    tick = 0
    while any(len(column) < x.shape[0] for column in left):
        right = shifted(right, skewed(x, tick, rows), down=False)
        partial = shifted(partial, skewed(sums, tick, columns), down=True)
        for i, j in itertools.product(range(rows), range(columns)):
            assert (right[i][j] is None) == (partial[i][j] is None)
            if right[i][j] is not None:
                partial[i][j] += right[i][j] * held[i][j]
        for column, word in zip(left, partial[-1], strict=True):
            column.extend([] if word is None else [word])
        tick += 1
    result = np.array(left).T[:, : w.shape[1]]
    return Ran(result, rows + tick, (x.size, w.size))


def multiply(dataflow: Dataflow, a: Array, b: Array, rows: int, columns: int) -> dict[str, Any]:
    """A·B fold by fold on the array of elements, with what was counted."""
    m, n = a.shape[0], b.shape[1]
    product = np.zeros((m, n), np.int64)
    count = dict.fromkeys(["cycles", "along", "across", "sram_ofmap", "sram_ofmap_reads"], 0)
    x, w, y = (a, b, product) if dataflow != "is" else (b.T, a.T, product.T)
    high, wide = (m, n) if dataflow == "os" else w.shape
    for j, i in itertools.product(range(0, wide, columns), range(0, high, rows)):
        if dataflow == "os":
            ran = output_stationary(a[i : i + rows], b[:, j : j + columns], rows, columns)
            product[i : i + rows, j : j + columns] = ran.result
        else:
            sums = y[:, j : j + columns]
            ran = weight_stationary(
                x[:, i : i + rows], w[i : i + rows, j : j + columns], sums, rows, columns
            )
            y[:, j : j + columns] = ran.result
            count["sram_ofmap_reads"] += sums.size if i > 0 else 0
        count["cycles"] += ran.ticks
        count["along"] += ran.reads[0]
        count["across"] += ran.reads[1]
        count["sram_ofmap"] += ran.result.size
    assert np.array_equal(product, a @ b)
    along, across = ("filter", "ifmap") if dataflow == "is" else ("ifmap", "filter")
    count[f"sram_{along}"], count[f"sram_{across}"] = count.pop("along"), count.pop("across")
    return count


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["os", "ws", "is"]),
    small,
    small,
    small,
    small,
    small,
    st.integers(0, 2**32 - 1),
)
def test_cycles_and_sram_are_those_of_an_array_that_multiplies(
    dataflow: Dataflow, m: int, n: int, k: int, rows: int, columns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-9, 10, (m, k)), rng.integers(-9, 10, (k, n))
    counted = multiply(dataflow, a, b, rows, columns)
    points = Points(*(np.array([size]) for size in (rows, columns, 1, 1, 1)))
    got = simulate(dataflow, Gemm("g", m, n, k).shape, points)
    assert {name: got[name].item() for name in counted} == counted


@pytest.mark.parametrize(("rows", "columns", "t"), [(1, 1, 1), (4, 3, 5), (2, 6, 1), (5, 1, 9)])
def test_one_fold_takes_the_ticks_of_the_array(rows: int, columns: int, t: int) -> None:
    rng = np.random.default_rng(t)
    a, b = rng.integers(-9, 10, (rows, t)), rng.integers(-9, 10, (t, columns))
    x, w = rng.integers(-9, 10, (t, rows)), rng.integers(-9, 10, (rows, columns))
    sums = np.zeros((t, columns), np.int64)
    assert output_stationary(a, b, rows, columns).ticks == t + rows + columns - 2
    assert weight_stationary(x, w, sums, rows, columns).ticks == t + 2 * rows + columns - 2
