"""The abstract bases of plug-ins: what a cell, a layer, a method or a platform owes.

A class is abstract or final; no concrete method is overridden. A method's frozen dataclass *is* its
configuration: its fields are what a recipe stores and what a configuration file may set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.layout import Geometry
from modelflex.core.tracer import Product, Tracer, Value
from modelflex.core.weight import Link, Part, Weight

if TYPE_CHECKING:
    from modelflex.core.cost import Cost
    from modelflex.core.products import ProductTable


class Namespace(Protocol):
    """The operations in which cells and layers write their equations (tracer, NumPy, torch)."""

    def add(self, a: Any, b: Any) -> Any: ...
    def sub(self, a: Any, b: Any) -> Any: ...
    def mul(self, a: Any, b: Any) -> Any: ...
    def sigmoid(self, a: Any) -> Any: ...
    def tanh(self, a: Any) -> Any: ...
    def split(self, a: Any, parts: int) -> Any: ...


class Cell(ABC):
    """One recurrent cell: shapes of its weights and the equations of one step."""

    reference: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    """Names of the carried vectors, each of `units` elements."""
    gates: ClassVar[Mapping[str, int]]
    """Weight → equal row groups, in row order."""
    additive: ClassVar[tuple[str, ...]]
    """Weights whose results are only ever added to each other: their biases may be merged."""

    @abstractmethod
    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        """Weight → (outputs, inputs)."""

    @abstractmethod
    def step(
        self, F: Namespace, x: Any, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """One time step: (output [units], new state); `params[name](v)` is the affine map `name`."""


class FeedForward(ABC):
    """A layer without state."""

    reference: ClassVar[str]

    @abstractmethod
    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        """Weight → (outputs, inputs)."""

    @abstractmethod
    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any]) -> Any:
        """The layer's result [units] for x [inputs]."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a weight's inputs over calibration steps: `o` the original network's inputs
    z_o, `c` the inputs z_c that the compressed network multiplies (quantised, held by delta).

    Attributes:
        mean_o, mean_c: [in].
        cov_c: cov(z_c, z_c) [in, in], damped so that it is positive definite.
        cov_oc: cov(z_o, z_c) [in, in].
    """

    mean_o: Array
    mean_c: Array
    cov_c: Array
    cov_oc: Array


class Structure(ABC):
    """Which numbers stand for a weight matrix."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def geometries(self, out: int, inputs: int) -> tuple[tuple[str, Geometry], ...]:
        """(layout, sizes) of every product, without compressing; raises UserError if it cannot fit."""

    @abstractmethod
    def fit_weight(
        self, matrix: Array, moments: Moments | None, encode: Format, gates: int, links: tuple[Link, ...]
    ) -> Weight:
        """The weight (without bias) that stands for `matrix` [out, in].

        Args:
            moments: calibration moments for data-aware variants; None for the naive ones.
            encode: the number format of the stored values.
        """

    @abstractmethod
    def naive(self) -> Self:
        """The same structure in its untrained, data-free variant."""

    @property
    @abstractmethod
    def data_aware(self) -> bool:
        """Whether `fit_weight` uses calibration moments."""


class Format(ABC):
    """How each stored number is written: a function over an array of values."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @property
    @abstractmethod
    def stored_bits(self) -> int:
        """Bits of one code."""

    @abstractmethod
    def scale_count(self, rows: int, gates: int) -> int:
        """How many scales are stored for an array of `rows` rows in `gates` groups."""

    @abstractmethod
    def encode(self, values: Array, hessian: Array | None, gates: int) -> Part:
        """Codes for `values` [rows, n]; `hessian` [n, n] weighs the errors of data-aware variants."""

    @abstractmethod
    def naive(self) -> Self:
        """The same format in its data-free variant."""

    @property
    @abstractmethod
    def data_aware(self) -> bool:
        """Whether `encode` uses a Hessian."""


class Activity(ABC):
    """Which products are computed at a time step: a state machine made of primitives."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def resolve(self, std: float) -> Self:
        """The same activity with thresholds in real units of an input whose standard deviation is `std`."""

    @abstractmethod
    def lower(self, tracer: Tracer, product: Product, codes: Value) -> Value:
        """Record the product of `codes` under this activity; the result is the accumulator [out]."""

    @abstractmethod
    def replay(self, codes: Array, lengths: Array, block: int, step: float) -> tuple[Array, Array]:
        """Run the encoder over recorded codes [ΣT, in] (of the real size `step`) of sequences of `lengths`.

        Returns the codes that the product sees (held values) and the mask of transmitted inputs.
        """

    @abstractmethod
    def state_bytes(self, out: int, inputs: int) -> int:
        """Bytes of the state it keeps, in the widths of docs/arithmetic.md."""

    @abstractmethod
    def naive(self) -> Self:
        """The same activity in its data-free variant."""


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


def damped(cov: Array, damping: float = 0.01) -> Array:
    """A covariance made positive definite: `damping` times its mean diagonal added to the diagonal."""
    mean = float(np.mean(np.diag(cov)))
    return cov + np.eye(cov.shape[0]) * (damping * mean if mean > 0 else 1.0)
