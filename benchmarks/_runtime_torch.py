"""torch as a contender: nn.LSTM/GRU, the cells, and both in dynamic int8; eager, one thread."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from _runtime_case import Array, Case, Contender

INT8_TOLERANCE, FP32_TOLERANCE = 0.1, 1e-4


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "torch_int8_engine": torch.backends.quantized.engine}


def contenders(case: Case) -> Iterator[Callable[[], Contender]]:
    """Ways to make each contender, so that one that fails leaves the others."""
    torch.set_num_threads(1)
    for int8 in (False, True):
        yield lambda i=int8: _layer(case, i, "step")
        yield lambda i=int8: _cell(case, i)
        yield lambda i=int8: _layer(case, i, "sequence")


def _load(module: torch.nn.Module, case: Case, suffix: str) -> torch.nn.Module:
    names = {"w_x": "weight_ih", "w_h": "weight_hh", "b_x": "bias_ih", "b_h": "bias_hh"}
    state = {names[n] + suffix: torch.from_numpy(v.copy()) for n, v in case.tensors.items()}
    module.load_state_dict(state)
    return module.eval()


def _quantized(module: torch.nn.Module) -> torch.nn.Module:
    # In a container: only children are replaced.
    box = torch.nn.ModuleList([module])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is deprecated in favour of torchao
        made = torch.ao.quantization.quantize_dynamic(box, {type(module)}, dtype=torch.qint8)
    return made[0]


class _Stepper:
    """A module that is called with an input and a state and keeps what it returns."""

    def __init__(self, module: Any, zeros: Any, state_of: Callable[[Any], Any]) -> None:
        self.module, self.zeros, self.state_of = module, zeros, state_of
        self.state = zeros
        self.h: Array | None = None

    def reset(self) -> None:
        self.state = self.zeros

    def run(self, tokens: Sequence[torch.Tensor]) -> None:
        module, state = self.module, self.state
        with torch.inference_mode():
            for x in tokens:
                y, state = module(x, state)
            self.h = y.numpy()
        self.state = state

    def run_cell(self, tokens: Sequence[torch.Tensor]) -> None:
        module, state = self.module, self.state
        with torch.inference_mode():
            for x in tokens:
                state = module(x, state)
            self.h = self.state_of(state).numpy()
        self.state = state


def _layer(case: Case, int8: bool, mode: str) -> Contender:
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[case.cell]
    module = _load(kind(case.inputs, case.units), case, "_l0")
    module = _quantized(module) if int8 else module
    zero = torch.zeros(1, 1, case.units)
    runner = _Stepper(module, (zero, zero) if case.cell == "lstm" else zero, lambda s: s)
    x = torch.from_numpy(case.ring if mode == "step" else case.sequence)
    tokens = [t.reshape(1, 1, -1).contiguous() for t in x] if mode == "step" else [x[:, None, :]]
    name = f"torch nn.{case.cell.upper()}" + (" dynamic int8" if int8 else "")
    return _contender(name, int8, mode, tokens, runner, runner.run)


def _cell(case: Case, int8: bool) -> Contender:
    kind = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell}[case.cell]
    module = _load(kind(case.inputs, case.units), case, "")
    module = _quantized(module) if int8 else module
    zero = torch.zeros(1, case.units)
    lstm = case.cell == "lstm"
    state_of = (lambda s: s[0]) if lstm else (lambda s: s)
    runner = _Stepper(module, (zero, zero) if lstm else zero, state_of)
    tokens = [t.reshape(1, -1).contiguous() for t in torch.from_numpy(case.ring)]
    name = f"torch {case.cell.upper()}Cell" + (" dynamic int8" if int8 else "")
    return _contender(name, int8, "step", tokens, runner, runner.run_cell)


def _contender(
    name: str, int8: bool, mode: str, tokens: list[Any], runner: _Stepper, run: Any
) -> Contender:
    return Contender(
        name, "peer", "int8" if int8 else "fp32", mode, tokens, run,
        lambda: np.asarray(runner.h), runner.reset,
        INT8_TOLERANCE if int8 else FP32_TOLERANCE, {},
    )  # fmt: skip
