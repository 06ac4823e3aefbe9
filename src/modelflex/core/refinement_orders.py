"""Orders in which a plain product may be computed and cut short: the rivals of sums of rank-1 terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

MAX_BITS = 16


@final
@dataclass(frozen=True, eq=False)
class EntryOrder:
    """Entries of a matrix that are multiplied piece by piece.

    Attributes:
        entries: float64 [R, C].
        piece: int64 [R, C], the piece that each entry belongs to; −1 for those that are never read.
    """

    entries: Array
    piece: Array

    @property
    def count(self) -> int:
        """Pieces in all."""
        return int(self.piece.max(initial=-1)) + 1

    def matrix(self, pieces: int) -> Array:
        """What the first pieces mean, float64 [R, C]."""
        return np.where((self.piece >= 0) & (self.piece < pieces), self.entries, 0.0)

    def operations(self, pieces: int) -> int:
        """Multiplications and additions of the first pieces."""
        return 2 * int(np.count_nonzero((self.piece >= 0) & (self.piece < pieces)))


def row_tiles(matrix: Array, groups: int = 1) -> EntryOrder:
    """A row of every group at a time (a unit of a cell), in the order of the matrix."""
    rows, columns = matrix.shape
    if groups < 1 or rows % groups:
        raise UserError(f"{rows} rows in {groups} groups", "groups of equal size")
    number = np.tile(np.arange(rows // groups), groups)
    return EntryOrder(matrix, np.repeat(number[:, None], columns, axis=1))


def column_tiles(matrix: Array) -> EntryOrder:
    """A column at a time, in the order of the matrix."""
    rows, columns = matrix.shape
    return EntryOrder(matrix, np.repeat(np.arange(columns)[None, :], rows, axis=0))


def largest_rows(matrix: Array, kept: int) -> EntryOrder:
    """Rows cut to their `kept` largest numbers ("structured" pruning of Rizakis et al., ARC 2018),
    those with the most energy left first.

    Raises:
        UserError: `kept` is not 1 … C.
    """
    rows, columns = matrix.shape
    if not 1 <= kept <= columns:
        raise UserError(f"each row keeps {kept} of {columns} numbers", f"1 … {columns}")
    chosen = np.argsort(-np.abs(matrix), axis=1, kind="stable")[:, :kept]
    energy = np.square(np.take_along_axis(matrix, chosen, axis=1)).sum(axis=1)
    place = np.empty(rows, np.int64)
    place[np.argsort(-energy, kind="stable")] = np.arange(rows)
    piece = np.full(matrix.shape, -1, np.int64)
    np.put_along_axis(piece, chosen, np.repeat(place[:, None], kept, axis=1), axis=1)
    return EntryOrder(matrix, piece)


@final
@dataclass(frozen=True, eq=False)
class BitPlanes:
    """Codes of sign and magnitude with a scale a row, one bit of all magnitudes at a time, from the most
    significant.

    Attributes:
        codes: int64 [R, C].
        scale: float64 [R].
        count: bits of the magnitudes.
    """

    codes: Array
    scale: Array
    count: int

    def _cut(self, planes: int) -> Array:
        low = self.count - planes
        return (np.abs(self.codes) >> low) << low

    def matrix(self, planes: int) -> Array:
        """What the first planes mean, float64 [R, C]; the missing bits count half of their range,
        so that what is left has no bias.
        """
        cut = self._cut(planes)
        middle = np.where(cut > 0, ((1 << (self.count - planes)) - 1) / 2, 0.0)
        return np.asarray(np.sign(self.codes) * (cut + middle) * self.scale[:, None])

    def operations(self, planes: int) -> int:
        """Additions: one for every bit that is set, and a shift and an addition for every row and plane."""
        return int(np.sum(np.bitwise_count(self._cut(planes)))) + 2 * planes * len(self.codes)


def bit_planes(matrix: Array, bits: int = 8) -> BitPlanes:
    """A matrix rounded to `bits` bits (sign included) with a scale a row.

    Raises:
        UserError: fewer than 2 bits or more than 16.
    """
    if not 2 <= bits <= MAX_BITS:
        raise UserError(f"bit planes of {bits} bits", f"2 … {MAX_BITS}")
    top = (1 << (bits - 1)) - 1
    peak = np.abs(matrix).max(axis=1, initial=0.0)
    scale = np.where(peak > 0, peak, 1.0) / top
    return BitPlanes(np.rint(matrix / scale[:, None]).astype(np.int64), scale, bits - 1)
