"""Exported ONNX run by onnxruntime over many steps of carried state, against the interpreter."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np

from modelflex.core.fixed import FX_ONE, Array, from_fx
from modelflex.core.model import Model
from modelflex.core.program import Program
from modelflex.errors import UserError
from modelflex.export.golden import TOLERANCE, golden
from modelflex.export.onnx_graph import OnnxGraph


def check_onnx(
    content: bytes, graph: OnnxGraph, model: Model, program: Program
) -> dict[str, Any] | None:
    """Compare the golden vectors' outputs; what was compared, or None without onnxruntime.

    Raises:
        UserError: they differ, or onnxruntime refuses the file.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return None
    vectors = golden(model, program)
    integer = program.numeric == "integer"
    x = from_fx(vectors.inputs) if integer else vectors.inputs
    try:
        outputs = run_onnx(content, graph, x.astype(graph.inputs[0].dtype))[0]
    except Exception as error:  # its exceptions have no common base
        raise UserError(
            f"onnxruntime {runtime.__version__} does not run the graph: {error}",
            "a version that does",
            "use another version of onnxruntime",
        ) from None
    wanted = vectors.outputs / FX_ONE if integer else vectors.outputs
    if outputs.shape[0] < wanted.shape[0]:  # of parts of the sequence, after the last step
        wanted = wanted[[part.stop - 1 for part in _parts(graph, wanted.shape[0])]]
    distance = np.abs(outputs - wanted) / np.maximum(1, np.abs(wanted))
    far = ~(distance <= (0 if integer else TOLERANCE))  # what is not a number is far
    if far.any():
        step = int(np.argmax(far.any(axis=1)))
        raise UserError(
            f"onnxruntime {runtime.__version__} gives other results than the interpreter at step {step}",
            "equal ones",
            "use another version of onnxruntime",
        )
    worst = float(distance.max(initial=0))
    return {"onnxruntime": runtime.__version__, "steps": len(x), "largest_error": worst}


def run_onnx(content: bytes, graph: OnnxGraph, x: Array) -> tuple[Array, dict[str, Array]]:
    """Run one part after another from a reset state by onnxruntime's CPU provider, in one thread.

    Parts are single steps; of a graph of a whole sequence two, so that state is carried there too.

    Args:
        x: [T, features].

    Returns:
        y [T, outputs], or one row for a part; and the state "stage/slot" → [size] after the last step.
    """
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # library code prints nothing
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    states = graph.inputs[1:]
    feed = {port.name: np.zeros((1, port.size), port.dtype) for port in states}
    y = []
    for part in _parts(graph, x.shape[0]):
        made, *after = session.run(None, {"x": x[part], **feed})
        feed = {port.name: value for port, value in zip(states, after, strict=True)}
        y.append(made)
    return np.concatenate(y), {str(port.slot): feed[port.name][0] for port in states}


def _parts(graph: OnnxGraph, steps: int) -> list[slice]:
    """What goes into one call."""
    ends = [0, steps // 3, steps] if graph.inputs[0].steps else range(steps + 1)
    return [slice(a, b) for a, b in itertools.pairwise(ends) if b > a]
