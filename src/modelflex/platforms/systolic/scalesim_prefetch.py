"""The read buffers of SCALE-Sim 3.0.0 at a finite bandwidth (USER).

The words of an operand, in the order of fetching, are cut into sets of ⌈buffer / 100⌉, which form a
ring. Half a buffer of neighbouring sets serves. A word that is in none of them moves that window on
by half a buffer as often as it takes: which word misses does not depend on time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.scalesim_limits import check_followed
from modelflex.platforms.systolic.scalesim_order import Held, Moving
from modelflex.platforms.systolic.scalesim_reads import KB, SETS
from modelflex.platforms.systolic.scalesim_writes import HALF_KB


class Misses(NamedTuple):
    """Cycles that miss (ascending, stalls not counted), and how often the window moves in each."""

    cycle: Array
    moves: Array


NO_MISSES: Final = Misses(np.zeros(0, np.int64), np.zeros(0, np.int64))
"""Of an operand all of which serves."""


class Ring(NamedTuple):
    """Sets of words, in the order of fetching; the last one may be empty.

    Attributes:
        per_set: words of each.
        sets: their number.
        serving: how many serve.
        ahead: by how many they move at a miss (0: all of them serve).
    """

    per_set: int
    sets: int
    serving: int
    ahead: int

    def moves(self, window: int, sets: Array) -> Array:
        """How often a window moves until it has a set, for sets that it does not have."""
        return ((sets - window) % self.sets - self.serving) // self.ahead + 1


def ring(words: int, buffer_kb: int) -> Ring:
    """Cut an operand into sets for a buffer."""
    per_set = -(-KB * buffer_kb // SETS)
    sets = words // per_set + 1
    half = -(-HALF_KB * buffer_kb // per_set)
    serving = min(half, sets)
    return Ring(per_set, sets, serving, min(half, sets - serving))


Follow = Callable[[int, int], tuple[Misses, int]]
"""(group, window at its start) → its misses, cycles counted from its start; window at its end."""


def misses(passes: Iterator[tuple[int, int]], follow: Follow) -> Misses:
    """The misses of all passes over an operand; a pass that starts with a known window is known."""
    window = 0
    known: dict[tuple[int, int], tuple[Misses, int]] = {}
    cycles, moves, kept = [], [], 0
    for group, start in passes:
        key = group, window
        if key not in known:
            known[key] = follow(group, window)
        found, window = known[key]
        if len(found.cycle):
            cycles.append(found.cycle + start)
            moves.append(found.moves)
            kept += len(found.cycle)
            check_followed(kept)
    if not cycles:
        return NO_MISSES
    return Misses(np.concatenate(cycles), np.concatenate(moves))


def dense(operand: Moving | Held, sets: Ring) -> Follow:
    """An operand each word of which has a place of its own in the order of fetching."""
    check_followed(operand.cycles_of_pass + operand.words // sets.per_set)
    followed = 0

    def follow(group: int, window: int) -> tuple[Misses, int]:
        nonlocal followed
        cycle, number = _sets_asked_for(operand, group, sets.per_set)
        followed += len(number)
        check_followed(followed)
        found: list[tuple[int, int]] = []
        ring_sets, serving, ahead = sets.sets, sets.serving, sets.ahead
        for when, asked in zip(cycle.tolist(), number.tolist(), strict=True):
            distance = (asked - window) % ring_sets
            if distance >= serving:
                moves = (distance - serving) // ahead + 1
                window = (window + moves * ahead) % ring_sets
                found.append((when, moves))
        return as_misses(found), window

    return follow


def as_misses(found: list[tuple[int, int]]) -> Misses:
    """(cycle, moves) in order → arrays; several of one cycle become one."""
    cycle, moves = np.array(found, np.int64).reshape(-1, 2).T
    cycle, first = np.unique(cycle, return_index=True)
    return Misses(cycle, np.add.reduceat(moves, first) if len(first) else moves)


def _sets_asked_for(operand: Moving | Held, group: int, per_set: int) -> tuple[Array, Array]:
    """(cycle, set) in the order of asking; a set that is asked for twice in a row comes once."""
    runs = operand.runs(group)
    first, last = runs.start // per_set, (runs.stop - 1) // per_set
    count = last - first + 1
    before = np.cumsum(count) - count
    number = np.arange(int(count.sum())) + np.repeat(first - before, count)
    changes = np.flatnonzero(np.diff(number, prepend=-1))
    return np.repeat(runs.cycle, count)[changes], number[changes]
