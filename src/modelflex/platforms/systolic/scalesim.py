"""What SCALE-Sim 3.0.0 reports for a layer, its quirks included, from closed forms where they exist.

Use it to compare with published or recorded results of SCALE-Sim (Samajdar et al., ISPASS 2020);
`simulate` of the module `simulate` is the corrected simulator. The quirks of 3.0.0 that are kept:

- cycles are one fewer than the folds take;
- under os, SRAM writes count R + C more for each fold; partial sums are never read back;
- the compute utilisation of ws and is counts C − 1 cycles more for each fold;
- a convolution whose stride does not divide has one row (column) of windows too many;
- late fetches stall twice as long as they are late.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import Dataflow, Folds, folds, mapped
from modelflex.platforms.systolic.points import Bandwidth, Points
from modelflex.platforms.systolic.scalesim_order import Held, Job, Moving, job
from modelflex.platforms.systolic.scalesim_prefetch import NO_MISSES, Misses, dense, misses, ring
from modelflex.platforms.systolic.scalesim_reads import streamed, swept, swept_in_blocks
from modelflex.platforms.systolic.scalesim_stalls import timing
from modelflex.platforms.systolic.scalesim_windows import Order, Windows, follow
from modelflex.platforms.systolic.scalesim_writes import HALF_KB
from modelflex.platforms.systolic.workload import Convolution, Gemm, Workload

MAX_MOVED: Final = 2**62
"""Most words and cycles of a layer: whole fetches can be far larger than what is asked for."""


class _Moved(NamedTuple):
    """What the memories make of a layer: arrays over points."""

    cycles: Array
    stalls: Array
    ifmap: Array
    filter: Array
    ofmap: Array


def simulate(dataflow: Dataflow, workload: Workload, points: Points) -> dict[str, Array]:
    """What SCALE-Sim 3.0.0 reports for a layer on every point.

    Args:
        dataflow: os, ws or is.
        workload: a `Gemm`, or a `Convolution` of one input.
        points: arrays; finite bandwidths are USER (that of the ofmap is `Bandwidth`, the others are
            the SRAM bank bandwidths of the layout; no custom layout). Without them, CALC.

    Returns:
        Columns that broadcast to the points: cycles (stalls included), stall_cycles;
        mapping_utilization, compute_utilization, overall_utilization, in percent; sram_ifmap,
        sram_filter, sram_ofmap, dram_ifmap, dram_filter, dram_ofmap in words.

    Raises:
        UserError: something that SCALE-Sim does not do.
    """
    for words in points.bandwidth or ():
        if np.any(words != np.floor(words)):
            raise UserError(
                f"bandwidth is {np.extract(words != np.floor(words), words)[0]}",
                "whole words a cycle, as in SCALE-Sim 3.0.0",
            )
    if isinstance(workload, Gemm):
        windows = None
        m, n, k = workload.m, workload.n, workload.k
    elif isinstance(workload, Convolution):
        windows = Windows(workload)
        m, n, k = windows.m, workload.filters, windows.k
    else:
        raise UserError(f"layer '{workload.name}'", "a product or a convolution")
    sizes = np.array(m), np.array(n), np.array(k)
    if points.bandwidth is None:
        return calc(dataflow, *sizes, points, windows)
    cut = folds(dataflow, *sizes, points.rows, points.columns)
    return _columns(
        dataflow,
        sizes,
        cut,
        points,
        _finite(dataflow, (m, n, k), points, points.bandwidth, windows),
    )


def calc(
    dataflow: Dataflow, m: Array, n: Array, k: Array, points: Points, windows: Windows | None = None
) -> dict[str, Array]:
    """What SCALE-Sim 3.0.0 reports in CALC mode for products M×N×K, which broadcast with the points.

    Args:
        windows: of a convolution; its product is given by m, n, k.

    Returns:
        The columns of `simulate`. Followed one by one are only arrays with more columns than half
        of the ofmap buffer has words, and convolutions whose input exceeds half of its buffer.
    """
    cut = folds(dataflow, m, n, k, points.rows, points.columns)
    ifmap, filters = m * k, k * n
    sweeps, once = cut.columns, np.ones_like(cut.columns)
    if dataflow == "os":
        last = k * (n - (cut.columns - 1) * points.columns)
        filter_reads = swept_in_blocks(
            k * points.columns, last, cut.columns, cut.rows, points.filter_kb
        )
    else:
        filter_reads = swept(filters, sweeps if dataflow == "is" else once, points.filter_kb)
    if windows is None:
        ifmap_reads = swept(ifmap, once if dataflow == "is" else sweeps, points.ifmap_kb)
    else:
        ifmap_reads = _window_reads(dataflow, windows, n, points)
    written = m * n * (1 if dataflow == "os" else cut.rows)
    half = HALF_KB * points.ofmap_kb
    # The buffer is drained C words a cycle, so nobody waits. If C divides half a buffer, the first
    # drain leaves a line of one word, which counts as C words unless it is the last one.
    rounded = (half % points.columns == 0) & (written > half + 1)
    cycles, stalls, to_dram, narrow = np.broadcast_arrays(
        cut.rows * cut.columns * cut.length - 1,
        np.zeros_like(half),
        written + np.where(rounded, points.columns - 1, 0),
        (written > half) & (points.columns >= half),
    )
    moved = _Moved(cycles, stalls, ifmap_reads, filter_reads, to_dram)
    if np.any(narrow):
        moved = _drained(dataflow, (m, n, k), points, moved, narrow)
    return _columns(dataflow, (m, n, k), cut, points, moved)


def _drained(
    dataflow: Dataflow,
    sizes: tuple[Array, Array, Array],
    points: Points,
    moved: _Moved,
    chosen: Array,
) -> _Moved:
    """Follow the write buffer of some points."""
    columns = [moved.cycles.copy(), moved.stalls.copy(), moved.ofmap.copy()]
    fields = (*sizes, points.rows, points.columns, points.ofmap_kb)
    choose = [np.broadcast_to(field, chosen.shape)[chosen].tolist() for field in fields]
    found = []
    for m, n, k, rows, width, buffer_kb in zip(*choose, strict=True):
        found.append(timing(job(dataflow, m, n, k, rows, width).ofmap, buffer_kb, width, []))
    for column, values in zip(columns, np.array(found, np.int64).T, strict=True):
        column[chosen] = values
    cycles, stalls, ofmap = columns
    return moved._replace(cycles=cycles, stalls=stalls, ofmap=ofmap)


def _window_reads(dataflow: Dataflow, windows: Windows, n: Array, points: Points) -> Array:
    """DRAM reads of the ifmap of a convolution, once for each kind of point."""
    rows, columns, buffers = np.broadcast_arrays(points.rows, points.columns, points.ifmap_kb)
    kinds, which = np.unique(
        np.stack([rows.ravel(), columns.ravel(), buffers.ravel()]), axis=1, return_inverse=True
    )
    reads = []
    for row, column, buffer_kb in kinds.T.tolist():
        cut = job(dataflow, windows.m, int(n), windows.k, row, column)
        order = Order(windows, cut)
        sweeps = 1 if dataflow == "is" else cut.column_folds
        reads.append(streamed(order.addresses, windows.words, windows.distinct, sweeps, buffer_kb))
    return np.array(reads, np.int64)[which].reshape(rows.shape)


def _finite(
    dataflow: Dataflow,
    sizes: tuple[int, int, int],
    points: Points,
    bandwidth: Bandwidth,
    windows: Windows | None,
) -> _Moved:
    """Follow every point."""
    arrays = (*points[:5], *bandwidth)
    fields = np.broadcast_arrays(*(np.asarray(field) for field in arrays))
    found = []
    for rows, columns, ifmap_kb, filter_kb, ofmap_kb, *widths in zip(
        *(field.ravel().tolist() for field in fields), strict=True
    ):
        cut = job(dataflow, *sizes, rows, columns)
        ifmap_width, filter_width, ofmap_width = map(int, widths)
        ifmap = _ifmap_fetches(cut, ifmap_kb, windows)
        filters = _fetches(cut.filter, filter_kb)
        lines = [
            -(-HALF_KB * ifmap_kb // ifmap_width),
            -(-HALF_KB * filter_kb // filter_width),
        ]
        result = timing(
            cut.ofmap, ofmap_kb, ofmap_width, [(ifmap, lines[0] + 1), (filters, lines[1] + 1)]
        )
        brought = [
            width * (min(half, -(-padded // width)) + int(moved.moves.sum()) * half)
            for width, half, moved, padded in (
                (ifmap_width, lines[0], ifmap, cut.ifmap.padded),
                (filter_width, lines[1], filters, cut.filter.padded),
            )
        ]
        found.append((result.cycles, result.stalls, *brought, result.dram_ofmap))
        if max(found[-1]) > MAX_MOVED:
            raise UserError(
                f"prefetches at a bandwidth of {max(widths):g} overflow the counters",
                f"at most 2^{MAX_MOVED.bit_length() - 1} words and cycles",
            )
    return _Moved(*np.array(found, np.int64).T.reshape(5, *fields[0].shape))


def _fetches(operand: Moving | Held, buffer_kb: int) -> Misses:
    sets = ring(operand.words, buffer_kb)
    if not sets.ahead:
        return NO_MISSES
    return misses(operand.passes(), dense(operand, sets))


def _ifmap_fetches(cut: Job, buffer_kb: int, windows: Windows | None) -> Misses:
    if windows is None:
        return _fetches(cut.ifmap, buffer_kb)
    order = Order(windows, cut)
    fetched = order.fetched()
    sets = ring(len(fetched), buffer_kb)
    if not sets.ahead:
        return NO_MISSES
    return misses(cut.ifmap.passes(), follow(order, fetched, sets))


def _columns(
    dataflow: Dataflow, sizes: tuple[Array, Array, Array], cut: Folds, points: Points, moved: _Moved
) -> dict[str, Array]:
    if np.any(moved.cycles == 0):
        raise UserError(
            "a layer of one cycle", "a larger one: SCALE-Sim 3.0.0 divides by its cycles less one"
        )
    m, n, k = sizes
    down, across, time = mapped(dataflow, m, n, k)
    # Products of counts may exceed 64 bits; shares need no more than a float has.
    units, cells = 1.0 * points.rows * points.columns, cut.rows * cut.columns
    mapping = 100.0 * (down * across) / (cells * units)
    busy = cut.length if dataflow == "os" else cut.length + points.columns - 1
    partial_sums = m * n * (1 if dataflow == "os" else cut.rows)
    surplus = cells * (points.rows + points.columns) if dataflow == "os" else 0
    columns = {
        "cycles": moved.cycles,
        "stall_cycles": moved.stalls,
        "mapping_utilization": mapping,
        "compute_utilization": mapping * time / busy,
        "overall_utilization": 100.0 * (m * n * k) / (moved.cycles * units),
        "sram_ifmap": m * k * (1 if dataflow == "is" else cut.columns),
        "sram_filter": k * n * {"os": cut.rows, "ws": 1, "is": cut.columns}[dataflow],
        "sram_ofmap": partial_sums + surplus,
        "dram_ifmap": moved.ifmap,
        "dram_filter": moved.filter,
        "dram_ofmap": moved.ofmap,
    }
    return dict(zip(columns, np.broadcast_arrays(*columns.values()), strict=True))
