"""Train a network of the JapaneseVowels example and export it (needs torch).

    python examples/japanese_vowels/train.py --seed 0             # LSTM-128, exported to weights/
    python examples/japanese_vowels/train.py --seed 0 --cell gru  # GRU-128
    python examples/japanese_vowels/train.py --seed 0 --units 20 [--export-to FOLDER]  # a control

The seed decides the split (see prepare.make_split) and every random number of the training. The 63
held-out sequences take no part in it: the number of epochs is fixed, so they do not even stop it.
The official test set is scored once, after the training.
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

sys.path.insert(0, str(HERE.parent))
from _training import (
    Floats,
    Tensors,
    check_logits,
    dense_tensors,
    recurrent_tensors,
    reference_dense,
    reference_gru,
    reference_lstm,
    versions,
    write_model,
)

EPOCHS = 150
BATCH = 23  # 207 = 9 batches of 23
LEARNING_RATE = 6e-3
WEIGHT_DECAY = 1e-2
INPUT_NOISE = 0.7  # standard deviations of an input feature
INPUT_DROPOUT = 0.1
HIDDEN_DROPOUT = 0.3
LABEL_SMOOTHING = 0.05
MAX_GRADIENT_NORM = 1.0
UNITS = 128
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class SpeakerNetwork(nn.Module):
    """One recurrent layer whose last valid hidden state feeds a dense layer of 9 logits."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.kind = kind
        self.cell = CELLS[kind](COEFFICIENTS, units, batch_first=True)
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
        _, state = self.cell(packed)
        hidden = state[0] if self.kind == "lstm" else state
        logits: torch.Tensor = self.head(self.hidden_dropout(hidden[-1]))
        return logits


def to_padded(data: Ragged) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return padded inputs [N, T, 12], lengths [N] and labels [N] as tensors."""
    sequences = np.split(data.x.astype(np.float32), np.cumsum(data.lengths)[:-1])
    padded = pad_sequence([torch.from_numpy(frames) for frames in sequences], batch_first=True)
    return padded, torch.from_numpy(data.lengths), torch.from_numpy(data.y)


def train(data: Ragged, kind: str, units: int, seed: int) -> SpeakerNetwork:
    """Train on `data` only, for a fixed number of epochs with a cosine learning rate."""
    torch.manual_seed(seed)
    model = SpeakerNetwork(kind, units)
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
def evaluate(model: SpeakerNetwork, data: Ragged) -> dict[str, float]:
    """Accuracy (fraction) and mean negative log-likelihood (nats)."""
    x, lengths, y = to_padded(data)
    logits = model(x, lengths)
    return {
        "accuracy": round(float((logits.argmax(1) == y).double().mean()), 6),
        "nll": round(float(nn.functional.cross_entropy(logits, y)), 6),
    }


def export_tensors(model: SpeakerNetwork) -> Tensors:
    """Return the weights by the exported names."""
    return {**recurrent_tensors(model.cell, model.kind), **dense_tensors(model.head)}


def reference_logits(kind: str, tensors: Tensors, data: Ragged) -> Floats:
    """Logits [N, 9] of the exported tensors by the cell's equations, one sequence at a time."""
    reference = {"lstm": reference_lstm, "gru": reference_gru}[kind]
    sequences = np.split(data.x, np.cumsum(data.lengths)[:-1])
    hidden = [reference(tensors, f"{kind}0", frames)[-1] for frames in sequences]
    return reference_dense(tensors, "head", np.stack(hidden))


def check_export(model: SpeakerNetwork, tensors: Tensors, data: Ragged) -> float:
    """Largest difference of a logit between torch and the tensors; raises if over tolerance."""
    x, lengths, _ = to_padded(data)
    with torch.no_grad():
        expected = model(x, lengths).double().numpy()
    return check_logits(expected, reference_logits(model.kind, tensors, data))


def layers(kind: str, units: int) -> list[dict[str, Any]]:
    """The layers as model.json describes them."""
    return [
        {"name": f"{kind}0", "kind": kind, "inputs": COEFFICIENTS, "units": units},
        {"name": "head", "kind": "dense", "inputs": units, "units": SPEAKERS, "reads": "last"},
    ]


def training_record(seed: int, official: tuple[Ragged, Ragged]) -> dict[str, Any]:
    """Return what repeats the training: seed, versions, data digests, settings."""
    return {
        "seed": seed,
        "versions": versions(),
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
    parser = argparse.ArgumentParser(description="Train a network of the JapaneseVowels example.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the training")
    parser.add_argument("--cell", choices=sorted(CELLS), default="lstm")
    parser.add_argument("--units", type=int, default=UNITS, help="hidden units")
    parser.add_argument("--export-to", type=Path, help="folder of models, also for other sizes")
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
    model = train(parts.train, options.cell, options.units, options.seed)
    scores = {name: evaluate(model, data) for name, data in parts._asdict().items()}
    print(f"seed {options.seed}, {options.units} {options.cell} units: {json.dumps(scores)}")
    folder = export_folder(options.export_to, options.cell, options.units, options.seed)
    if folder is not None:
        tensors = export_tensors(model)
        difference = check_export(model, tensors, parts.validation)
        meta = {**training_record(options.seed, official), "scores": scores}
        name = f"japanese_vowels_{options.cell}{options.units}"
        write_model(folder, name, layers(options.cell, options.units), tensors, meta)
        if folder == split_path(options.seed).parent:  # every model of a seed uses its split
            write_split(split, folder / "split.json")
        print(f"wrote {folder}; largest difference of a logit {difference:.1e}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


def export_folder(root: Path | None, cell: str, units: int, seed: int) -> Path | None:
    """Where a model goes: weights/ for the example's size, nowhere for another without a root."""
    if root is None and units != UNITS:
        return None
    size = "" if units == UNITS else f"units{units}_"
    kind = "" if cell == "lstm" else f"{cell}_"
    return (root or split_path(seed).parents[1]) / f"{size}{kind}seed{seed}"


if __name__ == "__main__":
    sys.exit(main())
