"""Recording a graph: the primitives of cells and layers, in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelflex.core.fixed import Array
from modelflex.core.graph import PRIMITIVES, Graph, Op, StateSlot, ValueType
from modelflex.core.piecewise import Piecewise


@dataclass(frozen=True)
class Value:
    """A vector in the graph under construction; of a `one_hot` one at most one element is not 0."""

    id: int
    size: int
    dtype: str
    one_hot: bool = False


class Recorder:
    """Records primitives; `Tracer` adds the products.

    Args:
        numeric: "float" or "integer", for the whole program.
        tables: what stands for "sigmoid" and "tanh"; without one their own primitives do.
    """

    def __init__(self, numeric: str, tables: Mapping[str, Piecewise] | None = None) -> None:
        self.numeric, self.tables = numeric, tables or {}
        if self.tables and numeric == "float":
            raise ValueError("float programs compute functions, not tables")
        self.real = "fx" if numeric == "integer" else "float32"
        self._values: list[ValueType] = []
        self._ops: list[Op] = []
        self._inputs: dict[str, int] = {}
        self._state: dict[str, tuple[int, Array | None]] = {}
        self._writes: dict[str, int] = {}

    # --- the graph -------------------------------------------------------------------------------
    def _value(self, size: int, dtype: str) -> Value:
        self._values.append(ValueType(size, dtype))
        return Value(len(self._values) - 1, size, dtype)

    def input(self, name: str, size: int, one_hot: bool = False) -> Value:
        """A named input of the graph in the program's real type."""
        value = replace(self._value(size, self.real), one_hot=one_hot)
        self._inputs[name] = value.id
        return value

    def state(self, name: str, size: int, dtype: str, init: Array | None = None) -> Value:
        """A value carried from step to step; zeros before the first unless `init` [size] is given."""
        if name in self._state:
            raise ValueError(f"two state slots are named '{name}'")
        value = self._value(size, dtype)
        self._state[name] = (value.id, init)
        return value

    def set_state(self, name: str, value: Value) -> None:
        """What the slot `name` holds at the end of the step."""
        self._writes[name] = value.id

    def record(
        self,
        kind: str,
        inputs: Sequence[Value],
        outputs: Sequence[tuple[int, str]],
        site: str | None = None,
        **attrs: Any,
    ) -> tuple[Value, ...]:
        """Append one primitive; `outputs` gives (size, dtype) of each result."""
        row = PRIMITIVES[kind]
        if len(inputs) != row.inputs or len(outputs) != row.outputs:
            raise ValueError(f"'{kind}' takes {row.inputs} values and makes {row.outputs}")
        made = tuple(self._value(size, dtype) for size, dtype in outputs)
        ids = tuple(v.id for v in inputs), tuple(v.id for v in made)
        self._ops.append(Op(len(self._ops), kind, ids[0], ids[1], site, attrs))
        return made

    def finish(self, outputs: Mapping[str, Value]) -> Graph:
        """The graph; every state slot must have been written."""
        missing = set(self._state) - set(self._writes)
        if missing:
            raise ValueError(f"state slots never written: {', '.join(sorted(missing))}")
        slots = tuple(
            StateSlot(name, read, self._writes[name], init)
            for name, (read, init) in self._state.items()
        )
        named = {name: value.id for name, value in outputs.items()}
        return Graph(tuple(self._values), tuple(self._ops), dict(self._inputs), named, slots)

    # --- the namespace of cells ------------------------------------------------------------------
    def _binary(self, kind: str, a: Value, b: Value) -> Value:
        if a.size != b.size or a.dtype != b.dtype:
            raise ValueError(f"'{kind}' of {a.size} {a.dtype} and {b.size} {b.dtype}")
        return self.record(kind, (a, b), ((a.size, a.dtype),))[0]

    def add(self, a: Value, b: Value) -> Value:
        return self._binary("add", a, b)

    def add_terms(self, a: Value, b: Value, name: str) -> Value:
        """The sum of two terms of the weight `name`: part of its products, not of the cell."""
        return self.record("add", (a, b), ((a.size, a.dtype),), name)[0]

    def sub(self, a: Value, b: Value) -> Value:
        return self._binary("sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        return self._binary("mul", a, b)

    def sigmoid(self, a: Value) -> Value:
        return self._function("sigmoid", a)

    def tanh(self, a: Value) -> Value:
        return self._function("tanh", a)

    def _function(self, name: str, a: Value) -> Value:
        made = ((a.size, a.dtype),)
        if name in self.tables:
            return self.record("piecewise", (a,), made, table=self.tables[name])[0]
        return self.record(name, (a,), made)[0]

    def relu(self, a: Value) -> Value:
        return self.record("relu", (a,), ((a.size, a.dtype),))[0]

    def one_hot(self, a: Value, size: int) -> Value:
        """The vector [size] with a 1 at the element whose number the single element of `a` is."""
        return replace(self.record("one_hot", (a,), ((size, a.dtype),), size=size)[0], one_hot=True)

    def concat(self, parts: Sequence[Value]) -> Value:
        """One vector after another."""
        whole = parts[0]
        for part in parts[1:]:
            joined = ((whole.size + part.size, whole.dtype),)
            whole = self.record("concat", (whole, part), joined)[0]
        return whole

    def split(self, a: Value, parts: int) -> tuple[Value, ...]:
        """Equal consecutive pieces."""
        size = a.size // parts
        return tuple(self.slice(a, i * size, (i + 1) * size) for i in range(parts))

    def slice(self, a: Value, start: int, stop: int) -> Value:
        """The elements start … stop − 1."""
        return self.record("slice", (a,), ((stop - start, a.dtype),), start=start, stop=stop)[0]
