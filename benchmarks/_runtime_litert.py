"""LiteRT as a contender: dynamic int8 with XNNPACK (its default), one thread.

Its models are made by `_runtime_litert_models.py` in an environment of its own, and kept in
build/litert for the same script and weights. Tensors are read and written in the interpreter's own
memory, without its checks.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from _runtime_case import SEQUENCE_STEPS, Array, Case, Contender
from ai_edge_litert.interpreter import Interpreter

ROOT = Path(__file__).resolve().parents[1]
MAKER = Path(__file__).with_name("_runtime_litert_models.py")
MAKER_PYTHON = ROOT / ".venv-litert" / "bin" / "python"
KEPT = ROOT / "build" / "litert"
INT8_TOLERANCE = 0.1


def versions() -> dict[str, str]:
    return {"ai-edge-litert": metadata.version("ai-edge-litert")}


def contenders(case: Case) -> Iterator[Callable[[], Contender]]:
    """Ways to make each contender, so that one that fails leaves the others."""
    yield lambda: _contender(case, "cell", "step", "cell")
    yield lambda: _contender(case, "cell", "sequence", "cell, step by step")
    yield lambda: _contender(case, "unrolled", "sequence", "unrolled cell")
    if case.cell == "lstm":
        yield lambda: _contender(case, "fused1", "step", "fused LSTM")
        yield lambda: _contender(case, "fused", "sequence", "fused LSTM")


def models(case: Case) -> Path:
    """The folder with a case's models, which are made where they are missing.

    Raises:
        RuntimeError: there is no environment for TensorFlow, or it failed.
    """
    digest = hashlib.sha256(MAKER.read_bytes())
    for value in case.tensors.values():
        digest.update(value.tobytes())
    folder = KEPT / f"{case.cell}-{case.inputs}-{case.units}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    if not MAKER_PYTHON.exists():
        raise RuntimeError(f"no environment with TensorFlow in {MAKER_PYTHON.parents[1]}")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as made:
        weights, out = Path(made) / "weights.npz", Path(made) / "models"
        out.mkdir()
        np.savez(weights, **case.tensors)
        command = [str(MAKER_PYTHON), str(MAKER), case.cell, str(weights), str(out)]
        ran = subprocess.run(
            [*command, str(SEQUENCE_STEPS)], check=False, capture_output=True, text=True
        )
        if ran.returncode:
            raise RuntimeError(f"making LiteRT models failed: {ran.stderr.strip()[-300:]}")
        os.replace(out, folder)
    return folder


class _Invoked:
    def __init__(self, case: Case, file: Path, mode: str) -> None:
        self.interpreter = Interpreter(str(file), num_threads=1)
        self.interpreter.allocate_tensors()
        signature = self.interpreter.get_signature_list()["serving_default"]
        runner = self.interpreter.get_signature_runner("serving_default")
        views = {n: self._view(d["index"]) for n, d in runner.get_input_details().items()}
        outputs = {n: self._view(d["index"]) for n, d in runner.get_output_details().items()}
        self.x = views["x"]
        self.carried = [(views[s], outputs[f"{s}_out"]) for s in ("h", "c") if s in views]
        fused = [outputs[n] for n in signature["outputs"] if not n.endswith("_out")]
        self.y = fused[0] if fused else outputs["h_out"]
        whole = mode == "sequence" and self.x.shape[-2] == SEQUENCE_STEPS
        xs = case.sequence[None] if whole else case.ring if mode == "step" else case.sequence
        self.tokens = [x.reshape(self.x.shape).copy() for x in xs]
        self.rows = np.zeros((SEQUENCE_STEPS, case.units), np.float32)

    def _view(self, index: int) -> Array:
        return self.interpreter.tensor(index)()

    def run(self, tokens: Sequence[Array]) -> None:
        # Without the check that no view of its memory is held: it stays where it is.
        x, invoke, carried = self.x, self.interpreter._interpreter.Invoke, self.carried
        for token in tokens:
            x[...] = token
            invoke()
            for before, after in carried:
                before[...] = after

    def run_sequence(self, tokens: Sequence[None]) -> None:
        """One step after another, the sequence once a token."""
        for _ in tokens:
            for token, row in zip(self.tokens, self.rows, strict=True):
                self.run((token,))
                row[...] = self.y[0]

    def reset(self) -> None:
        for before, _ in self.carried:
            before[...] = 0
        self.interpreter._interpreter.ResetVariableTensors()


def _contender(case: Case, file: str, mode: str, shape: str) -> Contender:
    made = _Invoked(case, models(case) / f"{file}.tflite", mode)
    name = f"LiteRT dynamic int8 {shape}"
    if mode == "sequence" and len(made.tokens) > 1:
        return Contender(
            name, "peer", "int8", mode, [None], made.run_sequence, lambda: made.rows, made.reset,
            INT8_TOLERANCE, {},
        )  # fmt: skip
    return Contender(
        name, "peer", "int8", mode, made.tokens, made.run, lambda: made.y, made.reset,
        INT8_TOLERANCE, {},
    )  # fmt: skip
