"""Pricing recipes: the whole space at once before evaluation, and measured recipes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelflex.compress import bias_carriers, choices, gates, replayed_density
from modelflex.core.cost import Cost
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.products import (
    Density,
    ProductRow,
    ProductTable,
    elementwise_rows,
    footprint,
    hoistable_sites,
    make_table,
    program_table,
)
from modelflex.core.profile import Profile
from modelflex.core.program import build_program
from modelflex.core.recipe import Choice, Recipe
from modelflex.core.stats import Stats
from modelflex.errors import UserError

Totals = Mapping[str, Array]
"""Numeric field of `Cost` → [recipes]."""


@dataclass(frozen=True)
class _Entry:
    """One choice of one weight, as the table sees it."""

    weight: str
    choice: Choice
    has_bias: bool


class Pricer:
    """Prices recipes of one model on one platform.

    Args:
        stats: what calibration saw; without it recipes with an activity cannot be priced.
        steps: T, mean time steps of a sequence.
        densities: what an earlier pricer of the same model and calibration data replayed.
    """

    def __init__(
        self,
        model: Model,
        stats: Stats | None,
        platform: Platform,
        steps: float,
        densities: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.stats, self.platform, self.steps = model, stats, platform, steps
        self._gates = gates(model)
        self._once = {layer.name for layer in model.layers if layer.reads == "last"}
        dense = build_program(model)
        self._hoistable = {site.rsplit("/", 1)[0] for site in hoistable_sites(dense)}
        self._constant = elementwise_rows(dense, steps)
        self._densities = {
            k: Density(tuple(u), tuple(i)) for k, (u, i) in (densities or {}).items()
        }

    @property
    def densities(self) -> dict[str, Any]:
        """Expected densities by weight, input format and activity, as JSON values."""
        return {key: [d.units, d.inputs] for key, d in self._densities.items()}

    def price(self, recipes: Sequence[Recipe]) -> tuple[Totals, Totals, Totals]:
        """Totals of recipes that were not evaluated: expected, at the low and at the high densities.

        Raises:
            UserError: a recipe does not fit the model.
        """
        table, matrix = self._table([self._entries(recipe) for recipe in recipes])

        def totals(at: ProductTable) -> Totals:
            return self.platform.combine(at, self.platform.price(at), matrix)

        return totals(table), totals(table.optimistic()), totals(table.pessimistic())

    def price_measured(self, recipes: Sequence[Recipe], profiles: Sequence[Profile]) -> Totals:
        """Totals of evaluated recipes, with the densities that their runs measured."""
        groups: list[list[ProductRow]] = []
        matrix = []
        for recipe, profile in zip(recipes, profiles, strict=True):
            rows = [self._rows(e, self._measured(e, profile)) for e in self._entries(recipe)]
            matrix.append(range(len(groups), len(groups) + len(rows)))
            groups += rows
        first = len(groups)
        table = make_table([*groups, *self._constant], self.steps)
        constant = np.arange(first, first + len(self._constant))
        chosen = np.hstack([np.array(matrix), np.tile(constant, (len(matrix), 1))])
        return self.platform.combine(table, self.platform.price(table), chosen)

    def cost(self, recipe: Recipe, profile: Profile | None = None) -> Cost:
        """The full cost of one recipe, with measured densities if there is a profile."""
        entries = self._entries(recipe)
        if profile is None:
            table, _ = self._table([entries])
        else:
            rows = [self._rows(e, self._measured(e, profile)) for e in entries]
            table = make_table([*rows, *self._constant], self.steps)
        return self.platform.cost(table)

    def _entries(self, recipe: Recipe) -> list[_Entry]:
        chosen = choices(self.model, recipe)
        carriers = bias_carriers(self.model, chosen)
        return [_Entry(name, chosen[name], bool(carriers[name])) for name in self.model.weights]

    def _table(self, recipes: Sequence[Sequence[_Entry]]) -> tuple[ProductTable, Array]:
        numbers: dict[_Entry, int] = {}
        groups: list[list[ProductRow]] = []
        for entry in (e for entries in recipes for e in entries):
            if entry not in numbers:
                numbers[entry] = len(groups)
                groups.append(self._rows(entry, self._expected(entry)))
        first = len(groups)
        constant = list(range(first, first + len(self._constant)))
        matrix = np.array([[numbers[e] for e in entries] + constant for entries in recipes])
        return make_table([*groups, *self._constant], self.steps), matrix

    def _rows(self, entry: _Entry, densities: Sequence[Density]) -> list[ProductRow]:
        layer = entry.weight.rsplit(".", 1)[0]
        return footprint(
            entry.weight,
            self.model.weights[entry.weight].shape,
            entry.choice,
            gates=self._gates[entry.weight],
            has_bias=entry.has_bias,
            runs_per_step=1 / self.steps if layer in self._once else 1.0,
            densities=densities,
            hoistable=entry.weight in self._hoistable,
        )

    def _expected(self, entry: _Entry) -> list[Density]:
        choice = entry.choice
        shape = self.model.weights[entry.weight].shape
        ((_, geo),) = choice.structure.geometries(*shape)
        if choice.activity is None:
            return [Density()]
        link = {k: v for k, v in choice.to_json().items() if k in ("activation", "activity")}
        key = json.dumps([entry.weight, link, geo.block], sort_keys=True)
        if key not in self._densities:
            if self.stats is None:
                raise UserError(
                    f"the recipe computes only some products of {entry.weight}",
                    "calibration data (--data), from which their share is known",
                )
            self._densities[key] = replayed_density(choice, shape, self.stats.sites[entry.weight])
        return [self._densities[key]]

    def _measured(self, entry: _Entry, profile: Profile) -> list[Density]:
        shape = self.model.weights[entry.weight].shape
        found = []
        for link, (_, geo) in enumerate(entry.choice.structure.geometries(*shape)):
            counts = profile.sites[f"{entry.weight}/{link}"]
            units = counts.units / max(counts.runs * geo.units, 1)
            active = counts.active / max(counts.runs * geo.inputs, 1)
            found.append(Density((units,) * 3, (active,) * 3))
        return found


def baseline_cost(model: Model, profile: Profile, platform: Platform) -> Cost:
    """The cost of the uncompressed network: float32, dense."""
    return platform.cost(program_table(build_program(model), profile, model))
