"""Time-major packing of ragged sequences: the rows of one time step lie together.

Sequences are sorted by falling length, so the sequences alive at step t are the first ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the rows of sequences go.

    Attributes:
        order: [N] original numbers of the sequences, longest first.
        alive: [T_max] how many sequences have a step t.
        offsets: [T_max + 1] first packed row of every step.
        rows: [ΣT] original row of every packed row.
    """

    order: Array
    alive: Array
    offsets: Array
    rows: Array

    def pack(self, x: Array) -> Array:
        """[ΣT, n] in the order of the sequences → time-major."""
        return x[self.rows]

    def unpack(self, packed: Array) -> Array:
        """The inverse of `pack`."""
        out = np.empty_like(packed)
        out[self.rows] = packed
        return out


def make_packing(lengths: Array) -> Packing:
    """The packing of sequences of `lengths` [N] that lie one after another."""
    order = np.argsort(-lengths, kind="stable")
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    steps = np.arange(int(lengths.max()))
    alive = lengths.size - np.searchsorted(np.sort(lengths), steps, side="right")
    rows = np.concatenate([starts[order[:n]] + t for t, n in zip(steps, alive, strict=True)])
    return Packing(order, alive, np.concatenate([[0], np.cumsum(alive)]), rows)
