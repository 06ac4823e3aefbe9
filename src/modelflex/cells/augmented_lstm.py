"""LSTM with one matrix over the input and the old output together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import Cell, Namespace
from modelflex.registry import CELLS


@final
class AugmentedLSTM(Cell):
    """i, f, g, o = W·[x, h] + b; c′ = σ(f)⊙c + σ(i)⊙tanh(g); h′ = σ(o)⊙tanh(c′).

    W is [W_x, W_h] of `LSTM` side by side, so that what stands for it serves both at once.
    """

    reference = (
        "Rizakis et al., Approximate FPGA-based LSTMs under Computation Time Constraints, ARC 2018 "
        "(the augmented weight matrix, section 3)"
    )
    states = ("h", "c")
    gates = {"w": 4}
    additive = ()
    augments = "lstm"

    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        return {"w": (4 * units, inputs + units)}

    def step(
        self, F: Namespace, x: Any, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        i, f, g, o = F.split(params["w"](F.concat((x, state["h"]))), 4)
        kept = F.mul(F.sigmoid(f), state["c"])
        c = F.add(kept, F.mul(F.sigmoid(i), F.tanh(g)))
        h = F.mul(F.sigmoid(o), F.tanh(c))
        return h, {"h": h, "c": c}


CELLS.register("augmented_lstm")(AugmentedLSTM())
