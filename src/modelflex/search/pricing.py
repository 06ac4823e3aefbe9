"""Pricing recipes: the whole space at once before evaluation, and measured recipes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelflex.compress.choices import (
    bias_carriers,
    choices,
    gates,
    reduced_layers,
)
from modelflex.compress.links import make_link, replayed_density
from modelflex.compress.reduction import at_columns
from modelflex.core.cost import Cost
from modelflex.core.extension import Planned
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.products import (
    Density,
    ProductRow,
    ProductTable,
    footprint,
    make_table,
    program_table,
    stage_row,
)
from modelflex.core.profile import Profile
from modelflex.core.program import build_program, hoistable_sites, layer_groups, one_hot_sites
from modelflex.core.recipe import Choice, Recipe
from modelflex.core.stats import Stats
from modelflex.errors import UserError

Totals = Mapping[str, Array]
"""Numeric field of `Cost` → [recipes]."""


@dataclass(frozen=True)
class _Entry:
    """One choice of one weight, as the table sees it."""

    weight: str
    shape: tuple[int, int]
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
        self._windows = {p.weight: p.windows for p in dense.products.values()}
        self._one_hot = {site.rsplit("/", 1)[0] for site in one_hot_sites(dense)}
        self._stage_rows: dict[str, ProductRow] = {}
        self._misfits: dict[tuple[str, tuple[int, int], Choice], str] = {}
        self._densities = {
            k: Density(tuple(u), tuple(i)) for k, (u, i) in (densities or {}).items()
        }

    @property
    def densities(self) -> dict[str, Any]:
        """Expected densities by weight, input format and activity, as JSON values."""
        return {key: [d.units, d.inputs] for key, d in self._densities.items()}

    def misfit(self, weight: str, shape: tuple[int, int], choice: Choice) -> str:
        """Why a choice cannot hold a weight that has this shape [out, in] (units may have been
        removed), or "" where it can.
        """
        key = (weight, shape, choice)
        if key not in self._misfits:
            try:
                planned = choice.structure.plan(*shape)
                self._rows(_Entry(*key, has_bias=True), [Density()] * len(planned))
            except UserError as error:
                self._misfits[key] = error.found
            else:
                self._misfits[key] = ""
        return self._misfits[key]

    def fits(self, recipe: Recipe) -> bool:
        """Whether every weight can be held by what the recipe chooses for it."""
        return not any(self.misfit(e.weight, e.shape, e.choice) for e in self._entries(recipe))

    def price(self, recipes: Sequence[Recipe]) -> tuple[Totals, Totals, Totals]:
        """Totals of recipes that were not evaluated: expected, at the low and at the high densities.

        Raises:
            UserError: a recipe does not fit the model.
        """
        table, matrix = self._table(recipes)

        def totals(at: ProductTable) -> Totals:
            return self.platform.combine(at, self.platform.price(at), matrix)

        return totals(table), totals(table.optimistic()), totals(table.pessimistic())

    def price_measured(self, recipes: Sequence[Recipe], profiles: Sequence[Profile]) -> Totals:
        """Totals of evaluated recipes, with the densities that their runs measured."""
        groups: list[list[ProductRow]] = []
        matrix = []
        for recipe, profile in zip(recipes, profiles, strict=True):
            rows = self._measured_rows(recipe, profile)
            matrix.append(range(len(groups), len(groups) + len(rows)))
            groups += rows
        table = make_table(groups, self.steps)
        return self.platform.combine(table, self.platform.price(table), np.array(matrix))

    def cost(self, recipe: Recipe, profile: Profile | None = None) -> Cost:
        """The full cost of one recipe, with measured densities if there is a profile."""
        if profile is None:
            table, _ = self._table([recipe])
        else:
            table = make_table(self._measured_rows(recipe, profile), self.steps)
        return self.platform.cost(table)

    def _measured_rows(self, recipe: Recipe, profile: Profile) -> list[list[ProductRow]]:
        rows = [self._rows(e, self._measured(e, profile)) for e in self._entries(recipe)]
        return [*rows, *([row] for row in self._elementwise(recipe))]

    def _entries(self, recipe: Recipe) -> list[_Entry]:
        chosen = choices(self.model, recipe)
        carriers = bias_carriers(self.model, chosen)
        shapes: dict[str, tuple[int, int]] = {}
        for layer in reduced_layers(self.model, recipe):
            shapes |= layer.weight_shapes
        return [
            _Entry(name, shapes[name], chosen[name], bool(carriers[name]))
            for name in self.model.weights
        ]

    def _elementwise(self, recipe: Recipe) -> list[ProductRow]:
        rows = []
        for layers in layer_groups(reduced_layers(self.model, recipe)):
            key = repr(layers)
            if key not in self._stage_rows:
                self._stage_rows[key] = stage_row(layers, self.steps)
            rows.append(self._stage_rows[key])
        return rows

    def _table(self, recipes: Sequence[Recipe]) -> tuple[ProductTable, Array]:
        numbers: dict[_Entry | ProductRow, int] = {}
        groups: list[list[ProductRow]] = []
        matrix = []
        for recipe in recipes:
            chosen: list[_Entry | ProductRow] = [*self._entries(recipe)]
            chosen += self._elementwise(recipe)
            for entry in chosen:
                if entry not in numbers:
                    numbers[entry] = len(groups)
                    if isinstance(entry, ProductRow):
                        groups.append([entry])
                    else:
                        groups.append(self._rows(entry, self._expected(entry)))
            matrix.append([numbers[entry] for entry in chosen])
        columns = len(self.model.weights) + len(layer_groups(self.model.layers))
        return make_table(groups, self.steps), np.array(matrix, np.int64).reshape(-1, columns)

    def _rows(self, entry: _Entry, densities: Sequence[Density]) -> list[ProductRow]:
        layer = entry.weight.rsplit(".", 1)[0]
        out, inputs = self.model.weights[entry.weight].shape
        return footprint(
            entry.weight,
            entry.shape,
            entry.choice,
            gates=self._gates[entry.weight],
            has_bias=entry.has_bias,
            runs_per_step=1 / self.steps if layer in self._once else 1.0,
            densities=densities,
            hoistable=entry.weight in self._hoistable,
            dense_macs=out * inputs,
            windows=self._windows.get(entry.weight),
        )

    def _expected(self, entry: _Entry) -> list[Density]:
        return [self._density(entry, p) for p in entry.choice.structure.plan(*entry.shape)]

    def _density(self, entry: _Entry, planned: Planned) -> Density:
        choice, geo = entry.choice, planned.geometry
        if (choice.activity if planned.outer else planned.inner) is None:
            return self._full_density(entry.weight, planned)
        link = {k: v for k, v in choice.to_json().items() if k in ("activation", "activity")}
        content = [entry.weight, link, geo.inputs, geo.block, planned.outer]
        key = json.dumps(content, sort_keys=True)
        if key not in self._densities:
            if self.stats is None:
                raise UserError(
                    f"the recipe computes only some products of {entry.weight}",
                    "calibration data (--data), from which their share is known",
                )
            # Which units stay is not known yet; any share of them stands for all.
            columns = np.arange(entry.shape[1])
            site, windows = self.stats.sites[entry.weight], self._windows[entry.weight]
            if windows is None:
                site = at_columns(site, columns)
            matrix = self.model.weights[entry.weight].dense()[:, columns]
            made = make_link(choice, site, matrix, geo.block, windows)
            self._densities[key] = replayed_density(planned, made, site, windows)
        return self._densities[key]

    def _full_density(self, weight: str, planned: Planned) -> Density:
        """Of a product without an activity: everything, or one of the inputs where it is one-hot."""
        if not planned.outer or weight not in self._one_hot:
            return Density()
        geo = planned.geometry
        return Density((1 / geo.units,) * 3, (1 / geo.inputs,) * 3)

    def _measured(self, entry: _Entry, profile: Profile) -> list[Density]:
        found = []
        for link, planned in enumerate(entry.choice.structure.plan(*entry.shape)):
            counts, geo = profile.sites[f"{entry.weight}/{link}"], planned.geometry
            units = counts.units / max(counts.runs * geo.units, 1)
            windows = self._windows[entry.weight]
            times = counts.runs * (1 if windows is None else windows.positions)
            active = counts.active / max(times * geo.inputs, 1)
            found.append(Density((units,) * 3, (active,) * 3))
        return found


def baseline_cost(model: Model, profile: Profile, platform: Platform) -> Cost:
    """The cost of the uncompressed network: float32, dense."""
    return platform.cost(program_table(build_program(model), profile, model))
