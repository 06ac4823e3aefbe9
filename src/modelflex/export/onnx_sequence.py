"""The graph of a whole sequence: ONNX's LSTM and GRU over all steps, with states in and out; floats only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.program import Program, Stage
from modelflex.core.weight import Terms
from modelflex.errors import UserError
from modelflex.export.onnx_graph import OnnxGraph, Port
from modelflex.export.onnx_ops import write_op
from modelflex.export.onnx_step import input_value, state_port

OPERATORS: Final[Mapping[str, tuple[str, tuple[int, ...], Mapping[str, Any]]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
}
"""Kind of a cell → its operator, the order of our row groups there (i, o, f, c; z, r, h), attributes."""
_MEND: Final = "write the step form: --format onnx"


def sequence_graph(model: Model, program: Program) -> OnnxGraph:
    """y after every step, or after the last where the head reads that only, of x [steps, features].

    Raises:
        UserError: a compressed model, or a layer that has no form over all steps.
    """
    if program.numeric == "integer":
        raise UserError(
            f"model '{model.name}' computes in integers, and ONNX's LSTM and GRU in floats",
            "an uncompressed model for a whole sequence",
            _MEND,
        )
    if carrying := [layer.name for layer in model.layers if layer.carries]:
        raise UserError(
            f"model '{model.name}' feeds outputs back to its layer '{carrying[0]}'",
            "layers that read no outputs for a whole sequence",
            _MEND,
        )
    if refined := [name for name, w in model.weights.items() if isinstance(w, Terms)]:
        raise UserError(
            f"weight '{refined[0]}' of model '{model.name}' is a sum of terms",
            "weights of one matrix for a whole sequence",
            "export the model before it was refined",
        )
    graph = OnnxGraph()
    value, names = input_value(graph, model, program, steps=True), {"x", "y"}
    for layer, stage in zip(model.layers, program.stages, strict=True):
        if stage.mode == "once":
            value = graph.node("Gather", value, graph.literal([-1]), axis=0)
        if layer.kind in OPERATORS and layer.nonlinearity is None:
            value = _recurrent(graph, model, layer, stage, value, names)
        else:
            value = _stateless(graph, program, layer, stage, value)
    graph.node("Identity", value, output="y")
    steps, kind = program.per_step, np.dtype(np.float32)
    graph.outputs.insert(0, Port("y", kind, program.outputs, None, "outputs, real values", steps))
    return graph


def _stateless(graph: OnnxGraph, program: Program, layer: Layer, stage: Stage, x: str) -> str:
    """A layer that computes each step from that alone: its operators work on rows."""
    traced = stage.graph
    windows = any(product.windows for s, product in program.products.items() if s in _sites(stage))
    if traced.state or windows:
        raise UserError(
            f"layer '{layer.name}' ({layer.kind}) has no form over all steps of a sequence",
            f"{', '.join(sorted(OPERATORS))} and layers that read one step",
            _MEND,
        )
    values = {traced.inputs["x"]: x}
    for op in traced.ops:
        made = write_op(graph, program, op, [values[i] for i in op.inputs])
        values |= dict(zip(op.outputs, made, strict=True))
    return values[traced.outputs["y"]]


def _sites(stage: Stage) -> set[str | None]:
    return {op.site for op in stage.graph.ops}


def _recurrent(
    graph: OnnxGraph, model: Model, layer: Layer, stage: Stage, x: str, names: set[str]
) -> str:
    """A cell as its operator, of the one direction and the one sequence that there are."""
    kind, order, attrs = OPERATORS[layer.kind]
    w_x, w_h = (model.weights[f"{layer.name}.{w}"] for w in ("w_x", "w_h"))
    weights = [graph.literal(_reordered(w.dense(), order)[None], np.float32) for w in (w_x, w_h)]
    biases = np.concatenate([_reordered(w.bias_value(), order) for w in (w_x, w_h)])
    second, first = graph.literal([1]), graph.literal([0])
    ports = [state_port(stage, stage.graph, slot, names) for slot in stage.graph.state]
    graph.inputs += ports
    states = [graph.node("Unsqueeze", port.name, first) for port in ports]
    inputs = [graph.node("Unsqueeze", x, second), *weights, graph.literal(biases[None], np.float32)]
    made = [f"v.{len(graph.nodes)}.{i}" for i in range(1 + len(states))]
    graph.several(kind, [*inputs, "", *states], made, hidden_size=layer.units, **attrs)
    for port, last in zip(ports, made[1:], strict=True):
        after = replace(port, name=f"{port.name}_next")
        graph.node("Squeeze", last, first, output=after.name)
        graph.outputs.append(after)
    return graph.node("Squeeze", made[0], graph.literal([1, 2]))


def _reordered(rows: Array, order: tuple[int, ...]) -> Array:
    """Row groups in another order."""
    groups = np.split(rows, len(order))
    return np.concatenate([groups[i] for i in order])
