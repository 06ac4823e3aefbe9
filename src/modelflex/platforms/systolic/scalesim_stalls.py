"""Stalls of SCALE-Sim 3.0.0 at a finite bandwidth: misses of both operands and full write buffers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from modelflex.platforms.systolic.scalesim_limits import check_followed
from modelflex.platforms.systolic.scalesim_prefetch import Misses
from modelflex.platforms.systolic.scalesim_writes import STEP_COST, Profile, WriteBuffer

PIECE = 2**16
"""Events that are taken up together."""


class Timing(NamedTuple):
    """Cycles with stalls, stalls, and words written to DRAM."""

    cycles: int
    stalls: int
    dram_ofmap: int


class _Channel:
    """Fetches half a buffer ahead, time and again, each fetch `step` cycles after the one before."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._ready = -1

    def stall(self, now: int, moves: int) -> int:
        """Cycles that a miss takes beyond a hit; SCALE-Sim adds what a fetch is late twice."""
        served = now + 1
        # From the second fetch on, (ready − served) repeats after every two of them.
        singly = moves if moves < 4 else 2 + moves % 2
        for _ in range(singly):
            self._ready += self._step
            late = self._ready - served
            served += 2 * late if late > 0 else late
        rest = (moves - singly) * self._step
        self._ready += rest
        return served + rest - now - 1


def _events(last: int, found: list[Misses]) -> Iterator[tuple[int, ...]]:
    """(cycle, moves of each operand) of cycles in which one misses, and of the last one."""
    cycle = np.unique(np.concatenate([np.array([last]), *(misses.cycle for misses in found)]))
    moves = np.zeros((len(found), len(cycle)), np.int64)
    for row, misses in zip(moves, found, strict=True):
        row[np.searchsorted(cycle, misses.cycle)] = misses.moves
    for start in range(0, len(cycle), PIECE):
        piece = slice(start, start + PIECE)
        yield from zip(cycle[piece].tolist(), *moves[:, piece].tolist(), strict=True)


def timing(
    ofmap: Profile, buffer_kb: int, bandwidth: int, reads: list[tuple[Misses, int]]
) -> Timing:
    """Run a layer.

    Args:
        ofmap: when results leave the array.
        buffer_kb, bandwidth: of the write buffer.
        reads: for each operand its misses, and cycles from one fetch to the next.

    Raises:
        UserError: too many misses or drains to follow.
    """
    check_followed(STEP_COST * sum(len(found.cycle) for found, _ in reads))
    writes = WriteBuffer(ofmap, buffer_kb, bandwidth)
    channels = [_Channel(step) for _, step in reads]
    cycles = 0
    for cycle, *moves in _events(ofmap.lines - 1, [found for found, _ in reads]):
        waited = writes.advance(cycle)
        writes.stalls += waited
        now = cycle + writes.stalls
        waits = [
            channel.stall(now, count)
            for channel, count in zip(channels, moves, strict=True)
            if count
        ]
        written = writes.advance(cycle + 1)
        writes.stalls += max(written, *waits) if waits else written
        cycles = now + written
    writes.empty()
    return Timing(cycles, writes.stalls, writes.to_dram)
