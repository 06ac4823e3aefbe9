"""What the examples share: where data lie, and writing and checking exported networks."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from modelflex.core.data import Sequences
from modelflex.core.files import replacing
from modelflex.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
Tensors = dict[str, npt.NDArray[Any]]
Floats = npt.NDArray[np.float64]


def data_file(name: str, origin: str) -> Path:
    """The file `name` below the folder of data sets: $MODELFLEX_DATA or ../shared/data.

    Raises:
        UserError: it is not there; the message says where it comes from.
    """
    folder = Path(os.environ.get("MODELFLEX_DATA", ROOT.parent / "shared" / "data"))
    path = folder / name
    if not path.is_file():
        raise UserError(
            f"no data file {path}",
            f"{origin}",
            "set MODELFLEX_DATA to the folder of the data sets",
        )
    return path


def write_sequences(folder: Path, parts: Mapping[str, Sequences]) -> None:
    """Write one `.npz` (x, lengths, y) a part into `folder`, and say so."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in parts.items():
        path = folder / f"{name}.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, x=data.x, lengths=data.lengths, y=data.y)
        print(f"{path}: {data.count} sequences, {data.steps} steps")


def versions() -> dict[str, str]:
    """Versions that a training depends on."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def write_model(
    folder: Path,
    name: str,
    layers: list[dict[str, Any]],
    tensors: Tensors,
    meta: dict[str, Any],
    output: str = "logits",
) -> None:
    """Write model.safetensors and model.json into `folder`; `output` says what the outputs are."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "schema": "modelflex.model/1",
        "name": name,
        "layers": layers,
        "output": output,
        "meta": meta,
    }
    with replacing(folder / "model.safetensors") as temporary:
        temporary.write_bytes(safetensors.numpy.save(tensors))
    with replacing(folder / "model.json") as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def recurrent_tensors(module: Any, kind: str = "lstm") -> Tensors:
    """Weights of a torch.nn.LSTM or GRU by layer, gate rows in torch's order.

    The two biases of an LSTM are added; a GRU keeps both, because its reset gate scales one.
    """
    state = {key: value.numpy() for key, value in module.state_dict().items()}
    tensors: Tensors = {}
    for i in range(module.num_layers):
        layer = f"{kind}{i}"
        tensors[f"{layer}.w_x"] = state[f"weight_ih_l{i}"]
        tensors[f"{layer}.w_h"] = state[f"weight_hh_l{i}"]
        tensors[f"{layer}.w_x.bias"] = state[f"bias_ih_l{i}"]
        if kind == "gru":
            tensors[f"{layer}.w_h.bias"] = state[f"bias_hh_l{i}"]
        else:
            tensors[f"{layer}.w_x.bias"] = state[f"bias_ih_l{i}"] + state[f"bias_hh_l{i}"]
    return {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in tensors.items()}


def dense_tensors(module: Any, name: str = "head") -> Tensors:
    """Weight and bias of a torch.nn.Linear or convolution, the weight as a matrix [units, inputs]."""
    weight = module.weight.detach().numpy()
    return {
        f"{name}.w": np.ascontiguousarray(weight.reshape(len(weight), -1), dtype=np.float32),
        f"{name}.w.bias": module.bias.detach().numpy().astype(np.float32),
    }


def sigmoid(a: Floats) -> Floats:
    """Logistic function."""
    return 1 / (1 + np.exp(-a))


def reference_lstm(tensors: Tensors, name: str, frames: Floats) -> Floats:
    """Hidden states [T, units] of one sequence [T, inputs] by the LSTM's equations, float64.

    Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000.
    """
    w_x, w_h, bias = (tensors[f"{name}.{key}"].astype(np.float64) for key in WEIGHTS_OF_LSTM)
    h = c = np.zeros(w_h.shape[1])
    rows = []
    for frame in frames:
        i, f, g, o = np.split(w_x @ frame + w_h @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        rows.append(h)
    return np.stack(rows)


WEIGHTS_OF_LSTM = ("w_x", "w_h", "w_x.bias")


def reference_gru(tensors: Tensors, name: str, frames: Floats) -> Floats:
    """Hidden states [T, units] of one sequence [T, inputs] by the GRU's equations, float64.

    Cho et al. 2014 in torch's variant, the reset gate after the recurrent product.
    """
    keys = ("w_x", "w_h", "w_x.bias", "w_h.bias")
    w_x, w_h, b_x, b_h = (tensors[f"{name}.{key}"].astype(np.float64) for key in keys)
    h = np.zeros(w_h.shape[1])
    rows = []
    for frame in frames:
        xr, xz, xn = np.split(w_x @ frame + b_x, 3)
        hr, hz, hn = np.split(w_h @ h + b_h, 3)
        z = sigmoid(xz + hz)
        h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
        rows.append(h)
    return np.stack(rows)


def reference_dense(tensors: Tensors, name: str, x: Floats) -> Floats:
    """x·Wᵀ + b of rows x [..., inputs], float64."""
    return x @ tensors[f"{name}.w"].astype(np.float64).T + tensors[f"{name}.w.bias"]


def check_logits(expected: Floats, found: Floats, tolerance: float = 1e-4) -> float:
    """The largest difference of a logit between torch and the exported tensors.

    Raises:
        RuntimeError: it is over `tolerance`.
    """
    difference = float(np.abs(found - expected).max())
    if not difference <= tolerance:
        raise RuntimeError(f"exported logits differ from torch's by {difference:.2e}")
    return difference
