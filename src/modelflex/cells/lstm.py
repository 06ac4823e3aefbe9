"""LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import Cell, Namespace
from modelflex.registry import CELLS


@final
class LSTM(Cell):
    """i, f, g, o = W_x·x + W_h·h + b; c′ = σ(f)⊙c + σ(i)⊙tanh(g); h′ = σ(o)⊙tanh(c′).

    Row groups of both weights are i, f, g, o, as in torch.
    """

    reference = "Hochreiter & Schmidhuber, Long Short-Term Memory, Neural Computation 9(8), 1997"
    states = ("h", "c")
    gates = {"w_x": 4, "w_h": 4}
    additive = ("w_x", "w_h")

    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        return {"w_x": (4 * units, inputs), "w_h": (4 * units, units)}

    def step(
        self, F: Namespace, x: Any, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        i, f, g, o = F.split(F.add(params["w_x"](x), params["w_h"](state["h"])), 4)
        kept = F.mul(F.sigmoid(f), state["c"])
        c = F.add(kept, F.mul(F.sigmoid(i), F.tanh(g)))
        h = F.mul(F.sigmoid(o), F.tanh(c))
        return h, {"h": h, "c": c}


CELLS.register("lstm")(LSTM())
