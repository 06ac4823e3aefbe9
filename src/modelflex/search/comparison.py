"""Methods side by side: what each saves, what it costs in quality, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelflex.core.cost import Cost
from modelflex.core.layout import SPARSE
from modelflex.core.quality import Quality
from modelflex.core.sparsity import break_even_density
from modelflex.core.trial import Trial
from modelflex.search.pareto import pareto_front
from modelflex.search.space import is_data_aware
from modelflex.search.study import Qualities, Step

EFFICIENT = 0.99
"""Relative performance from which a loss is held to be small."""
NEAR = 0.02
"""Recipes that fetch at most this much (relative) more than the least of their family are ties."""
COSTS = ("weight_bytes", "weight_fetch_bytes_per_step", "macs_per_step")


@dataclass(frozen=True)
class Compared:
    """One recipe beside the uncompressed network.

    Attributes:
        number: of the trial; twin: of its naive twin, or None where it is naive itself.
        family, label: the kind of method, and which.
        data_aware: whether its weights, or the units that stay, are fitted to calibration data.
        divergence, metric: on validation data; metric is None without a task.
        relative_performance: metric over the uncompressed network's (the inverse where less is
            better), or 1 − divergence, at least 0, without a task (as the surveys' P_r).
        memory_saving, fetch_saving, compute_saving: the uncompressed network's bytes stored, bytes
            fetched and multiply-accumulates over this one's.
        verdict: "superior" (smaller and at least as good), "efficient" (at least `EFFICIENT` of
            the performance) or "degraded".
    """

    number: int
    twin: int | None
    family: str
    label: str
    data_aware: bool
    divergence: float
    metric: float | None
    weight_bytes: float
    weight_fetch_bytes_per_step: float
    macs_per_step: float
    relative_performance: float
    memory_saving: float
    fetch_saving: float
    compute_saving: float
    verdict: str


@dataclass(frozen=True)
class BreakEven:
    """A sparse recipe: the density of one product below which it takes fewer bits than dense codes."""

    family: str
    label: str
    site: str
    layout: str
    density: float
    break_even_density: float


@dataclass(frozen=True)
class Comparison:
    """All methods on one model.

    Attributes:
        metric, direction: of the task; "" without one. divergence: what it is measured by.
        baseline: qualities of the uncompressed network on validation data; `cost` its counts.
        rows: every evaluated recipe, in the order of the catalogue: naive twins come last.
        fronts: cost → "data-aware" or "naive" → numbers of the rows on the front of divergence.
        coarse: whether the metric tells too little to choose by (`is_coarse`).
        best, best_naive: family → number of the row that fetches least while it is not degraded,
            of all and of the naive ones.
        steps: the effect of each step apart, for the best row of each hybrid family.
        test: row number, or "baseline" → qualities on test data, of the rows in `best`.
    """

    name: str
    task: str
    metric: str
    direction: str
    divergence: str
    baseline: Qualities
    cost: Cost
    rows: tuple[Compared, ...]
    fronts: Mapping[str, Mapping[str, tuple[int, ...]]]
    coarse: bool
    best: Mapping[str, int]
    best_naive: Mapping[str, int]
    break_even: tuple[BreakEven, ...]
    steps: Mapping[str, tuple[Step, ...]]
    test: Mapping[str, Qualities]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the field names as keys."""
        return asdict(self)


def compared(trials: Sequence[Trial], baseline: Qualities, cost: Cost) -> tuple[Compared, ...]:
    """The rows of all evaluated trials."""
    rows = []
    for trial in trials:
        if trial.evaluation is not None:
            rows.append(_row(trial, trial.evaluation.quality, baseline, cost))
    return tuple(rows)


def _row(trial: Trial, quality: Qualities, baseline: Qualities, cost: Cost) -> Compared:
    divergence = quality["divergence"].value
    relative = max(0.0, 1.0 - divergence)
    if "metric" in quality:
        relative = relative_performance(baseline["metric"], quality["metric"])
    costs = {name: float(getattr(trial.cost, name)) for name in COSTS}
    saved = {name: _ratio(float(getattr(cost, name)), costs[name]) for name in COSTS}
    return Compared(
        number=trial.number,
        twin=trial.twin,
        family=trial.space,
        label=trial.recipe.label,
        data_aware=is_data_aware(trial.recipe),
        divergence=divergence,
        metric=quality["metric"].value if "metric" in quality else None,
        **costs,
        relative_performance=relative,
        memory_saving=saved["weight_bytes"],
        fetch_saving=saved["weight_fetch_bytes_per_step"],
        compute_saving=saved["macs_per_step"],
        verdict=verdict(relative, saved["weight_bytes"]),
    )


def relative_performance(before: Quality, after: Quality) -> float:
    """How much of the uncompressed network's performance is left, 1 for all of it."""
    most, least = after.value, before.value
    if after.direction == "min":
        most, least = least, most
    return _ratio(most, least)


def _ratio(over: float, under: float) -> float:
    if under:
        return over / under
    return math.inf if over else 1.0


def verdict(relative: float, memory_saving: float) -> str:
    """The surveys' verdict on a compressed network."""
    if relative < EFFICIENT - 1e-12:  # quotients are rounded
        return "degraded"
    return "superior" if relative >= 1 and memory_saving > 1 else "efficient"


def fronts(rows: Sequence[Compared]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Cost → kind → numbers of the rows that no other of the kind beats in cost and divergence."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in COSTS:
        found[name] = {}
        for kind, aware in (("data-aware", True), ("naive", False)):
            own = [row for row in rows if row.data_aware == aware]
            x = np.array([getattr(row, name) for row in own])
            y = np.array([row.divergence for row in own])
            found[name][kind] = tuple(own[i].number for i in pareto_front(x, y))
    return found


def best_of_families(rows: Sequence[Compared], coarse: bool = False) -> dict[str, int]:
    """Family → number of the row that fetches least among those that are not degraded.

    Of rows within `NEAR` of the least the one of least divergence is taken.

    Args:
        coarse: whether the metric tells too little (`is_coarse`): 1 − divergence has to be
            `EFFICIENT` too.
    """
    kept: dict[str, list[Compared]] = {}
    for row in rows:
        if row.verdict != "degraded" and (not coarse or 1 - row.divergence >= EFFICIENT):
            kept.setdefault(row.family, []).append(row)
    found = {}
    for family, own in kept.items():
        least = min(row.weight_fetch_bytes_per_step for row in own)
        ties = [row for row in own if row.weight_fetch_bytes_per_step <= least * (1 + NEAR)]
        found[family] = min(ties, key=lambda row: (row.divergence, row.number)).number
    return found


def is_coarse(baseline: Quality | None, items: int) -> bool:
    """Whether the metric is an accuracy on so few items that one more wrong is degraded."""
    if baseline is None or baseline.metric != "accuracy":
        return False
    right = round(baseline.value * items)
    return right > 0 and (right - 1) / right < EFFICIENT - 1e-12


def break_even(
    trials: Sequence[Trial], shapes: Mapping[str, tuple[int, int]]
) -> tuple[BreakEven, ...]:
    """Sparse products of the recipes: their density and where sparse storage breaks even, each once."""
    found: dict[tuple[Any, ...], BreakEven] = {}
    for trial in trials:
        # What is removed changes the shapes; the catalogue removes nothing from sparse weights.
        if trial.evaluation is None or trial.recipe.layers:
            continue
        for weight, shape in shapes.items():
            for row in _sparse(trial, weight, shape):
                key = (row.family, row.site, row.layout, row.density, row.break_even_density)
                found.setdefault(key, row)
    return tuple(found.values())


def _sparse(trial: Trial, weight: str, shape: tuple[int, int]) -> list[BreakEven]:
    choice = trial.recipe.choice(weight)
    if choice is None:
        return []
    rows = []
    for number, planned in enumerate(choice.structure.plan(*shape)):
        if planned.layout in SPARSE:
            geo, bits = planned.geometry, choice.format.stored_bits
            density = geo.codes / (geo.out * geo.inputs)
            even = break_even_density(bits, geo.index_bits / geo.codes)
            site = f"{weight}/{number}"
            rows.append(
                BreakEven(trial.space, trial.recipe.label, site, planned.layout, density, even)
            )
    return rows
