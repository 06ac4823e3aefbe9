"""The trained network as ModelFlex models: the whole of it, or LSTM and head that read features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _training import Tensors, dense_tensors, write_model
from camera import HEIGHT, WIDTH
from network import (
    FEATURES,
    FILTERS,
    INPUTS,
    KERNEL,
    PADDING,
    STRIDE,
    UNITS,
    VELOCITIES,
    DrivingNetwork,
)
from recurrent import OUTPUT
from simulator import ACTIONS, SCALARS


def tensors_of(network: DrivingNetwork) -> Tensors:
    """Weights by the exported names; gate rows in the order i, f, g, o."""
    lstm = {name: value.detach().numpy() for name, value in network.lstm.named_parameters()}
    made = {
        "lstm0.w_x": lstm["weight_ih"],
        "lstm0.w_h": lstm["weight_hh"],
        "lstm0.w_x.bias": lstm["bias_ih"] + lstm["bias_hh"],
    }
    named = {"conv0": network.conv0, "conv1": network.conv1, "head": network.head}
    for name, module in named.items():
        made |= dense_tensors(module, name)
    return {name: np.ascontiguousarray(value) for name, value in made.items()}


def _convolution(name: str, channels: int, filters: int, height: int, width: int) -> dict[str, Any]:
    beside = len(SCALARS)
    return {
        "name": name,
        "kind": "conv2d",
        "inputs": channels * height * width + beside,
        "units": filters * (height // STRIDE) * (width // STRIDE) + beside,
        "options": {
            "channels": channels,
            "height": height,
            "width": width,
            "filters": filters,
            "kernel_height": KERNEL,
            "kernel_width": KERNEL,
            "stride_height": STRIDE,
            "stride_width": STRIDE,
            "padding_height": PADDING,
            "padding_width": PADDING,
            "beside": beside,
        },
    }


def layers() -> list[dict[str, Any]]:
    """The layers as model.json describes them: a step's input is the image, then the scalars."""
    made: list[dict[str, Any]] = []
    channels, height, width = 1, HEIGHT, WIDTH
    for number, filters in enumerate(FILTERS):
        made.append(_convolution(f"conv{number}", channels, filters, height, width))
        units = made[-1]["units"]
        made.append({"name": f"relu{number}", "kind": "relu", "inputs": units, "units": units})
        channels, height, width = filters, height // STRIDE, width // STRIDE
    if made[-1]["units"] != FEATURES:
        raise ValueError(f"the encoder gives {made[-1]['units']} features, not {FEATURES}")
    return made + recurrent_layers()


def recurrent_layers() -> list[dict[str, Any]]:
    """The LSTM, which reads the features and the velocities fed back, and the head."""
    outputs = len(ACTIONS) + VELOCITIES
    return [
        {"name": "lstm0", "kind": "lstm", "inputs": INPUTS, "units": UNITS, "carries": VELOCITIES},
        {"name": "head", "kind": "dense", "inputs": UNITS, "units": outputs},
    ]


def export(folder: Path, network: DrivingNetwork, meta: dict[str, Any]) -> None:
    """Write folder/network (the whole model) and folder/lstm (LSTM and head, which read features)."""
    tensors = tensors_of(network)
    write_model(folder / "network", "driving", layers(), tensors, meta, OUTPUT)
    own = {name: value for name, value in tensors.items() if not name.startswith("conv")}
    write_model(folder / "lstm", "driving_lstm", recurrent_layers(), own, meta, OUTPUT)


def write_features(folder: Path, part: str, features: torch.Tensor) -> Path:
    """Features of a part as float16 [clips, T, 8254] (half the file; the networks are compared on these)."""
    path = folder / f"features_{part}.npy"
    np.save(path, features.numpy().astype(np.float16))
    return path
