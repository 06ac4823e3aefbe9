"""The abstract bases of plug-ins: what a cell, a layer, a method or a platform owes.

A class is abstract or final; no concrete method is overridden. A method's frozen dataclass *is* its
configuration: its fields are what a recipe stores and what a configuration file may set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.layout import Geometry
from modelflex.core.part import Part
from modelflex.core.tracer import Link
from modelflex.core.weight import Weight


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
    """What a data-aware weight A is fitted to, from calibration: E‖t − A·z‖² is to be small.

    Attributes:
        cov_z: cov(z, z) [in, in] of the inputs that the compressed network multiplies (quantised,
            held by delta); may be singular.
        cov_tz: cov(t, z) [out, in] with the products that are wanted: the original network's, less
            what partners that are only ever added to A·z already give.
    """

    cov_z: Array
    cov_tz: Array


class Structure(ABC):
    """Which numbers stand for a weight matrix."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def geometries(self, out: int, inputs: int) -> tuple[tuple[str, Geometry], ...]:
        """(layout, sizes) of every product, without compressing; raises UserError if it cannot fit."""

    @abstractmethod
    def fit_weight(
        self,
        matrix: Array,
        moments: Moments | None,
        encode: Format,
        gates: int,
        links: tuple[Link, ...],
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


def damping(cov: Array, share: float = 0.01) -> float:
    """What is added to the diagonal of a covariance to make it positive definite: a share of its mean
    diagonal (1 where that is zero).
    """
    mean = float(np.mean(np.diag(cov)))
    return share * mean if mean > 0 else 1.0
