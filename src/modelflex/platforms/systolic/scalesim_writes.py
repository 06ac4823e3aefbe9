"""The write buffer of SCALE-Sim 3.0.0: when results leave for DRAM, and how long they wait.

Results collect in lines as wide as the bandwidth. When more than half of the buffer is taken and no
drain runs, the line being filled is closed as it is, and half a buffer of lines leaves, a line a
cycle. A result that takes the last room while a drain runs waits for its end. A line that was
closed early counts as if it were full, unless it is the last of its drain.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.scalesim_limits import check_followed

HALF_KB = 512
"""Words of half a buffer for each unit of its size: one half serves, the other one is filled."""


STEP_COST = 8
"""A step of the write buffer takes as long as following so many requests."""


class Profile(NamedTuple):
    """When results leave the array: folds column by column, each a skewed tile of results.

    Attributes:
        tile_rows, last_rows: results down a fold, and down the last row fold.
        tile_columns, last_columns: across a fold, and across the last column fold.
        row_folds, column_folds, length: of the layer; cycles of a fold.
        first: cycle of a fold at which its first result leaves, if the tile is full.
    """

    tile_rows: int
    last_rows: int
    tile_columns: int
    last_columns: int
    row_folds: int
    column_folds: int
    length: int
    first: int

    @property
    def height(self) -> int:
        """Results down one column of folds."""
        return self.tile_rows * (self.row_folds - 1) + self.last_rows

    @property
    def total(self) -> int:
        """Results written, partial sums included."""
        return self.height * (self.tile_columns * (self.column_folds - 1) + self.last_columns)

    @property
    def lines(self) -> int:
        """Cycles of all folds."""
        return self.row_folds * self.column_folds * self.length

    def _tile(self, column: int, row: int) -> tuple[int, int, int]:
        """(rows, columns, first cycle) of a fold; a tile that is not full leaves later."""
        width = self.last_columns if column == self.column_folds - 1 else self.tile_columns
        height = self.last_rows if row == self.row_folds - 1 else self.tile_rows
        return height, width, self.first + self.tile_rows - height

    def written_by(self, line: int) -> int:
        """Results that have left by the end of a cycle; stalls are not counted."""
        if line < 0:
            return 0
        if line >= self.lines:
            return self.total
        fold, cycle = divmod(line, self.length)
        column, row = divmod(fold, self.row_folds)
        height, width, first = self._tile(column, row)
        before = column * self.tile_columns * self.height + row * self.tile_rows * width
        return before + cells_by(cycle - first, height, width)

    def line_of(self, word: int) -> int:
        """Cycle in which the result with this number (from 0) leaves; stalls are not counted."""
        full_column = self.tile_columns * self.height
        column = min(word // full_column, self.column_folds - 1)
        word -= column * full_column
        width = self._tile(column, 0)[1]
        row = min(word // (self.tile_rows * width), self.row_folds - 1)
        word -= row * self.tile_rows * width
        height, width, first = self._tile(column, row)
        fold = column * self.row_folds + row
        return fold * self.length + first + _skewed_line(word, height, width)


Count = TypeVar("Count", int, Array)


def cells_by(line: Count, height: int, width: int) -> Count:
    """Cells (t, j) of a height×width tile with t + j ≤ line."""

    def triangle(side: Count) -> Count:
        side = (side + abs(side)) // 2  # none if negative
        return side * (side + 1) // 2

    return (
        triangle(line + 1)
        - triangle(line + 1 - height)
        - triangle(line + 1 - width)
        + triangle(line + 1 - height - width)
    )


def _skewed_line(word: int, height: int, width: int) -> int:
    """t + j of a cell, given its number (from 0) in the order of t + j: inverts `cells_by`."""
    short, long = min(height, width), max(height, width)
    growing = short * (short + 1) // 2
    if word < growing:
        return (math.isqrt(8 * word + 1) + 1) // 2 - 1
    if word < growing + (long - short) * short:
        return short + (word - growing) // short
    left = height * width - word - 1
    return height + width - 2 - (math.isqrt(8 * left + 1) - 1) // 2


class WriteBuffer:
    """Follows the results of a layer through the write buffer.

    Attributes:
        stalls: cycles waited so far, by anyone: whoever else stalls the array adds to it.
        to_dram: words that have left.
    """

    def __init__(self, profile: Profile, buffer_kb: int, bandwidth: int) -> None:
        self.stalls = 0
        self.to_dram = 0
        self._profile = profile
        self._half = HALF_KB * buffer_kb
        self._free = 2 * self._half
        self._bandwidth = bandwidth
        self._drain_lines = -(-self._half // bandwidth)
        self._drain_end = 0
        self._written = 0
        self._filled = 0  # words in the line being filled
        self._lines = 0
        self._drained = 0
        self._steps = 0
        self._missing: dict[int, int] = {}  # line closed early → words it lacks

    def advance(self, end: int) -> int:
        """Write the results of all cycles before `end`.

        Returns:
            How long those of the last cycle waited; what earlier ones waited is in `stalls`.
        """
        goal = self._profile.written_by(end - 1)
        waiting, waited = -1, 0
        while self._written < goal:
            self._steps += STEP_COST
            check_followed(self._steps)
            line = self._profile.line_of(self._written)
            if line != waiting:
                self.stalls += waited
                waited = 0
            now = self.stalls + line + waited
            # Those of a cycle in which somebody waited are later than what `stalls` tells.
            bound = min(goal, self._profile.written_by(line)) if waited else goal
            if now < self._drain_end:
                if not waited:
                    drained = self._profile.written_by(self._drain_end - self.stalls - 1)
                    bound = min(bound, drained)
                self._store(min(max(self._free, 1), bound - self._written))
                if self._free <= 0:
                    waiting = self._profile.line_of(self._written - 1)
                    waited = self._drain_end - self.stalls - waiting
            else:
                self._store(min(max(self._free - self._half + 1, 1), bound - self._written))
                if self._free < self._half:
                    last = self._profile.line_of(self._written - 1)
                    self._drain(self.stalls + last + waited)
        if waiting < end - 1:
            self.stalls += waited
            return 0
        return waited

    def empty(self) -> None:
        """Let all leave that is left."""
        while self._filled or self._drained < self._lines:
            self._drain(0)

    def _store(self, words: int) -> None:
        self._written += words
        self._free -= words
        lines, self._filled = divmod(self._filled + words, self._bandwidth)
        self._lines += lines

    def _drain(self, start: int) -> None:
        if self._filled:
            self._missing[self._lines] = self._bandwidth - self._filled
            self._lines += 1
            self._filled = 0
        lines = min(self._drain_lines, self._lines - self._drained)
        self._drained += lines
        words = lines * self._bandwidth - self._missing.get(self._drained - 1, 0)
        self.to_dram += words
        self._free += words
        self._drain_end = start + lines - 1
