"""Allocation against all combinations of its candidates, and against one choice for all weights."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.registry import ACTIVITIES, FORMATS, PLATFORMS, REMOVALS, STRUCTURES
from modelflex.search.allocate import Allocation, Budget, allocate
from modelflex.search.pricing import Pricer
from modelflex.search.problem import Problem, evaluate_recipe, run_network
from modelflex.testing.generators import random_model, random_sequences

BYTES, FETCH = "weight_bytes", "weight_fetch_bytes_per_step"


@cache
def world(output: str = "logits") -> tuple[Problem, Pricer]:
    rng = np.random.default_rng(5)
    model = random_model(rng, ("lstm",), reads="every")
    stats = calibrate(model, random_sequences(rng, (30,) * 12, model.inputs))
    data = random_sequences(rng, (25,) * 8, model.inputs)
    original, _ = run_network(model, data)
    problem = Problem(model, stats, data, original, make_task("none"), 0)
    platform: Any = PLATFORMS.get("systolic").from_config({"spec": "bitfusion_32x32"})
    return problem, Pricer(model, stats, platform, 25.0)


def choice(bits: int, theta: float | None = None) -> Choice:
    held = None if theta is None else ACTIVITIES.get("delta")(threshold=theta, unit="std")
    uniform = FORMATS.get("uniform")(bits=bits, scales="row")
    return Choice(STRUCTURES.get("dense")("least_squares"), uniform, Activation(8), held)


OPTIONS = (choice(2), choice(3), choice(4), choice(6), choice(3, 0.3), choice(4, 0.15))


@cache
def measured(recipe: Recipe) -> tuple[float, float, float]:
    """(divergence, bytes, bytes fetched) of a recipe."""
    problem, pricer = world()
    made = evaluate_recipe(problem, recipe)
    totals = pricer.price_measured([recipe], [made.profile])
    return (
        made.quality["divergence"].value,
        float(totals[BYTES][0]),
        float(totals[FETCH][0]),
    )


def everything() -> list[tuple[float, float, float]]:
    names = list(world()[0].model.weights)
    combinations = itertools.product(OPTIONS, repeat=len(names))
    return [
        measured(Recipe(tuple(Rule(n, c) for n, c in zip(names, chosen, strict=True))))
        for chosen in combinations
    ]


def found(budget: Budget, **options: Any) -> Allocation:
    problem, pricer = world()
    candidates = dict.fromkeys(problem.model.weights, OPTIONS)
    return allocate(problem, pricer, candidates, budget, **options)


@pytest.mark.parametrize(("field", "column"), [(BYTES, 1), (FETCH, 2)])
def test_comes_near_the_best_of_all_combinations(field: str, column: int) -> None:
    """36 evaluations, of 216 combinations."""
    truth = everything()
    one = [measured(Recipe((Rule("*", c),))) for c in OPTIONS]
    wanted = one[1][0]  # what 3 bits everywhere reach
    made = found(Budget(field, divergence=wanted), evaluations=36)
    best = min(t[column] for t in truth if t[0] <= wanted)
    alike = min(t[column] for t in one if t[0] <= wanted)
    assert made.within
    assert made.divergence <= wanted
    assert made.cost <= 1.1 * best
    assert made.cost <= alike
    limit = one[1][column]
    back = found(Budget(field, limit=limit), evaluations=36)
    least = min(t[0] for t in truth if t[column] <= limit)
    assert back.within
    assert back.cost <= limit
    assert back.divergence <= 1.3 * least


def test_what_it_reports_is_what_its_recipe_gives_and_repeats() -> None:
    budget = Budget(BYTES, divergence=0.02)
    made, again = (found(budget, evaluations=12, recalibrate=1) for _ in range(2))
    assert made.recipe == again.recipe
    assert made.trace == again.trace
    assert len(made.trace) <= 12
    problem, _ = world()
    evaluation = evaluate_recipe(problem, made.recipe)
    assert evaluation.quality == made.evaluation.quality
    assert evaluation.quality["divergence"].value == made.divergence
    assert evaluation.weight_bytes == made.cost
    assert made.recipe.recalibrate == 1
    assert made.trace[0].kind == "reference"
    assert {m.kind for m in made.trace} == {"reference", "alone", "whole"}
    assert [r.weights for r in made.recipe.rules] == list(problem.model.weights)


def test_evaluations_are_made_by_what_is_given_and_counted() -> None:
    seen: list[str] = []

    def evaluate(problem: Problem, recipe: Recipe) -> Evaluation:
        seen.append(recipe.key)
        return evaluate_recipe(problem, recipe)

    made = found(Budget(BYTES, limit=1500.0), evaluations=7, evaluate=evaluate)
    assert len(seen) == len(set(seen)) == len(made.trace) <= 7


def test_units_may_go_and_unnamed_weights_stay_as_the_reference() -> None:
    problem, pricer = world()
    removal = REMOVALS.get("obs")
    made = allocate(
        problem,
        pricer,
        {n: OPTIONS[1:4] for n in problem.model.weights if n != "head.w"},
        Budget(BYTES, limit=700.0),
        removals={"layer0": (removal(12), removal(8), removal(5))},
        recalibrate=1,
        evaluations=16,
    )
    assert made.within
    assert made.cost <= 700
    head = made.recipe.choice("head.w")
    assert head is not None
    assert head.format.stored_bits == 8
    (rule,) = made.recipe.layers
    assert isinstance(rule, LayerRule)
    assert rule.layers == "layer0"


def test_a_budget_that_nothing_meets_gives_the_nearest() -> None:
    made = found(Budget(BYTES, limit=10.0), evaluations=5)
    assert not made.within
    assert made.cost == min(m.cost for m in made.trace)
    made = found(Budget(BYTES, divergence=1e-9), evaluations=5)
    assert not made.within
    assert made.divergence == min(m.divergence for m in made.trace)


def test_mistakes_are_told() -> None:
    problem, pricer = world()
    budget = Budget(BYTES, limit=1000.0)
    for candidates, removals, wrong in (
        ({"lstm9.w": OPTIONS}, {}, "weight 'lstm9.w'"),
        ({"head.w": ()}, {}, "'head.w' has no candidate"),
        ({"head.w": OPTIONS}, {"tail": (REMOVALS.get("obs")(4),)}, "layer 'tail'"),
        ({}, {}, "no weight has candidates"),
    ):
        with pytest.raises(UserError, match=wrong):
            allocate(problem, pricer, candidates, budget, removals=removals)
    with pytest.raises(UserError, match="2 evaluations"):
        found(budget, evaluations=2)
    for values in ({"limit": 1.0, "divergence": 1.0}, {}, {"limit": 0.0}, {"divergence": np.inf}):
        with pytest.raises(UserError, match="one of them, above zero"):
            Budget(BYTES, **values)
    with pytest.raises(UserError, match="latency_s"):
        Budget("latency_s", limit=1.0)
