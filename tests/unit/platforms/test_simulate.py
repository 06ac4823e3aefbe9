"""The simulator of a layer against folds run one by one, SCALE-Sim's figures and hand arithmetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import (
    MAX_BUFFER_KB,
    MAX_SIDE,
    MIN_BANDWIDTH,
    Bandwidth,
    Points,
    one_point,
)
from modelflex.platforms.systolic.simulate import needed_kb, simulate
from modelflex.platforms.systolic.workload import Convolution, Gemm, Workload, gemm_shape

DATAFLOWS: list[Dataflow] = ["os", "ws", "is"]
BIG = (2**20, 2**20, 2**20)
SIZES = {"rows": 32, "columns": 32, "ifmap_kb": 1024, "filter_kb": 2048, "ofmap_kb": 1024}

Words = tuple[float, float, float] | None

dataflows = st.sampled_from(DATAFLOWS)


def point(rows: int, columns: int, buffers: tuple[int, int, int], bandwidth: Words) -> Points:
    """One point; buffers and bandwidths of ifmap, filter, ofmap in words."""
    kb = (np.array([words / 1024]) for words in buffers)
    limit = None if bandwidth is None else Bandwidth(*(np.array([w]) for w in bandwidth))
    return Points(np.array([rows]), np.array([columns]), *kb, limit)


def scalars(columns: Mapping[str, Array]) -> dict[str, Any]:
    return {name: column.item() for name, column in columns.items()}


# --- Folds one by one, with buffers of blocks and a clock --------------------------------------

Block = tuple[range, range]


@dataclass
class Fold:
    """Its blocks of the ifmap (pixels × terms), filter (terms × filters), ofmap (pixels × filters)."""

    blocks: tuple[Block, Block, Block]
    lanes: tuple[range, range]
    first: bool
    last: bool


def size(block: Block) -> int:
    return len(block[0]) * len(block[1])


def cut(dataflow: Dataflow, m: int, n: int, k: int, array: tuple[int, int]) -> list[Fold]:
    """All folds, column by column."""
    pixels, filters, terms = range(m), range(n), range(k)
    high, wide = {"os": (m, n), "ws": (k, n), "is": (k, m)}[dataflow]
    starts = itertools.product(range(0, wide, array[1]), range(0, high, array[0]))
    folds = []
    for column, row in starts:
        r, c = range(row, min(row + array[0], high)), range(column, min(column + array[1], wide))
        blocks = {
            "os": ((r, terms), (terms, c), (r, c)),
            "ws": ((pixels, r), (r, c), (pixels, c)),
            "is": ((c, r), (r, filters), (c, filters)),
        }[dataflow]
        folds.append(Fold(blocks, (r, c), row == 0, r.stop == high))
    return folds


class Buffer:
    """A read buffer: keeps every block if the whole operand fits, else only that of the last fold.

    Attributes:
        double: it holds what two folds need, so that loads overlap the fold before.
        moved: words brought in so far.
    """

    def __init__(
        self, words: Callable[[Block], Fraction], total: int, tile: int, room: int
    ) -> None:
        self._words, self._keeps_all = words, total <= room
        self.double = total <= room or 2 * tile <= room
        self._held: set[Block] = set()
        self.moved = Fraction(0)

    def bring(self, block: Block) -> Fraction:
        """Words that come from DRAM before a fold can use the block."""
        if block in self._held:
            return Fraction(0)
        self._held = (self._held if self._keeps_all else set()) | {block}
        self.moved += self._words(block)
        return self._words(block)


def tiles_of(dataflow: Dataflow, layer: Workload, folds: list[Fold]) -> list[int]:
    """Words of ifmap, filter and ofmap that a fold has to have room for, at most."""
    m, _, k, distinct = (int(v) for v in layer.shape[:4])

    def ifmap(block: Block) -> int:
        if distinct == m * k:
            return size(block)
        # Input stationary windows overlap from fold to fold: their other terms stay, too.
        kept = k if dataflow == "is" else len(block[1])
        return int(layer.shape.ifmap_slice(np.array(len(block[0])), np.array(kept)))

    return [
        max(ifmap(f.blocks[0]) for f in folds),
        max(size(f.blocks[1]) for f in folds),
        max(size(f.blocks[2]) if dataflow == "os" else len(f.lanes[1]) for f in folds),
    ]


def clocked(
    dataflow: Dataflow, length: int, loads: list[list[int]], double: list[bool], results: list[int]
) -> int:
    """Cycles until the last word has left; each operand has a channel, busy for so many cycles."""
    clock = max(loads[0])
    for s in range(len(loads)):
        alone = [t for t, d in zip(loads[s], double, strict=True) if not d and s > 0]
        ahead = loads[s + 1] if s + 1 < len(loads) else [0, 0]
        beside = [t for t, d in zip(ahead, double, strict=True) if d]
        leaving = results[s] if dataflow != "os" else results[s - 1] if s > 0 else 0
        clock += max([0, *alone]) + max(length, leaving, *beside, 0)
    return clock + (results[-1] if dataflow == "os" else 0)


def fold_by_fold(
    dataflow: Dataflow,
    layer: Workload,
    array: tuple[int, int],
    rooms: tuple[int, int, int],
    bandwidth: Words,
) -> dict[str, Any]:
    """Runs every fold of a layer; buffers in words."""
    m, n, k, distinct = (int(v) for v in layer.shape[:4])
    folds = cut(dataflow, m, n, k, array)
    tiles = tiles_of(dataflow, layer, folds)
    # The distinct words of an ifmap lie evenly over its pixels and terms.
    density = Fraction(distinct, m * k)
    buffers = [
        Buffer(lambda block: size(block) * density, distinct, tiles[0], rooms[0]),
        Buffer(lambda block: Fraction(size(block)), k * n, tiles[1], rooms[1]),
    ]
    # Partial sums stay if there is room for those of a whole column of folds.
    spills = max(size(f.blocks[2]) for f in folds) > rooms[2]
    loads, results = [], []
    count = dict.fromkeys(["sram_ifmap", "sram_filter", "sram_ofmap", "sram_ofmap_reads"], 0)
    count |= {"dram_ofmap": 0, "dram_ofmap_reads": 0}

    def cycles(words: Fraction | int, operand: int) -> int:
        return 0 if bandwidth is None else math.ceil(words / Fraction(bandwidth[operand]))

    for fold in folds:
        a, b, sums = fold.blocks
        loads.append([cycles(buffers[i].bring(x), i) for i, x in enumerate((a, b))])
        added = dataflow != "os" and not fold.first
        out = size(sums) if dataflow == "os" or fold.last or spills else 0
        back = size(sums) if added and spills else 0
        results.append(cycles(out + back, 2))
        moved = (size(a), size(b), size(sums), size(sums) * added, out, back)
        count = {name: c + words for (name, c), words in zip(count.items(), moved, strict=True)}
    length = {"os": k, "ws": m + array[0], "is": n + array[0]}[dataflow] + sum(array) - 2
    clock = clocked(dataflow, length, loads, [b.double for b in buffers], results)
    units, macs, computing = array[0] * array[1], m * n * k, len(folds) * length
    used = sum(len(f.lanes[0]) * len(f.lanes[1]) for f in folds)
    return {
        **count,
        "cycles": clock,
        "stall_cycles": clock - computing,
        "mapping_utilization": pytest.approx(100 * used / (len(folds) * units)),
        "compute_utilization": pytest.approx(100 * macs / (computing * units)),
        "overall_utilization": pytest.approx(100 * macs / (clock * units)),
        "dram_ifmap": buffers[0].moved,
        "dram_filter": buffers[1].moved,
        "fits": all(tile <= room for tile, room in zip(tiles, rooms, strict=True)),
    }


sides = st.tuples(st.integers(1, 7), st.integers(1, 7))
rooms_in_words = st.tuples(*(st.integers(1, 400) for _ in range(3)))
quarters = st.integers(1, 80).map(lambda n: n / 4)
bandwidths = st.none() | st.tuples(quarters, quarters, quarters)
sizes_of_a_gemm = st.tuples(*(st.integers(1, 25) for _ in range(3)))


@settings(max_examples=500, deadline=None)
@given(dataflows, sizes_of_a_gemm, sides, rooms_in_words, bandwidths)
def test_products_equal_their_folds_one_by_one(
    dataflow: Dataflow,
    sizes: tuple[int, int, int],
    array: tuple[int, int],
    rooms: tuple[int, int, int],
    bandwidth: Words,
) -> None:
    layer = Gemm("g", *sizes)
    got = scalars(simulate(dataflow, layer.shape, point(*array, rooms, bandwidth)))
    assert got == fold_by_fold(dataflow, layer, array, rooms, bandwidth)


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    r, q, channels, filters, s, t, batch = (draw(st.integers(1, 4)) for _ in range(7))
    height, width = r + draw(st.integers(0, 7)), q + draw(st.integers(0, 7))
    return Convolution("c", height, width, r, q, channels, filters, s, t, batch)


@settings(max_examples=300, deadline=None)
@given(dataflows, convolutions(), sides, rooms_in_words, bandwidths)
# A fold's share of the ifmap is 25 words, in floating point a little more.
@example("is", Convolution("c", 15, 2, 3, 2, 3, 1, 2, 2), (7, 5), (99, 99, 99), (1.0, 1.0, 1.0))
def test_convolutions_equal_their_folds_one_by_one(
    dataflow: Dataflow,
    layer: Convolution,
    array: tuple[int, int],
    rooms: tuple[int, int, int],
    bandwidth: Words,
) -> None:
    got = scalars(simulate(dataflow, layer.shape, point(*array, rooms, bandwidth)))
    assert got == fold_by_fold(dataflow, layer, array, rooms, bandwidth)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_many_points_at_once_equal_each_alone(dataflow: Dataflow) -> None:
    rng = np.random.default_rng(3)
    shape = gemm_shape(*rng.integers(1, 60, (3, 300)))
    buffers = rng.integers(1, 2000, (3, 300)) / 1024
    words = Bandwidth(*rng.integers(1, 30, (3, 300)) / 2)
    points = Points(*rng.integers(1, 9, (2, 300)), *buffers, words)
    together = simulate(dataflow, shape, points)
    for at in range(300):
        one = slice(at, at + 1)
        alone = Points(*(v[one] for v in points[:5]), Bandwidth(*(v[one] for v in words)))
        got = scalars(simulate(dataflow, gemm_shape(*(v[at] for v in shape[:3])), alone))
        assert got == {name: column[at].item() for name, column in together.items()}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_arrays_broadcast_against_bandwidths(dataflow: Dataflow) -> None:
    rows = np.array([[2], [3], [16]])
    points = Points(
        rows, np.array([4]), *([np.array([1])] * 3), Bandwidth(*[np.array([0.5, 8.0])] * 3)
    )
    columns = simulate(dataflow, Gemm("g", 9, 10, 11).shape, points)
    assert {column.shape for column in columns.values()} == {(3, 2)}


@settings(max_examples=200, deadline=None)
@given(dataflows, st.tuples(*(st.integers(1, 5000) for _ in range(3))), sides)
def test_a_layer_runs_on_the_smallest_buffers_and_on_none_smaller(
    dataflow: Dataflow, sizes: tuple[int, int, int], array: tuple[int, int]
) -> None:
    shape = Gemm("g", *sizes).shape
    needed = needed_kb(dataflow, shape, point(*array, BIG, None))
    kb = [needed[operand].item() for operand in ("ifmap", "filter", "ofmap")]

    def fits(kb: list[int]) -> bool:
        words = (kb[0] * 1024, kb[1] * 1024, kb[2] * 1024)
        return bool(simulate(dataflow, shape, point(*array, words, None))["fits"].item())

    assert fits(kb)
    assert not any(fits([size - (i == at) for i, size in enumerate(kb)]) for at in range(3))


# --- Published and hand-made figures -----------------------------------------------------------

# M=1, K=1056, N=4096 on 32×32, buffers of 1/2/1 MB. SCALE-Sim 3.0.0 prints one cycle fewer, R + C
# more SRAM writes a fold under os, and DRAM writes of every partial sum under ws and is.
GOLDEN: dict[Dataflow, dict[str, int]] = {
    "os": {
        "cycles": 143_103 + 1,
        "sram_ifmap": 135_168, "sram_filter": 4_325_376, "sram_ofmap": 12_288 - 128 * 64,
        "sram_ofmap_reads": 0,
        "dram_ifmap": 1056, "dram_filter": 4_325_376, "dram_ofmap": 4096, "dram_ofmap_reads": 0,
    },
    "ws": {
        "cycles": 401_279 + 1,
        "sram_ifmap": 135_168, "sram_filter": 4_325_376, "sram_ofmap": 135_168,
        "sram_ofmap_reads": 135_168 - 4096,
        "dram_ifmap": 1056, "dram_filter": 4_325_376, "dram_ofmap": 4096, "dram_ofmap_reads": 0,
    },
    "is": {
        "cycles": 138_269 + 1,
        "sram_ifmap": 1056, "sram_filter": 4_325_376, "sram_ofmap": 135_168,
        "sram_ofmap_reads": 135_168 - 4096,
        "dram_ifmap": 1056, "dram_filter": 4_325_376, "dram_ofmap": 4096, "dram_ofmap_reads": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_gate_product_takes_what_scale_sim_says_without_its_quirks(dataflow: Dataflow) -> None:
    got = scalars(simulate(dataflow, Gemm("lstm", 1, 4096, 1056).shape, one_point(SIZES, None)))
    assert {name: got[name] for name in GOLDEN[dataflow]} == GOLDEN[dataflow]
    assert got["stall_cycles"] == 0
    assert got["fits"]


def test_a_product_bound_by_its_weights_takes_the_time_of_their_transfer() -> None:
    # os: 128 column folds, each waits for 1056·32 words of the filter; the last one computes
    # 1056 + 32 + 32 − 2 cycles, and its 32 results leave.
    got = scalars(simulate("os", Gemm("lstm", 1, 4096, 1056).shape, one_point(SIZES, 10)))
    assert got["cycles"] == 128 * math.ceil(1056 * 32 / 10) + 1118 + math.ceil(32 / 10)


def test_largest_sizes_stay_exact() -> None:
    # A dot product of 2^40 terms: one fold, which waits for its words at the least bandwidth.
    sizes = dict.fromkeys(SIZES, MAX_BUFFER_KB) | {"rows": MAX_SIDE, "columns": MAX_SIDE}
    got = scalars(simulate("os", Gemm("dot", 1, 1, 2**40).shape, one_point(sizes, MIN_BANDWIDTH)))
    computing = 2**40 + 2 * MAX_SIDE - 2
    assert got["cycles"] == 2**48 + computing + 2**8
    assert got["compute_utilization"] == pytest.approx(100 * 2**40 / (computing * 2**28))
    assert got["mapping_utilization"] == pytest.approx(100 / 2**28)


def test_shares_of_words_that_do_not_divide_stay_exact_at_large_sizes() -> None:
    # 2^37 inputs of three words with two windows of two words: 1.5 words a window.
    layer = Convolution("c", 1, 3, 1, 2, 1, 1, batch=2**37)
    got = scalars(simulate("os", layer.shape, one_point(SIZES | {"rows": MAX_SIDE}, 1)))
    folds, length, loads = 2**38 // MAX_SIDE, 2 + MAX_SIDE + 32 - 2, 3 * MAX_SIDE // 2
    assert loads > length
    assert got["cycles"] == folds * loads + length + MAX_SIDE
    assert got["dram_ifmap"] == 3 * 2**37


@pytest.mark.parametrize(
    ("sizes", "bandwidth", "message"),
    [
        ({"rows": 0}, None, "rows is 0; expected a whole number from 1 to 16384"),
        ({"columns": MAX_SIDE + 1}, None, "columns is 16385"),
        ({"ifmap_kb": -1}, None, "ifmap_kb is -1"),
        ({"filter_kb": 0}, None, "filter_kb is 0"),
        ({"ofmap_kb": MAX_BUFFER_KB + 1}, None, "ofmap_kb is"),
        ({}, 0, "bandwidth is 0; expected words a cycle, at least 0.00390625"),
        ({}, -3.0, "bandwidth is -3.0"),
        ({}, MIN_BANDWIDTH / 2, "bandwidth is"),
        ({}, math.inf, "bandwidth is inf"),
        ({}, math.nan, "bandwidth is nan"),
    ],
)
def test_nonsense_arrays_are_refused(
    sizes: dict[str, int], bandwidth: float | None, message: str
) -> None:
    with pytest.raises(UserError) as error:
        one_point(SIZES | sizes, bandwidth)
    assert str(error.value).startswith(message)
