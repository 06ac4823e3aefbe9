"""One recipe after another for every registered method, for comparing all of them on one model."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from modelflex.compress.choices import may_lose_units
from modelflex.core.extension import Format, Structure
from modelflex.core.model import Model
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.tracer import Activity
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, REMOVALS, STRUCTURES
from modelflex.search.advise import Reads, what_is_read
from modelflex.search.ranges import configurations, fits, one_at_a_time
from modelflex.search.space import SpaceRecipe

FEW = 32
"""Weights with fewer inputs or outputs keep the dense structure: they are small and hold little redundance
(a fifth of the numbers of a head of nine classes is one direction).
"""
SHARES = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75)
"""Shares of a layer's units that stay."""
WHOLE = Activation(8, "max")

Made = tuple[str, tuple[str, str], Recipe]
"""Family, labels of the recipe and of its naive twin, recipe."""


@dataclass(frozen=True)
class Catalogue:
    """The recipes of a comparison.

    Attributes:
        rounds: of recalibration, for data-aware recipes.
    """

    model: Model
    rounds: int = 2

    def recipes(self, only: str = "*") -> list[SpaceRecipe]:
        """Every method by itself beside 8-bit activations, then hybrids, then the naive twins of all;
        each recipe once.

        Args:
            only: a pattern of families.
        """
        made = [m for m in self._made if fnmatch.fnmatchcase(m[0], only)]
        found: dict[str, SpaceRecipe] = {}
        for family, (label, _), recipe in made:
            found.setdefault(recipe.key, SpaceRecipe(replace(recipe, label=label), family))
        for family, (_, label), recipe in made:
            twin = replace(recipe.naive, label=f"{label}, naive")
            found.setdefault(twin.key, SpaceRecipe(twin, family))
        return list(found.values())

    @property
    def families(self) -> tuple[str, ...]:
        """The families of recipes, in order."""
        return tuple(dict.fromkeys(family for family, _, _ in self._made))

    @cached_property
    def _made(self) -> tuple[Made, ...]:
        return (
            *self._formats(),
            *self._structures(),
            *self._activities(),
            *self._removals(),
            *self._nonlinearities(),
            *self._hybrids(),
        )

    # --- one method at a time --------------------------------------------------------------------
    def _formats(self) -> Iterator[Made]:
        for name, kind in FORMATS.items():
            for config in configurations(kind):
                yield f"format: {name}", labels(config), self._recipe(self._dense(config))

    def _structures(self) -> Iterator[Made]:
        for name, kind in STRUCTURES.items():
            for config in _but_naive(configurations(kind)):
                chosen = self._structured(config, 4)
                if chosen is not None and name != "dense":
                    yield f"structure: {name}", labels(config, "4 bits"), self._recipe(chosen)

    def _activities(self) -> Iterator[Made]:
        for name, kind in ACTIVITIES.items():
            for config in map(_in_deviations, one_at_a_time(kind)):
                chosen = self._dense(uniform(8), config)
                yield f"activity: {name}", labels(config, "8 bits"), self._recipe(chosen)

    def _removals(self) -> Iterator[Made]:
        for name, kind in REMOVALS.items():
            for share in SHARES:
                layers = self._removed(kind, share)
                if layers:
                    text = f"{100 * share:g} % of units, 8 bits"
                    yield (
                        f"removal: {name}",
                        (text, text),
                        self._recipe(self._dense(uniform(8)), layers),
                    )

    def _nonlinearities(self) -> Iterator[Made]:
        for name, kind in NONLINEARITIES.items():
            for config in configurations(kind):
                layers = (LayerRule("*", nonlinearity=config),)
                recipe = self._recipe(self._dense(uniform(8)), layers)
                yield f"nonlinearity: {name}", labels(config, "8 bits"), recipe

    # --- several at once -------------------------------------------------------------------------
    def _hybrids(self) -> Iterator[Made]:
        """Removal or a structure, few bits, and delta."""
        delta = ACTIVITIES.get("delta")
        moving = [
            delta(threshold=t, unit="std", granularity="block", overshoot=0.5)
            for t in (0.2, 0.4, 0.6)
        ]
        for bits, activity in itertools.product((2, 4), (None, *moving)):
            rest = f"{bits} bits" + ("" if activity is None else f", Δ {activity.threshold:g} σ")
            if activity is not None:
                yield (
                    "hybrid: dense",
                    (rest, rest),
                    self._recipe(self._dense(uniform(bits), activity)),
                )
            for share in SHARES:
                layers = self._removed(REMOVALS.get("obs"), share)
                if layers:
                    text = f"{100 * share:g} % of units, {rest}"
                    held = self._dense(uniform(bits), activity)
                    yield "hybrid: units", (text, text), self._recipe(held, layers)
            for name, structure in _hybrid_structures():
                chosen = self._structured(structure, bits, activity)
                if chosen is not None:
                    yield f"hybrid: {name}", labels(structure, rest), self._recipe(chosen)

    # --- parts -----------------------------------------------------------------------------------
    @cached_property
    def _reads(self) -> Reads:
        return what_is_read(self.model)

    @cached_property
    def _once(self) -> frozenset[str]:
        """Layers that run once a sequence."""
        return frozenset(layer.name for layer in self.model.layers if layer.reads == "last")

    def _dense(self, encode: Format, activity: Activity | None = None) -> dict[str, Choice]:
        """Dense weights; those that run at every step, but not on symbols, under an activity."""
        dense = STRUCTURES.get("dense")(fit="least_squares")
        chosen = {}
        for name in self.model.weights:
            still = name.rsplit(".", 1)[0] in self._once or name in self._reads.symbols
            chosen[name] = Choice(dense, encode, WHOLE, None if still else activity)
        return chosen

    def _structured(
        self, structure: Structure, bits: int, activity: Activity | None = None
    ) -> dict[str, Choice] | None:
        """A structure for the weights that it fits and makes smaller, if there are any.

        Of a weight that reads a symbol a single column is fetched: it stays dense.
        """
        chosen = self._dense(uniform(bits), activity)
        wide = [
            name
            for name, weight in self.model.weights.items()
            if min(weight.shape) >= FEW
            and name not in self._reads.symbols
            and _smaller(structure, weight.shape)
        ]
        changed = {name: replace(chosen[name], structure=structure) for name in wide}
        return chosen | changed if wide else None

    def _removed(self, kind: Any, share: float) -> tuple[LayerRule, ...]:
        """Rules that leave a share of the units of every layer that may lose some."""
        return tuple(
            LayerRule(layer.name, kind(units=max(1, round(share * layer.units))))
            for layer in self.model.layers
            if may_lose_units(self.model, layer.name)
        )

    def _recipe(self, chosen: Mapping[str, Choice], layers: Sequence[LayerRule] = ()) -> Recipe:
        rules = tuple(Rule(name, choice) for name, choice in chosen.items())
        return Recipe(rules, self.rounds, layers=tuple(layers))


def uniform(bits: int) -> Format:
    """The plain format beside other methods: one scale a gate, GPTQ."""
    made: Format = FORMATS.get("uniform")(bits=bits, scales="gate")
    return made


def _hybrid_structures() -> Iterator[tuple[str, Structure]]:
    for block in (2, 4, 8):
        yield "circulant", STRUCTURES.get("circulant")(block=block)
    for share in (0.1, 0.2):
        yield "low_rank", STRUCTURES.get("low_rank")(share=share)


def _smaller(structure: Structure, shape: tuple[int, int]) -> bool:
    if not fits(structure, shape):
        return False
    return sum(p.geometry.codes for p in structure.plan(*shape)) < shape[0] * shape[1]


def _but_naive(configs: Sequence[Any]) -> list[Any]:
    """Without naive variants of others: the twins' recipes hold them."""
    twins = {config.naive() for config in configs if config.naive() != config}
    return [config for config in configs if config not in twins]


def _in_deviations(config: Any) -> Any:
    """Thresholds in standard deviations of each input, which mean the same on every model."""
    if any(field.name == "unit" for field in fields(config)):
        return replace(config, unit="std")
    return config


# --- words ---------------------------------------------------------------------------------------
_WORDS: Mapping[str, str] = {
    "bits": "{} bits",
    "scales": "scale a {}",
    "block": "blocks of {}",
    "density": "density {}",
    "share": "{} of the numbers",
    "n": "{} kept",
    "m": "groups of {}",
    "score": "{}",
    "fit": "{}",
    "threshold": "Δ {}",
    "inner_threshold": "inner Δ {} σ",
    "granularity": "by {}",
    "scaled": "scaled by {}",
    "overshoot": "overshoot {}",
    "entries": "{} entries",
    "interpolation": "{}",
    "segments": "{} segments",
    "max_abs_error": "error {}",
}
"""How the value of a field is said; of other fields, after the field's name."""


def labels(config: Any, rest: str = "") -> tuple[str, str]:
    """What tells configurations of a method apart, in words: of this one and of its naive variant."""
    said = (", ".join(filter(None, (words(c), rest))) for c in (config, config.naive()))
    own, naive = said
    return own, naive


def words(config: Any) -> str:
    """The fields that a method's search range varies, in words; what is absent is not said."""
    said = []
    for field in config.search_range:
        value = getattr(config, field)
        if field == "refit":
            said.append("as trained" if value == "none" else "refitted")
        elif value not in (None, "none", "element") and (field, value) != ("overshoot", 0.0):
            text = _said(field, value)
            said.append(_WORDS.get(field, field.replace("_", " ") + " {}").format(text))
    unit = " σ" if getattr(config, "unit", "") == "std" else ""
    return ", ".join(text + unit if text.startswith("Δ") else text for text in said)


def _said(field: str, value: Any) -> str:
    if field in ("density", "share"):
        return f"{100 * value:g} %"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")
