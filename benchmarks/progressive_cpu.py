"""Steps within limits on this CPU: how fast prefixes of terms are, and how well deadlines are kept.

    python benchmarks/progressive_cpu.py [--model FOLDER] [--steps 100000]

The network is one LSTM of the driving model's size, 64 units on 8256 features, whose augmented matrix
[256, 8320] is a sum of dense terms with one v for all gates; its numbers are random unless a model of terms
is given. Times are of whole steps from Python (the input is read and checked, the state moves on),
medians of blocks that take turns in one process. An overrun is the time from the deadline to the return
of the call; steps during which the system switched this thread out, which it counts, are flagged. The
garbage collector is off, as it would be in a control loop.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import figure, write_result

import modelflex
from modelflex.core.fixed import Array, Scale
from modelflex.core.model import Layer, Model
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix, Terms, float_weight
from modelflex.execute.native import Runtime

COMMAND = "python benchmarks/progressive_cpu.py"
UNITS, FEATURES, TERMS = 64, 8256, 62
PREFIXES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 62)
DEADLINES_S = (5e-6, 10e-6, 20e-6, 50e-6)
INPUTS = 16
"""Different inputs, more than the caches near the core hold."""
ROUNDS, BLOCK = 41, 20


def network(weight: Any) -> Runtime:
    """An LSTM with one augmented weight."""
    layers = (Layer("lstm", "augmented_lstm", FEATURES, UNITS),)
    return modelflex.compile(Model("driving", layers, {"lstm.w": weight}, output="values"))


def random_terms(rng: np.random.Generator) -> Terms:
    """Dense terms with one v for all gates."""
    columns = FEATURES + UNITS
    v = rng.normal(size=(TERMS, columns)).astype(np.float32) / np.float32(columns**0.5)
    u = rng.normal(size=(4 * UNITS, TERMS)).astype(np.float32) / TERMS
    bias = Part(np.zeros(4 * UNITS, np.float32), FLOAT_BITS)
    inner = Matrix(Part(v, FLOAT_BITS), None, None, 1, "dense", columns)
    outer = Matrix(Part(u, FLOAT_BITS), bias, None, 4, "dense", TERMS)
    return Terms(inner, outer, 1)


def integers(rng: np.random.Generator, bits: int) -> Matrix:
    """A dense matrix in random codes: its time does not hang on them."""
    top = (1 << (bits - 1)) - 1
    codes = rng.integers(-top, top + 1, (4 * UNITS, FEATURES + UNITS))
    link = Link(8, Scale.nearest(np.array([0.02])))
    part = Part(codes, bits, Scale.nearest(np.full(4 * UNITS, 0.1 / top)))
    return Matrix(part, None, link, 4, "dense", FEATURES + UNITS)


# --- speed ---------------------------------------------------------------------------------------
def medians(calls: Sequence[Callable[[Array], Any]], inputs: Sequence[Array]) -> list[float]:
    """Seconds a step of every call: medians of blocks that take turns."""
    found: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        for k in range(len(calls)):
            i = (k + turn) % len(calls)
            call = calls[i]
            call(inputs[0])
            start = time.perf_counter()
            for n in range(BLOCK):
                call(inputs[n % INPUTS])
            found[i].append((time.perf_counter() - start) / BLOCK)
    return [statistics.median(times) for times in found]


def speeds(weight: Terms, inputs: Sequence[Array]) -> list[dict[str, Any]]:
    """Rows: the dense network in floats and in integers, and prefixes of the terms in floats."""
    rng = np.random.default_rng(1)
    dense = float_weight(weight.dense(), weight.bias_value(), 4)
    runtime, out = network(weight), np.empty(UNITS, np.float32)
    others = {
        "dense float32": dense,
        "dense int8": integers(rng, 8),
        "dense int4": integers(rng, 4),
    }
    calls: list[Callable[[Array], Any]] = []
    for other in others.values():
        step = network(other).step
        calls.append(lambda x, step=step: step(x, out))
    prefixes = [n for n in PREFIXES if n <= weight.count]
    calls += [lambda x, n=n: runtime.step(x, out, terms=n) for n in prefixes]
    seconds = medians(calls, inputs)
    full = 2 * dense.shape[0] * dense.shape[1]
    rows: list[dict[str, Any]] = [
        {"what": what, "terms": None, "operations": full, "step_s": s}
        for what, s in zip(others, seconds, strict=False)
    ]
    for n, s in zip(prefixes, seconds[len(others) :], strict=True):
        rows.append(
            {"what": "terms float32", "terms": n, "operations": weight.operations(n), "step_s": s}
        )
    return [row | {"speedup": seconds[0] / row["step_s"]} for row in rows]


# --- deadlines -----------------------------------------------------------------------------------
def switches() -> int:
    """How often the system has switched this thread out."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_nivcsw + usage.ru_nvcsw


def overruns(
    runtime: Runtime, inputs: Sequence[Array], deadline_s: float, steps: int, term_s: float
) -> dict[str, Any]:
    """A row: the distribution of how long after the deadline `steps` calls returned."""
    step, out, limit = runtime.step, np.empty(UNITS, np.float32), round(deadline_s * 1e9)
    found, used = np.empty(steps, np.int64), np.empty(steps, np.int64)
    flagged = np.zeros(steps, bool)
    for x in inputs:
        step(x, out, deadline_s=deadline_s)
    before = switches()
    for n in range(steps):
        x = inputs[n % INPUTS]
        start = time.perf_counter_ns()
        answer = step(x, out, deadline_s=deadline_s)
        found[n] = time.perf_counter_ns() - start - limit
        after = switches()
        flagged[n], before = after != before, after
        used[n] = answer.operations
    kept = np.sort(found[~flagged])

    def at(share: float) -> float:
        return float(kept[min(kept.size - 1, int(share * kept.size))]) * 1e-9

    return {
        "deadline_s": deadline_s,
        "steps": steps,
        "flagged_share": float(flagged.mean()),
        "overrun_p50_s": at(0.5),
        "overrun_p90_s": at(0.9),
        "overrun_p99_s": at(0.99),
        "overrun_p999_s": at(0.999),
        "overrun_max_s": at(1.0),
        "overrun_max_with_flagged_s": float(found.max()) * 1e-9,
        "term_s": term_s,
        "share_within_one_term": float(np.mean(kept <= term_s * 1e9)),
        "operations_median": int(np.median(used[~flagged])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a saved model whose weight lstm.w has terms")
    parser.add_argument("--steps", type=int, default=100_000, help="steps for each deadline")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    weight = random_terms(rng)
    if given.model is not None:
        found = modelflex.load(given.model).weights["lstm.w"]
        if not isinstance(found, Terms) or found.shape != weight.shape:
            raise SystemExit(f"lstm.w of {given.model} is no sum of terms [256, 8320]")
        weight = found
    inputs = list(rng.normal(size=(INPUTS, FEATURES)).astype(np.float32))
    gc.disable()
    rows = speeds(weight, inputs)
    times = {row["terms"]: row["step_s"] for row in rows if row["terms"] is not None}
    few = min(8, weight.count)
    term_s = (times[few] - times[1]) / (few - 1)
    runtime = network(weight)
    late = [overruns(runtime, inputs, d, given.steps, term_s) for d in DEADLINES_S]
    figures = [
        figure(
            f"overrun of a deadline of {row['deadline_s'] * 1e6:.0f} µs, 99th percentile",
            "reported, without a goal",
            row["overrun_p99_s"],
            "s",
            None,
            COMMAND,
        )
        for row in late
    ]
    write_result("progressive_cpu", {"speeds": rows, "deadlines": late, "figures": figures})
    for row in rows:
        n = "" if row["terms"] is None else row["terms"]
        print(f"{row['what']:14} {n!s:>3}  {row['step_s'] * 1e6:8.2f} µs  {row['speedup']:7.2f}×")
    for row in late:
        print(
            f"deadline {row['deadline_s'] * 1e6:3.0f} µs: p50 {row['overrun_p50_s'] * 1e6:+.2f}, "
            f"p99 {row['overrun_p99_s'] * 1e6:+.2f}, p99.9 {row['overrun_p999_s'] * 1e6:+.2f}, max "
            f"{row['overrun_max_s'] * 1e6:+.2f} µs; flagged {row['flagged_share']:.3%} (max "
            f"{row['overrun_max_with_flagged_s'] * 1e6:+.1f} µs); {row['operations_median']} operations"
        )


if __name__ == "__main__":
    main()
