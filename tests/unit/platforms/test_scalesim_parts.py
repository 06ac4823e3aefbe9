"""The parts of the SCALE-Sim 3.0.0 mode against loops over single words and single fetches.

Buffers are made small by patching what a unit of their size holds: layers of a few words then drain
and fetch again.
"""

from __future__ import annotations

from collections.abc import Iterable
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modelflex.platforms.systolic import scalesim_prefetch, scalesim_reads, scalesim_writes
from modelflex.platforms.systolic.scalesim_order import Job, job
from modelflex.platforms.systolic.scalesim_prefetch import NO_MISSES, Misses, dense, misses, ring
from modelflex.platforms.systolic.scalesim_reads import streamed, swept, swept_in_blocks
from modelflex.platforms.systolic.scalesim_stalls import timing
from modelflex.platforms.systolic.scalesim_windows import Order, Windows, follow
from modelflex.platforms.systolic.workload import Convolution

SIZES, SIDES = st.integers(1, 24), st.integers(1, 7)
DATAFLOWS = st.sampled_from(("os", "ws", "is"))
JOBS = st.builds(job, DATAFLOWS, SIZES, SIZES, SIZES, SIDES, SIDES)
PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))
CONVOLUTIONS = st.builds(
    lambda spare, window, channels, stride: Convolution(
        "c", window[0] + spare[0], window[1] + spare[1], *window, channels, 3, *stride
    ),
    PAIRS, PAIRS, st.integers(1, 3), PAIRS,
)  # fmt: skip


def ifmap_address(layer: Convolution | None, k: int, window: int, term: int) -> int | None:
    """Row by row, channels last; None beyond the input."""
    if layer is None:
        return window * k + term
    across = -(-(layer.width - layer.filter_width + layer.stride_width) // layer.stride_width)
    pixel, channel = divmod(term, layer.channels)
    row = window // across * layer.stride_height + pixel // layer.filter_width
    column = window % across * layer.stride_width + pixel % layer.filter_width
    if row >= layer.height or column >= layer.width:
        return None
    return (row * layer.width + column) * layer.channels + channel


def cells(cut: Job, operand: str) -> list[tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]:
    """((row, column) of the operand, (cycle, lane) asked for, place in the order of fetching).

    A word that moves reaches lane i of the array's edge i cycles later; the words of a fold that
    are held enter from the last row to the first.
    """
    found = []
    for fold in range(cut.row_folds * cut.column_folds):
        start = fold * cut.length
        column_fold, row_fold = divmod(fold, cut.row_folds)
        down = range(row_fold * cut.rows, (row_fold + 1) * cut.rows)
        across = range(column_fold * cut.columns, (column_fold + 1) * cut.columns)
        if operand == "filter" and cut.dataflow == "os":
            lanes, time, stack, wait = across, cut.k, column_fold, 0
        elif {operand, cut.dataflow} in ({"filter", "ws"}, {"ifmap", "is"}):
            for k in down:
                for lane, outer in enumerate(across):
                    cell = (outer, k) if operand == "ifmap" else (k, outer)
                    when = start + down[-1] - k, lane
                    found.append((cell, when, (column_fold * cut.k + k, lane)))
            continue
        else:
            time = {"os": cut.k, "ws": cut.m, "is": cut.n}[cut.dataflow]
            lanes, stack, wait = down, row_fold, 0 if cut.dataflow == "os" else cut.rows
        for lane, inner in enumerate(lanes):
            for t in range(time):
                transposed = (cut.dataflow, operand) in (("ws", "ifmap"), ("os", "filter"))
                cell = (t, inner) if transposed else (inner, t)
                when = start + wait + t + lane, lane
                found.append((cell, when, (stack * time + t + lane, lane)))
    sizes = (cut.m, cut.k) if operand == "ifmap" else (cut.k, cut.n)
    return [x for x in found if x[0][0] < sizes[0] and x[0][1] < sizes[1]]


def requests(
    cut: Job, operand: str, layer: Convolution | None = None
) -> tuple[list[tuple[int, int]], list[int]]:
    """(cycle, address) in the order of asking; addresses in the order of fetching."""
    asked, fetched = [], {}
    for (row, column), when, place in cells(cut, operand):
        address: int | None = column * cut.k + row
        if operand == "ifmap":
            address = ifmap_address(layer, cut.k, row, column)
        if address is not None:
            asked.append((*when, address))
            fetched[place] = address
    ordered = [(cycle, address) for cycle, _, address in sorted(asked)]
    return ordered, [fetched[place] for place in sorted(fetched)]


def brought(addresses: Iterable[int], limit: int) -> int:
    """Words brought into a buffer that is emptied when `limit` are in."""
    held: set[int] = set()
    reads = 0
    for address in addresses:
        if address not in held:
            held.add(address)
            reads += 1
            if len(held) == limit:
                held.clear()
    return reads


def moved(cut: Job, operand: str, half: int, layer: Convolution | None = None) -> dict[int, int]:
    """Cycle → how often the window moves, asking word after word."""
    asked, fetched = requests(cut, operand, layer)
    size = -(-2 * half // 100)
    sets = [set(fetched[at : at + size]) for at in range(0, len(fetched), size)]
    if len(fetched) % size == 0:
        sets.append(set())
    serving = min(-(-half // size), len(sets))
    ahead = min(-(-half // size), len(sets) - serving)
    at, moves = 0, {}
    for cycle, address in asked:
        while not any(address in sets[(at + i) % len(sets)] for i in range(serving)):
            at = (at + ahead) % len(sets)
            moves[cycle] = moves.get(cycle, 0) + 1
    return moves


def word_by_word(cycles: list[int], half: int, bandwidth: int) -> tuple[int, int]:
    """(cycles waited, words to DRAM) of a write buffer, one word after the other."""
    free, end, stalls, offset, at, sent = 2 * half, 0, 0, 0, -1, 0
    waiting: list[int] = []  # words of the closed lines that have not left
    filled = 0
    for cycle in [*cycles, None]:
        last = cycle is None
        if not last:
            if cycle != at:
                stalls, offset, at = stalls + offset, 0, cycle
            filled, free = filled + 1, free - 1
            if filled == bandwidth:
                waiting, filled = [*waiting, filled], 0
            now = cycle + stalls + offset
            if now < end:
                offset += end - now if free <= 0 else 0
                continue
        while (last and (waiting or filled)) or (not last and free < half):
            if filled:
                waiting, filled = [*waiting, filled], 0
            lines = waiting[: -(-half // bandwidth)]
            waiting = waiting[len(lines) :]
            words = (len(lines) - 1) * bandwidth + lines[-1]
            sent, free, end = sent + words, free + words, now + len(lines) - 1
            if not last:
                break
    return stalls + offset, sent


def results(cut: Job) -> list[int]:
    """Cycle in which each result leaves: one after the other down the columns of the array."""
    time = {"os": cut.k, "ws": cut.m, "is": cut.n}[cut.dataflow]
    across = cut.m if cut.dataflow == "is" else cut.n
    cycles = []
    for fold in range(cut.row_folds * cut.column_folds):
        column, row = divmod(fold, cut.row_folds)
        # Under os the last row leaves first; under ws and is a sum passes 2R − 1 units before.
        lines = [2 * cut.rows - 1 + t for t in range(time)]
        if cut.dataflow == "os":
            height = min(cut.rows, cut.m - row * cut.rows)
            lines = [time - 1 + cut.rows - 1 - i for i in range(height)]
        width = min(cut.columns, across - column * cut.columns)
        cycles += [fold * cut.length + line + j for line in lines for j in range(width)]
    return sorted(cycles)


@given(JOBS)
def test_results_leave_as_the_array_gives_them(cut: Job) -> None:
    cycles = results(cut)
    assert cut.ofmap.total == len(cycles)
    assert [cut.ofmap.line_of(word) for word in range(len(cycles))] == cycles
    lines = np.arange(-1, cut.ofmap.lines + 1)
    written = [cut.ofmap.written_by(int(line)) for line in lines]
    assert written == np.searchsorted(cycles, lines, side="right").tolist()


@given(JOBS, st.integers(1, 80), st.integers(1, 100))
def test_the_write_buffer_is_as_if_filled_word_by_word(cut: Job, half: int, bandwidth: int) -> None:
    with patch.object(scalesim_writes, "HALF_KB", half):
        found = timing(cut.ofmap, 1, bandwidth, [])
    stalls, sent = word_by_word(results(cut), half, bandwidth)
    assert found == (cut.ofmap.lines - 1 + stalls, stalls, sent)


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3)
)
def test_reads_in_blocks(block: int, last: int, blocks: int, sweeps: int, unit: int) -> None:
    last = min(last, block)
    order = [
        at * block + word
        for at in range(blocks)
        for _ in range(sweeps)
        for word in range(last if at == blocks - 1 else block)
    ]
    with patch.object(scalesim_reads, "KB", 100):  # 50 words
        numbers = (np.array(x) for x in (block, last, blocks, sweeps, unit))
        assert swept_in_blocks(*numbers) == brought(order, 50 * unit)
        again = swept(np.array(last), np.array(sweeps), np.array(unit))
    assert again == brought(list(range(last)) * sweeps, 50 * unit)


@given(CONVOLUTIONS, DATAFLOWS, SIDES, SIDES, st.integers(1, 3))
def test_reads_of_windows(
    layer: Convolution, dataflow: str, rows: int, columns: int, unit: int
) -> None:
    windows = Windows(layer)
    cut = job(dataflow, windows.m, layer.filters, windows.k, rows, columns)
    order = Order(windows, cut)
    asked, fetched = requests(cut, "ifmap", layer)
    assert order.fetched().tolist() == fetched
    assert windows.distinct == len(set(fetched))
    sweeps = 1 if dataflow == "is" else cut.column_folds
    one_pass = [
        pair for piece in order.demand() for pair in zip(*(x.tolist() for x in piece), strict=True)
    ]
    assert one_pass == asked[: len(asked) // sweeps]
    with patch.object(scalesim_reads, "KB", 100):
        reads = streamed(order.addresses, windows.words, windows.distinct, sweeps, unit)
    assert reads == brought((address for _, address in asked), 50 * unit)


def as_dict(found: Misses) -> dict[int, int]:
    return dict(zip(found.cycle.tolist(), found.moves.tolist(), strict=True))


@given(JOBS, st.integers(1, 120), st.sampled_from(("ifmap", "filter")))
def test_misses_of_a_product(cut: Job, half: int, operand: str) -> None:
    layout = cut.ifmap if operand == "ifmap" else cut.filter
    constants = {"HALF_KB": half, "KB": 2 * half}
    with patch.multiple(scalesim_prefetch, **constants):
        sets = ring(layout.words, 1)
    found = misses(layout.passes(), dense(layout, sets)) if sets.ahead else NO_MISSES
    assert as_dict(found) == moved(cut, operand, half)


@given(CONVOLUTIONS, DATAFLOWS, SIDES, SIDES, st.integers(1, 120))
def test_misses_of_windows(
    layer: Convolution, dataflow: str, rows: int, columns: int, half: int
) -> None:
    windows = Windows(layer)
    cut = job(dataflow, windows.m, layer.filters, windows.k, rows, columns)
    order = Order(windows, cut)
    fetched = order.fetched()
    with patch.multiple(scalesim_prefetch, HALF_KB=half, KB=2 * half):
        sets = ring(len(fetched), 1)
    passes = cut.ifmap.passes()
    found = misses(passes, follow(order, fetched, sets)) if sets.ahead else NO_MISSES
    assert as_dict(found) == moved(cut, "ifmap", half, layer)


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9), st.integers(0, 9)), max_size=8),
    st.integers(1, 25),
    st.integers(1, 25),
)
def test_stalls_of_fetch_after_fetch(
    gaps: list[tuple[int, int, int]], first_step: int, second_step: int
) -> None:
    """Each fetch ends a step after the one before; what it is late counts twice, early once."""
    cut = job("os", 1, 1, 300, 1, 1)  # one result, at the end: nobody waits for the write buffer
    cycles = np.cumsum([gap for gap, _, _ in gaps], dtype=np.int64)
    steps, ready, stalls = (first_step, second_step), [-1, -1], 0
    for cycle, (_, *moves) in zip(cycles.tolist(), gaps, strict=True):
        waits = [0]
        for operand, count in enumerate(moves):
            served = cycle + stalls + 1
            for _ in range(count):
                ready[operand] += steps[operand]
                late = ready[operand] - served
                served += late + max(late, 0)
            waits.append(served - (cycle + stalls) - 1)
        stalls += max(waits)
    reads = [
        (Misses(cycles, np.array([gap[operand + 1] for gap in gaps], np.int64)), steps[operand])
        for operand in range(2)
    ]
    assert timing(cut.ofmap, 1, 1, reads) == (299 + stalls, stalls, 1)
