"""Train the LSTM of the spoken digits and export it (needs torch).

    python examples/spoken_digits/train.py --seed 0                  # 2 x 256 units, official split
    python examples/spoken_digits/train.py --held-out theo           # that speaker is the test set
    python examples/spoken_digits/train.py --seed 0 --units 24       # a small network as a control

Exports to weights/NAME. Validation clips choose nothing inside a run: the number of epochs is
fixed. The test set is scored once, after the training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prepare import BANDS, DIGITS, HERE, load_parts
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

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

SETTINGS: dict[str, float] = {
    "epochs": 24,
    "batch": 32,
    "learning_rate": 3e-3,
    "weight_decay": 2e-2,
    "input_noise": 0.5,  # standard deviations of a band
    "gain_noise": 0.3,  # of a shift of the whole clip, same unit
    "shift": 6,  # most frames cut from the start of a batch's clips
    "hidden_dropout": 0.3,  # between the layers and on the last hidden state
    "label_smoothing": 0.05,
}
MAX_GRADIENT_NORM = 1.0
UNITS = (256, 256)
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class DigitLstm(nn.Module):
    """Two LSTM layers; the last valid hidden state feeds a dense layer of 10 logits."""

    def __init__(self, units: tuple[int, int]) -> None:
        super().__init__()
        self.lstm = nn.ModuleList(
            [nn.LSTM(BANDS, units[0], batch_first=True), nn.LSTM(*units, batch_first=True)]
        )
        self.head = nn.Linear(units[1], DIGITS)
        self.dropout = nn.Dropout(SETTINGS["hidden_dropout"])

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of padded sequences x [N, T, 40] with their lengths [N]."""
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        packed, _ = self.lstm[0](packed)
        _, (hidden, _) = self.lstm[1](packed._replace(data=self.dropout(packed.data)))
        logits: torch.Tensor = self.head(self.dropout(hidden[-1]))
        return logits

    def tensors(self) -> Tensors:
        """The weights by the exported names."""
        second = recurrent_tensors(self.lstm[1]).items()
        return {
            **recurrent_tensors(self.lstm[0]),
            **{name.replace("lstm0", "lstm1"): value for name, value in second},
            **dense_tensors(self.head),
        }

    def layers(self) -> list[dict[str, Any]]:
        """The layers as model.json describes them."""
        sizes = [BANDS, *(lstm.hidden_size for lstm in self.lstm)]
        return [
            {"name": f"lstm{i}", "kind": "lstm", "inputs": sizes[i], "units": sizes[i + 1]}
            for i in range(2)
        ] + [
            {"name": "head", "kind": "dense", "inputs": sizes[2], "units": DIGITS, "reads": "last"}
        ]


def padded(data: Sequences) -> Batch:
    """Padded inputs [N, T, F], lengths [N] and labels [N] as tensors."""
    pieces = np.split(data.x, np.cumsum(data.lengths)[:-1])
    x = pad_sequence([torch.from_numpy(piece) for piece in pieces], batch_first=True)
    return x, torch.from_numpy(data.lengths), torch.from_numpy(data.y)


def augmented(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch [B, T, F] with later starts, other loudness and noise."""
    cut = int(torch.randint(int(SETTINGS["shift"]) + 1, ()))
    cut = min(cut, int(lengths.min()) - 1)
    lengths = lengths - cut
    x = x[:, cut : cut + int(lengths.max())]
    gain = SETTINGS["gain_noise"] * torch.randn(len(x), 1, 1)
    return x + gain + SETTINGS["input_noise"] * torch.randn_like(x), lengths


def train(model: nn.Module, data: Sequences, settings: Mapping[str, float]) -> None:
    """Train on `data` only, for a fixed number of epochs with a one-cycle cosine learning rate."""
    x, lengths, y = padded(data)
    epochs, size = int(settings["epochs"]), int(settings["batch"])
    optimiser = torch.optim.AdamW(
        model.parameters(), settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    steps = epochs * -(-len(y) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings["learning_rate"], steps, pct_start=0.1, cycle_momentum=False
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=settings["label_smoothing"])
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(y)).split(size):
            optimiser.zero_grad()
            loss = loss_of(model(*augmented(x[batch], lengths[batch])), y[batch])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / len(y):.4f}", flush=True)
    model.eval()


@torch.no_grad()
def evaluate(model: nn.Module, data: Sequences) -> dict[str, float]:
    """Accuracy (fraction) and mean negative log-likelihood (nats)."""
    x, lengths, y = padded(data)
    logits = model(x, lengths)
    return {
        "accuracy": round(float((logits.argmax(1) == y).double().mean()), 6),
        "nll": round(float(nn.functional.cross_entropy(logits, y)), 6),
    }


def reference_logits(tensors: Tensors, data: Sequences) -> Floats:
    """Logits [N, 10] of the exported tensors by the equations, one sequence at a time, float64."""
    rows = []
    for frames in np.split(data.x.astype(np.float64), np.cumsum(data.lengths)[:-1]):
        hidden = reference_lstm(tensors, "lstm1", reference_lstm(tensors, "lstm0", frames))
        rows.append(reference_dense(tensors, "head", hidden[-1]))
    return np.stack(rows)


def check_export(model: nn.Module, tensors: Tensors, data: Sequences) -> float:
    """Largest difference of a logit between torch and the tensors; raises if over tolerance."""
    x, lengths, _ = padded(data)
    with torch.no_grad():
        return check_logits(model(x, lengths).double().numpy(), reference_logits(tensors, data))


def main() -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Train the LSTM of the spoken digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", help="the speaker whose clips are the test set")
    parser.add_argument("--units", type=int, nargs="+", default=UNITS, help="one or both layers'")
    parser.add_argument("--export-to", type=Path, default=HERE / "weights", help="folder of models")
    options = parser.parse_args()
    units = (options.units[0], options.units[-1])
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        parts = load_parts(options.held_out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.manual_seed(options.seed)
    model = DigitLstm(units)
    train(model, parts["train"], SETTINGS)
    scores = {name: evaluate(model, data) for name, data in parts.items()}
    tensors = model.tensors()
    check_export(model, tensors, parts["validation"].take(np.arange(8)))
    split = options.held_out or "official"
    folder = options.export_to / folder_name(units, options.held_out, options.seed)
    meta = {
        "seed": options.seed,
        "split": split,
        "versions": versions(),
        "data_sha256": {name: data.digest for name, data in parts.items()},
        "training": SETTINGS,
        "scores": scores,
    }
    name = f"spoken_digits_lstm{units[0]}x{units[1]}"
    write_model(folder, name, model.layers(), tensors, meta)
    print(f"{folder}: {json.dumps(scores)}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


def folder_name(units: tuple[int, int], held_out: str | None, seed: int) -> str:
    """Folder of a model below weights/."""
    size = "" if units == UNITS else f"units{units[0]}x{units[1]}_"
    return f"{size}{held_out + '_' if held_out else ''}seed{seed}"


if __name__ == "__main__":
    sys.exit(main())
