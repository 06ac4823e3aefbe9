"""Ragged sequences: many recordings of different lengths in one array."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array


@dataclass(frozen=True, eq=False)
class Sequences:
    """Recordings one after another.

    Attributes:
        x: float32 [ΣT, F].
        lengths: int64 [N], each ≥ 1, summing to ΣT.
        y: targets: [N] or [ΣT] class numbers, [N, K] or [ΣT, K] values, or None.
    """

    x: Array
    lengths: Array
    y: Array | None = None

    @property
    def count(self) -> int:
        """How many recordings."""
        return int(self.lengths.size)

    @property
    def steps(self) -> int:
        """Time steps of all recordings."""
        return int(self.lengths.sum())

    @property
    def mean_length(self) -> float:
        """Mean time steps of a recording."""
        return float(self.lengths.mean())

    def take(self, indices: Array) -> Sequences:
        """The recordings `indices`, in that order."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in indices])
        y = self.y
        if y is not None:
            y = y[rows] if y.shape[0] == self.x.shape[0] != self.count else y[indices]
        return Sequences(self.x[rows], self.lengths[indices], y)

    @property
    def digests(self) -> list[bytes]:
        """SHA-256 of every recording's inputs, to find one in other data."""
        pieces = np.split(self.x, np.cumsum(self.lengths)[:-1])
        return [hashlib.sha256(np.ascontiguousarray(p).tobytes()).digest() for p in pieces]

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        sha = hashlib.sha256()
        for array in (self.x, self.lengths, self.y):
            if array is not None:
                sha.update(f"{array.dtype}{array.shape}".encode())
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()
