"""The abstract base of platforms: models of the target that price recipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

from modelflex.core.cost import Cost
from modelflex.core.fixed import Array
from modelflex.core.plan import Plan
from modelflex.core.products import ProductTable
from modelflex.core.program import Program


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


class Stream(Protocol):
    """A program that is ready to run step by step."""

    plan: Plan
    step: Callable[..., Array]
    """(x [inputs] float32, out [outputs] float32) → out."""

    def reset(self) -> None:
        """Forget the sequence so far."""


Executor = Callable[[Program], Stream]
"""What makes programs run. Platforms get it handed in: executors stand above them."""


class MeasuredPlatform(Platform):
    """A platform that is the machine this runs on.

    Before a recipe is built, its figures are predicted with constants that were measured once; what
    is built is measured.
    """

    @abstractmethod
    def calibrated(self, executor: Executor, known: Mapping[str, Any] | None = None) -> Self:
        """The platform with the constants of a machine; without them nothing can be priced.

        Args:
            known: constants that an earlier call found (`constants`); measured or looked up if None.
        """

    @property
    @abstractmethod
    def constants(self) -> Mapping[str, Any]:
        """The constants, as JSON values."""

    @abstractmethod
    def measure(self, stream: Stream, inputs: Array, table: ProductTable) -> Cost:
        """What a program takes on this machine.

        Args:
            inputs: float32 [T, inputs], fed again and again.
            table: the program's rows, for bytes and operations.
        """
