"""Windows: one weight applied at many positions of a vector, as the kernel of a convolution is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array

MAX_TAPS = 1 << 24
"""Positions times inputs of one product."""
GATHERED = 1 << 22
"""Numbers that are gathered at once at most (one row may be more), which bounds memory."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Which elements of a vector (a map) a weight is multiplied with, position by position.

    Attributes:
        taps: int64 [positions, in], the element that is each input of the weight; −1 stands for a 0
            beside the map.
        size: elements of the map.
    """

    taps: Array
    size: int

    @property
    def positions(self) -> int:
        """How often the weight is applied."""
        return int(self.taps.shape[0])

    def gather(self, maps: Array) -> Array:
        """What the weight sees of maps [rows, size]: [rows, positions, in]."""
        beside = np.zeros((maps.shape[0], 1), maps.dtype)
        return np.concatenate([maps, beside], axis=1)[:, self.taps]

    def scatter(self, seen: Array) -> Array:
        """The transpose of `gather`: [rows, positions, in] summed into maps [rows, size]."""
        maps = np.zeros((self.size + 1, seen.shape[0]), seen.dtype)
        np.add.at(maps, self.taps.ravel(), seen.reshape(seen.shape[0], -1).T)
        return np.ascontiguousarray(maps[:-1].T)

    def pieces(self, rows: int) -> Iterator[slice]:
        """Rows that may be gathered together."""
        step = max(1, GATHERED // self.taps.size)
        return (slice(start, start + step) for start in range(0, rows, step))

    def spread_norms(self, norms: Array) -> Array:
        """‖·‖ of everything that an element of the map is multiplied with, from that of the columns.

        Args:
            norms: of the weight's columns, float64 [in].
        """
        squares = np.broadcast_to(norms**2, (1, *self.taps.shape))
        return np.sqrt(self.scatter(squares)[0])


def pointwise(channels: int, positions: int) -> Windows:
    """Every position of a map [channels, positions] by itself: so a windowed product's result is read."""
    taps = np.arange(channels * positions).reshape(channels, positions).T
    return Windows(taps, channels * positions)
