"""OpenVINO as a contender: fp32, and int8 weights (decoded inside its products), one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import _runtime_graphs as graphs
import numpy as np
import onnx
import openvino as ov
from _runtime_case import SEQUENCE_STEPS, Array, Case, Contender

SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
}


def versions() -> dict[str, str]:
    return {"openvino": ov.__version__}


def contenders(case: Case) -> Iterator[Callable[[], Contender]]:
    """Ways to make each contender, so that one that fails leaves the others."""
    op = case.cell.upper()
    yield lambda: _contender(case, f"OpenVINO {op}", graphs.operator(case, 1), "fp32", "step", 1e-4)
    yield lambda: _contender(
        case, f"OpenVINO {op}", graphs.operator(case, SEQUENCE_STEPS), "fp32", "sequence", 1e-4
    )
    yield lambda: _contender(
        case, "OpenVINO int8-weight cell", graphs.cell(case, True), "int8", "step", 0.1
    )


class _Requests:
    """Two requests whose states are each other's results, all in memory that is bound beforehand."""

    def __init__(self, case: Case, model: onnx.ModelProto, mode: str) -> None:
        read = ov.Core().read_model(model.SerializeToString())
        compiled = ov.Core().compile_model(read, "CPU", SETTINGS)
        kept, self.mode = graphs.states(case), mode
        shapes = {p.get_any_name(): list(p.shape) for p in compiled.inputs + compiled.outputs}
        self.x = np.zeros(shapes["x"], np.float32)
        self.states = [{s: np.zeros(shapes[s], np.float32) for s in kept} for _ in range(2)]
        self.y = np.zeros(shapes["y"], np.float32) if "y" in shapes else None
        self.requests = []
        for i in range(2):
            request = compiled.create_infer_request()
            request.set_tensor("x", ov.Tensor(self.x, shared_memory=True))
            for s in kept:
                request.set_tensor(s, ov.Tensor(self.states[i][s], shared_memory=True))
                after = ov.Tensor(self.states[1 - i][s], shared_memory=True)
                request.set_tensor(f"{s}_out", after)
            if self.y is not None:
                request.set_tensor("y", ov.Tensor(self.y, shared_memory=True))
            self.requests.append(request)
        self.turn = 0
        xs = case.ring if mode == "step" else case.sequence[None]
        self.tokens = [x.reshape(shapes["x"]).copy() for x in xs]

    def run(self, tokens: Sequence[Array]) -> None:
        for x in tokens:
            self.x[...] = x
            self.requests[self.turn].infer(share_outputs=True)
            self.turn = 1 - self.turn

    def result(self) -> Array:
        return self.states[self.turn]["h"] if self.mode == "step" else self.y

    def reset(self) -> None:
        self.turn = 0
        for value in self.states[0].values():
            value[...] = 0


def _contender(
    case: Case, name: str, model: onnx.ModelProto, precision: str, mode: str, tolerance: float
) -> Contender:
    made = _Requests(case, model, mode)
    notes: dict[str, Any] = {}
    return Contender(
        name, "peer", precision, mode, made.tokens, made.run, made.result, made.reset, tolerance,
        notes,
    )  # fmt: skip
