"""Trials: all that search, pick, explain and report need to know of one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelflex.core.cost import Cost
from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe


@dataclass(frozen=True)
class Violation:
    """A limit that is missed: `value` against `limit`, both in SI units; `optimistic` if it is already
    missed at the low end of the densities, before any evaluation.
    """

    field: str
    kind: str
    limit: float
    value: float
    optimistic: bool = False

    @property
    def ratio(self) -> float:
        """How far off it is: 1 at the limit, more beyond it."""
        small = 1e-300
        if self.kind == "max":
            return self.value / max(self.limit, small)
        return self.limit / max(self.value, small)


@dataclass(frozen=True)
class Evaluation:
    """What running a compressed network on held-out data gave; independent of limits and platform.

    Attributes:
        quality: "divergence" always; "metric" where the task has one; both on validation data.
        profile: counters of the validation run.
        weight_bytes: bytes of the compressed weights.
        coverage: weight → reason it was not compressed ("" where it was).
        rounds: divergence on calibration data after each recalibration round.
        weights: weight → {shape, bytes, fetch_density, choice}.
        seconds: compute time.
    """

    quality: Mapping[str, Quality]
    profile: Profile
    weight_bytes: int
    coverage: Mapping[str, str]
    rounds: tuple[float, ...] = ()
    weights: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One recipe: its cost, its quality if evaluated, and the limits it misses.

    Attributes:
        number: position in the enumeration of the space (twins that are not in the space come after).
        status: "feasible", "infeasible" (evaluated, misses a limit), "rejected" (misses a hardware
            limit even optimistically, not evaluated), "skipped" (not evaluated: could no longer
            matter) or "missing" (not evaluated, but could matter: after `retarget` only).
        role: "candidate", or "twin" for a naive twin evaluated beside its data-aware recipe.
        twin: number of the naive twin's trial, if it is another recipe.
        cost: with measured densities once evaluated, expected ones before.
    """

    number: int
    recipe: Recipe
    status: str
    cost: Cost
    role: str = "candidate"
    space: str = ""
    evaluation: Evaluation | None = None
    violations: tuple[Violation, ...] = ()
    twin: int | None = None
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def divergence(self) -> float | None:
        """Divergence from the uncompressed model on validation data."""
        return None if self.evaluation is None else self.evaluation.quality["divergence"].value

    @property
    def metric(self) -> float | None:
        """The task's metric on validation data."""
        if self.evaluation is None or "metric" not in self.evaluation.quality:
            return None
        return self.evaluation.quality["metric"].value
