"""Plans: a program as calls of kernels on buffers in one block of memory.

The native executor and the C printer read plans only. A plan is pure data: which kernel is called
with which pieces of which buffers, where the buffers lie, and what the whole takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from modelflex.core.fixed import TANH_TABLE, Array
from modelflex.core.piecewise import Piecewise
from modelflex.core.tracer import Product

ITEM_BYTES: Final[Mapping[str, int]] = {
    "uint8": 1,
    "int16": 2,
    "int32": 4,
    "float32": 4,
    "int64": 8,
}
KERNELS: Final[Mapping[str, str]] = {
    "quantize": "(fx) → codes; mu, shift, bits",
    "linear_i32": "(codes) → acc: A·x + bias; with `skip_zeros` columns of codes that are 0 are not read",
    "linear_i64": "the same in 64 bits",
    "linear_f32": "the same in floats",
    "delta_encode": "(codes, sent) → Δ, mask, sent; thresholds, block, overshoot, bits",
    "accumulate_i32": "(Δ, mask, M) → M + A·Δ over the masked inputs, in place; mask_block",
    "accumulate_i64": "the same in 64 bits",
    "rescale_i32": "(acc) → fx; mu (one for each of equal groups of rows), shift",
    "rescale_i64": "the same from 64 bits",
    "add": "(a, b) → saturating sum",
    "sub": "(a, b) → saturating difference",
    "mul": "(a, b) → fx product",
    "sigmoid": "(x) → σ",
    "tanh": "(x) → tanh",
    "piecewise": "(x) → centre ± table(|x|); table",
    "relu": "(x) → max(x, 0)",
    "one_hot": "(index) → 1 at that element, else 0",
    "add_f32": "(a, b) → sum",
    "sub_f32": "(a, b) → difference",
    "mul_f32": "(a, b) → product",
    "sigmoid_f32": "(x) → σ",
    "tanh_f32": "(x) → tanh",
    "relu_f32": "(x) → max(x, 0)",
    "one_hot_f32": "(index) → 1 at that element, else 0",
    "copy": "(a) → a, of any type",
    "refine_i32": "(codes) → acc: bias + U·(V·x) over the first terms; inner (the site of V), groups",
    "refine_i64": "the same in 64 bits",
    "refine_f32": "the same in floats",
}
"""All kernels that a plan may call, with what they read, make, and take as `attrs`."""

_GATHERING = ("linear_i", "accumulate")
"""Kernels that gather what a window sees before they multiply it; those of floats read it where it is."""


@dataclass(frozen=True)
class Buffer:
    """A piece of the block of memory.

    Attributes:
        dtype: of `ITEM_BYTES`.
        size: elements of a row.
        rows: 1, or the plan's rows.
        space: "state" is carried from step to step, "scratch" is shared by what is not needed at once.
        offset: bytes from the beginning of its space.
        first, last: numbers of the calls between which a scratch buffer holds something.
    """

    dtype: str
    size: int
    rows: int
    space: str
    offset: int
    first: int
    last: int

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.size * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class View:
    """The elements start … start + size − 1 of every row of a buffer."""

    buffer: int
    start: int
    size: int

    def overlaps(self, other: View) -> bool:
        """Whether both have elements in common."""
        return (
            self.buffer == other.buffer
            and self.start < other.start + other.size
            and other.start < self.start + self.size
        )


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a kernel of `KERNELS` on a row, or on all rows; `site` names its product.

    An output may be the same view as an input of its type, but overlaps none partially.
    """

    kernel: str
    inputs: tuple[View, ...]
    outputs: tuple[View, ...]
    site: str | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Slot:
    """A carried value and what it holds at reset (zeros for None)."""

    name: str
    view: View
    init: Array | None


@dataclass(frozen=True, eq=False)
class PlannedStage:
    """A stage of the program.

    Attributes:
        mode: "step", or "once": after the last step, from a reset state, on the last row of what it reads.
        x, y: what it reads and makes.
        ahead: calls for all rows at once.
        step: calls that follow, row after row.
        state: its carried values.
    """

    name: str
    mode: str
    x: View
    y: View
    ahead: tuple[Call, ...]
    step: tuple[Call, ...]
    state: tuple[Slot, ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls in the order of their numbers."""
        return self.ahead + self.step


@dataclass(frozen=True, eq=False)
class Plan:
    """What runs on a device.

    Attributes:
        numeric: "float" or "integer".
        rows: time steps of one stream whose state-independent calls are made together (chunk), or
            streams that are stepped together (lanes).
        lanes: whether rows are streams, each with a state of its own; all calls are for all rows then.
        alignment: bytes that offsets are multiples of.
        products: site → what is multiplied.
        bits: site → 32 or 64, the width of its accumulator (integer programs).
    """

    numeric: str
    rows: int
    lanes: bool
    alignment: int
    buffers: tuple[Buffer, ...]
    stages: tuple[PlannedStage, ...]
    products: Mapping[str, Product]
    bits: Mapping[str, int]

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls of all stages in the order of their numbers."""
        return tuple(call for stage in self.stages for call in stage.calls)

    @property
    def per_step(self) -> bool:
        """Whether there is an output at every step."""
        return all(stage.mode == "step" for stage in self.stages)

    @property
    def inputs(self) -> int:
        """Elements of an input."""
        return self.stages[0].x.size

    @property
    def outputs(self) -> int:
        """Elements of an output."""
        return self.stages[-1].y.size

    @property
    def state_bytes(self) -> int:
        """Bytes of the carried state, of all streams."""
        return self._extent("state")

    @property
    def scratch_bytes(self) -> int:
        """Bytes beside the state."""
        return self._extent("scratch")

    @property
    def seen_bytes(self) -> int:
        """Bytes in which the reference kernels gather what a window sees; 0 where nothing has windows."""
        found = [0]
        for call in self.calls:
            product = self.products.get(call.site or "")
            windowed = product is not None and product.windows is not None
            if product is not None and windowed and call.kernel.startswith(_GATHERING):
                item = ITEM_BYTES[self.buffers[call.inputs[0].buffer].dtype]
                found.append(product.geometry.inputs * item)
        return -(-max(found) // self.alignment) * self.alignment

    @property
    def ram_bytes(self) -> int:
        """Bytes that a stream needs: carried state, scratch, and what a window sees; all rows where they
        are several.
        """
        return self.state_bytes + self.scratch_bytes + self.seen_bytes

    def _extent(self, space: str) -> int:
        end = max((b.offset + b.nbytes for b in self.buffers if b.space == space), default=0)
        return -(-end // self.alignment) * self.alignment

    @cached_property
    def flash_bytes(self) -> int:
        """Bytes of constants as the reference kernels read them: packed codes, indices, tables and
        multipliers of groups, taps of windows (4 bytes), biases in the accumulator's width, μ and
        thresholds (4 bytes), the tables of functions. Streams share them.
        """
        total = sum(self._product_bytes(product) for product in self.products.values())
        tables: dict[int, int] = {}
        for call in self.calls:
            if call.kernel in ("sigmoid", "tanh"):
                tables[0] = TANH_TABLE.nbytes
            elif call.kernel == "piecewise":
                table: Piecewise = call.attrs["table"]
                tables[id(table)] = table.breaks.nbytes + table.values.nbytes + table.slopes.nbytes
            elif call.kernel == "delta_encode":
                total += call.attrs["thresholds"].size * 4
        return total + sum(tables.values())

    def _product_bytes(self, product: Product) -> int:
        part, windows = product.part, product.windows
        nbytes = part.nbytes - part.scale_bytes
        nbytes += 0 if windows is None else windows.taps.size * 4
        if product.bias is not None:
            nbytes += product.geometry.out * self.bits.get(product.site, 32) // 8
        return nbytes + (0 if product.rescale is None else product.rescale.mantissa.size * 4)
