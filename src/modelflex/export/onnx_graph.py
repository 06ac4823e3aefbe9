"""ONNX graphs under construction: operators, constants in the smallest type that holds them, shifts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import INT32_MAX, INT32_MIN, Array

_SMALLEST: Final = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64)


@dataclass(frozen=True, eq=False)
class Node:
    """An operator; a `np.dtype` among `attrs` is an ONNX type, an array a tensor."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Port:
    """A named input or output of the graph: a tensor [1, size], or [steps, size] of any number of steps.

    Attributes:
        slot: the state slot behind it, as "stage.slot"; None for x and y.
        meaning: what its numbers stand for.
    """

    name: str
    dtype: np.dtype[Any]
    size: int
    slot: str | None
    meaning: str
    steps: bool = False

    @property
    def shape(self) -> list[int | str]:
        """[1, size], with the name of the number of steps where that is free."""
        return ["steps" if self.steps else 1, self.size]


class OnnxGraph:
    """Nodes in order, and initialisers by name. All names that it makes hold a dot."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.initialisers: dict[str, Array] = {}
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def node(self, kind: str, *inputs: str, output: str = "", **attrs: Any) -> str:
        """Append an operator; the name of its result."""
        return self.several(kind, inputs, [output or f"v.{len(self.nodes)}"], **attrs)[0]

    def several(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any
    ) -> Sequence[str]:
        """Append an operator of some results of these names; they."""
        self.nodes.append(Node(kind, tuple(inputs), tuple(outputs), attrs))
        return outputs

    def literal(self, values: Any, dtype: Any = np.int64) -> str:
        """A constant in just this type; equal ones are stored once."""
        array = np.ascontiguousarray(np.asarray(values, dtype)).reshape(np.shape(values))
        key = array.dtype.str, array.shape, hashlib.sha256(array.data).digest()
        if key not in self._known:
            self._known[key] = f"c.{len(self._known)}"
            self.initialisers[self._known[key]] = array
        return self._known[key]

    def constant(self, values: Array, dtype: Any = np.int64) -> str:
        """Integers stored in the smallest type that holds them, as `dtype` in the graph."""
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        fits = (t for t in _SMALLEST if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
        return self.cast(self.literal(values, next(fits)), dtype)

    def cast(self, value: str, dtype: Any, output: str = "") -> str:
        """The same numbers in another type."""
        return self.node("Cast", value, output=output, to=np.dtype(dtype))

    def reshape(self, value: str, *shape: int) -> str:
        """The same numbers in another shape."""
        return self.node("Reshape", value, self.literal(shape))

    def clip(self, value: str, low: int, high: int) -> str:
        """clamp(value, low, high) of int64."""
        return self.node("Clip", value, self.literal(low), self.literal(high))

    def saturate(self, value: str) -> str:
        """int64 within the range of int32."""
        return self.clip(value, INT32_MIN, INT32_MAX)

    def rounding_shift(self, value: str, s: int) -> str:
        """rsh(value, s) of int64, see docs/arithmetic.md.

        ONNX shifts unsigned integers only, and divides towards 0; of a multiple of 2^s, which clearing
        its last bits leaves, the quotient is whole, so it is the floor.
        """
        if s <= 0:
            return self.node("Mul", value, self.literal(1 << -s)) if s else value
        raised = self.node("Add", value, self.literal(1 << (s - 1)))
        cleared = self.node("BitwiseAnd", raised, self.literal(-(1 << s)))
        return self.node("Div", cleared, self.literal(1 << s))

    def unpack(self, packed: Array, count: int, bits: int) -> str:
        """The numbers of a bit stream (core/bits.py), int32 [count], from its bytes as they are.

        Eight numbers fill `bits` bytes; each is cut from a window over its bytes.
        """
        groups = -(-count // 8)
        stream = np.zeros(groups * bits, np.uint8)
        stream[: packed.size] = packed
        octets = self.cast(self.literal(stream.reshape(groups, bits), np.uint8), np.uint32)
        first, start = np.divmod(np.arange(8) * bits, 8)
        window = ""
        for k in range(-(-int((start + bits).max()) // 8)):
            # A byte beyond the group lies above the number's bits: which one is read does not matter.
            places = self.literal(np.minimum(first + k, bits - 1))
            octet = self.node("Gather", octets, places, axis=1)
            if k:
                shift = self.literal(8 * k, np.uint32)
                higher = self.node("BitShift", octet, shift, direction="LEFT")
                octet = self.node("BitwiseOr", window, higher)
            window = octet
        low = self.node("BitShift", window, self.literal(start, np.uint32), direction="RIGHT")
        cut = self.node("BitwiseAnd", low, self.literal((1 << bits) - 1, np.uint32))
        numbers = self.reshape(self.cast(cut, np.int32), -1)
        return self.node("Slice", numbers, self.literal([0]), self.literal([count]))
