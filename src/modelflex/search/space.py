"""The space of recipes: grids of rules, expanded in a fixed order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from modelflex.core.recipe import (
    Recipe,
    Rule,
    layer_rule_from_json,
    method_to_json,
    rule_from_json,
)
from modelflex.core.tracer import Activity
from modelflex.errors import UserError, nearest
from modelflex.registry import ACTIVITIES, NONLINEARITIES, REMOVALS

MAX_RECIPES = 1_000_000
_KEYS = ("name", "vary", "rules", "layers", "recalibrate")


@dataclass(frozen=True)
class SpaceRecipe:
    """A recipe and the name of the grid it came from."""

    recipe: Recipe
    space: str


def read_space(grids: Any) -> list[SpaceRecipe]:
    """Expand the grids of a configuration into recipes, each once.

    A grid has a `name`, a table `vary` of lists, `rules` whose values may be "$name" (or "$name.key"
    where the list holds tables), perhaps `layers`, rules for layers, and
    `recalibrate`. It stands for the product of all lists.

    Raises:
        UserError: an unknown key, name or method, an empty list, or too many recipes.
    """
    if not isinstance(grids, list) or not grids:
        raise UserError(f"space is {grids!r}", "at least one table [[space]]")
    seen: dict[str, SpaceRecipe] = {}
    for number, grid in enumerate(grids):
        where = f"space[{number}]"
        if not isinstance(grid, Mapping):
            raise UserError(f"{where} is {grid!r}", "a table")
        for key in grid:
            if key not in _KEYS:
                raise UserError(
                    f"{where} has the unknown key '{key}'", "a key", nearest(key, _KEYS)
                )
        name = str(grid.get("name", f"space {number}"))
        for recipe in _expand(grid, f"space '{name}'"):
            seen.setdefault(recipe.key, SpaceRecipe(recipe, name))
    return list(seen.values())


def _expand(grid: Mapping[str, Any], where: str) -> Iterator[Recipe]:
    vary = grid.get("vary", {})
    if not isinstance(vary, Mapping):
        raise UserError(f"{where}: vary is {vary!r}", "a table of lists")
    total = 1
    for name, values in vary.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: vary.{name} is {values!r}", "a list of at least one value")
        total *= len(values)
    if total > MAX_RECIPES:
        raise UserError(
            f"{where} has {total} recipes", f"at most {MAX_RECIPES}", "vary fewer values"
        )
    rules = grid.get("rules")
    if not isinstance(rules, list) or not rules:
        raise UserError(f"{where}: rules is {rules!r}", "a list of at least one rule")
    layer_rules = grid.get("layers", [])
    if not isinstance(layer_rules, list):
        raise UserError(f"{where}: layers is {layer_rules!r}", "a list of rules for layers")
    used: set[str] = set()
    known: dict[str, Rule] = {}
    for values in itertools.product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        made = tuple(
            _rule(rule, chosen, used, f"{where}: rules[{i}]", known) for i, rule in enumerate(rules)
        )
        layers = tuple(
            layer_rule_from_json(_substitute(rule, chosen, used, where), f"{where}: layers[{i}]")
            for i, rule in enumerate(layer_rules)
        )
        rounds = _substitute(grid.get("recalibrate", 0), chosen, used, where)
        if isinstance(rounds, bool) or not isinstance(rounds, int) or not 0 <= rounds <= 100:
            raise UserError(f"{where}: recalibrate is {rounds!r}", "a number of rounds, 0 … 100")
        recipe = Recipe(made, rounds, layers=layers)
        yield replace(recipe, label=_label(recipe))
    unused = set(vary) - used
    if unused:
        raise UserError(
            f"{where}: vary.{min(unused)} is never used", f"a value '${min(unused)}' in a rule"
        )


def _rule(
    rule: Any, chosen: Mapping[str, Any], used: set[str], where: str, known: dict[str, Rule]
) -> Rule:
    """Read a rule; most recipes of a grid share theirs with others, so each is read once."""
    values = _substitute(rule, chosen, used, where)
    key = json.dumps(values, default=str, sort_keys=True)
    if key not in known:
        known[key] = rule_from_json(values, where)
    return known[key]


def _substitute(value: Any, chosen: Mapping[str, Any], used: set[str], where: str) -> Any:
    """Replace "$name" and "$name.key" by the chosen values, at any depth."""
    if isinstance(value, Mapping):
        return {k: _substitute(v, chosen, used, where) for k, v in value.items()}
    if isinstance(value, list):
        return [_substitute(v, chosen, used, where) for v in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    name, _, key = value[1:].partition(".")
    if name not in chosen:
        raise UserError(
            f"{where} uses '{value}'", "a name in vary", nearest(name, list(chosen) or ["(none)"])
        )
    used.add(name)
    found = chosen[name]
    if key:
        if not isinstance(found, Mapping) or key not in found:
            raise UserError(f"{where} uses '{value}'", f"a table with '{key}' in vary.{name}")
        found = found[key]
    return found


def is_data_aware(recipe: Recipe) -> bool:
    """Whether a recipe is fitted to calibration data: one of its weights, or the units that stay."""
    return any(rule.choice.data_aware for rule in recipe.rules) or any(
        rule.removal is not None and rule.removal.naive() != rule.removal for rule in recipe.layers
    )


def _label(recipe: Recipe) -> str:
    """A short text for people: what each rule does."""
    parts = [
        f"{rule.layers} {rule.removal.units} units by {REMOVALS.name_of(type(rule.removal))}"
        for rule in recipe.layers
        if rule.removal is not None
    ]
    for layer in recipe.layers:
        if layer.nonlinearity is not None:
            made = method_to_json(NONLINEARITIES, layer.nonlinearity)
            parts.append(" ".join([layer.layers, *map(str, made.values())]))
    for rule in recipe.rules:
        choice = rule.choice
        bits = f"{choice.format.stored_bits}b×{choice.activation.bits}b"
        block = getattr(choice.structure, "block", 1)
        share = getattr(choice.structure, "share", None)
        text = f"{rule.weights.removeprefix('*.')} {bits}" + (f" ○{block}" if block > 1 else "")
        text += "" if share is None else f" ▱{share:g}"
        parts.append(text + _activity_label(choice.activity))
    if recipe.recalibrate:
        parts.append(f"↻{recipe.recalibrate}")
    elif not is_data_aware(recipe):
        parts.append("naive")
    return ", ".join(parts)


def _activity_label(activity: Activity | None) -> str:
    """Which activity it is, for one with thresholds what they are."""
    if activity is None:
        return ""
    threshold, density = (getattr(activity, name, None) for name in ("threshold", "density"))
    if threshold is None and density is None:
        return f" {ACTIVITIES.name_of(type(activity))}"
    text = f" d{density:g}" if threshold is None else f" θ{threshold:g}"
    text += "▪" if getattr(activity, "granularity", "") == "block" else ""
    text += "∝" if getattr(activity, "scaled", "") == "norm" else ""
    overshoot = getattr(activity, "overshoot", 0.0)
    return text + (f"+{overshoot:g}" if overshoot else "")
