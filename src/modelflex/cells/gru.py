"""GRU (Cho et al. 2014) in the variant of torch and cuDNN, with the reset gate after the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import Cell, Namespace
from modelflex.registry import CELLS


@final
class GRU(Cell):
    """r, z = σ(W_x·x + W_h·h + b); n = tanh(W_xn·x + b_xn + r⊙(W_hn·h + b_hn)); h′ = n + z⊙(h − n).

    Row groups of both weights are r, z, n, as in torch. Each weight keeps its own bias, because the
    reset gate scales that of the recurrent product.
    """

    reference = "Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, EMNLP 2014"
    states = ("h",)
    gates = {"w_x": 3, "w_h": 3}
    additive = ()

    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        return {"w_x": (3 * units, inputs), "w_h": (3 * units, units)}

    def step(
        self, F: Namespace, x: Any, state: Mapping[str, Any], params: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        xr, xz, xn = F.split(params["w_x"](x), 3)
        hr, hz, hn = F.split(params["w_h"](state["h"]), 3)
        r, z = F.sigmoid(F.add(xr, hr)), F.sigmoid(F.add(xz, hz))
        n = F.tanh(F.add(xn, F.mul(r, hn)))
        h = F.add(n, F.mul(z, F.sub(state["h"], n)))
        return h, {"h": h}


CELLS.register("gru")(GRU())
