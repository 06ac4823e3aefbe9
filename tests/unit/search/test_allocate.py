"""Allocation against all combinations of its candidates, and against one choice for all weights."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.extension import Removal
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, PLATFORMS, REMOVALS, STRUCTURES
from modelflex.search.allocate import Allocation, Budget, allocate
from modelflex.search.options import nonlinearities_of
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


# --- what fits -----------------------------------------------------------------------------------
def circulant(block: int, bits: int = 4) -> Choice:
    return replace(choice(bits), structure=STRUCTURES.get("circulant")(block=block))


def test_what_does_not_fit_a_weight_is_not_offered_and_told() -> None:
    """Blocks of 5 divide none of the weights' 64 and 16 rows: all else is as without them."""
    problem, pricer = world()
    budget, names = Budget(BYTES, limit=900.0), list(problem.model.weights)
    plain, more = (
        allocate(problem, pricer, dict.fromkeys(names, offered), budget, evaluations=9)
        for offered in (OPTIONS[:4], (circulant(5), *OPTIONS[:4], circulant(5, 3)))
    )
    assert more.trace == plain.trace
    assert plain.notes == ()
    assert len(more.notes) == len(names)
    for name, note in zip(names, more.notes, strict=True):
        out, inputs = problem.model.weights[name].shape
        assert note.startswith(f"{name} of {out}×{inputs}: 2 of 6 choices are not offered (")
        assert f"a circulant block of 5 does not divide a weight of {out}×{inputs}" in note


def possible(
    candidates: Mapping[str, Sequence[Choice]], layer: str, removals: Sequence[Removal]
) -> list[Recipe]:
    """All recipes that compression does not refuse."""
    problem, _ = world()
    made = []
    for removal in (None, *removals):
        layers = () if removal is None else (LayerRule(layer, removal),)
        for chosen in itertools.product(*candidates.values()):
            rules = tuple(Rule(n, c) for n, c in zip(candidates, chosen, strict=True))
            recipe = Recipe(rules, layers=layers)
            with contextlib.suppress(UserError):
                compress(problem.model, recipe, problem.stats)
                made.append(recipe)
    return made


def test_what_fits_some_layer_sizes_is_offered_in_those() -> None:
    """Of 16 units blocks of 16 divide W_h (64×16), of 12 kept ones those of 12, of 8 those of 8 do."""
    problem, pricer = world()
    removals = [REMOVALS.get("obs")(units) for units in (12, 8)]
    candidates = dict.fromkeys(problem.model.weights, (choice(4), choice(2)))
    candidates["layer0.w_h"] = (circulant(16), circulant(12), circulant(8), circulant(5))
    allowed = possible(candidates, "layer0", removals)
    assert len(allowed) == 4 * (2 + 1 + 1)
    truth = [measured(recipe) for recipe in allowed]
    for limit in sorted(t[1] for t in truth)[2::4]:
        made = allocate(
            problem, pricer, candidates, Budget(BYTES, limit=limit),
            removals={"layer0": removals}, evaluations=24,
        )  # fmt: skip
        whole = {m.recipe.key for m in made.trace if m.kind == "whole"}
        assert whole <= {recipe.key for recipe in allowed}
        assert made.within
        assert made.divergence <= 1.3 * min(t[0] for t in truth if t[1] <= limit)
    told = [note for note in made.notes if "layer0.w_h of 48×12: 1 of 4" in note]
    assert [note.split("block of ")[1].split()[0] for note in told] == ["16", "8", "5"]


def test_layer_sizes_that_leave_a_weight_without_a_choice_are_left_out() -> None:
    problem, pricer = world()
    candidates = {"layer0.w_h": (circulant(8), circulant(16))}
    removals = {"layer0": [REMOVALS.get("obs")(units) for units in (12, 8)]}
    budget = Budget(BYTES, divergence=5.0)
    made = allocate(problem, pricer, candidates, budget, removals=removals, evaluations=20)
    kept = {m.recipe.layers for m in made.trace if m.kind == "whole"}
    assert {rule.removal.units for rules in kept for rule in rules if rule.removal} == {8}
    assert "layer sizes that leave layer0.w_h of 48×12 are not offered" in made.notes
    with pytest.raises(UserError, match=r"no choice that is given for 'head.w' fits it \(a circ"):
        allocate(problem, pricer, {"head.w": (circulant(5),)}, budget, removals=removals)
    apart = {"layer0.w_h": (circulant(16),), "head.w": (n_m(3),)}
    one = {"layer0": removals["layer0"][:1]}
    with pytest.raises(UserError, match="every combination of layer sizes has a weight"):
        allocate(problem, pricer, apart, budget, removals=one)


def n_m(m: int) -> Choice:
    return replace(choice(4), structure=STRUCTURES.get("n_m")(n=1, m=m))


# --- nonlinearities ------------------------------------------------------------------------------
def spaces(*nonlinearities: Any) -> list[Recipe]:
    """A recipe for each: 4 bits, that nonlinearity in the recurrent layer and `hard` in the others."""
    hard = LayerRule("*", nonlinearity=NONLINEARITIES.get("hard")())
    rule = Rule("*", choice(4))
    return [
        Recipe((rule,), layers=(LayerRule("layer0", nonlinearity=given), hard))
        for given in nonlinearities
    ]


def test_a_nonlinearity_of_the_whole_space_is_kept() -> None:
    problem, pricer = world()
    hard, pwl = NONLINEARITIES.get("hard")(), NONLINEARITIES.get("pwl")(segments=8)
    kept, notes = nonlinearities_of(problem.model, spaces(pwl, pwl))
    assert (kept, notes) == ({"layer0": pwl, "head": hard}, ())
    made = allocate(
        problem, pricer, dict.fromkeys(problem.model.weights, OPTIONS[:3]), Budget(BYTES, limit=700.0),
        removals={"layer0": [REMOVALS.get("obs")(8)]}, nonlinearities=kept, evaluations=9,
    )  # fmt: skip
    sizes = set()
    for recipe in (m.recipe for m in made.trace):
        _, rule = recipe.layer_choice("layer0")
        assert rule is not None
        assert rule.nonlinearity == pwl
        assert recipe.layer_choice("head")[1] == LayerRule("head", None, hard)
        sizes.add(rule.removal is None)
    assert sizes == {True, False}
    assert made.evaluation.quality == evaluate_recipe(problem, made.recipe).quality


def test_nonlinearities_that_differ_are_exact_and_told() -> None:
    problem, pricer = world()
    hard, pwl = NONLINEARITIES.get("hard")(), NONLINEARITIES.get("pwl")(segments=8)
    kept, (note,) = nonlinearities_of(problem.model, spaces(pwl, None, hard, pwl))
    assert kept == {"head": hard}
    assert "several nonlinearities (pwl, none, hard) for layer0: none is chosen" in note
    budget, candidates = Budget(BYTES, limit=900.0), {"head.w": OPTIONS}
    with pytest.raises(UserError, match="a nonlinearity is given for the layer 'tail'"):
        allocate(problem, pricer, candidates, budget, nonlinearities={"tail": hard})


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
