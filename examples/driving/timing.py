"""Time the LSTM's steps in compiled code on this machine, and give them real deadlines.

    python examples/driving/timing.py [--data FOLDER] [--steps 2000]

Adds "times" (median µs of a step with so many terms) and "deadlines" (what steps with a deadline gave, on
the test clips) and "deadline_drives" to results.json. The encoder is not part of these steps. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from approximations import Decomposed, prefixes, progressive_model
from clips import data_folder
from drive import drive_all, drive_worlds
from measure import STEPS, decompositions, told, update_results
from recurrent import Encoder, divergences, load_features, load_recurrent, probabilities
from roads import Bytes, Floats
from simulator import ACTIONS

import modelflex
from modelflex.execute.native import Runtime

TIMED = (
    "published, NZ = 130",
    "published, NZ = 520",
    "published, NZ = 4160",
    "data-aware, actions",
)
BLOCK = 40
"""Steps of one model before the next is timed."""
DEADLINES_S = (5e-6, 1e-5, 2e-5, 3e-5, 5e-5, 1e-4, 2e-4)
DRIVEN_DEADLINES_S = (1e-5, 2e-5, 3e-5, 5e-5, 1e-4)
DRIVEN = "data-aware, all outputs"
CLIPS = 20


def time_steps(
    runtimes: dict[str, Runtime], terms: dict[str, list[int]], x: Floats, steps: int
) -> list[dict[str, Any]]:
    """Median time of a step of every model with every number of terms, models in turns."""
    cases: list[tuple[str, int | None]] = [("dense", None)]
    cases += [(name, n) for name in terms for n in terms[name]]
    times: dict[tuple[str, int | None], list[float]] = {case: [] for case in cases}
    for _ in range(max(1, steps // BLOCK)):
        for name, n in cases:
            runtime = runtimes[name]
            options = {} if n is None else {"terms": n}
            for row in x[:BLOCK]:
                started = time.perf_counter_ns()
                runtime.step(row, **options)
                times[name, n].append((time.perf_counter_ns() - started) / 1e3)
    return [
        {
            "of": name,
            "terms": n,
            "median_us": float(np.median(found)),
            "p99_us": float(np.quantile(found, 0.99)),
        }
        for (name, n), found in times.items()
    ]


def give_deadlines(runtime: Runtime, features: Floats, exact: Floats) -> list[dict[str, Any]]:
    """Every step of some clips under one deadline after the other."""
    rows = []
    for deadline in DEADLINES_S:
        terms, took, outputs = [], [], np.empty_like(exact)
        for clip, part in enumerate(features):
            runtime.reset()
            for step, row in enumerate(part):
                started = time.perf_counter_ns()
                answer = runtime.step(row, deadline_s=deadline)
                took.append((time.perf_counter_ns() - started) / 1e9)
                terms.append(sum(answer.terms.values()))
                outputs[clip, step] = answer.y
        kl = divergences(exact, outputs)
        same = outputs[..., : len(ACTIONS)].argmax(-1) == exact[..., : len(ACTIONS)].argmax(-1)
        rows.append(
            {
                "deadline_us": deadline * 1e6,
                "terms": float(np.mean(terms)),
                "took_median_us": float(np.median(took) * 1e6),
                "took_p99_us": float(np.quantile(took, 0.99) * 1e6),
                "kl": float(kl.mean()),
                "same_action": float(same.mean()),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


class DeadlinePolicy:
    """Encoder, and a stream of the compiled LSTM for each drive, every step of it under a deadline."""

    def __init__(self, encoder: Encoder, runtime: Runtime, deadline_s: float) -> None:
        self.encoder, self.runtime, self.deadline_s = encoder, runtime, deadline_s
        self.streams: list[Runtime] = []
        self.terms: list[int] = []

    def __call__(self, frames: Bytes, scalars: Floats) -> tuple[Floats, Floats]:
        if not self.streams:
            self.streams = [self._stream() for _ in frames]
        outputs = []
        for stream, row in zip(self.streams, self.encoder(frames, scalars), strict=True):
            answer = stream.step(row, deadline_s=self.deadline_s)
            self.terms.append(sum(answer.terms.values()))
            outputs.append(answer.y)
        y = np.stack(outputs)
        return probabilities(y), y[:, len(ACTIONS) :]

    def _stream(self) -> Runtime:
        """A stream that has made its first step, which takes longer, and forgotten it."""
        stream = self.runtime.stream()
        stream.step(np.zeros(stream.inputs, np.float32), terms=1)
        stream.reset()
        return stream


def drive_deadlines(folder: Path, runtime: Runtime, count: int) -> list[dict[str, Any]]:
    """Closed-loop drives with a deadline for every step."""
    encoder, worlds, rows = Encoder(folder), drive_worlds(count), []
    for deadline in DRIVEN_DEADLINES_S:
        policy = DeadlinePolicy(encoder, runtime, deadline)
        outcomes = drive_all(worlds, policy, STEPS)
        mean = float(np.mean(policy.terms))
        rows.append({"deadline_us": deadline * 1e6, "terms": mean, **told(outcomes)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Time the driving LSTM's steps.")
    parser.add_argument("--data", type=Path, help="folder of recordings and trained networks")
    parser.add_argument("--steps", type=int, default=2000, help="timed steps of each case")
    parser.add_argument("--worlds", type=int, default=24, help="worlds of the closed-loop drives")
    options = parser.parse_args()
    folder = data_folder(options.data)
    recurrent = load_recurrent(folder)
    found: dict[str, Decomposed] = decompositions(folder, recurrent)
    features = load_features(folder, "test")[:CLIPS].astype(np.float32)
    runtimes = {"dense": modelflex.compile(progressive_model(recurrent, None))}
    runtimes |= {
        name: modelflex.compile(progressive_model(recurrent, found[name])) for name in TIMED
    }
    terms = {
        name: [step.terms for step in prefixes(recurrent, found[name]) if step.terms is not None]
        for name in TIMED
    }
    driving = modelflex.compile(progressive_model(recurrent, found[DRIVEN]))
    times = time_steps(runtimes, terms, features[0], options.steps)
    deadlines = give_deadlines(runtimes["data-aware, actions"], features, recurrent.run(features))
    update_results(machine=platform.machine(), times=times, deadlines=deadlines)
    update_results(deadline_drives=drive_deadlines(folder, driving, options.worlds))
    for row in times:
        print(f"{row['of']:24} {row['terms'] or '':>4} terms  {row['median_us']:8.1f} µs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
