"""Recipes: for every weight one choice on each axis, as ordered rules; JSON with a schema version."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from modelflex.core.extension import Format, Nonlinearity, Removal, Structure
from modelflex.core.tracer import Activity
from modelflex.errors import UserError, nearest
from modelflex.registry import (
    ACTIVITIES,
    FORMATS,
    NONLINEARITIES,
    REMOVALS,
    STRUCTURES,
    Registry,
)

SCHEMA = "modelflex.recipe/1"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Activation:
    """The number format of a product's input: signed integers with one calibrated scale.

    Attributes:
        bits: 2 … 16.
        clip: "max" covers the largest value seen in calibration; "mse" the range of least squared error.
    """

    bits: int = 8
    clip: Literal["max", "mse"] = "max"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"activation bits are {self.bits}", "2 … 16")

    def naive(self) -> Activation:
        """Min–max range of the same bits."""
        return replace(self, clip="max")


@dataclass(frozen=True)
class Choice:
    """What stands for one weight, on every axis."""

    structure: Structure
    format: Format
    activation: Activation
    activity: Activity | None = None

    def naive(self) -> Choice:
        """The same structure, bits and thresholds in their naive variants."""
        return Choice(
            self.structure.naive(),
            self.format.naive(),
            self.activation.naive(),
            None if self.activity is None else self.activity.naive(),
        )

    @property
    def data_aware(self) -> bool:
        """Whether compressing by this choice needs calibration moments."""
        return self.structure.data_aware or self.format.data_aware

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the method's registered name stands under "method"."""
        out: dict[str, Any] = {
            "structure": method_to_json(STRUCTURES, self.structure),
            "format": method_to_json(FORMATS, self.format),
            "activation": dataclasses.asdict(self.activation),
        }
        if self.activity is not None:
            out["activity"] = method_to_json(ACTIVITIES, self.activity)
        return out


@dataclass(frozen=True)
class Rule:
    """The choice for all weights whose name matches `weights` (shell pattern)."""

    weights: str
    choice: Choice


@dataclass(frozen=True)
class LayerRule:
    """What becomes of the layers whose name matches `layers` (shell pattern).

    Attributes:
        removal: which units stay; None for all.
        nonlinearity: how σ and tanh are computed; None for exactly.
    """

    layers: str
    removal: Removal | None = None
    nonlinearity: Nonlinearity | None = None

    def naive(self) -> LayerRule:
        """The same sizes, chosen without data."""
        return LayerRule(
            self.layers,
            None if self.removal is None else self.removal.naive(),
            None if self.nonlinearity is None else self.nonlinearity.naive(),
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        out: dict[str, Any] = {"layers": self.layers}
        if self.removal is not None:
            out["removal"] = method_to_json(REMOVALS, self.removal)
        if self.nonlinearity is not None:
            out["nonlinearity"] = method_to_json(NONLINEARITIES, self.nonlinearity)
        return out


@dataclass(frozen=True)
class Recipe:
    """Ordered rules; the first that matches a weight decides.

    Attributes:
        layers: rules for layers; the first that matches a layer decides.
        recalibrate: closed-loop rounds: run the compressed network, refit to its own inputs.
        label: a short name for people; not part of the recipe's identity.
    """

    rules: tuple[Rule, ...]
    recalibrate: int = 0
    label: str = field(default="", compare=False)
    layers: tuple[LayerRule, ...] = ()

    def rule(self, weight: str) -> int | None:
        """The number of the rule that decides for a weight, or None if none names it."""
        numbers = enumerate(self.rules)
        return next((i for i, r in numbers if fnmatch.fnmatchcase(weight, r.weights)), None)

    def choice(self, weight: str) -> Choice | None:
        """The choice for a weight, or None if no rule names it."""
        number = self.rule(weight)
        return None if number is None else self.rules[number].choice

    def layer_choice(self, layer: str) -> tuple[int | None, LayerRule | None]:
        """The number of the rule that decides for a layer and the rule, or None twice."""
        for number, rule in enumerate(self.layers):
            if fnmatch.fnmatchcase(layer, rule.layers):
                return number, rule
        return None, None

    @cached_property
    def naive(self) -> Recipe:
        """The naive twin: same structure, bits and thresholds, every method data-free, no recalibration."""
        rules = tuple(Rule(r.weights, r.choice.naive()) for r in self.rules)
        layers = tuple(rule.naive() for rule in self.layers)
        label = f"{self.label} (naive)" if self.label else ""
        return Recipe(rules, 0, label=label, layers=layers)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with its schema version."""
        out = {
            "schema": SCHEMA,
            "label": self.label,
            "recalibrate": self.recalibrate,
            "rules": [{"weights": r.weights, **r.choice.to_json()} for r in self.rules],
        }
        return out | ({"layers": [r.to_json() for r in self.layers]} if self.layers else {})

    @cached_property
    def key(self) -> str:
        """Canonical text of the content, without the label: equal recipes have equal keys."""
        content = {k: v for k, v in self.to_json().items() if k != "label"}
        return json.dumps(content, sort_keys=True, separators=(",", ":"))


def method_to_json(registry: Registry, config: Any) -> dict[str, Any]:
    """A method's configuration as a JSON object, its registered name under "method"."""
    return {"method": registry.name_of(type(config)), **dataclasses.asdict(config)}


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_config(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """A method's configuration from a mapping of its fields.

    Raises:
        UserError: an unknown field, a wrong type or a value out of range; names the nearest field.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            raise UserError(
                f"{where} has the unknown key '{name}'", "a field", nearest(name, known)
            )
    try:
        # JSON mode is strict about types, yet takes an object for a dataclass.
        return _adapter(kind).validate_json(json.dumps(dict(values), default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        spot = ".".join(str(p) for p in first["loc"])
        if first["type"] == "missing" and len(first["loc"]) > 1:
            raise UserError(f"{where}.{spot} is missing", "a value") from None
        if first["type"] == "missing":
            raise UserError(f"{where} has no {spot}", f"{spot} = …") from None
        wanted = first["msg"].removeprefix("Input should be ")
        raise UserError(f"{where}.{spot} is {first['input']!r}", wanted) from None


def method_from_json(registry: Registry, values: Any, where: str) -> Any:
    """A method's configuration from a JSON object, or from its name alone.

    Raises:
        UserError: no such method, an unknown field, a wrong type or a value out of range.
    """
    if isinstance(values, str):
        values = {"method": values}
    if not isinstance(values, Mapping) or not isinstance(values.get("method"), str):
        raise UserError(
            f"{where} is {values!r}",
            f'a table such as {{ method = "{registry.names()[0]}" }}',
        )
    rest = {k: v for k, v in values.items() if k != "method"}
    return read_config(registry.get(values["method"]), rest, where)


def rule_from_json(values: Any, where: str = "rule") -> Rule:
    """Read one rule; `structure` defaults to dense, `activation` to 8 bits.

    Raises:
        UserError: an unknown key, method or value.
    """
    known = ["weights", "structure", "format", "activation", "activity"]
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}", "a table")
    for name in values:
        if name not in known:
            raise UserError(f"{where} has the unknown key '{name}'", "a key", nearest(name, known))
    pattern = values.get("weights")
    if not isinstance(pattern, str) or not pattern:
        raise UserError(
            f"{where}.weights is {pattern!r}", "a pattern of weight names such as '*.w_h'"
        )
    if "format" not in values:
        raise UserError(f"{where} has no format", 'such as { method = "uniform", bits = 4 }')
    activation = values.get("activation", {})
    if not isinstance(activation, Mapping):
        raise UserError(f"{where}.activation is {activation!r}", "a table such as { bits = 8 }")
    activity = values.get("activity")
    choice = Choice(
        method_from_json(STRUCTURES, values.get("structure", "dense"), f"{where}.structure"),
        method_from_json(FORMATS, values["format"], f"{where}.format"),
        read_config(Activation, activation, f"{where}.activation"),
        None
        if activity in (None, "none")
        else method_from_json(ACTIVITIES, activity, f"{where}.activity"),
    )
    return Rule(pattern, choice)


def layer_rule_from_json(values: Any, where: str = "layer rule") -> LayerRule:
    """Read one rule for layers.

    Raises:
        UserError: an unknown key, method or value.
    """
    known = ["layers", "removal", "nonlinearity"]
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}", "a table")
    for name in values:
        if name not in known:
            raise UserError(f"{where} has the unknown key '{name}'", "a key", nearest(name, known))
    pattern = values.get("layers")
    if not isinstance(pattern, str) or not pattern:
        raise UserError(
            f"{where}.layers is {pattern!r}", "a pattern of layer names such as 'lstm*'"
        )
    removal, nonlinearity = values.get("removal"), values.get("nonlinearity")
    return LayerRule(
        pattern,
        None
        if removal in (None, "none")
        else method_from_json(REMOVALS, removal, f"{where}.removal"),
        None
        if nonlinearity is None
        else method_from_json(NONLINEARITIES, nonlinearity, f"{where}.nonlinearity"),
    )


def recipe_from_json(values: Any) -> Recipe:
    """Read a recipe.

    Raises:
        UserError: another schema version, an unknown key, method or value.
    """
    if not isinstance(values, Mapping):
        raise UserError("the recipe is not a JSON object", f'one with "schema": "{SCHEMA}"')
    if values.get("schema") != SCHEMA:
        raise UserError(
            f"the recipe has the schema {values.get('schema')!r}",
            f"'{SCHEMA}'",
            "search again with this version",
        )
    known = ["schema", "label", "recalibrate", "rules", "layers"]
    for name in values:
        if name not in known:
            raise UserError(
                f"the recipe has the unknown key '{name}'", "a key", nearest(name, known)
            )
    rounds, rules = values.get("recalibrate", 0), values.get("rules")
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 0 <= rounds <= 100:
        raise UserError(f"recalibrate is {rounds!r}", "a number of rounds, 0 … 100")
    if not isinstance(rules, list) or not rules:
        raise UserError(f"rules is {rules!r}", "a list of at least one rule")
    read = tuple(rule_from_json(r, f"rules[{i}]") for i, r in enumerate(rules))
    layers = values.get("layers", [])
    if not isinstance(layers, list):
        raise UserError(f"layers is {layers!r}", "a list of rules for layers")
    changed = tuple(layer_rule_from_json(r, f"layers[{i}]") for i, r in enumerate(layers))
    return Recipe(read, rounds, label=str(values.get("label", "")), layers=changed)
