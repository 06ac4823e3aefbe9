"""The abstract base of platforms: models of the target that price recipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from modelflex.core.cost import Cost
from modelflex.core.fixed import Array
from modelflex.core.products import ProductTable


class Platform(ABC):
    """A model of the target: prices product rows, combines them into the cost of whole recipes."""

    reference: ClassVar[str]

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the options of a configuration file (spec name or path, residency, …)."""

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """What was assumed: spec, residency and constants with their sources, for the report."""

    @abstractmethod
    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """Columns of additive figures, one number for each row of the table."""

    @abstractmethod
    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        """Totals of recipes: `choices` [recipes, weights] holds choice numbers of the table.

        Returns one array [recipes] for each numeric field of `Cost`; NaN where it does not apply.
        """

    @abstractmethod
    def cost(self, table: ProductTable) -> Cost:
        """The full cost, with breakdowns, of a table that holds a single recipe."""
