"""Methods side by side: what each saves, what it costs in quality, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelflex.core.cost import Cost
from modelflex.core.layout import SPARSE
from modelflex.core.recipe import Recipe
from modelflex.core.sparsity import break_even_density
from modelflex.core.trial import Trial
from modelflex.search.pareto import pareto_front
from modelflex.search.study import Qualities, Step

EFFICIENT = 0.99
"""Relative performance from which a loss is held to be small."""
COSTS = ("weight_bytes", "weight_fetch_bytes_per_step", "macs_per_step")


@dataclass(frozen=True)
class Compared:
    """One recipe beside the uncompressed network.

    Attributes:
        number: of the trial; twin: of its naive twin, or None.
        family, label: the kind of method, and which.
        data_aware: whether it is fitted to calibration data.
        divergence, metric: on validation data; metric is None without a task.
        relative_performance: metric over the uncompressed network's (the inverse where less is
            better), or 1 − divergence without a task (as the surveys' P_r).
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
        rows: every evaluated recipe, in the order of the catalogue, then naive twins.
        fronts: cost → "data-aware" or "naive" → numbers of the rows on the front of divergence.
        best: family → number of the row that fetches least while it is not degraded.
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
    best: Mapping[str, int]
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
    families = {t.number: t.space for t in trials}
    twins = {t.twin: t for t in trials if t.twin is not None}
    rows = []
    for trial in trials:
        if trial.evaluation is None:
            continue
        aware = any(rule.choice.data_aware for rule in trial.recipe.rules)
        origin = twins.get(trial.number)
        family = families[trial.number] or (origin.space if origin else "")
        label = trial.recipe.label or (f"{origin.recipe.label} (naive)" if origin else "")
        rows.append(_row(trial, family, label, aware, baseline, cost))
    return tuple(rows)


def _row(
    trial: Trial, family: str, label: str, aware: bool, baseline: Qualities, cost: Cost
) -> Compared:
    quality = {} if trial.evaluation is None else trial.evaluation.quality
    divergence = quality["divergence"].value
    metric = quality["metric"].value if "metric" in quality else None
    relative = max(0.0, 1.0 - divergence)
    if metric is not None:
        first, then = baseline["metric"].value, metric
        if quality["metric"].direction == "min":
            first, then = then, first
        relative = then / first if first else float(then == first)
    saved = {name: _ratio(getattr(cost, name), getattr(trial.cost, name)) for name in COSTS}
    smaller = saved["weight_bytes"] > 1
    verdict = "degraded"
    if relative >= EFFICIENT:
        verdict = "superior" if relative >= 1 and smaller else "efficient"
    costs = {name: float(getattr(trial.cost, name) or 0.0) for name in COSTS}
    return Compared(
        number=trial.number,
        twin=trial.twin,
        family=family,
        label=label,
        data_aware=aware,
        divergence=divergence,
        metric=metric,
        **costs,
        relative_performance=relative,
        memory_saving=saved["weight_bytes"],
        fetch_saving=saved["weight_fetch_bytes_per_step"],
        compute_saving=saved["macs_per_step"],
        verdict=verdict,
    )


def _ratio(before: float | None, after: float | None) -> float:
    return float(before) / float(after) if before and after else float("nan")


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


def best_of_families(rows: Sequence[Compared]) -> dict[str, int]:
    """Family → number of the row that fetches least among those that are not degraded."""
    found: dict[str, Compared] = {}
    for row in rows:
        kept = found.get(row.family)
        if row.verdict != "degraded" and (
            kept is None or row.weight_fetch_bytes_per_step < kept.weight_fetch_bytes_per_step
        ):
            found[row.family] = row
    return {family: row.number for family, row in found.items()}


def break_even(
    trials: Sequence[Trial], shapes: Mapping[str, tuple[int, int]]
) -> tuple[BreakEven, ...]:
    """Sparse products of the candidates: their density and where sparse storage breaks even."""
    found: dict[tuple[Any, ...], BreakEven] = {}
    for trial in trials:
        if trial.role != "candidate" or trial.evaluation is None:
            continue
        for weight, shape in shapes.items():
            for row in _sparse(trial.recipe, weight, shape):
                found.setdefault((row.layout, row.density, row.break_even_density, weight), row)
    return tuple(found.values())


def _sparse(recipe: Recipe, weight: str, shape: tuple[int, int]) -> list[BreakEven]:
    choice = recipe.choice(weight)
    if choice is None or recipe.layers:
        return []
    rows = []
    for number, planned in enumerate(choice.structure.plan(*shape)):
        geo = planned.geometry
        if planned.layout not in SPARSE:
            continue
        bits = choice.format.stored_bits
        rows.append(
            BreakEven(
                recipe.label,
                f"{weight}/{number}",
                planned.layout,
                geo.codes / (geo.out * geo.inputs),
                break_even_density(bits, geo.index_bits / geo.codes),
            )
        )
    return rows
