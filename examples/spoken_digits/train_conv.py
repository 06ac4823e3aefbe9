"""Train a small convolutional + LSTM network on the spoken digits and export it (needs torch).

    python examples/spoken_digits/train_conv.py --seed 0

Two convolutions over 3 frames and 5 bands (the current frame and the two before it), each with a
rectifier, an LSTM and a dense layer on the last step. Exports to weights/conv_seedN.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepare import BANDS, DIGITS, HERE, load_parts
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from train import SETTINGS, evaluate, padded, train

from modelflex.core.data import Sequences
from modelflex.errors import UserError

sys.path.insert(0, str(HERE.parent))
from _training import (
    Floats,
    Tensors,
    check_logits,
    dense_tensors,
    recurrent_tensors,
    reference_dense,
    reference_lstm,
    versions,
    write_model,
)

FILTERS = (8, 16)
FRAMES, KERNEL, STRIDE, PADDING = 3, 5, 2, 2
UNITS = 64
CONV_SETTINGS = {
    **SETTINGS,
    "epochs": 18,
    "batch": 64,
    "learning_rate": 6e-3,
    "hidden_dropout": 0.2,
}


def widths() -> list[int]:
    """Bands before the first convolution and after each."""
    sizes = [BANDS]
    for _ in FILTERS:
        sizes.append((sizes[-1] + 2 * PADDING - KERNEL) // STRIDE + 1)
    return sizes


class ConvLstm(nn.Module):
    """Convolutions over the last frames and the bands, then an LSTM and 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, *FILTERS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(
                channels[i],
                channels[i + 1],
                (FRAMES, KERNEL),
                stride=(1, STRIDE),
                padding=(0, PADDING),
            )
            for i in range(len(FILTERS))
        )
        self.lstm = nn.LSTM(FILTERS[-1] * widths()[-1], UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, DIGITS)
        self.dropout = nn.Dropout(CONV_SETTINGS["hidden_dropout"])

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of padded sequences x [N, T, 40] with their lengths [N]."""
        image = x[:, None]  # [N, 1, T, 40]
        for convolution in self.convolutions:
            earlier = nn.functional.pad(image, (0, 0, FRAMES - 1, 0))  # zeros before the first
            image = torch.relu(convolution(earlier))
        frames = self.dropout(image.transpose(1, 2).flatten(2))  # filter by filter
        packed = pack_padded_sequence(frames, lengths, batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.lstm(packed)
        logits: torch.Tensor = self.head(self.dropout(hidden[-1]))
        return logits

    def tensors(self) -> Tensors:
        """The weights by the exported names; kernels with their frames as outer channels."""
        tensors = {**recurrent_tensors(self.lstm), **dense_tensors(self.head)}
        for i, convolution in enumerate(self.convolutions):
            kernel = convolution.weight.detach().transpose(1, 2)  # [filters, frames, channels, 5]
            tensors[f"conv{i}.w"] = np.ascontiguousarray(kernel.flatten(1).numpy())
            tensors[f"conv{i}.w.bias"] = convolution.bias.detach().numpy()
        return tensors


def layers() -> list[dict[str, Any]]:
    """The layers as model.json describes them."""
    found: list[dict[str, Any]] = []
    width, channels = widths(), (1, *FILTERS)
    for i, filters in enumerate(FILTERS):
        units = filters * width[i + 1]
        options = {
            "channels": channels[i],
            "height": 1,
            "width": width[i],
            "filters": filters,
            "kernel_height": 1,
            "kernel_width": KERNEL,
            "stride_height": 1,
            "stride_width": STRIDE,
            "padding_height": 0,
            "padding_width": PADDING,
            "frames": FRAMES,
        }
        inputs = channels[i] * width[i]
        conv = {"name": f"conv{i}", "kind": "conv2d", "inputs": inputs, "units": units}
        found.append({**conv, "options": options})
        found.append({"name": f"relu{i}", "kind": "relu", "inputs": units, "units": units})
    inputs = FILTERS[-1] * width[-1]
    found.append({"name": "lstm0", "kind": "lstm", "inputs": inputs, "units": UNITS})
    head = {"name": "head", "kind": "dense", "inputs": UNITS, "units": DIGITS, "reads": "last"}
    return [*found, head]


def reference_convolution(weight: Floats, bias: Floats, x: Floats, channels: int) -> Floats:
    """One convolution with its rectifier on one sequence [T, channels·width], by its definition."""
    steps, width = len(x), x.shape[1] // channels
    before = np.zeros((FRAMES - 1, channels, width))
    history = np.concatenate([before, x.reshape(steps, channels, width)])
    history = np.pad(history, ((0, 0), (0, 0), (PADDING, PADDING)))
    columns = range(0, width + 2 * PADDING - KERNEL + 1, STRIDE)
    out = np.empty((steps, len(weight), len(columns)))
    for t in range(steps):
        for j, column in enumerate(columns):
            patch = history[t : t + FRAMES, :, column : column + KERNEL]
            out[t, :, j] = weight @ patch.reshape(-1) + bias
    return np.maximum(out, 0).reshape(steps, -1)


def reference_logits(tensors: Tensors, data: Sequences) -> Floats:
    """Logits [N, 10] of the exported tensors, one sequence at a time, float64."""
    rows = []
    for x in np.split(data.x.astype(np.float64), np.cumsum(data.lengths)[:-1]):
        for i, channels in enumerate((1, *FILTERS[:-1])):
            weight, bias = tensors[f"conv{i}.w"], tensors[f"conv{i}.w.bias"]
            x = reference_convolution(weight, bias, x, channels)
        rows.append(reference_dense(tensors, "head", reference_lstm(tensors, "lstm0", x)[-1]))
    return np.stack(rows)


def main() -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Train the convolutional network of the digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-to", type=Path, default=HERE / "weights", help="folder of models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        parts = load_parts()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.manual_seed(options.seed)
    model = ConvLstm()
    train(model, parts["train"], CONV_SETTINGS)
    scores = {name: evaluate(model, data) for name, data in parts.items()}
    tensors = model.tensors()
    few = parts["validation"].take(np.arange(4))
    x, lengths, _ = padded(few)
    with torch.no_grad():
        check_logits(model(x, lengths).double().numpy(), reference_logits(tensors, few))
    meta = {
        "seed": options.seed,
        "split": "official",
        "versions": versions(),
        "data_sha256": {name: data.digest for name, data in parts.items()},
        "training": CONV_SETTINGS,
        "scores": scores,
    }
    folder = options.export_to / f"conv_seed{options.seed}"
    write_model(folder, f"spoken_digits_conv_lstm{UNITS}", layers(), tensors, meta)
    print(f"{folder}: {json.dumps(scores)}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
