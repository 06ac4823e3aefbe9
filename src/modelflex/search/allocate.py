"""Allocation: for every weight the choice that serves the whole network best under a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modelflex.core.divergence import VALUES
from modelflex.core.extension import Nonlinearity, Removal
from modelflex.core.fixed import Array
from modelflex.core.recipe import Choice, Recipe
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.search.knapsack import Front, front, join_fronts
from modelflex.search.offer import Selection
from modelflex.search.options import Options
from modelflex.search.pricing import Pricer
from modelflex.search.problem import Problem, evaluate_recipe
from modelflex.search.sensitivity import (
    Chosen,
    Sensitivities,
    believe,
    choice_parts,
    predicted_divergences,
)

COSTS = ("weight_bytes", "weight_fetch_bytes_per_step", "macs_per_step")
"""Costs that add over the weights, so that a budget of them can be allotted."""
UNSURE = 0.15
"""An option is measured alone before its recipe is when what is not known of it, times its share of
the divergence, is more than this (in log divergence)."""
WORTH = 1.6
"""A recipe is worth an evaluation if the model, which is that far off at times, may be wrong about it."""


@dataclass(frozen=True)
class Budget:
    """What is asked for: the least divergence within a limit of `field`, or the least `field` within
    a limit of the divergence; one of them is given.

    Attributes:
        field: one of `COSTS`.
        limit: the most of it.
        divergence: the most divergence, as `Quality` reports it.
    """

    field: str
    limit: float | None = None
    divergence: float | None = None

    def __post_init__(self) -> None:
        if self.field not in COSTS:
            raise UserError(f"the budget is one of '{self.field}'", f"one of {', '.join(COSTS)}")
        both = {"limit": self.limit, "divergence": self.divergence}
        given = {name: value for name, value in both.items() if value is not None}
        if len(given) != 1 or not 0 < min(given.values()) < np.inf:
            shown = " and ".join(f"{name} {value:g}" for name, value in given.items())
            raise UserError(
                f"the budget has {shown or 'neither limit nor divergence'}",
                "one of them, above zero",
            )

    def miss(self, cost: float, divergence: float) -> float:
        """How many times what is limited exceeds its limit; at most 1 within the budget."""
        if self.limit is not None:
            return cost / self.limit
        return divergence / (self.divergence or 1.0)

    def objective(self, cost: float, divergence: float) -> float:
        """What is to be least."""
        return divergence if self.limit is not None else cost


@dataclass(frozen=True)
class Measured:
    """One full evaluation.

    Attributes:
        kind: "reference", "alone" (one weight or layer, the others as the reference) or "whole".
        recipe: that was evaluated.
        predicted: divergence that the model expected.
        divergence, cost: that were measured, the cost in the budget's field.
    """

    kind: str
    recipe: Recipe
    predicted: float
    divergence: float
    cost: float


@dataclass(frozen=True)
class Allocation:
    """The best recipe found.

    Attributes:
        recipe: one rule for each weight and for each layer that loses units.
        evaluation: of the recipe.
        divergence, cost: measured.
        predicted: divergence that the model expected before the recipe was evaluated.
        within: whether the budget is met; if not, the recipe is the one that misses it least.
        trace: all evaluations in order, the recipe's among them.
        notes: what was not offered to the weights, and why.
    """

    recipe: Recipe
    evaluation: Evaluation
    divergence: float
    cost: float
    predicted: float
    within: bool
    trace: tuple[Measured, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object; of the evaluations what was measured, not their recipes."""
        return {
            "recipe": self.recipe.to_json(),
            "quality": {name: q.to_json() for name, q in self.evaluation.quality.items()},
            "divergence": self.divergence,
            "cost": self.cost,
            "predicted": self.predicted,
            "within": self.within,
            "notes": list(self.notes),
            "evaluations": [
                {k: getattr(m, k) for k in ("kind", "predicted", "divergence", "cost")}
                for m in self.trace
            ],
        }


def allocate(
    problem: Problem,
    pricer: Pricer,
    candidates: Mapping[str, Sequence[Choice]],
    budget: Budget,
    *,
    removals: Mapping[str, Sequence[Removal]] | None = None,
    nonlinearities: Mapping[str, Nonlinearity] | None = None,
    recalibrate: int = 0,
    evaluations: int = 50,
    evaluate: Callable[[Problem, Recipe], Evaluation] = evaluate_recipe,
    tell: Callable[[Measured], None] = lambda _: None,
) -> Allocation:
    """Choose a candidate for every weight, in few full evaluations.

    The divergence is modelled as a sum over weights, which starts from a prediction by the Fisher
    information of their results and is corrected by each evaluation, of single weights first; the
    allotment under it is a multiple-choice knapsack.

    Source: Shoham and Gersho, Efficient bit allocation for an arbitrary set of quantizers, IEEE
    Transactions on Acoustics, Speech, and Signal Processing 36(9), 1988 (sums of distortions); Dong
    et al., HAWQ, ICCV 2019 (second-order sensitivities of layers).

    Args:
        candidates: weight → its choices; weights that are not named stay as the reference, 8 bits.
            Those that do not fit what a removal leaves of a weight are not offered beside it.
        removals: layer → how its units may be removed; that all stay is an option too.
        nonlinearities: layer → how every recipe computes its σ and tanh; exactly without.
        recalibrate: closed-loop rounds of each recipe.
        evaluations: the most full evaluations.
        evaluate: makes one; a store of evaluations may stand before it.
        tell: called with each.

    Raises:
        UserError: an unknown weight or layer, a weight without candidates that fit, or too few
            evaluations.
    """
    if evaluations < 3:
        raise UserError(f"{evaluations} evaluations are allowed", "at least 3")
    options = Options(
        problem.model,
        pricer,
        candidates,
        removals or {},
        nonlinearities or {},
        recalibrate,
        budget.field,
    )
    work = _Allocator(problem, options, budget, evaluate, tell)
    work.run(evaluations)
    return work.result()


class _Allocator:
    def __init__(
        self,
        problem: Problem,
        options: Options,
        budget: Budget,
        evaluate: Callable[[Problem, Recipe], Evaluation],
        tell: Callable[[Measured], None],
    ) -> None:
        self.problem, self.options, self.budget = problem, options, budget
        self.evaluate, self.tell = evaluate, tell
        self.squared = problem.model.output == VALUES
        self.trace: list[Measured] = []
        self.done: dict[Selection, tuple[Measured, Evaluation]] = {}
        self.drift = 0.0
        """Mean log of the measured over the expected cost of whole recipes."""

    # --- measuring -------------------------------------------------------------------------------
    def chosen(self, selection: Selection) -> Chosen:
        """A selection as the belief knows it."""
        crowding = self.options.crowding[selection[len(self.options.candidates) :]]
        taken = [
            (self.belief.position(slot, option), crowding.get(slot, 0.0))
            for slot, option in zip(self.options.slots, selection, strict=True)
            if option >= 0
        ]
        return Chosen(np.array([p for p, _ in taken], np.int64), np.array([c for _, c in taken]))

    def measure(self, kind: str, selection: Selection) -> None:
        recipe = self.options.recipe(selection)
        chosen = self.chosen(selection)
        predicted = self.belief.predict(chosen)
        evaluation = self.evaluate(self.problem, recipe)
        cost = self.options.measured(recipe, evaluation)
        divergence = self._additive(evaluation.quality["divergence"].value)
        made = Measured(kind, recipe, self._shown(predicted), self._shown(divergence), cost)
        self._keep(selection, made, evaluation)
        self.belief.observe(chosen, divergence)
        if kind == "whole":
            ratio = float(np.log(cost / self.options.expected([selection])[0]))
            whole = sum(m.kind == "whole" for m in self.trace)
            self.drift += (ratio - self.drift) / min(whole, 5)

    def _keep(self, selection: Selection, made: Measured, evaluation: Evaluation) -> None:
        self.trace.append(made)
        self.done[selection] = (made, evaluation)
        self.tell(made)

    def _additive(self, divergence: float) -> float:
        """A divergence that adds: the KL, or the square of the relative error."""
        return divergence**2 if self.squared else divergence

    def _shown(self, additive: float) -> float:
        return float(np.sqrt(additive)) if self.squared else additive

    def run(self, evaluations: int) -> None:
        """Measure until the evaluations are used up or nothing promises to be better."""
        reference = self.options.recipe(self.options.nothing)
        first = self.evaluate(self.problem, reference)
        floor = first.quality["divergence"].value
        self.belief = self._belief(self._additive(floor))
        cost = self.options.measured(reference, first)
        made = Measured("reference", reference, floor, floor, cost)
        self._keep(self.options.nothing, made, first)
        while len(self.trace) < evaluations:
            selection = self._proposal()
            if selection is None:
                return
            alone = self._unsure(selection)
            if alone is not None and len(self.trace) < evaluations - 1:
                self.measure("alone", alone)
            else:
                self.measure("whole", selection)

    def _belief(self, floor: float) -> Sensitivities:
        candidates, expected = self.options.candidates, self._expected()
        parts = {n: [choice_parts(c) for c in options] for n, options in candidates.items()}
        # Nothing predicts what a smaller layer does: as much as the coarsest choices of all weights
        # where nearly all units go, so that it is measured before it is believed.
        coarsest = sum(float(values.max()) for values in expected.values())
        for name, options in self.options.removals.items():
            gone = [1.0 - o.units / self.options.units[name] for o in options]
            expected[name] = coarsest * np.maximum(gone, 0.01)
            parts[name] = [("",) for _ in options]
        return believe(expected, parts, floor)

    def _expected(self) -> dict[str, Array]:
        """Predicted divergence of every option of every weight, in the first layer sizes it fits."""
        found = {n: np.zeros(len(options)) for n, options in self.options.candidates.items()}
        left = {name: np.ones(values.size, bool) for name, values in found.items()}
        for size, fitting in self.options.offer.fitting.items():
            new = {name: own[left[name][own]] for name, own in fitting.items()}
            new = {name: own for name, own in new.items() if own.size}
            if new:
                chosen = {n: [self.options.candidates[n][i] for i in own] for n, own in new.items()}
                layers = self.options.layer_rules(size)
                made = predicted_divergences(self.problem.model, self.problem.stats, chosen, layers)
                for name, own in new.items():
                    found[name][own], left[name][own] = made[name], False
        return found

    def _unsure(self, selection: Selection) -> Selection | None:
        """The option of a recipe that most deserves to be measured alone, as a selection: a removal,
        whose effect nothing predicts, or what is most in doubt.
        """
        doubt = self.belief.doubts(self.chosen(selection))
        taken = [slot for slot, option in enumerate(selection) if option >= 0]
        layers = len(self.options.candidates)
        for number in sorted(range(len(taken)), key=lambda n: (taken[n] < layers, -doubt[n])):
            slot = taken[number]
            alone = list(self.options.nothing)
            alone[slot] = selection[slot]
            worth = slot >= layers or doubt[number] > UNSURE
            if worth and tuple(alone) not in self.done and self.options.fits(tuple(alone)):
                return tuple(alone)
        return None

    # --- proposing -------------------------------------------------------------------------------
    def _points(self) -> list[tuple[float, float, Selection]]:
        """(expected cost, predicted divergence, selection) of the model's front, and of what is so
        near to the best measured recipe that the model may not tell them apart.
        """
        fronts: list[tuple[Front, Selection]] = []
        for size, base in self.options.base.items():
            crowding = self.options.crowding[size]
            losses = [
                self.belief.losses(name, crowding[name])[own]
                for name, own in self.options.offer.fitting[size].items()
            ]
            lost = sum(
                float(self.belief.losses(name)[option])
                for name, option in zip(self.options.removals, size, strict=True)
                if option >= 0
            )
            fronts.append((front(self.options.extra[size], losses, base, lost), size))
        points = [self._selection(picks, size) for _, picks, size in join_fronts(fronts)]
        points = list(dict.fromkeys([*points, *self._neighbours()]))
        costs = self.options.expected(points) * float(np.exp(self.drift))
        predicted = [self.belief.predict(self.chosen(point)) for point in points]
        return list(zip(costs.tolist(), predicted, points, strict=True))

    def _selection(self, picks: Selection, size: Selection) -> Selection:
        """The selection that picks a weight's options by their place among those that fit."""
        fitting = self.options.offer.fitting[size].values()
        return (*(int(own[p]) for own, p in zip(fitting, picks, strict=True)), *size)

    def _neighbours(self) -> list[Selection]:
        """The best measured recipe of whole ones with one option changed, where all then fit."""
        whole = [s for s in self.done if -1 not in s[: len(self.options.candidates)]]
        if not whole:
            return []
        best = min(whole, key=lambda s: self._rank(self.done[s][0]))
        counts = [len(options) for options in self.options.candidates.values()]
        changed = [
            (*best[:slot], option, *best[slot + 1 :])
            for slot, count in enumerate(counts)
            for option in range(count)
        ] + [(*best[: len(counts)], *size) for size in self.options.base]
        return [selection for selection in changed if self.options.fits(selection)]

    def _proposal(self) -> Selection | None:
        """The recipe that promises most, or None if none promises to beat the best measured one."""
        best = self._best()
        points = [p for p in self._points() if p[2] not in self.done]
        if self.budget.limit is not None:
            inside = [p for p in points if p[0] <= self.budget.limit] or points[:1]
            found = min(inside, key=lambda p: (p[1], p[0]), default=None)
            hopeless = (
                found is not None
                and best is not None
                and found[1] > WORTH * self._additive(best.divergence)
            )
        else:
            wanted = self._additive(self.budget.divergence or 0.0)
            better = [p for p in points if best is None or p[0] < best.cost]
            fits = [p for p in better if p[1] <= wanted]
            found = (
                min(fits, key=lambda p: p[0])
                if fits
                else min(better, key=lambda p: p[1], default=None)
            )
            hopeless = found is not None and best is not None and found[1] > WORTH * wanted
        return None if found is None or hopeless else found[2]

    def _best(self) -> Measured | None:
        """The best evaluated recipe within the budget."""
        within = [m for m, _ in self.done.values() if self._rank(m)[0] <= 1.0]
        return min(within, key=self._rank, default=None)

    def _rank(self, made: Measured) -> tuple[float, float]:
        """Order of what was measured: what misses the budget least, then the best of what meets it."""
        miss = self.budget.miss(made.cost, made.divergence)
        return max(miss, 1.0), self.budget.objective(made.cost, made.divergence)

    def result(self) -> Allocation:
        """The best of what was evaluated."""
        best, evaluation = min(self.done.values(), key=lambda pair: self._rank(pair[0]))
        return Allocation(
            best.recipe,
            evaluation,
            best.divergence,
            best.cost,
            best.predicted,
            self._rank(best)[0] <= 1.0,
            tuple(self.trace),
            self.options.offer.notes,
        )
