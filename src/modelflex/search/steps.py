"""The waterfall of a pick: from the uncompressed network to the recipe, one axis after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from modelflex.compress.choices import uncompressed_choice
from modelflex.core.cost import Cost
from modelflex.core.recipe import Choice, LayerRule, Recipe, Rule
from modelflex.core.trial import Evaluation
from modelflex.search.pricing import Pricer
from modelflex.search.study import Step


def partial_recipes(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """(label, recipe) after each step: 16-bit integers, removal of units, structure, format,
    activity, nonlinearity, recalibration.

    Steps that change nothing are left out.
    """
    plain = uncompressed_choice()
    removed = tuple(replace(rule, nonlinearity=None) for rule in recipe.layers)

    def stage(kind: int, layers: tuple[LayerRule, ...] = removed) -> Recipe:
        rules = []
        for rule in recipe.rules:
            c = rule.choice
            choice = Choice(
                c.structure if kind >= 1 else plain.structure,
                c.format if kind >= 2 else plain.format,
                c.activation if kind >= 2 else plain.activation,
                c.activity if kind >= 3 else None,
            )
            rules.append(Rule(rule.weights, choice))
        return Recipe(tuple(rules), 0, layers=layers)

    made = [
        ("16-bit integers", stage(0, ())),
        ("removal of units", stage(0) if any(r.removal for r in recipe.layers) else stage(0, ())),
        ("structure and fit", stage(1)),
        ("number format", stage(2)),
        ("activity", stage(3)),
        ("nonlinearity", stage(3, recipe.layers)),
        ("recalibration", recipe),
    ]
    kept: list[tuple[str, Recipe]] = []
    for label, partial in made:
        if not kept or partial.key != kept[-1][1].key:
            kept.append((label, partial))
    return kept


def make_steps(
    baseline: Cost,
    partial: list[tuple[str, Recipe]],
    evaluations: Mapping[str, Evaluation],
    pricer: Pricer,
) -> tuple[Step, ...]:
    """The figures after each step; `evaluations` by recipe key."""
    steps = [_step("float32, dense", baseline, 0.0)]
    for label, recipe in partial:
        evaluation = evaluations[recipe.key]
        cost = pricer.cost(recipe, evaluation.profile)
        steps.append(_step(label, cost, evaluation.quality["divergence"].value))
    return tuple(steps)


def _step(label: str, cost: Cost, divergence: float) -> Step:
    return Step(
        label,
        cost.weight_bytes or 0.0,
        cost.weight_fetch_bytes_per_step or 0.0,
        cost.latency_per_step_s,
        cost.energy_per_step_j,
        divergence,
        cost.macs_per_step,
    )
