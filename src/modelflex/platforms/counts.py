"""No device at all: bytes and multiply-accumulates, for comparing methods with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, final

import numpy as np

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Platform
from modelflex.core.products import ProductTable, count_totals, single_recipe
from modelflex.errors import UserError
from modelflex.registry import PLATFORMS


@final
@PLATFORMS.register("counts")
class Counts(Platform):
    """Weight bytes stored and fetched, carried state, multiply-accumulates; no time and no energy."""

    reference = "counts of the products alone (docs/arithmetic.md, Bytes)"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """There are no options.

        Raises:
            UserError: an option is given.
        """
        for name in config:
            raise UserError(f"platform has the unknown key '{name}'", "no options for 'counts'")
        return cls()

    @property
    def description(self) -> Mapping[str, Any]:
        return {
            "title": "no device: counts",
            "assumptions": [
                "bytes fetched are those that active inputs need, at the fetch granularity of the "
                "structure; nothing is cached from step to step",
                "latency and energy are not modelled",
            ],
        }

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        return {}

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        nothing = np.full(choices.shape[0], np.nan)
        return dict.fromkeys(COST_UNITS, nothing) | count_totals(table, choices)

    def cost(self, table: ProductTable) -> Cost:
        totals = count_totals(table, single_recipe(table))
        found: dict[str, Any] = {name: float(values[0]) for name, values in totals.items()}
        return Cost(**found)
