"""The tracer: the namespace in which cells and weights record their primitives as a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from modelflex.core.fixed import FX_ONE, Array, Multiplier, Scale, as_multiplier
from modelflex.core.layout import Geometry, expand, part_geometry
from modelflex.core.part import Part, bias_codes
from modelflex.core.piecewise import Piecewise
from modelflex.core.recorder import Recorder, Value
from modelflex.core.windows import Windows
from modelflex.errors import UserError

MAX_RESULTS = 1 << 24
"""Results of one product, at all positions."""


def threshold_bytes(bits: int) -> int:
    """Bytes of one stored threshold of codes of so many bits."""
    return 1 if bits <= 8 else 2


@dataclass(frozen=True, eq=False)
class Link:
    """What enters one product: the code format of its input and which products are computed.

    Attributes:
        bits: bits of the input codes, two's complement.
        scale: the real value of one code step (a single factor).
        activity: None computes every product; otherwise a state machine made of primitives.
        thresholds: int32 in code steps, one for each input or block of inputs that is sent together;
            None where the activity has no or a single one.
    """

    bits: int
    scale: Scale
    activity: Activity | None = None
    thresholds: Array | None = None

    @property
    def step(self) -> float:
        """The real value of one code step."""
        return float(self.scale.value()[0])

    @property
    def threshold_bytes(self) -> int:
        """Bytes of one stored threshold."""
        return threshold_bytes(self.bits)

    @property
    def nbytes(self) -> int:
        """Bytes stored for thresholds; a single one is a constant of the program."""
        return 0 if self.thresholds is None else self.thresholds.size * self.threshold_bytes


@dataclass(frozen=True, eq=False)
class InputSite:
    """What an activity may be fitted to: a product's input over calibration data.

    Attributes:
        codes: int16 [ΣT, in], the quantised inputs.
        lengths: int64, the lengths of the runs in `codes`.
        step: the real value of one code step.
        std: root mean square of the standard deviations of the elements.
        norms: ‖W_:j‖ of every column, float64 [in].
        block: inputs that share a fetch unit.
        bits: bits of the codes.
    """

    codes: Array
    lengths: Array
    step: float
    std: float
    norms: Array
    block: int
    bits: int


@dataclass(frozen=True, eq=False)
class Product:
    """What a product's ops need to know about it, keyed by its site.

    Attributes:
        site: weight/link.
        weight: the name of the weight it belongs to.
        part, layout, geometry: the stored codes and how they lie.
        link: the code format of its input (None in float programs).
        bias: added to each result: float32 [outputs] in float programs, int64 accumulator units
            [outputs] in integer programs, or None. Under delta it is the first value of M.
        bias_bytes: bytes stored for the bias.
        encode, rescale: integer constants of `quantize` and `rescale` (None in float programs).
        windows: where the part is applied to the input; None where it is multiplied once.
    """

    site: str
    weight: str
    part: Part
    layout: str
    geometry: Geometry
    link: Link | None
    bias: Array | None
    bias_bytes: int
    encode: Multiplier | None
    rescale: Multiplier | None
    windows: Windows | None = None

    @property
    def positions(self) -> int:
        """How often the part is multiplied in a run."""
        return 1 if self.windows is None else self.windows.positions

    @property
    def inputs(self) -> int:
        """Elements of the vector that enters."""
        return self.geometry.inputs if self.windows is None else self.windows.size

    @property
    def outputs(self) -> int:
        """Elements of the result, [out, positions]."""
        return self.geometry.out * self.positions

    @property
    def block(self) -> int:
        """Elements of the vector that share a fetch unit; each is by itself where windows overlap."""
        return self.geometry.block if self.windows is None else 1

    def integers(self) -> Array:
        """The matrix [out, in] of the codes that are multiplied (float32 numbers in float programs)."""
        return expand(self.layout, self.part.codes, self.part.index, self.geometry.inputs)


class Activity(ABC):
    """Which products are computed at a time step: a state machine made of primitives."""

    reference: ClassVar[str]
    search_range: ClassVar[Mapping[str, tuple[Any, ...]]]

    @abstractmethod
    def resolve(self, site: InputSite) -> Self:
        """The same activity with its thresholds in real units of an input, as it is stored."""

    @property
    @abstractmethod
    def resolved(self) -> bool:
        """Whether calibration data have nothing more to settle."""

    @abstractmethod
    def thresholds(self, site: InputSite) -> Array | None:
        """The stored thresholds of a resolved activity, int32 [threshold_count] in code steps."""

    @abstractmethod
    def lower(self, tracer: Tracer, product: Product, codes: Value) -> Value:
        """Record the product of `codes` under this activity; the result is the accumulator [out]."""

    @abstractmethod
    def replay(self, codes: Array, lengths: Array, block: int, link: Link) -> tuple[Array, Array]:
        """Run the encoder over recorded codes [ΣT, in] of `link` from sequences of `lengths`.

        Returns the codes that the product sees (held values) and the mask of transmitted inputs.
        """

    @abstractmethod
    def state_bytes(self, out: int, inputs: int) -> int:
        """Bytes of the state it keeps, in the widths of docs/arithmetic.md."""

    @property
    @abstractmethod
    def stateful(self) -> bool:
        """Whether it keeps the sum of the products, so that the bias is read once a sequence."""

    @abstractmethod
    def threshold_count(self, inputs: int, block: int) -> int:
        """How many thresholds `Link.thresholds` holds; 0 for None.

        Args:
            block: inputs that share a fetch unit.
        """

    @abstractmethod
    def naive(self) -> Self:
        """The same activity in its data-free variant."""


class Factor(Protocol):
    """One of the two stored arrays of terms (`weight.Matrix`)."""

    @property
    def part(self) -> Part: ...
    @property
    def link(self) -> Link | None: ...
    @property
    def own_bias(self) -> Part | None: ...
    @property
    def layout(self) -> str: ...
    @property
    def inputs(self) -> int: ...


class Tracer(Recorder):
    """Records primitives, those of cells and layers and those of products.

    Args:
        numeric: "float" or "integer", for the whole program.
        tables: what stands for "sigmoid" and "tanh"; without one their own primitives do.
    """

    def __init__(self, numeric: str, tables: Mapping[str, Piecewise] | None = None) -> None:
        super().__init__(numeric, tables)
        self.products: dict[str, Product] = {}

    def product(
        self,
        site: str,
        part: Part,
        link: Link | None,
        layout: str,
        x: Value,
        bias: Part | None,
        windows: Windows | None = None,
    ) -> Value:
        """Record one product in its layout, with its input format and activity; the result is real."""
        columns, positions = (x.size, 1) if windows is None else windows.taps.shape[::-1]
        geo = part_geometry(layout, part.codes, part.index, columns)
        out = geo.out * positions
        if out > MAX_RESULTS:
            raise UserError(
                f"the product '{site}' has {geo.out} results at {positions} positions",
                f"at most {MAX_RESULTS} in all",
            )
        product = self._know(site, part, link, layout, geo, bias, windows)
        skip = {"skip_zeros": True} if x.one_hot else {}
        if link is None:
            return self.record("linear", (x,), ((out, "float32"),), site, **skip)[0]
        codes = self.record("quantize", (x,), ((x.size, "code"),), site)[0]
        if link.activity is None:
            acc = self.record("linear", (codes,), ((out, "acc"),), site, **skip)[0]
        else:
            acc = link.activity.lower(self, product, codes)
        return self.record("rescale", (acc,), ((out, self.real),), site)[0]

    def refine(self, name: str, v: Factor, u: Factor, groups: int, x: Value) -> Value:
        """Record U·(V·x + c) + bias over as many of the first terms as a step's budget allows (`Terms`)."""
        sites = f"{name}/0", f"{name}/1"
        terms = u.inputs
        inner = part_geometry(v.layout, v.part.codes, v.part.index, v.inputs)
        # Terms are read one after another: a fetch unit of V is a term's rows.
        inner = replace(inner, units=terms, unit_codes=inner.codes // terms, block=inner.inputs)
        outer = part_geometry(u.layout, u.part.codes, u.part.index, terms)
        self._know(sites[0], v.part, v.link, v.layout, inner, v.own_bias)
        self._know(sites[1], u.part, u.link, u.layout, outer, u.own_bias)
        attrs = {"inner": sites[0], "groups": groups}
        if v.link is None:
            return self.record("refine", (x,), ((outer.out, "float32"),), sites[1], **attrs)[0]
        codes = self.record("quantize", (x,), ((x.size, "code"),), sites[0])[0]
        acc = self.record("refine", (codes,), ((outer.out, "acc"),), sites[1], **attrs)[0]
        return self.record("rescale", (acc,), ((outer.out, self.real),), sites[1])[0]

    def _know(
        self,
        site: str,
        part: Part,
        link: Link | None,
        layout: str,
        geo: Geometry,
        bias: Part | None,
        windows: Windows | None = None,
    ) -> Product:
        """Keep what ops need to know of a product."""
        positions = 1 if windows is None else windows.positions
        name, nbytes = site.rsplit("/", 1)[0], 0 if bias is None else bias.nbytes
        if link is None:
            value = None if bias is None else np.repeat(bias.value(), positions).astype(np.float32)
            product = Product(
                site, name, part, layout, geo, None, value, nbytes, None, None, windows
            )
            self.products[site] = product
            return product
        units = np.repeat(part.row_scales(), geo.out // geo.rows) * link.step
        rescale = as_multiplier(_one_per_scale(part, units) * FX_ONE)
        encode = as_multiplier(np.array([1.0 / (link.step * FX_ONE)]))
        if encode.shift < -16:
            raise UserError(
                f"the input of '{site}' is coded in steps of {link.step:.3g}", "steps above 2^-47"
            )
        integers = None if bias is None else np.repeat(bias_codes(bias), positions)
        product = Product(
            site, name, part, layout, geo, link, integers, nbytes, encode, rescale, windows
        )
        _check_thresholds(product, link)
        self.products[site] = product
        return product


def _check_thresholds(product: Product, link: Link) -> None:
    if link.activity is None or link.thresholds is None:
        return
    wanted = link.activity.threshold_count(product.inputs, product.block)
    if link.thresholds.size != wanted:
        raise UserError(
            f"the input of '{product.site}' has {link.thresholds.size} thresholds", f"{wanted}"
        )


def _one_per_scale(part: Part, units: Array) -> Array:
    """One factor for each stored scale, from one for each output row."""
    scales = 1 if part.scale is None else part.scale.mantissa.size
    return units.reshape(scales, -1)[:, 0]
