"""The driving network's LSTM (R = 64, C = 8320) on this CPU: terms beside the dense product, one thread.

    python examples/driving/train.py --seed 0 --data FOLDER     (about a quarter of an hour, once)
    python benchmarks/progressive_driving.py --data FOLDER

Terms are fitted to three quarters of the pilot clips; the others say how many terms reach a divergence
(with a margin of 20 %) and which setting is the fastest there; the test clips are judged once. Steps of
all contenders alternate, in blocks of 40, on four inputs in turns, which lie in the cache as an encoder
would leave them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
DRIVING = Path(__file__).resolve().parents[1] / "examples" / "driving"
sys.path.insert(0, str(DRIVING))

import numpy as np  # noqa: E402
from _common import figure, machine, write_result  # noqa: E402
from approximations import GATES, Decomposed, fisher_information, progressive_model, seen_by  # noqa: E402
from clips import data_folder  # noqa: E402
from recurrent import Recurrent, divergences, load_features, load_recurrent  # noqa: E402

import modelflex  # noqa: E402
from modelflex.core.data import Sequences  # noqa: E402
from modelflex.core.input_metric import InputMetric  # noqa: E402
from modelflex.core.model import Model  # noqa: E402
from modelflex.core.refinement import decompose  # noqa: E402
from modelflex.execute.native import Runtime  # noqa: E402
from modelflex.progressive.refining import float_terms  # noqa: E402

COMMAND = "python benchmarks/progressive_driving.py"
TARGETS = {0.001: 2.93, 0.1: 50.0}
"""Divergence → how many times faster than the dense product a step is to be: the goals."""
SETTINGS = ((1.0, 1), (0.16, 8), (0.125, 8))
"""Share of each v that is kept, and in what blocks."""
TERMS, MARGIN = 96, 0.8
BLOCK, INPUTS = 40, 4
COUNTS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96)


def fitted(folder: Path, recurrent: Recurrent, fitting: Any) -> dict[tuple[float, int], Decomposed]:
    """The terms of every setting."""
    sample = seen_by(recurrent, fitting)[::2]
    metric, fisher = InputMetric.of(sample), fisher_information(folder, fitting, None)
    made = {}
    for share, block in SETTINGS:
        kept = int(share * recurrent.w.shape[1]) // block * block
        factors = decompose(
            recurrent.w, terms=TERMS, kept=kept, block=block, metric=metric, importance=fisher
        )
        made[share, block] = Decomposed(factors, kept)
        print(f"{100 * share:g} % kept in blocks of {block}: {factors.terms} terms", flush=True)
    return made


def divergence(recurrent: Recurrent, features: Any, exact: Any, made: Decomposed, n: int) -> float:
    """Mean KL of the actions with the first n terms, in closed loop with the fed-back velocities."""
    bias = recurrent.bias + made.factors.bias(n)
    return float(divergences(exact, recurrent.run(features, made.factors.matrix(n), bias)).mean())


def blocked_model(recurrent: Recurrent, made: Decomposed, block: int) -> Model:
    """The LSTM with terms in the layout that keeps blocks."""
    dense = progressive_model(recurrent, None)
    w = float_terms(made.factors, recurrent.bias, GATES, made.kept, block)
    return dense.with_weights({"lstm0.w": w})


def integer_models(recurrent: Recurrent, fitting: Any) -> dict[str, Model]:
    """The dense LSTM in 8 and in 4 bits, rounded to nearest: beside the figures, for their time alone."""
    from modelflex.calibrate import calibrate
    from modelflex.compress import compress
    from modelflex.core.recipe import Activation, Choice, Recipe, Rule
    from modelflex.registry import FORMATS, STRUCTURES

    data = Sequences(fitting[:4].reshape(-1, fitting.shape[2]), np.full(4, fitting.shape[1]))
    model = progressive_model(recurrent, None)
    stats = calibrate(model, data)
    found = {}
    for bits in (8, 4):
        form = FORMATS.get("uniform")(bits, rounding="nearest", clip="max")
        choice = Choice(STRUCTURES.get("dense")(), form, Activation(8))
        found[f"dense, int{bits}"] = compress(model, Recipe((Rule("*", choice),)), stats).model
    return found


def timed(
    runtimes: Mapping[str, Runtime], cases: Sequence[tuple[str, int | None]], x: Any, repeats: int
) -> dict[tuple[str, int | None], Any]:
    """Seconds of every step of every case, in turns; the first four of a block warm up."""
    out = {name: np.empty(runtime.outputs, np.float32) for name, runtime in runtimes.items()}
    times: dict[tuple[str, int | None], list[float]] = {case: [] for case in cases}
    for _ in range(repeats):
        for name, n in cases:
            step, y = runtimes[name].step, out[name]
            options = {} if n is None else {"terms": n}
            for number in range(BLOCK):
                row = x[number % INPUTS]
                begin = time.perf_counter_ns()
                step(row, y, **options)
                took = time.perf_counter_ns() - begin
                if number >= INPUTS:
                    times[name, n].append(took * 1e-9)
    return {case: np.array(found) for case, found in times.items()}


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of recordings and trained networks")
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = data_folder(options.data)
    recurrent = load_recurrent(folder)
    pilot = load_features(folder, "pilot").astype(np.float32)
    cut = 3 * len(pilot) // 4
    fitting, judging = pilot[:cut], pilot[cut:]
    test = load_features(folder, "test").astype(np.float32)
    made = fitted(folder, recurrent, fitting)
    exact, exact_test = recurrent.run(judging), recurrent.run(test)
    curves = {
        setting: {n: divergence(recurrent, judging, exact, one, n) for n in COUNTS}
        for setting, one in made.items()
    }
    names = {s: f"terms, {100 * s[0]:g} % kept in blocks of {s[1]}" for s in made}
    models = {"dense, fp32": progressive_model(recurrent, None)}
    models |= {names[s]: blocked_model(recurrent, one, s[1]) for s, one in made.items()}
    models |= integer_models(recurrent, fitting)
    whole = folder / "network"
    runtimes = {name: modelflex.compile(model) for name, model in models.items()}
    x = np.ascontiguousarray(judging[0, :INPUTS])
    cases: list[tuple[str, int | None]] = [("dense, fp32", None)]
    cases += [("dense, int8", None), ("dense, int4", None)]
    cases += [(names[s], n) for s in made for n in COUNTS]
    found = timed(runtimes, cases, x, options.repeats)
    dense = float(np.median(found["dense, fp32", None]))
    rows = [
        {
            "contender": name,
            "terms": n,
            "median_s": float(np.median(took)),
            "min_s": float(took.min()),
            "p99_s": float(np.quantile(took, 0.99)),
            "times_dense": dense / float(np.median(took)),
        }
        for (name, n), took in found.items()
    ]
    encoder = modelflex.compile(whole)
    frames = np.ascontiguousarray(
        np.random.default_rng(0).random((INPUTS, encoder.inputs), np.float32)
    )
    both = timed({"whole": encoder}, [("whole", None)], frames, 3)["whole", None]
    rows.append(
        {
            "contender": "whole network with encoder, fp32",
            "terms": None,
            "median_s": float(np.median(both)),
        }
    )
    figures, chosen = [], []
    for target, goal in TARGETS.items():
        reaching = [
            (float(np.median(found[names[s], n])), s, n)
            for s, curve in curves.items()
            for n in COUNTS
            if all(curve[m] <= MARGIN * target for m in COUNTS if m >= n)
        ]
        if not reaching:
            figures.append(
                figure(f"step at KL ≤ {target}", f"≥ {goal}×", None, "×", False, COMMAND)
            )
            continue
        seconds, setting, n = min(reaching)
        kl = divergence(recurrent, test, exact_test, made[setting], n)
        met = kl <= target and dense / seconds >= goal
        chosen.append(
            {
                "target": target,
                "setting": names[setting],
                "terms": n,
                "pilot_kl": curves[setting][n],
                "test_kl": kl,
            }
        )
        label = (
            f"step at KL ≤ {target} ({names[setting]}, {n} terms; test KL {kl:.2g}) over dense fp32"
        )
        figures.append(figure(label, f"≥ {goal}×", dense / seconds, "×", met, COMMAND))
    content = {
        "pilot_kl": {
            names[s]: {str(n): kl for n, kl in curve.items()} for s, curve in curves.items()
        },
        "chosen": chosen,
        "rows": rows,
        "figures": figures,
    }
    for row in rows:
        count = "" if row["terms"] is None else row["terms"]
        print(f"{row['contender']:40} {count:>4} {1e6 * row['median_s']:9.2f} µs")
    for one in figures:
        print(f"{one['name']}: {one['value']} ({one['goal']}, met: {one['met']})")
    print(
        f"written: {write_result('progressive_driving', content, options.out)} on {machine()['processor']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
