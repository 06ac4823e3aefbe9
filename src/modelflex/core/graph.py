"""Graphs: a straight line of primitives from a closed list, with explicit state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelflex.core.fixed import Array


@dataclass(frozen=True)
class Primitive:
    """One row of the op table.

    Attributes:
        inputs: how many values it reads.
        outputs: how many values it makes.
        overwrites: for each output, the input whose buffer it may overwrite (a state slot), or None.
        elementwise: work proportional to the size of its first output; otherwise it is a product.
        meaning: what it computes (docs/arithmetic.md has the integer definition).
    """

    inputs: int
    outputs: int
    overwrites: tuple[int | None, ...]
    elementwise: bool
    meaning: str


PRIMITIVES: Mapping[str, Primitive] = {
    "quantize": Primitive(1, 1, (None,), True, "codes = clamp(rsh(v·μ, s))"),
    "linear": Primitive(
        1,
        1,
        (None,),
        False,
        "A·x + bias, A in its layout and format; `skip_zeros`: over the inputs that are not 0",
    ),
    "delta_encode": Primitive(
        2,
        3,
        (None, None, 1),
        True,
        "(codes, last sent) → (Δ, mask, sent): Δ where a block moved by ≥ its threshold",
    ),
    "accumulate": Primitive(3, 1, (2,), False, "(Δ, mask, M) → M + A·Δ over the masked inputs"),
    "refine": Primitive(
        1,
        1,
        (None,),
        False,
        "bias + Σ_n u_n·(v_n·x) over the first terms, as many as the step's budget allows",
    ),
    "rescale": Primitive(1, 1, (None,), True, "fx = sat(rsh(acc·μ_row, s))"),
    "add": Primitive(2, 1, (0,), True, "saturating sum"),
    "sub": Primitive(2, 1, (0,), True, "saturating difference"),
    "mul": Primitive(2, 1, (0,), True, "sat(rsh(a·b, 16))"),
    "sigmoid": Primitive(1, 1, (0,), True, "2¹⁵ + rsh(tanh(rsh(x, 1)), 1)"),
    "tanh": Primitive(1, 1, (0,), True, "table of 257 entries, linear between them"),
    "relu": Primitive(1, 1, (0,), True, "max(x, 0)"),
    "one_hot": Primitive(
        1, 1, (None,), True, "1 at the element rint(x), else 0; all 0 if there is no such element"
    ),
    "concat": Primitive(2, 1, (None,), True, "one vector after another"),
    "piecewise": Primitive(1, 1, (0,), True, "centre ± a piecewise linear function of |x|"),
    "slice": Primitive(1, 1, (None,), True, "elements start … stop of the last axis"),
}


@dataclass(frozen=True)
class Op:
    """One primitive: `inputs` and `outputs` are value ids; `site` (weight/link) names a product."""

    id: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    site: str | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ValueType:
    """Length and type of one value (all values are vectors).

    `dtype` is "float32", "fx", "code", "delta", "mask" or "acc" (docs/arithmetic.md gives their widths).
    """

    size: int
    dtype: str


@dataclass(frozen=True, eq=False)
class StateSlot:
    """A value carried from step to step: `read` holds it at the start of a step, `write` at its end.

    `init` is None for zeros, else the value before the first step.
    """

    name: str
    read: int
    write: int
    init: Array | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """Values, ops in order, named inputs and outputs (value ids), and the state slots."""

    values: tuple[ValueType, ...]
    ops: tuple[Op, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    state: tuple[StateSlot, ...]

    def state_dependent(self) -> frozenset[int]:
        """Ids of the values that depend on a state slot; the others may be computed for all steps at once."""
        dirty = {slot.read for slot in self.state}
        for op in self.ops:
            if any(i in dirty for i in op.inputs):
                dirty.update(op.outputs)
        return frozenset(dirty)
