"""What `modelflex advise` and `modelflex allocate` print, and a search space as TOML."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from modelflex.core.cost import COST_UNITS
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, STRUCTURES, Registry
from modelflex.search.advise import Advice
from modelflex.search.allocate import Allocation, Budget
from modelflex.units import show_quantity


def advice_text(advice: Advice) -> RenderableType:
    """The methods in the order in which to try them, with reasons, and those not to begin with."""
    parts: list[RenderableType] = [
        Text(f"{advice.model}: {advice.states}."),
        Text("Try first", style="bold"),
    ]
    for number, found in enumerate(advice.suggestions, 1):
        settings = ", ".join(f"{k} {_shown(v)}" for k, v in found.settings.items())
        parts.append(
            Text(
                f"{number}. {found.method} ({found.axis}): {settings}; about {found.factor:.1f}× fewer bytes"
            )
        )
        parts.append(_indented(Text(found.reason)))
        parts.append(_indented(Text(found.source, style="dim")))
    if advice.avoid:
        parts.append(Text("Not to begin with", style="bold"))
        parts += [Text(f"- {method}: {reason}") for method, reason in advice.avoid.items()]
    return Group(*parts)


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, 3))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v}" for k, v in value.items())
    return str(value)


def allocation_text(
    made: Allocation, budget: Budget, before: Mapping[str, Any] | None
) -> RenderableType:
    """The choice of every weight, what it gives, and the best recipe of the space beside it."""
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for name in ("Weight or layer", "Structure", "Format", "Activity"):
        table.add_column(name)
    for layer in made.recipe.layers:
        does = [] if layer.removal is None else [f"keeps {layer.removal.units} units"]
        if layer.nonlinearity is not None:
            does.append(f"σ and tanh by {_method(NONLINEARITIES, layer.nonlinearity)}")
        table.add_row(Text(layer.layers), Text("; ".join(does)))
    for rule in made.recipe.rules:
        structure, form, activity = rule.choice.structure, rule.choice.format, rule.choice.activity
        cells = (
            _method(STRUCTURES, structure),
            _method(FORMATS, form),
            _method(ACTIVITIES, activity),
        )
        table.add_row(Text(rule.weights), *map(Text, cells))

    def figures(divergence: float, cost: float) -> str:
        shown = show_quantity(cost, COST_UNITS[budget.field])
        return f"divergence {divergence:.4g}, {budget.field} {shown}"

    lines = [f"{figures(made.divergence, made.cost)}, by {len(made.trace)} evaluations"]
    if before is not None:
        lines.append(f"best of the space: {figures(before['divergence'], before['cost'])}")
        lines.append(f"({before['label']})")
    if not made.within:
        lines.append("No recipe was found within the budget; this one misses it least.")
    lines += [f"Note: {note}" for note in made.notes]
    return Group(table, *map(Text, lines))


def _method(registry: Registry, config: Any) -> str:
    """A method with what differs from its defaults."""
    if config is None:
        return "none"
    fields = ((f.name, f.default, getattr(config, f.name)) for f in dataclasses.fields(config))
    chosen = (f"{name} {value}" for name, default, value in fields if value != default)
    return ", ".join([registry.name_of(type(config)), *chosen])


def space_toml(grids: Sequence[Mapping[str, Any]]) -> str:
    """Grids as the tables [[space]] of a configuration."""
    return "\n".join(
        "[[space]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in grid.items())
        for grid in grids
    )


def _toml(value: Any) -> str:
    """One value, tables inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, Mapping) for v in value):
            return "[\n" + "".join(f"    {_toml(v)},\n" for v in value) + "]"
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
