"""Times of contenders that take turns, with warm and with cold caches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from _runtime_case import SEQUENCE_STEPS, Contender

EVICT_BYTES = 64 << 20
WARM_UP = 2
"""Untimed steps before every block: the other contenders have used the caches in between."""
BLOCK_S = 2e-3
"""Seconds that a block takes at least: steps of a microsecond are not warm after some tens of them."""


def warm(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Seconds a step of every contender in every round, mean over a block: as many turns of the ring, or
    sequences, as take `BLOCK_S`.

    Every round runs a block of each contender, beginning with another one.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    blocks = [[*one.tokens] * _turns(one) for one in contenders]
    for turn in range(rounds):
        for k in range(len(contenders)):
            i = (k + turn) % len(contenders)
            one = contenders[i]
            one.run(one.tokens[:WARM_UP])
            start = time.perf_counter()
            one.run(blocks[i])
            taken = time.perf_counter() - start
            seconds[i].append(taken / (steps(one) * len(blocks[i]) / len(one.tokens)))
    return seconds


def _turns(one: Contender) -> int:
    start = time.perf_counter()
    one.run(one.tokens)
    return max(1, math.ceil(BLOCK_S / (time.perf_counter() - start)))


def cold(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Seconds of single steps, after a buffer larger than all caches was written."""
    other = np.zeros(EVICT_BYTES // 8)
    seconds: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds):
        for one, found in zip(contenders, seconds, strict=True):
            # Tokens alternate between two sets of buffers.
            token = one.tokens[turn % 2 : turn % 2 + 1]
            other += 1.0
            start = time.perf_counter()
            one.run(token)
            found.append(time.perf_counter() - start)
    return seconds


def steps(one: Contender) -> int:
    """Steps of a turn of the ring, or of the sequence."""
    return len(one.tokens) if one.mode == "step" else SEQUENCE_STEPS


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Minimum, median and 90th percentile in µs, and how many there are."""
    return {
        "min_us": round(1e6 * min(seconds), 4),
        "median_us": round(1e6 * statistics.median(seconds), 4),
        "p90_us": round(1e6 * float(np.quantile(seconds, 0.9)), 4),
        "repetitions": len(seconds),
    }
