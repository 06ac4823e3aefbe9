"""What allocation chooses from: options of weights and layers, the recipes they make, and their cost."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from modelflex.compress.choices import weight_axes
from modelflex.core.extension import Removal
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.registry import FORMATS, STRUCTURES
from modelflex.search.pricing import Pricer

REFERENCE_BITS = 8
MAX_SIZES = 4096
"""Combinations of layer sizes that are looked at."""

Selection = tuple[int, ...]
"""The number of the option of each slot: weights, then layers; −1 for the reference."""


class Options:
    """Candidates of weights and removals of layers, priced in one field of the cost.

    Args:
        candidates: weight → its choices.
        removals: layer → how its units may be removed.
        recalibrate: closed-loop rounds of each recipe.
        field: of `Cost`; it must add over the weights.

    Attributes:
        slots: the weights, then the layers.
        base: layer sizes → cost with options from the middle of every weight's list.
        extra: layer sizes → what each option of each weight costs more than that.
        units: layer → its units.
        crowding: layer sizes → weight → log of units over kept units of the layers it touches.

    Raises:
        UserError: an unknown weight or layer, one without options, or too many sizes.
    """

    def __init__(
        self,
        model: Model,
        pricer: Pricer,
        candidates: Mapping[str, Sequence[Choice]],
        removals: Mapping[str, Sequence[Removal]],
        recalibrate: int,
        field: str,
    ) -> None:
        if not candidates:
            raise UserError(
                "no weight has candidates", "at least one weight to be allotted a choice"
            )
        _check(candidates, model.weights, "weight")
        _check(removals, [layer.name for layer in model.layers], "layer")
        self.weights, self.pricer, self.field = tuple(model.weights), pricer, field
        self.candidates, self.removals, self.recalibrate = candidates, removals, recalibrate
        self.slots = (*candidates, *removals)
        self.units = {layer.name: layer.units for layer in model.layers}
        uniform = FORMATS.get("uniform")(bits=REFERENCE_BITS, scales="row")
        dense = STRUCTURES.get("dense")("least_squares")  # refitted where units were removed
        self.reference = Choice(dense, uniform, Activation(REFERENCE_BITS))
        self.base: dict[Selection, float] = {}
        self.extra: dict[Selection, list[Array]] = {}
        self.crowding = {size: self._crowding(model, size) for size in self._sizes()}
        self._price()

    @property
    def nothing(self) -> Selection:
        """The reference: every weight in 8 bits, all units."""
        return (-1,) * len(self.slots)

    def recipe(self, selection: Selection) -> Recipe:
        """The recipe of one option of every slot."""
        chosen = dict(zip(self.slots, selection, strict=True))
        rules = []
        for name in self.weights:
            number = chosen.get(name, -1)
            choice = self.reference if number < 0 else self.candidates[name][number]
            rules.append(Rule(name, choice))
        layers = tuple(
            LayerRule(name, options[chosen[name]])
            for name, options in self.removals.items()
            if chosen[name] >= 0
        )
        return Recipe(tuple(rules), self.recalibrate, label="allocated", layers=layers)

    def expected(self, selections: Sequence[Selection]) -> Array:
        """Cost before evaluation, [selections]."""
        return self.pricer.price([self.recipe(s) for s in selections])[0][self.field]

    def measured(self, recipe: Recipe, evaluation: Evaluation) -> float:
        """Cost with the counters of an evaluation."""
        return float(self.pricer.price_measured([recipe], [evaluation.profile])[self.field][0])

    def _crowding(self, model: Model, size: Selection) -> dict[str, float]:
        logs = {
            name: float(np.log(max(self.units[name] / options[number].units, 1.0)))
            for (name, options), number in zip(self.removals.items(), size, strict=True)
            if number >= 0
        }
        axes = weight_axes(model)
        return {
            name: max(logs.get(axes[name].rows, 0.0), logs.get(axes[name].columns, 0.0))
            for name in self.candidates
        }

    def _sizes(self) -> list[Selection]:
        """All combinations of layer sizes."""
        counts = [range(-1, len(options)) for options in self.removals.values()]
        sizes = list(itertools.islice(itertools.product(*counts), MAX_SIZES + 1))
        if len(sizes) > MAX_SIZES:
            raise UserError(
                "the layers may have too many sizes", f"at most {MAX_SIZES} combinations"
            )
        return sizes

    def _price(self) -> None:
        """Expected cost of every option under every combination of layer sizes, beside options of the
        other weights from the middle of their lists.
        """
        middle = [len(options) // 2 for options in self.candidates.values()]
        sizes, selections = self._sizes(), []
        for size in sizes:
            for slot, options in enumerate(self.candidates.values()):
                for option in range(len(options)):
                    selections.append((*middle[:slot], option, *middle[slot + 1 :], *size))
        costs = dict(zip(selections, self.expected(selections).tolist(), strict=True))
        for size in sizes:
            self.base[size] = costs[(*middle, *size)]
            self.extra[size] = [
                np.array([
                    costs[(*middle[:slot], option, *middle[slot + 1 :], *size)] - self.base[size]
                    for option in range(len(options))
                ])
                for slot, options in enumerate(self.candidates.values())
            ]  # fmt: skip


def options_of(
    model: Model, recipes: Sequence[Recipe]
) -> tuple[dict[str, list[Choice]], dict[str, list[Removal]]]:
    """Candidates of every weight and removals of every layer, each once: all that a space's recipes
    choose, to be combined anew.
    """
    candidates: dict[str, dict[Choice, None]] = {name: {} for name in model.weights}
    removals: dict[str, dict[Removal, None]] = {}
    for recipe in recipes:
        for name in candidates:
            choice = recipe.choice(name)
            if choice is not None:
                candidates[name].setdefault(choice)
        for layer in model.layers:
            _, rule = recipe.layer_choice(layer.name)
            if rule is not None and rule.removal is not None:
                removals.setdefault(layer.name, {}).setdefault(rule.removal)
    return (
        {name: list(found) for name, found in candidates.items() if found},
        {name: list(found) for name, found in removals.items()},
    )


def _check(options: Mapping[str, Sequence[object]], known: Collection[str], what: str) -> None:
    for name, values in options.items():
        if name not in known:
            raise UserError(
                f"candidates are given for the {what} '{name}'", f"one of {', '.join(known)}"
            )
        if not values:
            raise UserError(f"the {what} '{name}' has no candidate", "at least one")
