"""The ifmap of a convolution under SCALE-Sim 3.0.0: addresses, in the order of asking and fetching.

Windows overlap, so an address has several places in the order of fetching. Where the stride does
not divide, there is one more row (column) of windows than fit; words beyond the input have no
address, are not asked for and not fetched.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.systolic.scalesim_limits import check_followed
from modelflex.platforms.systolic.scalesim_order import Held, Job, Moving
from modelflex.platforms.systolic.scalesim_prefetch import Follow, Misses, Ring, as_misses
from modelflex.platforms.systolic.workload import Convolution

NOWHERE = -1
PIECE = 2**18
"""Words that are looked at together, or those of one block if it has more."""


class Windows:
    """The im2col matrix of a convolution: a row for each window.

    Attributes:
        m, k: windows, and words of each.
        words: of the input.
        distinct: words that some window covers.

    Raises:
        UserError: more than one input.
    """

    def __init__(self, layer: Convolution) -> None:
        if layer.batch != 1:
            raise UserError(
                f"layer '{layer.name}' has a batch of {layer.batch}",
                "1: SCALE-Sim 3.0.0 knows no batch",
            )
        self._down = layer.height, layer.filter_height, layer.stride_height
        self._across = layer.width, layer.filter_width, layer.stride_width
        self.m = _outputs(*self._down) * _outputs(*self._across)
        self.k = layer.k
        self.words = layer.height * layer.width * layer.channels
        self.distinct = _covered(*self._down) * _covered(*self._across) * layer.channels
        self._layer = layer

    def addresses(self, window: Array, term: Array) -> Array:
        """Of terms of windows; `NOWHERE` beyond the last window or term, or beyond the input."""
        inside = (window < self.m) & (term < self.k)
        window, term = np.minimum(window, self.m - 1), np.minimum(term, self.k - 1)
        where, what = self._starts, self._steps
        if self._overhangs:
            inside = inside & (where.row[window] + what.row[term] < self._layer.height)
            inside &= where.column[window] + what.column[term] < self._layer.width
        return np.where(inside, where.address[window] + what.address[term], NOWHERE)

    @cached_property
    def _starts(self) -> _Places:
        """Where each window starts."""
        layer = self._layer
        check_followed(self.m)
        row, column = np.divmod(np.arange(self.m), _outputs(*self._across))
        return self._places(row * layer.stride_height, column * layer.stride_width, np.array(0))

    @cached_property
    def _steps(self) -> _Places:
        """Where each term lies from the start of its window."""
        check_followed(self.k)
        pixel, channel = np.divmod(np.arange(self.k), self._layer.channels)
        return self._places(*np.divmod(pixel, self._layer.filter_width), channel)

    def _places(self, row: Array, column: Array, channel: Array) -> _Places:
        address = (row * self._layer.width + column) * self._layer.channels + channel
        return _Places(row, column, address)

    @property
    def _overhangs(self) -> bool:
        return any((size - window) % stride for size, window, stride in (self._down, self._across))


class _Places(NamedTuple):
    """Places in the input."""

    row: Array
    column: Array
    address: Array


def _outputs(size: int, window: int, stride: int) -> int:
    """⌈(size − window + stride) / stride⌉."""
    return -(-(size - window) // stride) + 1


def _covered(size: int, window: int, stride: int) -> int:
    """Rows (or columns) of the input that some window covers."""
    before = _outputs(size, window, stride) - 1
    last = max(min(window, size - before * stride), 0)
    return before * min(stride, window) + last


class Order:
    """The ifmap of one job, address by address."""

    def __init__(self, windows: Windows, job: Job) -> None:
        self.windows = windows
        self.operand = job.ifmap
        self._windows_are_columns = job.dataflow != "ws"

    def demand(self) -> Iterator[tuple[Array, Array]]:
        """(cycles, addresses) of one pass, in pieces, in the order of asking."""
        operand = self.operand
        if isinstance(operand, Held):
            yield from self._held(operand)
            return
        step = max(PIECE // (operand.height * operand.width), 1)
        for start in range(0, operand.blocks, step):
            block = np.arange(start, min(start + step, operand.blocks))
            tiles = _skewed(self._tiles(operand, block))
            place = np.flatnonzero(tiles != NOWHERE)
            line = place // operand.width
            fold, cycle = np.divmod(line, operand.height + operand.width - 1)
            yield (start + fold) * operand.length + operand.first + cycle, tiles.ravel()[place]

    def addresses(self) -> Iterator[Array]:
        """Those of `demand`, without the cycles."""
        for _, addresses in self.demand():
            yield addresses

    def fetched(self) -> Array:
        """Addresses in the order of fetching."""
        operand = self.operand
        check_followed(operand.padded)
        if isinstance(operand, Held):
            column = np.arange(-(-operand.columns // operand.width))[:, None, None]
            window = column * operand.width + np.arange(operand.width)
            found = self.windows.addresses(window, np.arange(operand.height)[:, None])
        else:
            tiles = self._tiles(operand, np.arange(operand.blocks))
            found = _skewed(tiles.reshape(1, -1, operand.width))
        return found[found != NOWHERE]

    def _held(self, operand: Held) -> Iterator[tuple[Array, Array]]:
        column, row, cycle = operand.cells()
        step = max(PIECE // (operand.height * operand.width), 1)
        for start in range(0, len(column), step):
            window = column[start : start + step, :, None] * operand.width
            found = self.windows.addresses(window + np.arange(operand.width), row[:, None])
            place = np.flatnonzero(found != NOWHERE)
            yield (
                cycle[start : start + step].ravel()[place // operand.width],
                found.ravel()[place],
            )

    def _tiles(self, operand: Moving, block: Array) -> Array:
        """Blocks × rows × columns of addresses."""
        row = np.arange(operand.height)[:, None]
        column = block[:, None, None] * operand.width + np.arange(operand.width)
        if self._windows_are_columns:
            return self.windows.addresses(column, row)
        return self.windows.addresses(row, column)


def _skewed(tiles: Array) -> Array:
    """Move column j of each tile (the last two axes) down by j rows."""
    count, height, width = tiles.shape
    out = np.full((count, height + width - 1, width), NOWHERE)
    per_tile, row, word = out.strides
    as_strided(out, tiles.shape, (per_tile, row, row + word))[...] = tiles
    return out


def follow(order: Order, fetched: Array, sets: Ring) -> Follow:
    """Misses of an operand with addresses that lie in several sets."""
    check_followed(order.windows.words)
    by_address = np.argsort(fetched, kind="stable")
    count = np.bincount(fetched, minlength=order.windows.words)
    first = np.cumsum(count) - count
    serving = np.zeros(order.windows.words, bool)

    def serve(window: int) -> None:
        serving[:] = False
        end = window + sets.serving
        serving[fetched[window * sets.per_set : end * sets.per_set]] = True
        serving[fetched[: max(end - sets.sets, 0) * sets.per_set]] = True

    def follow(group: int, window: int) -> tuple[Misses, int]:
        found: list[tuple[int, int]] = []
        serve(window)
        for cycles, addresses in order.demand():
            start, step = 0, 64
            while start < len(addresses):
                missing = ~serving[addresses[start : start + step]]
                at = int(np.argmax(missing))
                if not missing[at]:
                    start, step = start + step, 2 * step
                    continue
                start, step = start + at, 64
                address = addresses[start]
                places = by_address[first[address] : first[address] + count[address]]
                moves = int(np.min(sets.moves(window, places // sets.per_set)))
                window = (window + moves * sets.ahead) % sets.sets
                serve(window)
                found.append((int(cycles[start]), moves))
        return as_misses(found), window

    return follow
