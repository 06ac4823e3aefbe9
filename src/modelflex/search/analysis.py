"""What a model is: layers, shapes, operations, bytes, and how compressible its states look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.stats import Stats
from modelflex.core.weight import Terms


def analyze(model: Model, stats: Stats | None) -> dict[str, Any]:
    """Layers, parameters, operations a step, bytes; the rank of the hidden states if there are data.

    Parameters, operations and bytes are those of the stored form; of weights that are sums of terms those of
    all terms (`terms` has how many each has).

    The rank is the number of principal directions that hold 90 or 99 % of the energy (uncentred
    second moment) of a layer's hidden state over the calibration steps: it predicts how compressible
    the recurrent weights are.
    """
    layers = []
    program = build_program(model)
    for layer in model.layers:
        weights = {n: model.weights[n] for n in layer.weight_shapes}
        products = [p for p in program.products.values() if p.weight in weights]
        stored = [
            part for w in weights.values() for p in w.products for part in (p.part, p.own_bias)
        ]
        macs = sum(product.geometry.macs * product.positions for product in products)
        terms = {n: w for n, w in weights.items() if isinstance(w, Terms)}
        whole = sum(p.geometry.macs * p.positions for p in products if p.weight not in terms)
        layers.append({
            "name": layer.name,
            "kind": layer.kind,
            "inputs": layer.inputs,
            "units": layer.units,
            "runs": "once a sequence" if layer.reads == "last" else "every step",
            "parameters": sum(part.codes.size for part in stored if part is not None),
            "macs_per_step": macs,
            "operations_per_step": 2 * whole + sum(w.operations(w.count) for w in terms.values()),
            "bytes": sum(w.nbytes for w in weights.values()),
            "weights": {n: list(w.shape) for n, w in weights.items()},
            "terms": {n: w.count for n, w in terms.items()},
        })  # fmt: skip
    return {
        "name": model.name,
        "inputs": model.inputs,
        "outputs": model.outputs,
        "output": model.output,
        "parameters": sum(layer["parameters"] for layer in layers),
        "weight_bytes": model.weight_bytes,
        "layers": layers,
        "hidden_rank": {} if stats is None else _ranks(model, stats),
    }


def _ranks(model: Model, stats: Stats) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for layer in model.layers:
        if isinstance(layer.plugin, Cell):
            # The old output is what the last weight reads last: all of w_h, the end of an augmented matrix.
            trace = stats.sites[list(layer.weight_shapes)[-1]].trace
            found[layer.name] = hidden_rank(trace[:, -layer.units :])
    return found


def hidden_rank(states: Array) -> dict[str, Any]:
    """Rank of hidden states [steps, units] for 90 and 99 % of their energy, and the cumulative energy."""
    values = np.linalg.eigvalsh(states.astype(np.float64).T @ states)[::-1]
    share = np.cumsum(np.maximum(values, 0.0)) / max(float(np.sum(np.maximum(values, 0.0))), 1e-300)
    return {
        "units": int(states.shape[1]),
        "rank_90": int(np.searchsorted(share, 0.90) + 1),
        "rank_99": int(np.searchsorted(share, 0.99) + 1),
        "spectrum": [round(float(s), 6) for s in share],
    }
