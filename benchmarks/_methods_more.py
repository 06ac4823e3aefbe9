"""Parts of the benchmark of the methods: allocation, controls, further networks, seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from _methods_cases import CONTROLS, OTHERS, Case
from _methods_recipes import convolutional, fewer_units, formats, one_for_all
from threadpoolctl import threadpool_limits

from modelflex.compress import compress
from modelflex.core.recipe import Recipe
from modelflex.search.allocate import Budget, allocate
from modelflex.search.catalogue import Catalogue
from modelflex.search.options import options_of
from modelflex.search.space import SpaceRecipe

if TYPE_CHECKING:
    from methods import Benchmark

FIELD = "weight_fetch_bytes_per_step"
LEVELS = (0.02,)
EVALUATIONS = 50


def allocation(bench: Benchmark) -> None:
    """Choices by weight against one global choice, at equal divergence, on validation data."""
    for name in ("vowels LSTM-128", "vowels GRU-128"):
        cases = [c for c in bench.cases.get(name, []) if c.problem.seed == 0]
        if not cases:
            continue
        space = one_for_all(cases[0].problem.model)
        table = bench.table(cases, space)
        gains: list[float] = []
        missed = 0  # where one global choice is within the divergence and the allocation is not
        for level in LEVELS:
            for column, case in enumerate(cases):
                row = _allocated(case, space, level)
                index = table.choose(
                    -table.fetch_ratio[:, column], table.divergence[:, column] <= level
                )
                if index is None or not row["within"]:
                    missed += index is not None
                    continue
                chosen: dict[str, Recipe] = {
                    "global": table.recipes[index], "allocated": row.pop("recipe")
                }  # fmt: skip
                row |= {
                    "model": name,
                    "checkpoint": case.checkpoint,
                    "global_bytes": case.fetch_bytes / float(table.fetch_ratio[index, column]),
                    "global_divergence": float(table.divergence[index, column]),
                    "global_recipe": table.recipes[index].label,
                    **{f"test_{n}": case.on_test(r) for n, r in chosen.items()},
                }
                row["gain"] = row["global_bytes"] / row["allocated_bytes"]
                gains.append(row["gain"])
                bench.rows.append(row)
        gain = float(np.exp(np.mean(np.log(gains)))) if gains else None
        bench.figure(
            f"allocation over one global choice, {name}: fetched bytes at KL "
            f"{' and '.join(map(str, LEVELS))}, ≤ {EVALUATIONS} evaluations (geometric mean of "
            f"{len(gains)}, {missed} more missed the divergence)",
            "≥ 1.3", gain, "×", gain is not None and gain >= 1.3 and not missed,
        )  # fmt: skip


def _allocated(case: Case, space: list[Recipe], level: float) -> dict[str, Any]:
    candidates, _ = options_of(case.problem.model, space)
    found = allocate(
        case.problem, case.pricer, candidates, Budget(FIELD, divergence=level),
        recalibrate=2, evaluations=EVALUATIONS,
    )  # fmt: skip
    return {
        "part": "allocation",
        "divergence": level,
        "allocated_bytes": found.cost,
        "allocated_divergence": found.divergence,
        "evaluations": len(found.trace),
        "within": found.within,
        "recipe": found.recipe,
    }


def controls(bench: Benchmark) -> None:
    """Smaller networks of about the bytes of a compressed one, trained directly, and compressed again."""
    for cases in bench.load(CONTROLS):
        own = [case for case in cases if case.problem.seed == 0]
        table = bench.table(own, formats(own[0].problem.model, 4))
        index = int(np.argmin(table.divergence.mean(axis=1)))
        row = bench.score("controls", "compressed again, 4 bits", own, table, index)
        row["float_weight_bytes"] = own[0].weight_bytes


def others(bench: Benchmark) -> None:
    """Speakers who were not heard in training, and a network with convolutions."""
    for cases in bench.load(OTHERS):
        model = cases[0].problem.model
        if "convolution" in cases[0].family.name:
            recipes = convolutional(model)
        else:
            units = [(96, 64), (104, 72), (112, 72)]
            recipes = fewer_units(units, [(0.15, 0.15, 0.2), (0.25, 0.2, 0.3)])
        table = bench.table(cases, recipes)
        allowed = table.loss.mean(axis=1) <= 1.0
        index = table.choose(-table.fetch_ratio.mean(axis=1), allowed)
        if index is not None:
            bench.score("others", "fewest bytes at ≤ 1 point", cases, table, index)


def _spread(count: int) -> set[int]:
    """The first, the middle and the last of so many."""
    return {0, count // 2, count - 1}


def seconds(bench: Benchmark) -> None:
    """Compressing the 2-layer LSTM-256 by up to three configurations of every method, two threads."""
    name = "digits LSTM-256×2"
    if name not in bench.cases:
        return
    case = bench.cases[name][0]
    slowest = 0.0
    families: dict[str, list[SpaceRecipe]] = {}
    for entry in Catalogue(case.problem.model).recipes():
        families.setdefault(entry.space, []).append(entry)
    spread = (family[i] for family in families.values() for i in _spread(len(family)))
    for entry in spread:
        with threadpool_limits(2):
            started = time.perf_counter()
            compress(case.problem.model, entry.recipe, case.problem.stats)
            taken = time.perf_counter() - started
        bench.rows.append({
            "part": "seconds", "model": name, "family": entry.space,
            "recipe": entry.recipe.label, "seconds": taken,
        })  # fmt: skip
        slowest = max(slowest, taken)
    bench.figure("compressing the 2-layer LSTM-256 by any one method, slowest", "≤ 30", slowest,
                 "s", slowest <= 30)  # fmt: skip
