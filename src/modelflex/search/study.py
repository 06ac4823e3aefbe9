"""The outcome of a search: everything that the report, `explain` and scripts read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelflex.core.cost import Cost
from modelflex.core.quality import Quality
from modelflex.core.trial import Trial, Violation

Qualities = Mapping[str, Quality]
""" "divergence" (not for the baseline) and "metric" (where the task has one)."""


@dataclass(frozen=True)
class Baseline:
    """The uncompressed network: float32, dense."""

    validation: Qualities
    cost: Cost


@dataclass(frozen=True)
class Limit:
    """One limit: `kind` "max" or "min" on a field of `Cost`, or on quality ("divergence", "metric",
    "metric_loss": the metric's loss against the baseline).
    """

    field: str
    kind: str
    value: float


@dataclass(frozen=True)
class Step:
    """One step from the uncompressed network to the pick: what it adds, and figures after it."""

    label: str
    weight_bytes: float
    fetch_bytes_per_step: float
    latency_per_step_s: float | None
    energy_per_step_j: float | None
    divergence: float
    macs_per_step: float | None = None


@dataclass(frozen=True)
class Study:
    """A finished (or continued) search.

    Attributes:
        name: of the model.
        task: "classification", "per_step", "next_symbol", "regression" or "none".
        trials: all recipes of the space, then twins that are not in it; `Trial.number` is the index.
        best: the pick, or None when no recipe is within all limits.
        naive: the pick's naive twin.
        test: "baseline", "best", "naive" → qualities on test data, scored once after the pick.
        limits: all limits, hardware and quality.
        objective: field of `Cost` that is minimised; `pareto_slack`: relative distance within
            which recipes still count as near the front.
        platform: what the platform assumed (spec, constants with sources, residency).
        analysis: layers, shapes, parameters, hidden-state rank (as `modelflex analyze` prints).
        steps: the waterfall of the pick.
        nearest: (trial number, its violations) of the nearest misses, when nothing is feasible.
        provenance: versions, seed, digests of data and model, command, seconds.
        references: method name → reference, for the methods used.
        notes: what the user should know (closures evaluated in-process, missing test data, …).
        exported_state_bytes: of the pick in exported C, whose sums take 4 bytes where these are enough:
            less than its `Cost.state_bytes`, which is counted before that is known.
        measured: "baseline" and "best" → costs measured on this machine; empty on modelled platforms.
    """

    name: str
    task: str
    baseline: Baseline
    trials: tuple[Trial, ...]
    best: Trial | None
    naive: Trial | None
    test: Mapping[str, Qualities]
    limits: tuple[Limit, ...]
    objective: str
    pareto_slack: float
    platform: Mapping[str, Any]
    analysis: Mapping[str, Any]
    steps: tuple[Step, ...] = ()
    nearest: tuple[tuple[int, tuple[Violation, ...]], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measured: Mapping[str, Cost] = field(default_factory=dict)
    exported_state_bytes: int | None = None
