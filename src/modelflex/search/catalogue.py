"""One recipe after another for every registered method, for comparing all of them on one model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelflex.core.extension import Cell, Format, Structure
from modelflex.core.model import Model
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.tracer import Activity
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, REMOVALS, STRUCTURES
from modelflex.search.space import SpaceRecipe

FEW_INPUTS = 32
"""Weights with fewer inputs keep the dense structure: they are small and hold little redundance."""
SHARES = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.75)
"""Shares of a layer's units that stay."""
WHOLE = Activation(8, "max")


@dataclass(frozen=True)
class Catalogue:
    """The recipes of a comparison.

    Attributes:
        rounds: of recalibration, for data-aware recipes.
    """

    model: Model
    rounds: int = 2

    def recipes(self) -> list[SpaceRecipe]:
        """Every method by itself beside 8-bit activations, then hybrids; each recipe once."""
        made = itertools.chain(
            self._formats(),
            self._structures(),
            self._activities(),
            self._removals(),
            self._nonlinearities(),
            self._hybrids(),
        )
        found: dict[str, SpaceRecipe] = {}
        for family, label, recipe in made:
            named = Recipe(recipe.rules, recipe.recalibrate, label, recipe.layers)
            found.setdefault(recipe.key, SpaceRecipe(named, family))
        return list(found.values())

    # --- one method at a time --------------------------------------------------------------------
    def _formats(self) -> Iterator[tuple[str, str, Recipe]]:
        for name, kind in FORMATS.items():
            for config in configurations(kind):
                fitted = self._dense(config)
                yield f"format: {name}", short(name, config), self._recipe(fitted)

    def _structures(self) -> Iterator[tuple[str, str, Recipe]]:
        encode = uniform(4)
        for name, kind in STRUCTURES.items():
            if name == "dense":
                continue
            for config in configurations(kind):
                held = [w for w in self._wide() if takes(config, self._shape(w))]
                if held:
                    chosen = self._dense(encode) | {
                        w: Choice(config, encode, WHOLE, None) for w in held
                    }
                    text = f"{short(name, config)} 4 bits"
                    yield f"structure: {name}", text, self._recipe(chosen)

    def _activities(self) -> Iterator[tuple[str, str, Recipe]]:
        for name, kind in ACTIVITIES.items():
            for config in one_at_a_time(kind):
                chosen = self._dense(uniform(8), self._moving(config))
                yield f"activity: {name}", f"{short(name, config)} 8 bits", self._recipe(chosen)

    def _removals(self) -> Iterator[tuple[str, str, Recipe]]:
        for name, kind in REMOVALS.items():
            for share in SHARES:
                layers = self._removed(kind, share)
                if layers:
                    recipe = self._recipe(self._dense(uniform(8)), layers)
                    yield f"removal: {name}", f"{name} keeps {100 * share:g} % of units", recipe

    def _nonlinearities(self) -> Iterator[tuple[str, str, Recipe]]:
        for name, kind in NONLINEARITIES.items():
            for config in configurations(kind):
                layers = (LayerRule("*", nonlinearity=config),)
                recipe = self._recipe(self._dense(uniform(8)), layers)
                yield f"nonlinearity: {name}", short(name, config), recipe

    # --- several at once -------------------------------------------------------------------------
    def _hybrids(self) -> Iterator[tuple[str, str, Recipe]]:
        """Removal or a structure, few bits, and delta."""
        delta = ACTIVITIES.get("delta")
        moving = [None] + [
            delta(threshold=t, unit="std", granularity="block", overshoot=0.5)
            for t in (0.2, 0.4, 0.6)
        ]
        for bits, activity in itertools.product((2, 4), moving):
            text = f"{bits} bits" + ("" if activity is None else f", Δ {activity.threshold:g} σ")
            for share in (1.0, *SHARES):
                layers = self._removed(REMOVALS.get("obs"), share) if share < 1 else ()
                if layers or share == 1.0:
                    held = self._dense(uniform(bits), self._moving(activity))
                    label = text if share == 1 else f"{100 * share:g} % of units, {text}"
                    yield "hybrid: units", label, self._recipe(held, layers)
            for name, structure in _hybrid_structures():
                wide = [w for w in self._wide() if takes(structure, self._shape(w))]
                if wide:
                    held = self._dense(uniform(bits), self._moving(activity))
                    held |= {
                        w: Choice(structure, uniform(bits), WHOLE, held[w].activity) for w in wide
                    }
                    label = f"{short(name, structure)} {text}"
                    yield f"hybrid: {name}", label, self._recipe(held)

    # --- parts -----------------------------------------------------------------------------------
    def _shape(self, weight: str) -> tuple[int, int]:
        return self.model.weights[weight].shape

    def _wide(self) -> list[str]:
        """Weights in which a structure may pay."""
        return [n for n in self.model.weights if self._shape(n)[1] >= FEW_INPUTS]

    def _moving(self, activity: Activity | None) -> Mapping[str, Activity | None]:
        """The activity for the weights that run at every step."""
        once = {layer.name for layer in self.model.layers if layer.reads == "last"}
        return {
            name: None if name.rsplit(".", 1)[0] in once else activity
            for name in self.model.weights
        }

    def _dense(
        self, encode: Format, activity: Mapping[str, Activity | None] | None = None
    ) -> dict[str, Choice]:
        dense = STRUCTURES.get("dense")(fit="least_squares")
        held = activity or {}
        return {n: Choice(dense, encode, WHOLE, held.get(n)) for n in self.model.weights}

    def _removed(self, kind: Any, share: float) -> tuple[LayerRule, ...]:
        """Rules that leave a share of the units of every recurrent layer (but of the last layer)."""
        rules = []
        for layer in self.model.layers[:-1]:
            if isinstance(layer.plugin, Cell):
                units = max(1, round(share * layer.units))
                rules.append(LayerRule(layer.name, kind(units=units)))
        return tuple(rules)

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


def takes(structure: Structure, shape: tuple[int, int]) -> bool:
    """Whether a structure can hold a weight of this shape."""
    try:
        structure.plan(*shape)
    except UserError:
        return False
    return True


def configurations(kind: Any) -> list[Any]:
    """Every configuration of a method's search range, each once; intervals by their ends and quarters."""
    fields = {name: spread(values) for name, values in kind.search_range.items()}
    made = (kind(**dict(zip(fields, v, strict=True))) for v in itertools.product(*fields.values()))
    return list(dict.fromkeys(made))


def one_at_a_time(kind: Any) -> list[Any]:
    """Configurations of a method in which only the first field of its range and one other vary."""
    fields = {name: spread(values) for name, values in kind.search_range.items()}
    first = {name: values[0] for name, values in fields.items()}
    if not fields:
        return [kind()]
    leading, *others = fields
    changes: list[dict[str, Any]] = [{}]
    changes += [{name: value} for name in others for value in fields[name][1:]]
    made = [
        kind(**(first | {leading: value} | change))
        for change in changes
        for value in fields[leading]
    ]
    return list(dict.fromkeys(made))


def spread(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a search range; of an interval its ends and quarters."""
    if len(values) == 2 and all(isinstance(v, float) for v in values):
        low, high = values
        return tuple(low + (high - low) * i / 4 for i in range(5))
    return values


def short(name: str, config: Any) -> str:
    """A method and the fields that its search range varies."""
    fields = (getattr(config, field) for field in config.search_range)
    text = (f"{v:g}" if isinstance(v, float) else str(v) for v in fields if v is not None)
    return " ".join([name, *text])
