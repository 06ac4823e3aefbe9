"""The simulator: cycles, utilisation, accesses and stalls of a layer, in closed form.

Folds run column by column, the row folds of a column one after the other. Three things move:

- the operand along the rows (`along`: ifmap under os and ws, filter under is) in slices of R of its
  rows, once for every column of folds, unless its buffer holds all of it;
- the operand of the columns (`across`): under os a slice of the filter for every column, under ws
  and is a tile of R×C stationary words for every fold;
- the results: a tile of R×C under os; under ws and is T rows of C partial sums a fold, which stay in
  the ofmap buffer until they are whole if it holds them, and else go to DRAM and come back.

With a finite bandwidth every operand has its own channel to DRAM. While a fold computes, the words
that the next one needs arrive, if the buffer holds both, else they are waited for; results of os
leave during the next fold, partial sums during their own. The first words, and under os the last
results, are waited for. The distinct words of a convolution's ifmap are spread evenly over its
pixels and terms. Everything is vectorised over points; docs/systolic.md tells where this departs
from SCALE-Sim.
"""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.closed_forms import (
    Dataflow,
    Folds,
    array_cycles,
    ceil_div,
    folds,
    mapped,
    sweeps,
)
from modelflex.platforms.systolic.points import Bandwidth, Points
from modelflex.platforms.systolic.workload import Shape

KB = 1024
"""Words in a unit of buffer size."""


class _Moved(NamedTuple):
    """Words that one operand brings in: for full folds, for the last one, and how they are held.

    Attributes:
        total: words of the operand.
        slice_words: words that must be in the buffer for one fold.
        resident: the buffer holds all of it.
        overlapped: the buffer holds what two folds need.
    """

    total: Array
    slice_words: Array
    resident: Array
    overlapped: Array


class _Layer(NamedTuple):
    """A layer on the points: sizes along rows, columns and time, folds, and what moves."""

    along_rows: Array
    along_columns: Array
    time: Array
    folds: Folds
    along: _Moved
    across: _Moved
    stays: Array
    ofmap_words: Array


def simulate(dataflow: Dataflow, shape: Shape, points: Points) -> dict[str, Array]:
    """Simulate a layer on every point.

    Returns:
        Columns that broadcast to the points: cycles (stalls included), stall_cycles;
        mapping_utilization (share of the array that a fold uses), compute_utilization (of the
        cycles without stalls), overall_utilization, in percent; sram_ifmap, sram_filter,
        sram_ofmap (writes), sram_ofmap_reads, dram_ifmap, dram_filter, dram_ofmap (writes),
        dram_ofmap_reads in words; fits: whether the buffers hold what one fold needs.
    """
    layer = _layer(dataflow, shape, points)
    f, (m, n, k) = layer.folds, shape[:3]
    work = array_cycles(f)
    stalls = _stalls(dataflow, layer, points)
    total = work + stalls
    units = points.rows * points.columns
    useful = 100.0 * (m * n * k) / units
    swept = sweeps(dataflow, f)
    again = np.where(layer.stays, 1, f.rows)
    brought = layer.along.total * np.where(layer.along.resident, 1, f.columns)
    moved = {"ifmap": brought, "filter": layer.across.total}
    if dataflow == "is":
        moved = {"ifmap": layer.across.total, "filter": brought}
    columns = {
        "cycles": total,
        "stall_cycles": stalls,
        "mapping_utilization": 100.0
        * (layer.along_rows * layer.along_columns)
        / (f.rows * f.columns * units),
        "compute_utilization": useful / work,
        "overall_utilization": useful / total,
        "sram_ifmap": m * k * swept.ifmap,
        "sram_filter": k * n * swept.filter,
        "sram_ofmap": m * n * swept.ofmap_writes,
        "sram_ofmap_reads": m * n * swept.ofmap_reads,
        "dram_ifmap": moved["ifmap"],
        "dram_filter": moved["filter"],
        "dram_ofmap": m * n * again,
        "dram_ofmap_reads": m * n * (again - 1),
        "fits": reduce(
            np.logical_and,
            (
                words <= KB * getattr(points, f"{name}_kb")
                for name, words in _needs(dataflow, layer)
            ),
        ),
    }
    return dict(zip(columns, np.broadcast_arrays(*columns.values()), strict=True))


def needed_kb(dataflow: Dataflow, shape: Shape, points: Points) -> dict[str, Array]:
    """Smallest buffers on which the layer runs: name of the operand → units of 1024 words."""
    layer = _layer(dataflow, shape, points)
    return {name: ceil_div(words, KB) for name, words in _needs(dataflow, layer)}


def _needs(dataflow: Dataflow, layer: _Layer) -> list[tuple[str, Array]]:
    along, across = ("filter", "ifmap") if dataflow == "is" else ("ifmap", "filter")
    words = {along: layer.along.slice_words, across: layer.across.slice_words}
    return [*((name, words[name]) for name in ("ifmap", "filter")), ("ofmap", layer.ofmap_words)]


def _layer(dataflow: Dataflow, shape: Shape, points: Points) -> _Layer:
    m, n, k, distinct, ifmap_slice = shape
    rows, columns = points.rows, points.columns
    sr, sc, t = mapped(dataflow, m, n, k)
    r, c = np.minimum(rows, sr), np.minimum(columns, sc)
    f = folds(dataflow, m, n, k, rows, columns)
    ifmap, filters, ofmap = (KB * kb for kb in (points.ifmap_kb, points.filter_kb, points.ofmap_kb))
    if dataflow == "os":
        along = _moved(distinct, ifmap_slice(r, k), ifmap, f.rows == 1)
        across = _moved(k * n, k * c, filters, f.columns == 1)
        ofmap_words = r * c
    elif dataflow == "ws":
        along = _moved(distinct, ifmap_slice(m, r), ifmap, f.rows == 1)
        across = _moved(k * n, r * c, filters, f.rows * f.columns == 1)
        ofmap_words = c
    else:
        along = _moved(k * n, r * n, filters, f.rows == 1)
        # Windows overlap from term to term, so all terms of a tile's pixels stay until they are done.
        tile = np.where(distinct < m * k, ifmap_slice(c, k), r * c)
        across = _moved(distinct, tile, ifmap, f.rows * f.columns == 1)
        ofmap_words = c
    stays = t * c <= ofmap if dataflow != "os" else np.True_
    return _Layer(sr, sc, t, f, along, across, np.asarray(stays), ofmap_words)


def _moved(total: Array, slice_words: Array, buffer: Array, single: Array) -> _Moved:
    resident = (total <= buffer) | single
    return _Moved(total, slice_words, resident, resident | (2 * slice_words <= buffer))


def _stalls(dataflow: Dataflow, layer: _Layer, points: Points) -> Array:
    """Σ over folds of what is waited for; folds that wait equally long are counted at once."""
    f = layer.folds
    shape = np.broadcast_shapes(f.rows.shape, f.columns.shape, f.length.shape)
    if points.bandwidth is None:
        return np.zeros(shape, np.int64)
    channel = _Channels(dataflow, layer, points, points.bandwidth)
    lag = 1 if dataflow == "os" else 0
    zero, last = np.zeros_like(f.rows), (f.rows - 1, f.columns - 1)
    start = (zero, np.zeros_like(f.columns))
    total = channel.loads(*start, ahead=True) + lag * channel.results(*last)
    for row, row_count in _classes(f.rows):
        for column, column_count in _classes(f.columns):
            wraps = row == f.rows - 1
            ahead = np.where(wraps, 0, row + 1), np.where(wraps, column + 1, column)
            begins = row == 0
            behind = np.where(begins, f.rows - 1, row - 1), np.where(begins, column - 1, column)
            done = behind if lag else (row, column)
            busy = np.maximum(
                np.where(ahead[1] < f.columns, channel.loads(*ahead, ahead=True), 0),
                np.where(done[1] >= 0, channel.results(*done), 0),
            )
            waits = channel.loads(row, column, ahead=False) + np.maximum(busy - f.length, 0)
            total = total + row_count * column_count * waits
    return np.asarray(total)


def _classes(count: Array) -> list[tuple[Array, Array]]:
    """(an index, how many behave like it) of the folds in one direction: the first, those between,
    the one before the last, the last.
    """
    one = np.ones_like(count)
    return [
        (one - 1, one),
        (one, np.maximum(count - 3, 0)),
        (count - 2, (count > 2) * one),
        (count - 1, (count > 1) * one),
    ]


class _Channels:
    """Cycles for which fold (row, column) keeps the channels to DRAM busy."""

    def __init__(
        self, dataflow: Dataflow, layer: _Layer, points: Points, bandwidth: Bandwidth
    ) -> None:
        self.dataflow, self.layer, self.points = dataflow, layer, points
        ifmap, filters, self.ofmap = bandwidth
        self.operands = (filters, ifmap) if dataflow == "is" else (ifmap, filters)

    def loads(self, row: Array, column: Array, ahead: bool) -> Array:
        """The longer of both operands; `ahead` counts those that arrive during the fold before."""
        layer = self.layer
        # Before the first fold there is nothing that they could arrive during.
        first = (row == 0) & (column == 0)
        along = np.where((column > 0) & layer.along.resident, 0, self._along(row))
        across = self._across(row, column)
        waits = [
            np.where((moved.overlapped | first) == ahead, _cycles(words, bandwidth), 0)
            for moved, words, bandwidth in zip(
                (layer.along, layer.across), (along, across), self.operands, strict=True
            )
        ]
        return np.maximum(*waits)

    def results(self, row: Array, column: Array) -> Array:
        """Results that leave, and partial sums that come back."""
        layer = self.layer
        width = _part(column, layer.along_columns, self.points.columns)
        if self.dataflow == "os":
            height = _part(row, layer.along_rows, self.points.rows)
            return _cycles(height * width, self.ofmap)
        sums = layer.time * width
        final = row == layer.folds.rows - 1
        return _cycles(sums * np.where(layer.stays, final, 1 + (row > 0)), self.ofmap)

    def _along(self, row: Array) -> Array:
        return _share(self.layer.along.total, row, self.layer.along_rows, self.points.rows)

    def _across(self, row: Array, column: Array) -> Array:
        layer = self.layer
        words = _share(layer.across.total, column, layer.along_columns, self.points.columns)
        if self.dataflow == "os":
            return np.where(row == 0, words, 0)
        return _share(words, row, layer.along_rows, self.points.rows)


def _cycles(words: Array, bandwidth: Array) -> Array:
    # A rounding error of a share adds no cycle.
    return np.ceil(words / bandwidth * (1 - 2**-50)).astype(np.int64)


def _part(index: Array, size: Array, side: Array) -> Array:
    """Of `size`, cut every `side`, what the fold `index` takes."""
    return np.minimum(side, size - index * side)


def _share(total: Array, index: Array, size: Array, side: Array) -> Array:
    """Words of the fold `index` when `total` words lie evenly along `size`, cut every `side`.

    A fraction where the distinct words of a convolution are no multiple of its pixels and terms.
    """
    return total * _part(index, size, side) / size
