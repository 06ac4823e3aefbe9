"""DRAM reads of SCALE-Sim 3.0.0 when the bandwidth is not limited (CALC).

A read buffer collects the distinct words that are asked for and is emptied when W = 50·⌊kB·1024/100⌋
are in. DRAM reads are the words that were not in. Where that happens twice in one cycle, which
takes an array wider than W, SCALE-Sim ends with a division by zero; here the rule goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.scalesim_limits import check_followed

KB = 1024
SETS = 100
"""A buffer consists of so many sets, and half of them serve."""


def capacity(buffer_kb: Array) -> Array:
    """W: a read buffer is emptied when so many words are in."""
    return SETS // 2 * (buffer_kb * KB // SETS)


def swept(words: Array, sweeps: Array, buffer_kb: Array) -> Array:
    """Reads of an operand whose words are asked for in the same order `sweeps` times.

    One that reaches W words has lost each of them when it comes again.
    """
    return words * np.where(words < capacity(buffer_kb), 1, sweeps)


def swept_in_blocks(
    block: Array, last: Array, blocks: Array, sweeps: Array, buffer_kb: Array
) -> Array:
    """Reads of an operand in blocks, each asked for `sweeps` times in a row before the next one.

    Args:
        block, last: words of a block, and of the last one.
        blocks: their number, the last one included.
        sweeps: of each block.
        buffer_kb: size of the read buffer.

    The fill level is carried on: a block of b < W words at a fill f with f + b ≥ W empties the
    buffer in its first sweep and brings the W − f words before that again in its second one.
    """
    w, full = capacity(buffer_kb), blocks - 1
    # q full blocks fill the buffer once; after that every q-th one finds it filled to q·b.
    fitting = np.maximum((w - 1) // block, 1)
    overflows = np.maximum(full - 1, 0) // fitting
    level = np.where(full > 0, (full - 1) % fitting + 1, 0) * block
    small = full * block + overflows * (w - fitting * block)
    large = full * block * sweeps
    fits = block < w
    level = np.where(fits, level, large % w)
    ending = np.where(level + last < w, last, last + w - level)
    reads = np.where(fits, small, large) + np.where(last < w, ending, last * sweeps)
    return np.where(sweeps == 1, full * block + last, reads)


def streamed(
    demand: Callable[[], Iterator[Array]], words: int, distinct: int, sweeps: int, buffer_kb: int
) -> int:
    """Reads of an operand that asks for words again within a sweep.

    Args:
        demand: addresses of a sweep, in order, in pieces.
        words: addresses are below it.
        distinct: words that a sweep asks for.
        sweeps: how often.
        buffer_kb: size of the read buffer.

    Raises:
        UserError: too many words to follow them.
    """
    w = int(capacity(np.array(buffer_kb)))
    if distinct < w:
        return distinct
    check_followed(words)
    buffer = _Buffer(words, w)
    # A sweep asks for W words or more, so it empties the buffer at least once: where it did so
    # last tells what is in at its end, and sweeps repeat from there on.
    reads = [0]
    seen: dict[int, int] = {}
    for sweep in range(1, sweeps + 1):
        buffer.sweep(demand())
        reads.append(buffer.reads)
        if buffer.emptied_at in seen:
            since = seen[buffer.emptied_at]
            again, rest = divmod(sweeps - sweep, sweep - since)
            return (
                reads[sweep]
                + again * (reads[sweep] - reads[since])
                + reads[since + rest]
                - reads[since]
            )
        seen[buffer.emptied_at] = sweep
    return reads[-1]


class _Buffer:
    """Distinct words since the buffer was last emptied.

    Attributes:
        reads: words brought in so far.
        emptied_at: words of the last sweep before it was emptied for the last time.
    """

    def __init__(self, words: int, capacity: int) -> None:
        self.reads = 0
        self.emptied_at = 0
        self._capacity = capacity
        self._level = 0
        self._filling = 1
        self._brought = np.zeros(words, np.int64)  # in which filling a word came last
        self._place = np.zeros(words, np.int64)

    def sweep(self, pieces: Iterator[Array]) -> None:
        """Ask for the words of a sweep."""
        asked = 0
        for piece in pieces:
            start = 0
            while start < len(piece):
                emptied = self._ask(piece[start : start + max(self._capacity, 4096)])
                if emptied:
                    start += emptied
                    self.emptied_at = asked + start
                else:
                    start += max(self._capacity, 4096)
            asked += len(piece)

    def _ask(self, addresses: Array) -> int:
        """How many words were asked for when the buffer was emptied; 0: it was not."""
        absent = np.flatnonzero(self._brought[addresses] != self._filling)
        candidates = addresses[absent]
        self._place[candidates[::-1]] = np.arange(len(absent) - 1, -1, -1)
        absent = absent[self._place[candidates] == np.arange(len(absent))]
        room = self._capacity - self._level
        if len(absent) < room:
            self._brought[addresses[absent]] = self._filling
            self._level += len(absent)
            self.reads += len(absent)
            return 0
        self.reads += room
        self._level = 0
        self._filling += 1
        return int(absent[room - 1]) + 1
