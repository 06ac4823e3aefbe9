"""ONNX Runtime as a contender: bound buffers, one thread, fp32 and dynamic int8.

Every input of the ring has two bindings made beforehand, so that a step copies neither input nor
state: the state goes back and forth between two sets of buffers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import _runtime_graphs as graphs
import numpy as np
import onnx
import onnxruntime as ort
from _runtime_case import SEQUENCE_STEPS, Array, Case, Contender
from _runtime_host import host
from onnxruntime.quantization import QuantType, quantize_dynamic

INT8_TOLERANCE, FP32_TOLERANCE = 0.1, 1e-4


def versions() -> dict[str, str]:
    return {"onnxruntime": ort.__version__, "onnx": onnx.__version__}


def contenders(case: Case) -> Iterator[Callable[[], Contender]]:
    """Ways to make each contender, so that one that fails leaves the others."""
    op = case.cell.upper()
    operator = graphs.operator
    yield lambda: _contender(case, f"ONNX Runtime {op}", operator(case, 1), "fp32", "step")
    yield lambda: _contender(
        case, f"ONNX Runtime {op}", operator(case, SEQUENCE_STEPS), "fp32", "sequence"
    )
    if case.cell == "lstm":  # there is no quantised GRU
        for mode, steps in (("step", 1), ("sequence", SEQUENCE_STEPS)):
            yield lambda m=mode, s=steps: _contender(
                case, "ONNX Runtime dynamic int8 LSTM", _int8(operator(case, s)), "int8", m
            )
    yield lambda: _contender(case, "ONNX Runtime cell", graphs.cell(case), "fp32", "step")
    yield lambda: _contender(
        case, "ONNX Runtime dynamic int8 cell", _int8(graphs.cell(case)), "int8", "step"
    )


def _int8(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, before)
        # 7-bit weights where there is no VNNI: its kernels saturate on 8 there, at the same speed.
        narrow = not {"avx512_vnni", "avx_vnni"} & set(host()["instruction_sets"])
        quantize_dynamic(before, after, weight_type=QuantType.QInt8, reduce_range=narrow)
        return onnx.load(after)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class _Bound:
    def __init__(self, case: Case, model: onnx.ModelProto, mode: str) -> None:
        self.session, self.mode = _session(model), mode
        shape = {i.name: i.shape for i in self.session.get_inputs() + self.session.get_outputs()}
        kept = graphs.states(case)
        # ONNX Runtime works in the memory of these arrays, and does not keep them alive.
        self.arrays = [{s: np.zeros(shape[s], np.float32) for s in kept} for _ in range(2)]
        self.xs = case.ring if mode == "step" else case.sequence[None]
        self.xs = [x.reshape(shape["x"]).copy() for x in self.xs]
        self.y_array = np.zeros(shape.get("y", 0), np.float32)
        held = ort.OrtValue.ortvalue_from_numpy
        self.buffers = [{s: held(value) for s, value in set_.items()} for set_ in self.arrays]
        inputs = [held(x) for x in self.xs]
        self.y = held(self.y_array) if "y" in shape else None
        # One sequence goes from the first set of buffers to the second and the next one back.
        uses = list(enumerate(inputs)) if mode == "step" else [(0, inputs[0]), (1, inputs[0])]
        self.tokens = [self._binding(x, *self._sets(i)) for i, x in uses]
        self.turn = 0

    def _sets(self, i: int) -> tuple[dict[str, Any], dict[str, Any]]:
        return self.buffers[i % 2], self.buffers[1 - i % 2]

    def _binding(self, x: Any, before: dict[str, Any], after: dict[str, Any]) -> Any:
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", x)
        for name, value in before.items():
            binding.bind_ortvalue_input(name, value)
        if self.y is not None:
            binding.bind_ortvalue_output("y", self.y)
        for name, value in after.items():
            binding.bind_ortvalue_output(f"{name}_out", value)
        return binding._iobinding

    def run(self, tokens: Sequence[Any]) -> None:
        # What run_with_iobinding calls, without its Python frame.
        run = self.session._sess.run_with_iobinding
        for binding in tokens:
            run(binding, None)

    def run_sequences(self, tokens: Sequence[Any]) -> None:
        for _ in tokens:
            self.run(self.tokens[self.turn : self.turn + 1])
            self.turn = 1 - self.turn

    def result(self) -> Array:
        return self.arrays[0]["h"] if self.mode == "step" else self.y_array

    def reset(self) -> None:
        self.turn = 0
        for set_ in self.arrays:
            for value in set_.values():
                value[...] = 0


def _contender(
    case: Case, name: str, model: onnx.ModelProto, precision: str, mode: str
) -> Contender:
    bound = _Bound(case, model, mode)
    run, tokens = (bound.run, bound.tokens) if mode == "step" else (bound.run_sequences, [None])
    tolerance = INT8_TOLERANCE if precision == "int8" else FP32_TOLERANCE
    return Contender(
        name, "peer", precision, mode, tokens, run, bound.result, bound.reset, tolerance, {}
    )
