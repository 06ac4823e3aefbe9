"""Times of steps and of reading memory, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.platform import Stream
from modelflex.platforms.cpu.energy import counters, joules_between, read_uj

BLOCK_S: Final = 1e-4
"""Time of a block of steps: much longer than reading the clock, shorter than a slice of the scheduler."""
ROUNDS: Final = 15
ENERGY_S: Final = 0.5
"""Counters of energy advance about once a millisecond."""
LEAST_STEPS, MOST_STEPS = 200, 20_000
COLD_STEPS: Final = 100
EVICT_BYTES: Final = 64 << 20
"""Written before every cold step: more than caches of today's processors give to one core."""
WARM_UP: Final = 2


def step_function(stream: Stream) -> Callable[[Array], Array]:
    """The step as callers make it: into the same result."""
    step, out = stream.step, np.empty(stream.plan.outputs, np.float32)
    return lambda x: step(x, out)


class Stepper:
    """A stream and inputs that it is fed again and again; `block` gives the mean time of a step."""

    def __init__(self, stream: Stream, inputs: Sequence[Array]) -> None:
        self._step, self._inputs = stream.step, inputs
        self._out = np.empty(stream.plan.outputs, np.float32)
        self._times = 1
        once = min(self.block() for _ in range(3))
        self._times = max(1, round(BLOCK_S / (once * len(inputs))))

    def block(self) -> float:
        """Seconds of a step, its call from Python included, mean over about `BLOCK_S`."""
        step, out, inputs = self._step, self._out, self._inputs
        start = time.perf_counter()
        for _ in range(self._times):
            for x in inputs:
                step(x, out)
        return (time.perf_counter() - start) / (self._times * len(inputs))


def in_turns(steppers: Sequence[Stepper], rounds: int) -> Array:
    """Median over rounds of a step of each, [steppers]: what disturbs for a while disturbs all."""
    return np.median([[stepper.block() for stepper in steppers] for _ in range(rounds)], axis=0)


def read_bytes_per_s(nbytes: int, rounds: int = ROUNDS) -> float:
    """The best rate of a plain loop that reads a buffer of so many bytes again and again: a roof."""
    from modelflex._native import read_loop

    words = np.ones(max(nbytes // 8, 32), np.uint64)

    def loop(passes: int) -> float:
        start = time.perf_counter()
        read_loop(words, passes)
        return (time.perf_counter() - start) / passes

    passes = max(1, round(BLOCK_S / min(loop(1) for _ in range(3))))
    return words.nbytes / min(loop(passes) for _ in range(rounds))


@dataclass(frozen=True)
class Times:
    """Seconds of single steps, the time that it takes to read the clock left out."""

    warm: Array
    cold: Array
    read_bytes_per_s: float


def single_steps(stream: Stream, inputs: Array, weight_bytes: int, seconds: float) -> Times:
    """Times of steps, warm and cold, in turns with the read loop over as many bytes as the weights have."""
    step, clock = step_function(stream), time.perf_counter_ns
    stream.reset()
    estimate = Stepper(stream, list(inputs[:WARM_UP])).block()
    count = int(np.clip(seconds / estimate, LEAST_STEPS, MOST_STEPS))
    warm, rates, at = [], [], 0
    for part in np.array_split(np.arange(count), ROUNDS):
        rates.append(read_bytes_per_s(weight_bytes, 3))
        for _ in range(WARM_UP):
            step(inputs[at % len(inputs)])
        for _ in part:
            x = inputs[at % len(inputs)]
            start = clock()
            step(x)
            warm.append(clock() - start)
            at += 1
    cold, other = [], np.zeros(EVICT_BYTES // 8)
    for _ in range(COLD_STEPS):
        other += 1.0
        x = inputs[at % len(inputs)]
        start = clock()
        step(x)
        cold.append(clock() - start)
        at += 1
    none = np.median([-clock() + clock() for _ in range(1000)])
    made = [np.maximum(np.array(ns) - none, 1) * 1e-9 for ns in (warm, cold)]
    return Times(made[0], made[1], max(rates))


def energy_per_step_j(stream: Stream, inputs: Array) -> float | None:
    """Energy of the processor's packages for a step, with all else that runs on them; None without RAPL."""
    packages, step = counters(), step_function(stream)
    if not packages:
        return None
    steps, end, before = 0, time.perf_counter() + ENERGY_S, read_uj(packages)
    while time.perf_counter() < end:
        for x in inputs:
            step(x)
        steps += len(inputs)
    return joules_between(packages, before, read_uj(packages)) / steps
