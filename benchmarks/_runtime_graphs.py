"""ONNX models of a recurrent layer: the operators LSTM and GRU, and a cell of matrix products.

Inputs x [T, 1, inputs] (operator) or [1, inputs] (cell) and the state; outputs the same shapes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from _runtime_case import Array, Case
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 21, 10
ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""ONNX's row groups i, o, f, c and z, r, h in torch's order of groups."""


def _reordered(value: Array, case: Case) -> Array:
    groups = value.reshape(len(ORDER[case.cell]), case.units, *value.shape[1:])
    return np.ascontiguousarray(groups[list(ORDER[case.cell])].reshape(value.shape))


def states(case: Case) -> tuple[str, ...]:
    return ("h", "c") if case.cell == "lstm" else ("h",)


def operator(case: Case, steps: int) -> onnx.ModelProto:
    """One node LSTM or GRU over `steps` steps; y [steps, 1, 1, units]."""
    t = {name: _reordered(value, case)[None] for name, value in case.tensors.items()}
    constants = {"W": t["w_x"], "R": t["w_h"], "B": np.concatenate([t["b_x"], t["b_h"]], axis=1)}
    kept = states(case)
    extra: dict[str, Any] = {"linear_before_reset": 1} if case.cell == "gru" else {}
    node = helper.make_node(
        case.cell.upper(),
        ["x", "W", "R", "B", "", *kept],
        ["y", *(f"{s}_out" for s in kept)],
        hidden_size=case.units,
        **extra,
    )
    inputs = {"x": [steps, 1, case.inputs], **{s: [1, 1, case.units] for s in kept}}
    outputs = {"y": [steps, 1, 1, case.units], **{f"{s}_out": [1, 1, case.units] for s in kept}}
    return _model([node], constants, inputs, outputs)


def cell(case: Case, int8_weights: bool = False) -> onnx.ModelProto:
    """A step as matrix products; the LSTM's as one of [x, h].

    Args:
        int8_weights: weights stored in int8 with a scale a row, decoded by DequantizeLinear.
    """
    t, units = case.tensors, case.units
    constants: dict[str, Array] = {}
    nodes: list[onnx.NodeProto] = []

    def product(x: str, weight: Array, bias: Array, out: str) -> None:
        if int8_weights:
            scale = np.abs(weight).max(axis=1) / 127
            constants[f"{out}_q"] = np.rint(weight / scale[:, None]).astype(np.int8).T.copy()
            constants[f"{out}_s"] = scale.astype(np.float32)
            nodes.append(
                helper.make_node("DequantizeLinear", [f"{out}_q", f"{out}_s"], [f"{out}_w"], axis=1)
            )
        else:
            constants[f"{out}_w"] = np.ascontiguousarray(weight.T)
        constants[f"{out}_b"] = bias
        nodes.append(helper.make_node("MatMul", [x, f"{out}_w"], [f"{out}_p"]))
        nodes.append(helper.make_node("Add", [f"{out}_p", f"{out}_b"], [out]))

    def op(kind: str, inputs: str, out: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs.split(), out.split(), **attributes))

    if case.cell == "lstm":
        op("Concat", "x h", "xh", axis=1)
        product("xh", np.hstack([t["w_x"], t["w_h"]]), t["b_x"] + t["b_h"], "gates")
        op("Split", "gates", "i f g o", axis=1, num_outputs=4)
        for name, kind in (("i", "Sigmoid"), ("f", "Sigmoid"), ("g", "Tanh"), ("o", "Sigmoid")):
            op(kind, name, f"{name}_a")
        op("Mul", "f_a c", "kept")
        op("Mul", "i_a g_a", "new")
        op("Add", "kept new", "c_out")
        op("Tanh", "c_out", "c_a")
        op("Mul", "o_a c_a", "h_out")
    else:
        product("x", t["w_x"], t["b_x"], "gates_x")
        product("h", t["w_h"], t["b_h"], "gates_h")
        op("Split", "gates_x", "xr xz xn", axis=1, num_outputs=3)
        op("Split", "gates_h", "hr hz hn", axis=1, num_outputs=3)
        op("Add", "xr hr", "r")
        op("Sigmoid", "r", "r_a")
        op("Add", "xz hz", "z")
        op("Sigmoid", "z", "z_a")
        op("Mul", "r_a hn", "rh")
        op("Add", "xn rh", "n")
        op("Tanh", "n", "n_a")
        op("Sub", "h n_a", "d")
        op("Mul", "z_a d", "zd")
        op("Add", "n_a zd", "h_out")
    kept = states(case)
    shapes = {s: [1, units] for s in kept}
    return _model(
        nodes, constants, {"x": [1, case.inputs], **shapes}, {f"{s}_out": [1, units] for s in kept}
    )


def _model(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
) -> onnx.ModelProto:
    def infos(of: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in of.items()]

    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "recurrent", infos(inputs), infos(outputs), held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model
