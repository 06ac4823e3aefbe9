"""The order in which SCALE-Sim 3.0.0 asks for operands, and in which it fetches them ahead.

Folds run column by column, the row folds of a column one after the other, each for `length` cycles.
An operand either moves through the array or is held in it:

- one that moves is a stack of blocks, a block for each row fold (for each column fold if it is the
  os filter); a fold asks for a block skewed: for the word in row t and column j in cycle t + j;
- one that is held (ws filter, is ifmap) is asked for once, a row in a cycle, from the last row of a
  fold to its first.

They are fetched block below block: one that moves along the diagonals of the whole stack, one that
is held row by row. So what one cycle asks for are neighbours in the order of fetching.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.closed_forms import Dataflow, folds, mapped
from modelflex.platforms.systolic.scalesim_limits import check_followed
from modelflex.platforms.systolic.scalesim_writes import Profile, cells_by


class Runs(NamedTuple):
    """What cycles ask for: words [start, stop) in the order of fetching, cycles ascending."""

    cycle: Array
    start: Array
    stop: Array


class Moving(NamedTuple):
    """An operand that moves through the array.

    Attributes:
        blocks, height: their number and rows.
        width, last: columns of a block, and of the last one, which is padded to the width.
        group, repeats: so many blocks in a row are asked for so many times, then the next group.
        first: cycle of a fold in which it is asked for the first time.
        length: cycles of a fold.
    """

    blocks: int
    height: int
    width: int
    last: int
    group: int
    repeats: int
    first: int
    length: int

    @property
    def padded(self) -> int:
        """Places in the fetching order, padding included."""
        return self.blocks * self.height * self.width

    @property
    def columns(self) -> int:
        """Of all blocks, without the padding."""
        return (self.blocks - 1) * self.width + self.last

    @property
    def words(self) -> int:
        """Without the padding."""
        return self.columns * self.height

    @property
    def cycles_of_pass(self) -> int:
        """Cycles of a pass in which something is asked for."""
        return self.group * (self.height + self.width - 1)

    def passes(self) -> Iterator[tuple[int, int]]:
        """(group, cycle in which it starts), in order."""
        cycles, passes = self.group * self.length, self.blocks // self.group * self.repeats
        check_followed(passes)
        for number in range(passes):
            yield number // self.repeats, number * cycles

    def runs(self, group: int) -> Runs:
        """What one pass asks for; cycles count from its start."""
        block = np.arange(group * self.group, (group + 1) * self.group)[:, None]
        cycle = np.arange(self.height + self.width - 1)
        width = np.where(block == self.blocks - 1, self.last, self.width)
        left = np.maximum(cycle - self.height + 1, 0)
        right = np.minimum(cycle, width - 1)
        diagonal = block * self.height + cycle
        start = self._before(diagonal) + self._left_of(diagonal, left)
        when = (block - block[0]) * self.length + self.first + cycle
        asked = right >= left
        return Runs(when[asked], start[asked], (start + right - left + 1)[asked])

    def _before(self, diagonal: Array) -> Array:
        """Words on the diagonals before one: those of all places but the last block's padding."""
        height = self.blocks * self.height
        padding = diagonal - (height - self.height) - self.last
        return cells_by(diagonal - 1, height, self.width) - cells_by(
            padding - 1, self.height, self.width - self.last
        )

    def _left_of(self, diagonal: Array, column: Array) -> Array:
        """Words on a diagonal left of a column; the last block's rows come first, and are shorter."""
        leftmost = np.maximum(diagonal - self.blocks * self.height + 1, 0)
        # The diagonal lies in the last block up to this column, and on padding from `last` on.
        last_block = np.minimum(diagonal - (self.blocks - 1) * self.height + 1, column)
        padding = np.maximum(last_block - np.maximum(leftmost, self.last), 0)
        return column - leftmost - padding


class Held(NamedTuple):
    """An operand that is held in the array.

    Attributes:
        height, columns: of the operand.
        rows, width: of a fold.
        length: cycles of a fold.
    """

    height: int
    columns: int
    rows: int
    width: int
    length: int

    @property
    def padded(self) -> int:
        """Places in the fetching order, padding included."""
        return -(-self.columns // self.width) * self.width * self.height

    @property
    def words(self) -> int:
        """Without the padding."""
        return self.columns * self.height

    @property
    def cycles_of_pass(self) -> int:
        """Cycles of the pass in which something is asked for."""
        return -(-self.columns // self.width) * self.height

    def passes(self) -> Iterator[tuple[int, int]]:
        """(group, cycle in which it starts): all of it is one pass."""
        yield 0, 0

    def runs(self, group: int) -> Runs:
        """What the pass asks for."""
        column, row, cycle = (x.ravel() for x in np.broadcast_arrays(*self.cells()))
        left = column * self.width
        width = np.minimum(self.columns - left, self.width)
        start = left * self.height + row * width
        return Runs(cycle, start, start + width)

    def cells(self) -> tuple[Array, Array, Array]:
        """(column fold, row of the operand, cycle), in the order of cycles; they broadcast."""
        column = np.arange(-(-self.columns // self.width))[:, None]
        row = np.arange(self.height)
        # Within each fold of rows, the last one comes first.
        fold = row // self.rows
        row = (
            fold * self.rows
            + np.minimum(self.rows, self.height - fold * self.rows)
            - 1
            - row % self.rows
        )
        row_folds = -(-self.height // self.rows)
        return (
            column,
            row,
            (column * row_folds + fold) * self.length + self.rows - 1 - row % self.rows,
        )


class Job(NamedTuple):
    """A product M×N×K on an array of R rows × C columns, and its folds."""

    dataflow: Dataflow
    m: int
    n: int
    k: int
    rows: int
    columns: int
    row_folds: int
    column_folds: int
    length: int

    @property
    def ifmap(self) -> Moving | Held:
        """How the ifmap is asked for."""
        if self.dataflow == "is":
            return Held(self.k, self.m, self.rows, self.columns, self.length)
        return self._along_rows()

    @property
    def filter(self) -> Moving | Held:
        """How the filter is asked for."""
        if self.dataflow == "ws":
            return Held(self.k, self.n, self.rows, self.columns, self.length)
        if self.dataflow == "is":
            return self._along_rows()
        last = self.n - (self.column_folds - 1) * self.columns
        group = self.column_folds if self.row_folds == 1 else 1
        return Moving(
            self.column_folds, self.k, self.columns, last, group, self.row_folds, 0, self.length
        )

    @property
    def ofmap(self) -> Profile:
        """When results leave."""
        down, across, time = self._sizes
        last_columns = across - (self.column_folds - 1) * self.columns
        cut = (self.row_folds, self.column_folds, self.length)
        if self.dataflow == "os":
            last_rows = down - (self.row_folds - 1) * self.rows
            return Profile(self.rows, last_rows, self.columns, last_columns, *cut, time - 1)
        return Profile(time, time, self.columns, last_columns, *cut, 2 * self.rows - 1)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        sizes = mapped(self.dataflow, np.array(self.m), np.array(self.n), np.array(self.k))
        down, across, time = (int(x) for x in sizes)
        return down, across, time

    def _along_rows(self) -> Moving:
        down, _, time = self._sizes
        last = down - (self.row_folds - 1) * self.rows
        first = 0 if self.dataflow == "os" else self.rows
        return Moving(
            self.row_folds,
            time,
            self.rows,
            last,
            self.row_folds,
            self.column_folds,
            first,
            self.length,
        )


def job(dataflow: Dataflow, m: int, n: int, k: int, rows: int, columns: int) -> Job:
    """Fold a product."""
    cut = folds(dataflow, np.array(m), np.array(n), np.array(k), rows, columns)
    return Job(dataflow, m, n, k, rows, columns, *(int(x) for x in cut))
