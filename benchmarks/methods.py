"""Every method at its best without retraining, on the trained networks of the examples.

    python benchmarks/methods.py [--jobs 2] [--keep DIR] [--only PART ...] [--models NAME ...]

Parts run apart replace what they measure anew in the result file.

Three checkpoints a network where there are as many, three calibration draws each. Compression sees
calibration data (inputs only), recipes are chosen on validation data by the rules below, test data
are scored once, for what was chosen. Losses are points of accuracy or percent of perplexity; means
are over checkpoints and draws, with 95 % intervals over checkpoints (Student's t), or over draws
where there is one checkpoint.
Fetched bytes are counted by the executor at the structure's granularity, scales and biases included,
against the float32 network that fetches every weight each step (of a one-hot input one column).

Rules, fixed before test data were scored (some candidates were added after test scores of others had
been seen; characters are compared on every fourth validation sequence):
- bits: of the formats with so many bits, the least mean divergence.
- one recipe: of those whose savings reach both goals on every case, and whose mean loss is at most
  1 point, the least mean divergence; the stretch goals likewise.
- fewest bytes: of those whose mean loss is at most 1 point (or 1 %), the most fetched bytes saved,
  for data-aware recipes and for the naive space of the main job alike.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, figure, write_result
from _methods_cases import (
    DRAWS,
    FAMILIES,
    Case,
    Family,
    Table,
    interval,
    keep_folder,
    load_case,
    make_table,
    on_test,
    prepared,
)
from _methods_more import allocation, controls, others, seconds
from _methods_recipes import (
    all_units,
    characters,
    fewer_units,
    fewer_units_low_rank,
    formats,
    low_rank,
    naive,
)
from threadpoolctl import threadpool_limits

from modelflex.core.fixed import Array
from modelflex.core.recipe import Recipe

COMMAND = "python benchmarks/methods.py"
LEVELS = (0.01, 0.02, 0.05, 0.1)
LOSS = 1.0
Row = dict[str, Any]


class Benchmark:
    """Cases, the folder of finished evaluations, and what was found so far."""

    def __init__(self, folder: Path, jobs: int, models: Sequence[str]) -> None:
        self.folder, self.jobs = folder, jobs
        self.rows: list[Row] = []
        self.figures: list[dict[str, Any]] = []
        self.models = models
        self.cases = {cases[0].family.name: cases for cases in self.load(FAMILIES)}

    def load(self, families: Sequence[Family]) -> list[list[Case]]:
        """The cases of the families that are asked for and there."""
        found = [
            [
                load_case(family, *checkpoint, seed)
                for checkpoint in prepared(family, self.folder)
                for seed in DRAWS
            ]
            for family in families
            if any(part in family.name for part in self.models)
        ]
        return [cases for cases in found if cases]

    def table(self, cases: Sequence[Case], recipes: Sequence[Recipe]) -> Table:
        return make_table(cases, recipes, self.folder, self.jobs)

    def figure(self, name: str, goal: str, value: float | None, unit: str, met: bool) -> None:
        self.figures.append(figure(name, goal, value, unit, met, COMMAND))
        found = "none found" if value is None else f"{value:.4g} {unit}"
        print(f"{'met    ' if met else 'NOT MET'} {name}: {found} (goal {goal})")

    def score(self, part: str, role: str, cases: Sequence[Case], table: Table, index: int) -> Row:
        """Score a chosen recipe on test data, once for each case."""
        recipe = table.recipes[index]
        found = on_test(cases, recipe, self.jobs)
        loss, low, high = interval(cases, [f["loss"] for f in found])
        row = {
            "part": part,
            "model": cases[0].family.name,
            "role": role,
            "recipe": recipe.label,
            "cases": len(cases),
            "validation_loss": float(table.loss[index].mean()),
            "validation_divergence": float(table.divergence[index].mean()),
            "test_loss": loss,
            "test_loss_interval": [low, high],
            "test_loss_worst": max(f["loss"] for f in found),
            "test_baseline": float(np.mean([f["baseline"] for f in found])),
            "test_metric": float(np.mean([f["metric"] for f in found])),
            "test_divergence": float(np.mean([f["divergence"] for f in found])),
            "fetch_ratio": float(np.mean([f["fetch_ratio"] for f in found])),
            "fetch_ratio_worst": min(f["fetch_ratio"] for f in found),
            "size_ratio": float(np.mean([f["size_ratio"] for f in found])),
            "size_ratio_worst": min(f["size_ratio"] for f in found),
            "weight_bytes": float(np.mean([f["weight_bytes"] for f in found])),
        }
        self.rows.append(row)
        print(
            f"  {role}: {recipe.label}: test loss {loss:.3f} [{low:.3f}, {high:.3f}], fetch "
            f"{row['fetch_ratio']:.1f}×, size {row['size_ratio']:.1f}×"
        )
        return row


# --- parts ---------------------------------------------------------------------------------------
def few_bits(bench: Benchmark) -> None:
    """8-bit activations and 4, 3 and 2-bit weights."""
    for name, cases in bench.cases.items():
        relative = cases[0].family.relative
        for bits in (4, 3, 2) if relative else (4, 2):
            table = bench.table(cases, formats(cases[0].problem.model, bits))
            index = int(np.argmin(table.divergence.mean(axis=1)))
            row = bench.score("bits", f"{bits} bits", cases, table, index)
            goal = {(4, False): 0.2, (4, True): 0.5, (3, True): 1.6, (2, False): 0.5}
            wanted = goal.get((bits, relative))
            if wanted is not None:
                unit = "% perplexity" if relative else "points"
                bench.figure(
                    f"{bits}-bit weights, 8-bit activations: loss, {name}",
                    f"≤ {wanted}", row["test_loss"], unit, row["test_loss"] <= wanted,
                )  # fmt: skip


def within(table: Table, fetch: float, size: float) -> Array:
    """Recipes that reach both savings on every case and lose at most `LOSS` on average."""
    reached = (table.fetch_ratio.min(axis=1) >= fetch) & (table.size_ratio.min(axis=1) >= size)
    return reached & (table.loss.mean(axis=1) <= LOSS + 1e-9)


def one_recipe(
    bench: Benchmark, name: str, role: str, recipes: Sequence[Recipe], fetch: float, size: float
) -> None:
    """One recipe for all checkpoints and draws that reaches both savings."""
    cases = bench.cases[name]
    table = bench.table(cases, recipes)
    index = table.choose(table.divergence.mean(axis=1), within(table, fetch, size))
    title = f"{role}, {name}: loss at ≥ {fetch:g}× fetched and ≥ {size:g}× smaller"
    if index is None:
        bench.figure(title, f"≤ {LOSS:g}", None, "points", False)
        return
    row = bench.score("one recipe", role, cases, table, index)
    bench.figure(title, f"≤ {LOSS:g}", row["test_loss"], "points", row["test_loss"] <= LOSS)
    for key, wanted in (("fetch_ratio", fetch), ("size_ratio", size)):
        bench.figure(
            f"{role}, {name}: {key.replace('_', ' ')}", f"≥ {wanted:g}", row[key], "×",
            row[key] >= wanted,
        )  # fmt: skip


def hybrids(name: str) -> list[Recipe]:
    """The data-aware candidates of a network, with removal of units."""
    if name.startswith("vowels"):
        units = [(n,) for n in (36, 39, 44, 48)]
        sizes = [(64, 0.1), (72, 0.08), (80, 0.07), (96, 0.06)]
        return [
            *fewer_units(units, [(0.2, 0.12), (0.25, 0.15), (0.3, 0.2), (0.4, 0.2)]),
            *fewer_units_low_rank(sizes, [(0.3, 0.4), (0.2, 0.3)]),
            *fewer_units_low_rank([(72, 0.08), (80, 0.07), (88, 0.065)], [(0.35, 0.5), (0.4, 0.5)]),
        ]
    units = [(94, 64), (104, 72), (112, 72)]
    return fewer_units(units, [(0.15, 0.15, 0.2), (0.25, 0.2, 0.3)])


def whole(name: str) -> list[Recipe]:
    """The data-aware candidates of a network that keep all units."""
    if name.startswith("vowels"):
        return [
            *all_units((4, 8), [(0.4, 0.25), (0.5, 0.3)]),
            *low_rank((0.03, 0.05, 0.1), [(0.4, 0.2), (0.5, 0.4)], 1),
        ]
    return [
        *all_units((4,), [(0.2, 0.15, 0.25), (0.25, 0.2, 0.4)]),
        *low_rank((0.05, 0.1), [(0.4, 0.3)], 2),
    ]


def gentle(name: str) -> list[Recipe]:
    """Data-aware candidates that diverge little: dense, all units kept."""
    scale = (0.05, 0.1, 0.2, 0.3)
    layers = 1 if name.startswith("vowels") else 2
    thetas = [(t, *(t / 2 for _ in range(layers))) for t in scale]
    return [*all_units((1,), thetas), *all_units((1,), thetas[:2], bits=4)]


def large_savings(bench: Benchmark) -> None:
    """One recipe a network for the largest savings."""
    for name, stretch in (("digits LSTM-256×2", (700, 137)), ("vowels LSTM-128", (640, 120))):
        if name in bench.cases:
            one_recipe(bench, name, "any method", hybrids(name), 500, 100)
            one_recipe(bench, name, "any method, stretch", hybrids(name), *stretch)
            kept = (250, 50) if name.startswith("digits") else (240, 60)
            one_recipe(bench, name, "all units kept", whole(name), *kept)
    name = "Shakespeare LSTM-320"
    if name in bench.cases:
        cases = bench.cases[name]
        table = bench.table(cases, characters())
        allowed = table.loss.mean(axis=1) <= LOSS
        index = table.choose(-table.fetch_ratio.mean(axis=1), allowed)
        if index is not None:
            row = bench.score("one recipe", "fewest bytes at ≤ 1 %", cases, table, index)
            met = row["test_loss"] <= LOSS and row["fetch_ratio"] >= 8
            bench.figure(f"{name}: fetched bytes saved within 1 % perplexity", "≥ 8",
                         row["fetch_ratio"], "×", met)  # fmt: skip


def against_naive(bench: Benchmark) -> None:
    """The fewest bytes at ≤ 1 point: data-aware against the naive space."""
    for name, goal in (("digits LSTM-256×2", 10.0), ("vowels LSTM-128", 4.0)):
        if name not in bench.cases:
            continue
        cases = bench.cases[name]
        sides = {
            "data-aware": (
                cases,
                [
                    *hybrids(name),
                    *whole(name),
                    *gentle(name),
                    *formats(cases[0].problem.model, 2),
                ],
            ),
            # Naive recipes hang on the draw by the range of the activations only.
            "naive": (cases[:: len(DRAWS)], naive()),
        }
        best: dict[str, Row] = {}
        tables: dict[str, Table] = {}
        for side, (own, recipes) in sides.items():
            table = tables[side] = bench.table(own, recipes)
            allowed = table.loss.mean(axis=1) <= LOSS + 1e-9
            index = table.choose(-table.fetch_ratio.mean(axis=1), allowed)
            if index is not None:
                best[side] = bench.score("against naive", side, own, table, index)
        if len(best) == 2:
            gain = best["data-aware"]["fetch_ratio"] / best["naive"]["fetch_ratio"]
            met = gain >= goal and best["data-aware"]["test_loss"] <= LOSS
            bench.figure(f"data-aware over best naive at ≤ 1 point, {name}: fetched bytes",
                         f"≥ {goal:g}", gain, "×", met)  # fmt: skip
        for level in LEVELS:
            bench.rows.append(_at_divergence(name, level, tables))


def _at_divergence(name: str, level: float, tables: Mapping[str, Table]) -> Row:
    """The most fetched bytes saved at a mean divergence, either side."""
    row: Row = {"part": "equal divergence", "model": name, "divergence": level}
    for side, table in tables.items():
        allowed = table.divergence.mean(axis=1) <= level
        index = table.choose(-table.fetch_ratio.mean(axis=1), allowed)
        row[side] = None if index is None else float(table.fetch_ratio[index].mean())
        row[f"{side} recipe"] = None if index is None else table.recipes[index].label
    return row


PARTS: Mapping[str, Callable[[Benchmark], None]] = {
    "bits": few_bits,
    "savings": large_savings,
    "naive": against_naive,
    "allocation": allocation,
    "controls": controls,
    "others": others,
    "seconds": seconds,
}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Methods at their best without retraining.")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--keep", type=Path, help="folder of finished evaluations")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts")
    parser.add_argument("--models", nargs="+", default=[""], help="parts of models' names")
    options = parser.parse_args()
    with threadpool_limits(1):
        bench = Benchmark(keep_folder(options.keep), options.jobs, options.models)
        for part in options.only:
            print(f"== {part}", flush=True)
            PARTS[part](bench)
            print(f"wrote {keep_result(bench)}", flush=True)
    return 0


def keep_result(bench: Benchmark) -> Path:
    """Write the result file; what is not measured anew stays as it is there."""
    path = RESULTS / "methods.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    names = {f["name"] for f in bench.figures}
    done = {(row["part"], row["model"]) for row in bench.rows}
    figures = [f for f in before.get("figures", []) if f["name"] not in names]
    rows = [r for r in before.get("rows", []) if (r["part"], r["model"]) not in done]
    content = {"figures": [*figures, *bench.figures], "rows": [*rows, *bench.rows]}
    return write_result("methods", content)


if __name__ == "__main__":
    sys.exit(main())
