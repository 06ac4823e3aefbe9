"""The search loop: price all, reject what cannot fit, evaluate the rest cheapest first, pick."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation, Trial, Violation
from modelflex.search.limits import (
    Objective,
    cost_violations,
    optimistic_values,
    quality_violations,
    rejections,
)
from modelflex.search.pricing import Pricer, Totals
from modelflex.search.problem import Problem
from modelflex.search.space import SpaceRecipe
from modelflex.search.store import Store, evaluation_key
from modelflex.search.study import Limit
from modelflex.search.workers import Workers

BATCH = 16
"""Candidates told together. Part of the result (what is skipped hangs on it), so not the number of
processes."""


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Attributes:
        done, total: evaluations, those taken from the store included.
        best: objective and divergence of the best feasible trial so far, or None.
    """

    done: int
    total: int
    best: tuple[float, float] | None


class Driver:
    """Runs one search; `trials()` tells its result at any time."""

    def __init__(
        self,
        problem: Problem,
        pricer: Pricer,
        space: Sequence[SpaceRecipe],
        limits: tuple[Limit, ...],
        objective: Objective,
        baseline: Mapping[str, Quality],
    ) -> None:
        self.problem, self.pricer, self.space = problem, pricer, space
        self.limits, self.objective, self.baseline = limits, objective, baseline
        self.expected, low, high = pricer.price([s.recipe for s in space])
        self.lowest = optimistic_values(low, high, "max")[objective.minimize]
        """The least objective that each candidate may reach, [recipes]."""
        self.rejected = rejections(limits, low, high)
        self.bound = math.inf
        """The objective beyond which candidates can no longer matter."""
        self.evaluations: dict[str, Evaluation] = {}

    # --- evaluation ------------------------------------------------------------------------------
    def run(
        self,
        store: Store,
        workers: Workers,
        *,
        exhaustive: bool = False,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        """Evaluate cheapest first until no candidate left can matter; all that fit, if `exhaustive`."""
        key = self.problem.key
        known = store.evaluations(key)
        order = [
            int(i)
            for i in np.lexsort((np.arange(len(self.space)), self.lowest))
            if i not in self.rejected
        ]
        done = 0

        def finished(recipe: Recipe, evaluation: Evaluation, fresh: bool) -> None:
            nonlocal done
            if fresh:
                store.put(key, recipe, evaluation)
            self.evaluations[recipe.key] = evaluation
            done += 1
            tell(Progress(done, total, best))

        best = None
        total = len(order) + len(self._twins(order))
        while batch := order[:BATCH]:
            order = order[BATCH:]
            recipes = [self.space[i].recipe for i in batch] + self._twins(batch)
            recipes = [r for r in recipes if r.key not in self.evaluations]
            todo = []
            for recipe in recipes:
                found = known.get(evaluation_key(key, recipe))
                if found is None:
                    todo.append(recipe)
                else:
                    finished(recipe, found, fresh=False)
            workers.evaluate(todo, lambda i, e, todo=todo: finished(todo[i], e, True))  # type: ignore[misc]
            best = self._best_so_far()
            if not exhaustive:
                order = [i for i in order if self.lowest[i] <= self.bound]
            coming = {
                r.key for i in order for r in (self.space[i].recipe, self.space[i].recipe.naive)
            }
            total = done + len(coming - set(self.evaluations))
        tell(Progress(done, done, best))

    def reuse(self, store: Store) -> None:
        """Take what is already evaluated, and nothing else."""
        key = self.problem.key
        known = store.evaluations(key)
        for entry in self.space:
            for recipe in (entry.recipe, entry.recipe.naive):
                found = known.get(evaluation_key(key, recipe))
                if found is not None:
                    self.evaluations[recipe.key] = found
        self._best_so_far()

    def complete(
        self, store: Store, recipes: Sequence[Recipe], workers: Workers
    ) -> dict[str, Evaluation]:
        """Evaluations of any recipes, by key; those that are not stored yet are made."""
        key = self.problem.key
        known = store.evaluations(key)
        found = {r.key: known.get(evaluation_key(key, r)) for r in recipes}
        todo = [r for r in recipes if found[r.key] is None]

        def finished(index: int, evaluation: Evaluation) -> None:
            store.put(key, todo[index], evaluation)
            found[todo[index].key] = evaluation

        workers.evaluate(todo, finished)
        return {k: e for k, e in found.items() if e is not None}

    def _twins(self, numbers: Sequence[int]) -> list[Recipe]:
        """Naive twins of data-aware candidates, each once."""
        twins: dict[str, Recipe] = {}
        own = {self.space[i].recipe.key for i in numbers}
        for i in numbers:
            twin = self.space[i].recipe.naive
            if twin.key not in own:
                twins.setdefault(twin.key, twin)
        return list(twins.values())

    def _best_so_far(self) -> tuple[float, float] | None:
        """(objective, divergence) of the best feasible candidate; sets `bound` by it."""
        evaluated = [i for i, s in enumerate(self.space) if s.recipe.key in self.evaluations]
        if not evaluated:
            return None
        costs = self._measured_totals(evaluated)
        found = []
        for row, i in enumerate(evaluated):
            evaluation = self.evaluations[self.space[i].recipe.key]
            cost = _cost_from(costs, row)
            if not self._violations(cost, evaluation):
                value = float(costs[self.objective.minimize][row])
                found.append((value, evaluation.quality["divergence"].value))
        if not found:
            return None
        best = min(found)
        self.bound = best[0] * (1 + self.objective.pareto_slack)
        return best

    def _measured_totals(self, numbers: Sequence[int]) -> Totals:
        recipes = [self.space[i].recipe for i in numbers]
        return self.pricer.price_measured(
            recipes, [self.evaluations[r.key].profile for r in recipes]
        )

    def _violations(self, cost: Cost, evaluation: Evaluation) -> tuple[Violation, ...]:
        return (
            *cost_violations(self.limits, cost),
            *quality_violations(self.limits, evaluation.quality, self.baseline),
        )

    # --- the result ------------------------------------------------------------------------------
    def trials(self, seed: int, versions: Mapping[str, str]) -> tuple[Trial, ...]:
        """All candidates in order, then the twins that are not among them."""
        evaluated = [i for i, s in enumerate(self.space) if s.recipe.key in self.evaluations]
        measured = self._measured_totals(evaluated) if evaluated else {}
        row_of = {i: row for row, i in enumerate(evaluated)}
        numbers = {s.recipe.key: i for i, s in enumerate(self.space)}
        extra = self._evaluated_twins(numbers)
        numbers |= {twin.key: len(self.space) + i for i, twin in enumerate(extra)}
        trials = []
        for i, entry in enumerate(self.space):
            evaluation = self.evaluations.get(entry.recipe.key)
            violations: tuple[Violation, ...] = ()
            if evaluation is not None:
                cost = _cost_from(measured, row_of[i])
                violations = self._violations(cost, evaluation)
                status = "infeasible" if violations else "feasible"
            elif i in self.rejected:
                cost = _cost_from(self.expected, i)
                violations, status = self.rejected[i], "rejected"
            else:
                cost = _cost_from(self.expected, i)
                status = "skipped" if self.lowest[i] > self.bound else "missing"
            twin = entry.recipe.naive.key
            other = numbers.get(twin) if twin != entry.recipe.key else None
            trials.append(
                Trial(i, entry.recipe, status, cost, "candidate", entry.space, evaluation,
                      violations, other, seed, versions)
            )  # fmt: skip
        return (*trials, *self._twin_trials(extra, numbers, seed, versions))

    def _evaluated_twins(self, numbers: Mapping[str, int]) -> list[Recipe]:
        twins: dict[str, Recipe] = {}
        for entry in self.space:
            twin = entry.recipe.naive
            if twin.key in self.evaluations and twin.key not in numbers:
                twins.setdefault(twin.key, twin)
        return list(twins.values())

    def _twin_trials(
        self,
        twins: Sequence[Recipe],
        numbers: Mapping[str, int],
        seed: int,
        versions: Mapping[str, str],
    ) -> list[Trial]:
        if not twins:
            return []
        found = [self.evaluations[t.key] for t in twins]
        totals = self.pricer.price_measured(twins, [e.profile for e in found])
        trials = []
        for row, (twin, evaluation) in enumerate(zip(twins, found, strict=True)):
            cost = _cost_from(totals, row)
            violations = self._violations(cost, evaluation)
            status = "infeasible" if violations else "feasible"
            trials.append(
                Trial(numbers[twin.key], twin, status, cost, "twin", "", evaluation, violations,
                      None, seed, versions)
            )  # fmt: skip
        return trials


def _cost_from(totals: Totals, row: int) -> Cost:
    """The numeric fields of one recipe; NaN becomes None. Breakdowns are made for the pick only."""
    values: dict[str, Any] = {
        name: float(totals[name][row]) for name in COST_UNITS if name in totals
    }
    found: dict[str, Any] = {name: None if math.isnan(v) else v for name, v in values.items()}
    return Cost(**found)


def pick(trials: Sequence[Trial], objective: Objective) -> Trial | None:
    """The feasible candidate with the least objective; among those within the slack of it, the
    tie-break decides, then the objective, then the order of the space.
    """
    feasible = [t for t in trials if t.status == "feasible" and t.role == "candidate"]
    if not feasible:
        return None

    def value(trial: Trial) -> float:
        found = getattr(trial.cost, objective.minimize)
        return math.inf if found is None else float(found)

    least = min(value(t) for t in feasible)
    ties = [t for t in feasible if value(t) <= least * (1 + objective.pareto_slack)]

    def key(trial: Trial) -> tuple[float, float, int]:
        quality = trial.evaluation.quality[objective.tie_break] if trial.evaluation else None
        worse = math.inf if quality is None else quality.value
        if quality is not None and quality.direction == "max":
            worse = -worse
        return worse, value(trial), trial.number

    return min(ties, key=key)


def nearest_misses(
    trials: Sequence[Trial], count: int = 5
) -> tuple[tuple[int, tuple[Violation, ...]], ...]:
    """Candidates that miss the limits by the least, worst limit first."""

    def distance(trial: Trial) -> float:
        ratios = [
            math.log(max(v.ratio, 1.0)) if math.isfinite(v.ratio) else 50.0
            for v in trial.violations
        ]
        return sum(min(r, 50.0) for r in ratios)

    missed = [t for t in trials if t.violations and t.role == "candidate"]
    # What was never evaluated may miss the quality limits too: it comes after what was.
    best = sorted(missed, key=lambda t: (t.evaluation is None, distance(t), t.number))[:count]
    return tuple((t.number, tuple(sorted(t.violations, key=lambda v: -v.ratio))) for t in best)
