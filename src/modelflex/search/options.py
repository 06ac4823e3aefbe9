"""What allocation chooses from: options of weights and layers, the recipes they make, and their cost."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from modelflex.compress.choices import reduced_layers, weight_axes
from modelflex.core.extension import Nonlinearity, Removal
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError
from modelflex.registry import FORMATS, NONLINEARITIES, STRUCTURES
from modelflex.search.offer import Selection, make_offer
from modelflex.search.pricing import Pricer

REFERENCE_BITS = 8
MAX_SIZES = 4096
"""Combinations of layer sizes that are looked at."""


class Options:
    """Candidates of weights and removals of layers, priced in one field of the cost.

    Args:
        candidates: weight → its choices; each is offered in the layer sizes in which it fits.
        removals: layer → how its units may be removed.
        nonlinearities: layer → how all recipes compute its σ and tanh; exactly without.
        recalibrate: closed-loop rounds of each recipe.
        field: of `Cost`; it must add over the weights.

    Attributes:
        offer: which candidates fit in which layer sizes.
        candidates: weight → its choices that fit somewhere.
        slots: the weights, then the layers.
        base: offered layer sizes → cost with options from the middle of every weight's list.
        extra: offered layer sizes → what each fitting option of each weight costs more than that.
        units: layer → its units.
        crowding: layer sizes → weight → log of units over kept units of the layers it touches.

    Raises:
        UserError: an unknown weight or layer, one without options that fit, or too many sizes.
    """

    def __init__(
        self,
        model: Model,
        pricer: Pricer,
        candidates: Mapping[str, Sequence[Choice]],
        removals: Mapping[str, Sequence[Removal]],
        nonlinearities: Mapping[str, Nonlinearity],
        recalibrate: int,
        field: str,
    ) -> None:
        if not candidates:
            raise UserError(
                "no weight has candidates", "at least one weight to be allotted a choice"
            )
        layers = [layer.name for layer in model.layers]
        _check(candidates, model.weights, "weight")
        _check(removals, layers, "layer")
        _check_known(nonlinearities, layers, "a nonlinearity is given for the layer")
        self.weights, self.pricer, self.field = tuple(model.weights), pricer, field
        self.removals, self.nonlinearities = removals, nonlinearities
        self.recalibrate = recalibrate
        self.units = {layer.name: layer.units for layer in model.layers}
        uniform = FORMATS.get("uniform")(bits=REFERENCE_BITS, scales="row")
        dense = STRUCTURES.get("dense")("least_squares")  # refitted where units were removed
        self.reference = Choice(dense, uniform, Activation(REFERENCE_BITS))
        sizes = self._sizes()
        shapes = {size: self._shapes(model, size) for size in sizes}
        self.offer = make_offer(pricer, candidates, shapes)
        self.candidates = self.offer.candidates
        self.slots = (*self.candidates, *removals)
        self.base: dict[Selection, float] = {}
        self.extra: dict[Selection, list[Array]] = {}
        self.crowding = {size: self._crowding(model, size) for size in sizes}
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
        layers = self.layer_rules(selection[len(self.candidates) :])
        return Recipe(tuple(rules), self.recalibrate, label="allocated", layers=layers)

    def layer_rules(self, size: Selection) -> tuple[LayerRule, ...]:
        """The rules for layers that make these sizes."""
        removed = {
            name: options[number]
            for (name, options), number in zip(self.removals.items(), size, strict=True)
            if number >= 0
        }
        return tuple(
            LayerRule(name, removed.get(name), self.nonlinearities.get(name))
            for name in removed | dict(self.nonlinearities)
        )

    def fits(self, selection: Selection) -> bool:
        """Whether every weight can be held by its option in the selection's layer sizes."""
        fitting = self.offer.fitting[selection[len(self.candidates) :]].values()
        chosen = selection[: len(self.candidates)]
        return all(o < 0 or o in found for o, found in zip(chosen, fitting, strict=True))

    def expected(self, selections: Sequence[Selection]) -> Array:
        """Cost before evaluation, [selections]."""
        return self.pricer.price([self.recipe(s) for s in selections])[0][self.field]

    def measured(self, recipe: Recipe, evaluation: Evaluation) -> float:
        """Cost with the counters of an evaluation."""
        return float(self.pricer.price_measured([recipe], [evaluation.profile])[self.field][0])

    def _shapes(self, model: Model, size: Selection) -> dict[str, tuple[int, int]]:
        """What is left of every weight."""
        shapes: dict[str, tuple[int, int]] = {}
        for layer in reduced_layers(model, Recipe((), layers=self.layer_rules(size))):
            shapes |= layer.weight_shapes
        return shapes

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
        fitting = {size: list(self.offer.fitting[size].values()) for size in self.offer.sizes}
        middle = {
            size: tuple(int(own[own.size // 2]) for own in found) for size, found in fitting.items()
        }
        selections = [
            self._beside(middle[size], slot, int(option), size)
            for size, found in fitting.items()
            for slot, own in enumerate(found)
            for option in own
        ]
        costs = dict(zip(selections, self.expected(selections).tolist(), strict=True))
        for size, found in fitting.items():
            self.base[size] = costs[(*middle[size], *size)]
            self.extra[size] = [
                np.array([costs[self._beside(middle[size], slot, int(o), size)] for o in own])
                - self.base[size]
                for slot, own in enumerate(found)
            ]

    @staticmethod
    def _beside(middle: Selection, slot: int, option: int, size: Selection) -> Selection:
        return (*middle[:slot], option, *middle[slot + 1 :], *size)


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


def nonlinearities_of(
    model: Model, recipes: Sequence[Recipe]
) -> tuple[dict[str, Nonlinearity], tuple[str, ...]]:
    """Layer → how all recipes compute its σ and tanh, and notes on layers where they differ: those
    have none.
    """
    kept: dict[str, Nonlinearity] = {}
    differing: dict[tuple[str, ...], list[str]] = {}
    for layer in model.layers:
        rules = (recipe.layer_choice(layer.name)[1] for recipe in recipes)
        found = list(dict.fromkeys(None if r is None else r.nonlinearity for r in rules))
        if len(found) > 1:
            said = ("none" if x is None else NONLINEARITIES.name_of(type(x)) for x in found)
            differing.setdefault(tuple(dict.fromkeys(said)), []).append(layer.name)
        elif found and found[0] is not None:
            kept[layer.name] = found[0]
    return kept, tuple(
        f"the space has several nonlinearities ({', '.join(said)}) for {', '.join(names)}: "
        "none is chosen, σ and tanh are computed exactly there"
        for said, names in differing.items()
    )


def _check_known(names: Iterable[str], known: Collection[str], given: str) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{given} '{name}'", f"one of {', '.join(known)}")


def _check(options: Mapping[str, Sequence[object]], known: Collection[str], what: str) -> None:
    _check_known(options, known, f"candidates are given for the {what}")
    for name, values in options.items():
        if not values:
            raise UserError(f"the {what} '{name}' has no candidate", "at least one")
