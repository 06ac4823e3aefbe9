"""The steps from the uncompressed network to a recipe, each added to the one before."""

from __future__ import annotations

from typing import Any, cast

from modelflex.compress.choices import uncompressed_choice
from modelflex.core.cost import Cost
from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import LayerRule, Recipe, Rule, rule_from_json
from modelflex.core.trial import Evaluation
from modelflex.registry import NONLINEARITIES, REMOVALS
from modelflex.search.pricing import Pricer
from modelflex.search.steps import make_steps, partial_recipes
from modelflex.search.study import Step

RULE = rule_from_json({
    "weights": "*",
    "structure": {"method": "circulant", "block": 4},
    "format": {"method": "uniform", "bits": 2},
    "activity": {"method": "delta", "threshold": 0.1},
})  # fmt: skip


def test_each_step_adds_one_axis() -> None:
    removal, hard = REMOVALS.get("obs")(4), NONLINEARITIES.get("hard")()
    recipe = Recipe((RULE,), 2, layers=(LayerRule("lstm0", removal, hard),))
    found = dict(partial_recipes(recipe))
    assert list(found) == [
        "16-bit integers",
        "removal of units",
        "structure and fit",
        "number format",
        "activity",
        "nonlinearity",
        "recalibration",
    ]
    plain = uncompressed_choice()
    choices = {label: partial.rules[0].choice for label, partial in found.items()}
    assert choices["16-bit integers"] == choices["removal of units"] == plain
    assert choices["structure and fit"].structure == RULE.choice.structure
    assert choices["structure and fit"].format == plain.format
    assert choices["number format"].format == RULE.choice.format
    assert choices["number format"].activity is None
    assert choices["activity"] == RULE.choice
    layers = {label: partial.layers for label, partial in found.items()}
    assert layers["16-bit integers"] == ()
    assert layers["removal of units"] == layers["activity"] == (LayerRule("lstm0", removal, None),)
    assert layers["nonlinearity"] == recipe.layers
    assert found["recalibration"] == recipe
    assert [p.recalibrate for p in found.values()] == [0] * 6 + [2]


def test_steps_that_change_nothing_are_left_out() -> None:
    recipe = Recipe((Rule("*", uncompressed_choice()),))
    assert [label for label, _ in partial_recipes(recipe)] == ["16-bit integers"]


class Prices:
    """A pricer for which a recipe costs what its name says."""

    def cost(self, recipe: Recipe, profile: Profile) -> Cost:
        size = 10.0 * len(recipe.label)
        return Cost(weight_bytes=size, weight_fetch_bytes_per_step=2 * size, macs_per_step=3 * size)


def test_the_figures_of_a_step_are_those_of_its_recipe() -> None:
    recipe = Recipe((RULE,), label="abc")
    quality = {"divergence": Quality("kl", "min", 0.25, (0.0, 1.0), 3)}
    evaluations = {recipe.key: Evaluation(quality, Profile(1, 1), 0, {})}
    base = Cost(weight_bytes=400.0, weight_fetch_bytes_per_step=300.0, macs_per_step=200.0)
    pricer: Any = cast(Pricer, Prices())
    first, last = make_steps(base, [("all", recipe)], evaluations, pricer)
    assert first == Step("float32, dense", 400.0, 300.0, None, None, 0.0, 200.0)
    assert last == Step("all", 30.0, 60.0, None, None, 0.25, 90.0)
