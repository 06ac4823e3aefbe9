"""The abstract bases of plug-ins: what a cell, a layer, a method or a platform owes.

A class is abstract or final; no concrete method is overridden. A method's frozen dataclass *is* its
configuration: its fields are what a recipe stores and what a configuration file may set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

from modelflex.core.fixed import Array
from modelflex.core.layout import Geometry
from modelflex.core.part import Part
from modelflex.core.piecewise import Piecewise, exact_error, largest_error, piecewise
from modelflex.core.tracer import Activity, Link
from modelflex.core.weight import Weight
from modelflex.errors import UserError


class Namespace(Protocol):
    """The operations in which cells and layers write their equations (tracer, NumPy, torch)."""

    def add(self, a: Any, b: Any) -> Any: ...
    def sub(self, a: Any, b: Any) -> Any: ...
    def mul(self, a: Any, b: Any) -> Any: ...
    def sigmoid(self, a: Any) -> Any: ...
    def tanh(self, a: Any) -> Any: ...
    def relu(self, a: Any) -> Any: ...
    def split(self, a: Any, parts: int) -> Any: ...
    def slice(self, a: Any, start: int, stop: int) -> Any: ...
    def concat(self, parts: Sequence[Any]) -> Any: ...
    def one_hot(self, a: Any, size: int) -> Any: ...


class Cell(ABC):
    """One recurrent cell: shapes of its weights and the equations of one step."""

    reference: ClassVar[str]
    states: ClassVar[tuple[str, ...]]
    """Names of the carried vectors, each of `units` elements."""
    gates: ClassVar[Mapping[str, int]]
    """Weight → equal row groups, in row order."""
    additive: ClassVar[tuple[str, ...]]
    """Weights whose results are only ever added to each other: their biases may be merged."""
    augments: ClassVar[str | None] = None
    """The cell that this one is, but for a single matrix over its weights' inputs side by side."""

    @abstractmethod
    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        """Weight → (outputs, inputs)."""

    @abstractmethod
    def step(
        self, F: Namespace, x: Any, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """One time step: (output [units], new state); `params[name](v)` is the affine map `name`."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a layer: elements in and out, and what its kind wants to know besides them."""

    inputs: int
    units: int
    options: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, option: str) -> int:
        """The value of an option."""
        return self.options[option]


MAX_SYMBOLS = 1 << 15
"""Whole numbers that 32-bit fixed point with 16 fractional bits holds."""


def check_symbols(kind: str, inputs: int, symbols: int) -> None:
    """Refuse a layer of symbols whose sizes make no sense.

    Raises:
        UserError: more than one input, no or too many symbols.
    """
    if inputs != 1 or not 1 <= symbols <= MAX_SYMBOLS:
        raise UserError(
            f"a layer of the kind '{kind}' has {inputs} inputs and {symbols} symbols",
            f"one input, the symbol's number, and 1 … {MAX_SYMBOLS} symbols",
        )


class FeedForward(ABC):
    """A layer without recurrence: a function of the present step and perhaps some before it."""

    reference: ClassVar[str]
    options: ClassVar[Mapping[str, int | None]]
    """Option → what it is where a layer does not state it; None where a layer must."""
    examples: ClassVar[tuple[Sizes, ...]]
    """Sizes that the contract suite tries."""

    @abstractmethod
    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        """Weight → (outputs, inputs).

        Raises:
            UserError: the sizes do not fit each other.
        """

    @abstractmethod
    def past(self, sizes: Sizes) -> int:
        """How many steps before the present one the layer reads too."""

    @abstractmethod
    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        """The layer's result [units].

        Args:
            x: the inputs of the past steps (zeros before the first) and of the present one, the oldest
                first: [(past + 1)·inputs].
            params: `params[name](v)` is the affine map `name` of a vector; `params[name](v, windows)`
                applies it at every position of a map, to [out, positions].
        """


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


@dataclass(frozen=True, eq=False)
class Fit:
    """One weight to be compressed.

    Attributes:
        matrix: trained, [out, in].
        moments: for data-aware variants; None for the naive ones.
        encode: the number format of the stored values.
        gates: equal row groups of the matrix.
        link: what enters it.
        sample: some of the inputs that it sees, real values [n, in].
        inner_link: makes what enters a further product of the weight (quantised like `link`, with no
            activity) from a sample of its inputs [n, k].
        outer_link: makes what enters a further product that reads the weight's own input, from the
            number of inputs that share a fetch unit of that product.
    """

    matrix: Array
    moments: Moments | None
    encode: Format
    gates: int
    link: Link
    sample: Array
    inner_link: Callable[[Array], Link]
    outer_link: Callable[[int], Link]

    @property
    def hessian(self) -> Array | None:
        """cov(z, z), which weighs the errors of the stored values; None for naive variants."""
        return None if self.moments is None else self.moments.cov_z


@dataclass(frozen=True)
class Planned:
    """A product of a weight that is not compressed yet.

    Attributes:
        layout, geometry: how its codes will lie.
        gated: its rows are the weight's rows, so that scales may be shared by gates.
        outer: its input is the weight's own, with the choice's activity; else an intermediate result.
        inner: the activity of an intermediate result.
    """

    layout: str
    geometry: Geometry
    gated: bool = True
    outer: bool = True
    inner: Activity | None = None


class Structure(ABC):
    """Which numbers stand for a weight matrix."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        """Every product of a weight [out, inputs], without compressing it.

        Raises:
            UserError: the structure cannot hold a weight of this size.
        """

    @abstractmethod
    def fit_weight(self, fit: Fit) -> Weight:
        """The weight (without bias) that stands for `fit.matrix`."""

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

    @property
    @abstractmethod
    def grid_kind(self) -> str:
        """The kind of grid on which its codes lie (core/part.py)."""

    @abstractmethod
    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        """Bytes beside the codes of an array [rows, columns]: scales, tables, multipliers.

        Args:
            columns: 0 where codes of different rows come from different columns (sparse layouts).

        Raises:
            UserError: groups that do not divide the rows or columns, or groups of no columns.
        """

    @abstractmethod
    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        """Codes for `values` [rows, n].

        Args:
            hessian: [n, n], weighs the errors of data-aware variants; may be singular.
            mask: bool [rows, n]; where it is false the code is 0, whatever the grid, and is not
                stored; data-aware variants make up for what is lost there too.
        """

    @abstractmethod
    def naive(self) -> Self:
        """The same format in its data-free variant."""

    @property
    @abstractmethod
    def data_aware(self) -> bool:
        """Whether `encode` uses a Hessian."""


class Removal(ABC):
    """Which units of a recurrent layer stay; the others are removed from the network."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]
    units: int
    """How many stay."""

    @abstractmethod
    def kept(self, outgoing: Array, covariance: Array, seed: int) -> Array:
        """The numbers of the units that stay, increasing, int64 [self.units].

        Args:
            outgoing: [rows, n]; column j holds the weights by which unit j acts on everything that
                reads it (the layer itself and the next), each scaled by how much its result matters.
            covariance: of the layer's output [n, n]; may be singular.
        """

    @abstractmethod
    def naive(self) -> Removal:
        """The same number of units, chosen without data."""


class Nonlinearity(ABC):
    """How an integer program computes σ and tanh; float programs always compute them exactly."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def table(self, function: str) -> Piecewise | None:
        """What stands for "tanh" or "sigmoid"; None for their definition in docs/arithmetic.md."""

    @property
    @abstractmethod
    def table_bytes(self) -> int:
        """Bytes of the tables of both functions: constants of the program, not of a weight."""

    @abstractmethod
    def naive(self) -> Self:
        """The same nonlinearity in its data-free variant."""

    def max_error(self, function: str) -> float:
        """The largest error of "tanh" or "sigmoid" over all fx inputs, by evaluating them."""
        table = self.table(function)
        if table is None:
            return exact_error(function)
        return largest_error(function, lambda v: piecewise(v, table))
