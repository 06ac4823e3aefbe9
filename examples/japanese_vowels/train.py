"""Train the LSTM of the JapaneseVowels example and export it (needs torch and safetensors).

    python examples/japanese_vowels/train.py --seed 0            # 128 units, exported to weights/
    python examples/japanese_vowels/train.py --seed 0 --units 20 # a small control, only reported

The seed decides the split (see prepare.make_split) and every random number of the training. The 63
held-out sequences take no part in it: the number of epochs is fixed, so they do not even stop it.
The official test set is scored once, after the training.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from prepare import (
    COEFFICIENTS,
    HERE,
    SPEAKERS,
    DataError,
    Parts,
    Ragged,
    apply_split,
    load_official,
    make_split,
    split_path,
    write_split,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

EPOCHS = 150
BATCH = 23  # 207 = 9 batches of 23
LEARNING_RATE = 6e-3
WEIGHT_DECAY = 1e-2
INPUT_NOISE = 0.7  # standard deviations of an input feature
INPUT_DROPOUT = 0.1
HIDDEN_DROPOUT = 0.3
LABEL_SMOOTHING = 0.05
MAX_GRADIENT_NORM = 1.0
EXPORT_TOLERANCE = 1e-4  # largest difference of a logit between torch and the exported tensors

Tensors = dict[str, npt.NDArray[np.float32]]


class SpeakerLstm(nn.Module):
    """One LSTM layer whose last valid hidden state feeds a dense layer of 9 logits."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(COEFFICIENTS, units, batch_first=True)
        self.head = nn.Linear(units, SPEAKERS)
        self.input_dropout = nn.Dropout(INPUT_DROPOUT)
        self.hidden_dropout = nn.Dropout(HIDDEN_DROPOUT)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Logits [N, 9] of padded sequences x [N, T, 12] with their lengths [N]."""
        if self.training:
            x = x + INPUT_NOISE * torch.randn_like(x)
        packed = pack_padded_sequence(
            self.input_dropout(x), lengths, batch_first=True, enforce_sorted=False
        )
        _, (hidden, _) = self.lstm(packed)
        logits: torch.Tensor = self.head(self.hidden_dropout(hidden[-1]))
        return logits


def to_padded(data: Ragged) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return padded inputs [N, T, 12], lengths [N] and labels [N] as tensors."""
    sequences = np.split(data.x.astype(np.float32), np.cumsum(data.lengths)[:-1])
    padded = pad_sequence([torch.from_numpy(frames) for frames in sequences], batch_first=True)
    return padded, torch.from_numpy(data.lengths), torch.from_numpy(data.y)


def train(data: Ragged, units: int, seed: int) -> SpeakerLstm:
    """Train on `data` only, for a fixed number of epochs with a cosine learning rate."""
    torch.manual_seed(seed)
    model = SpeakerLstm(units)
    x, lengths, y = to_padded(data)
    optimiser = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    loss_of = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(y)).reshape(-1, BATCH):
            optimiser.zero_grad()
            loss_of(model(x[batch], lengths[batch]), y[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def evaluate(model: SpeakerLstm, data: Ragged) -> dict[str, float]:
    """Accuracy (fraction) and mean negative log-likelihood (nats)."""
    x, lengths, y = to_padded(data)
    logits = model(x, lengths)
    return {
        "accuracy": round(float((logits.argmax(1) == y).double().mean()), 6),
        "nll": round(float(nn.functional.cross_entropy(logits, y)), 6),
    }


def export_tensors(model: SpeakerLstm) -> Tensors:
    """Return the weights by name; gate rows in torch's order i, f, g, o; the two biases added."""
    state = {
        name: np.ascontiguousarray(value.numpy(), dtype=np.float32)
        for name, value in model.state_dict().items()
    }
    return {
        "lstm0.w_x": state["lstm.weight_ih_l0"],
        "lstm0.w_h": state["lstm.weight_hh_l0"],
        "lstm0.w_x.bias": state["lstm.bias_ih_l0"] + state["lstm.bias_hh_l0"],
        "head.w": state["head.weight"],
        "head.w.bias": state["head.bias"],
    }


def reference_logits(tensors: Tensors, data: Ragged) -> npt.NDArray[np.float64]:
    """Logits [N, 9] of the exported tensors by the LSTM's equations, one sequence at a time.

    Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, float64.
    """
    w = {name: value.astype(np.float64) for name, value in tensors.items()}

    def sigmoid(a: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 1 / (1 + np.exp(-a))

    rows = []
    for frames in np.split(data.x, np.cumsum(data.lengths)[:-1]):
        h = c = np.zeros(w["lstm0.w_h"].shape[1])
        for frame in frames:
            gates = w["lstm0.w_x"] @ frame + w["lstm0.w_h"] @ h + w["lstm0.w_x.bias"]
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        rows.append(w["head.w"] @ h + w["head.w.bias"])
    return np.stack(rows)


def check_export(model: SpeakerLstm, tensors: Tensors, data: Ragged) -> float:
    """Largest difference of a logit between torch and the tensors; raises if over tolerance."""
    x, lengths, _ = to_padded(data)
    with torch.no_grad():
        expected = model(x, lengths).double().numpy()
    difference = float(np.abs(reference_logits(tensors, data) - expected).max())
    if not difference <= EXPORT_TOLERANCE:
        raise RuntimeError(f"exported logits differ from torch's by {difference:.2e}")
    return difference


def export(folder: Path, tensors: Tensors, units: int, meta: dict[str, Any]) -> None:
    """Write model.safetensors and model.json into `folder`."""
    lstm = {"name": "lstm0", "kind": "lstm", "inputs": COEFFICIENTS, "units": units}
    head = {"name": "head", "kind": "dense", "inputs": units, "units": SPEAKERS, "reads": "last"}
    description = {
        "schema": "modelflex.model/1",
        "name": f"japanese_vowels_lstm{units}",
        "layers": [lstm, head],
        "output": "logits",
        "meta": meta,
    }
    temporary = folder / "model.tmp"
    temporary.write_bytes(safetensors.numpy.save(tensors))
    os.replace(temporary, folder / "model.safetensors")
    temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "model.json")


def training_record(seed: int, official: tuple[Ragged, Ragged]) -> dict[str, Any]:
    """Return what repeats the training: seed, versions, data digests, settings."""
    return {
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "data_sha256": {"train": official[0].sha256(), "test": official[1].sha256()},
        "training": {
            "epochs": EPOCHS,
            "batch": BATCH,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "input_noise": INPUT_NOISE,
            "input_dropout": INPUT_DROPOUT,
            "hidden_dropout": HIDDEN_DROPOUT,
            "label_smoothing": LABEL_SMOOTHING,
        },
    }


def main() -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Train the LSTM of the JapaneseVowels example.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the training")
    parser.add_argument("--units", type=int, default=128, help="hidden units (export: 128 only)")
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    started = time.perf_counter()
    try:
        official = load_official()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    split = make_split(official[0], options.seed)
    parts: Parts = apply_split(split, *official)
    model = train(parts.train, options.units, options.seed)
    scores = {name: evaluate(model, data) for name, data in parts._asdict().items()}
    print(f"seed {options.seed}, {options.units} units: {json.dumps(scores)}")
    if options.units == 128:
        tensors = export_tensors(model)
        difference = check_export(model, tensors, parts.validation)
        folder = split_path(options.seed).parent
        folder.mkdir(parents=True, exist_ok=True)
        write_split(split, folder / "split.json")
        export(folder, tensors, 128, {**training_record(options.seed, official), "scores": scores})
        print(f"wrote {folder.relative_to(HERE)}; largest difference of a logit {difference:.1e}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
