"""The graph of one time step: x and every state slot in, y and every state slot out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import FX_BITS, FX_ONE, INT32_MAX, INT32_MIN
from modelflex.core.graph import Graph, StateSlot
from modelflex.core.model import Model
from modelflex.core.program import Program, Stage, input_symbols
from modelflex.export.names import member, unique
from modelflex.export.onnx_graph import OnnxGraph, Port
from modelflex.export.onnx_ops import write_op

STATE: Final[Mapping[str, tuple[np.dtype[Any], str]]] = {
    "float32": (np.dtype(np.float32), "real values"),
    "fx": (np.dtype(np.int32), f"real values times 2^{FX_BITS}"),
    "code": (np.dtype(np.int16), "input codes that were sent last"),
    "acc": (np.dtype(np.int64), "sums of a product without its bias"),
}
"""Type of a carried value → its ONNX type and meaning. All are zeros before the first step."""


def step_graph(model: Model, program: Program) -> OnnxGraph:
    """The program's step. Stages that run once a sequence run at every step, from a reset state.

    Raises:
        UserError: a primitive that is not known, or sums that may be too large.
    """
    graph = OnnxGraph()
    value, names = input_value(graph, model, program), {"x", "y"}
    for stage in program.stages:
        value = _stage(graph, program, stage, value, names)
    if program.numeric == "integer":
        real = graph.cast(value, np.float64)
        graph.node("Mul", real, graph.literal(1 / FX_ONE, np.float64), output="y")
    else:
        graph.node("Identity", value, output="y")
    kind = _real(program)
    graph.outputs.insert(0, Port("y", kind, program.outputs, None, "outputs, real values"))
    return graph


def _real(program: Program) -> np.dtype[Any]:
    """The type of x and y; float64 holds every fx number."""
    return np.dtype(np.float64 if program.numeric == "integer" else np.float32)


def input_value(graph: OnnxGraph, model: Model, program: Program, steps: bool = False) -> str:
    """The port x, and x as fx or float32; sat(rint(x·2¹⁶)) in integer programs."""
    symbols, integer = input_symbols(model), program.numeric == "integer"
    if symbols is not None:
        meaning = f"number of a symbol, 0 to {symbols - 1}"
        graph.inputs.append(Port("x", np.dtype(np.int64), 1, None, meaning, steps))
        if not integer:
            return graph.cast("x", np.float32)
        return graph.saturate(graph.node("Mul", "x", graph.literal(FX_ONE)))
    graph.inputs.append(
        Port("x", _real(program), model.inputs, None, "features, real values", steps)
    )
    if not integer:
        return "x"
    raised = graph.node("Mul", "x", graph.literal(FX_ONE, np.float64))
    ends = (graph.literal(end, np.float64) for end in (INT32_MIN, INT32_MAX))
    return graph.cast(graph.node("Clip", graph.node("Round", raised), *ends), np.int64)


def _stage(graph: OnnxGraph, program: Program, stage: Stage, x: str, names: set[str]) -> str:
    """Append a stage; the name of its result."""
    traced = stage.graph
    values = {traced.inputs["x"]: x}
    ports: dict[str, Port] = {}
    for slot in traced.state:
        if stage.mode == "step":
            port = ports[slot.name] = state_port(stage, traced, slot, names)
            graph.inputs.append(port)
            values[slot.read] = _offset(graph, "Add", _widened(graph, port), slot)
        else:
            zeros = np.zeros((1, traced.values[slot.read].size), np.int64)
            first = zeros if slot.init is None else slot.init.reshape(1, -1).astype(np.int64)
            values[slot.read] = graph.constant(first)
    for op in traced.ops:
        made = write_op(graph, program, op, [values[i] for i in op.inputs])
        values |= dict(zip(op.outputs, made, strict=True))
    for slot in traced.state:
        if stage.mode == "step":
            port = ports[slot.name]
            after = _offset(graph, "Sub", values[slot.write], slot)
            graph.cast(after, port.dtype, output=f"{port.name}_next")
            graph.outputs.append(
                Port(f"{port.name}_next", port.dtype, port.size, port.slot, port.meaning)
            )
    return values[traced.outputs["y"]]


def state_port(stage: Stage, traced: Graph, slot: StateSlot, names: set[str]) -> Port:
    """The port of a carried value; its name and NAME_next are new among `names`, and taken then."""
    kind = traced.values[slot.read]
    full = slot.name if slot.name.startswith(f"{stage.name}.") else f"{stage.name}.{slot.name}"
    made = member(full)
    while f"{(name := unique(made, names))}_next" in names:
        pass  # another slot is called so: the next number
    names.add(f"{name}_next")
    dtype, meaning = STATE[kind.dtype]
    return Port(name, dtype, kind.size, f"{stage.name}/{slot.name}", meaning)


def _widened(graph: OnnxGraph, port: Port) -> str:
    """A state as it is computed with."""
    return port.name if port.dtype == np.float32 else graph.cast(port.name, np.int64)


def _offset(graph: OnnxGraph, kind: str, value: str, slot: StateSlot) -> str:
    """The state less what it holds at reset (kind "Sub"), or the reverse: so all states begin at 0."""
    return value if slot.init is None else graph.node(kind, value, graph.constant(slot.init))
