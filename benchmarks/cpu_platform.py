"""How far the predictions of the platform `cpu` lie from measured steps, on this machine.

    python benchmarks/cpu_platform.py
    python benchmarks/cpu_platform.py --quick --out FILE     # does it run at all?

Recurrent layers of random weights in the variants of the runtime's benchmark, and models of random
layers and recipes from the contract suites: the constants are measured first, on other products.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import figure, write_result
from _runtime_case import Array, Case
from _runtime_host import host
from _runtime_ours import VARIANTS, compressed

from modelflex.core.data import Sequences
from modelflex.core.model import Model
from modelflex.core.planner import make_plan
from modelflex.core.platform import MeasuredPlatform
from modelflex.core.products import program_table
from modelflex.core.program import build_program
from modelflex.execute.interpret import Interpreter
from modelflex.execute.native import Runtime
from modelflex.search.targets import ready_platform
from modelflex.testing.generators import random_case

COMMAND = "python benchmarks/cpu_platform.py"
SIZES = ((16, 32), (32, 128), (64, 256), (32, 1024), (153, 1024))
CELLS = ("lstm", "gru")
RANDOM = 40
"""Models of the contract suites: a few small layers each, with any method on any weight."""


def networks(quick: bool) -> Iterator[tuple[str, str, Model, Model, Array]]:
    """(group, name, uncompressed model, model, inputs [T, inputs])."""
    for cell in CELLS[: 1 if quick else None]:
        for size in SIZES[: 1 if quick else None]:
            case = Case(cell, *size)
            for variant in VARIANTS:
                if not variant.padded:
                    dense, _ = compressed(case, VARIANTS[0])
                    made, _ = compressed(case, variant)
                    yield variant.name, case.name, dense, made, case.ring
    for seed in range(2 if quick else RANDOM):
        of = random_case(seed)
        inputs = np.ascontiguousarray(of.data.x[:64], np.float32)
        tables = any(call.kernel == "piecewise" for call in make_plan(of.program).calls)
        group = "random recipes, σ and tanh by tables" if tables else "random recipes"
        yield group, f"random {seed}", of.model, of.made.model, inputs


def compared(
    platform: MeasuredPlatform, group: str, name: str, dense: Model, made: Model, inputs: Array
) -> dict[str, Any]:
    """Predicted and measured seconds of a step."""
    program = build_program(made)
    twice = np.tile(inputs, (2, 1))
    ran = Interpreter(program).run(Sequences(twice, np.array([len(twice)])))
    table = program_table(program, ran.profile, dense)
    predicted, cost = platform.cost(table), platform.measure(Runtime(program), inputs, table)
    told, found = predicted.latency_per_step_s, cost.latency_per_step_s
    assert told is not None
    assert found is not None
    return {
        "group": group,
        "name": name,
        "weight_bytes": cost.weight_bytes,
        "predicted_us": round(1e6 * told, 4),
        "measured_us": round(1e6 * found, 4),
        "error": round(told / found - 1, 4),
        "predicted_bound": predicted.bound,
        "measured_bound": cost.bound,
        "p99_us": round(1e6 * cost.resources["latency_p99_s"], 4),
        "cold_us": round(1e6 * cost.resources["cold_latency_s"], 4),
        "roofline_share": round(cost.resources["roofline_share"], 4),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and 90th percentile of the errors' magnitudes, and how the order agrees."""
    errors = np.abs([row["error"] for row in rows])
    told, found = (np.array([row[f"{n}_us"] for row in rows]) for n in ("predicted", "measured"))
    ranks = [np.argsort(np.argsort(values)) for values in (told, found)]
    return {
        "rows": len(rows),
        "median_error": round(float(np.median(errors)), 4),
        "p90_error": round(float(np.quantile(errors, 0.9)), 4),
        "largest_error": round(float(errors.max()), 4),
        "rank_correlation": None
        if len(rows) < 3
        else round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size and two random models")
    parser.add_argument("--out", type=Path, default=None, help="the result file")
    options = parser.parse_args()
    platform = ready_platform("cpu", {})
    assert isinstance(platform, MeasuredPlatform)
    rows = []
    for network in networks(options.quick):
        rows.append(compared(platform, *network))
        row = rows[-1]
        print(
            f"{row['name']:18} {row['group']:26} predicted {row['predicted_us']:10.3f} µs, "
            f"measured {row['measured_us']:10.3f} µs, {100 * row['error']:+7.1f} %",
            flush=True,
        )
    groups = dict.fromkeys(row["group"] for row in rows)
    by_group = {g: summary([row for row in rows if row["group"] == g]) for g in groups}
    found = summary(rows)
    median, rank = found["median_error"], found["rank_correlation"]
    figures = [
        figure("median error of predicted steps", "none", median, "", None, COMMAND),
        figure("rank correlation of predicted and measured", "none", rank, "", None, COMMAND),
    ]
    content = {
        "host": host(),
        "figures": figures,
        "all": found,
        "groups": by_group,
        "rows": rows,
        "constants": platform.constants,
    }
    print(f"median error {100 * median:.1f} %, rank correlation {rank:.3f}")
    write_result("cpu_platform", content, options.out)


if __name__ == "__main__":
    main()
