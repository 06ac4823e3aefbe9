"""Export to ONNX: one time step, bit for bit what the interpreter gives, or floats over all steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelflex.core.files import looking_at, replacing
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import Program, build_program
from modelflex.errors import UserError
from modelflex.export.golden import TOLERANCE
from modelflex.export.names import given_symbol, symbol
from modelflex.export.onnx_check import check_onnx
from modelflex.export.onnx_graph import Node, OnnxGraph, Port
from modelflex.export.onnx_sequence import sequence_graph
from modelflex.export.onnx_step import step_graph

SCHEMA: Final = "modelflex.onnx/1"
OPSET: Final = 18
"""The first with bitwise operators."""
IR_VERSION: Final = 8
"""The first for this opset."""
PRODUCER: Final = "modelflex"
MAX_BYTES: Final = (1 << 31) - (1 << 20)
"""Bytes of constants; a file with its graph stays below the 2 GiB of a protobuf message."""


def export_onnx(model: Model, path: Path, name: str | None = None) -> dict[str, Any]:
    """Write a model's step as ONNX and, where onnxruntime is installed, check it; what was written.

    The same model gives the same bytes. They are written when they are checked.

    Args:
        path: a file that ends in .onnx, or a folder, which gets one by the name.
        name: of the graph; None for one that is made of the model's name.

    Raises:
        UserError: the package onnx is missing, `path` holds something else than an earlier export or
            can't be written, the model can't be said in ONNX, or onnxruntime gives other results.
    """
    return _export(step_graph, model, path, name)


def export_onnx_sequence(model: Model, path: Path, name: str | None = None) -> dict[str, Any]:
    """The same with any number of steps at once, by ONNX's own LSTM and GRU: float models only.

    Raises:
        UserError: as `export_onnx`; a compressed model, or a layer that has no form over steps.
    """
    return _export(sequence_graph, model, path, name)


def _export(
    make: Callable[[Model, Program], OnnxGraph], model: Model, path: Path, name: str | None
) -> dict[str, Any]:
    name = symbol(model.name) if name is None else given_symbol(name)
    if path.suffix != ".onnx":
        with looking_at(path):
            if path.exists() and not path.is_dir():
                raise UserError(f"'{path}' is a file", "a name that ends in .onnx, or a folder")
        path = path / f"{name}.onnx"
    _check_replaceable(_package(), path)
    program = build_program(model)
    graph = make(model, program)
    content = onnx_file(graph, name)
    checked = check_onnx(content, graph, model, program)
    with replacing(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
    constants = sum(array.nbytes for array in graph.initialisers.values())
    return {
        "schema": SCHEMA,
        "symbol": name,
        "name": model.name,
        "file": str(path),
        "numeric": program.numeric,
        "opset": OPSET,
        "inputs": [_described(port) for port in graph.inputs],
        "outputs": [_described(port) for port in graph.outputs],
        "output_at_every_step": program.per_step,
        "bytes": {"file": len(content), "constants": constants, "weights": model.weight_bytes},
        "tolerance": TOLERANCE if program.numeric == "float" else 0,
        "checked": checked,
    }


def _package() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError:
        raise UserError(
            "the package onnx is not installed",
            "it, to write ONNX",
            "pip install 'modelflex[onnx]'",
        ) from None


def _check_replaceable(onnx: Any, path: Path) -> None:
    """Refuse to replace anything but a file that an earlier export wrote."""
    with looking_at(path):
        if not path.exists():
            return
    try:
        ours = onnx.load_model(path, load_external_data=False).producer_name == PRODUCER
    except Exception:  # protobuf and onnx raise many kinds
        ours = False
    if not ours:
        raise UserError(
            f"'{path}' exists and is no export", "a new file, or an earlier export", "name another"
        )


def _described(port: Port) -> dict[str, Any]:
    entry = {"name": port.name, "type": port.dtype.name, "shape": port.shape}
    return entry | ({} if port.slot is None else {"state": port.slot}) | {"meaning": port.meaning}


def onnx_file(graph: OnnxGraph, name: str) -> bytes:
    """A graph as the content of a file.

    Raises:
        UserError: the package onnx is missing or refuses the graph, or the constants are too many for a file.
    """
    onnx = _package()
    nbytes = sum(array.nbytes for array in graph.initialisers.values())
    if nbytes > MAX_BYTES:
        raise UserError(
            f"the model's constants take {nbytes} bytes", f"at most {MAX_BYTES} in an ONNX file"
        )
    made = onnx.helper.make_graph(
        [_node(onnx, node) for node in graph.nodes],
        name,
        [_port(onnx, port) for port in graph.inputs],
        [_port(onnx, port) for port in graph.outputs],
        [_tensor(onnx, key, array) for key, array in graph.initialisers.items()],
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    whole = onnx.helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name=PRODUCER
    )
    whole.metadata_props.add(key="schema", value=SCHEMA)
    try:
        onnx.checker.check_model(whole)
        return bytes(whole.SerializeToString(deterministic=True))
    except Exception as error:  # those of onnx, of protobuf and ValueError
        raise UserError(
            f"onnx {onnx.__version__} refuses the graph: {error}",
            "a version that takes it",
            "use another version of onnx",
        ) from None


def _port(onnx: Any, port: Port) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(port.dtype)
    return onnx.helper.make_tensor_value_info(port.name, kind, port.shape, port.meaning)


def _tensor(onnx: Any, name: str, array: Array) -> Any:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype.type))
    return onnx.helper.make_tensor(name, kind, array.shape, little.tobytes(), raw=True)


def _node(onnx: Any, node: Node) -> Any:
    attrs = {key: _attribute(onnx, value) for key, value in node.attrs.items()}
    return onnx.helper.make_node(node.kind, node.inputs, node.outputs, **attrs)


def _attribute(onnx: Any, value: Any) -> Any:
    if isinstance(value, np.dtype):
        return onnx.helper.np_dtype_to_tensor_dtype(value)
    return value
