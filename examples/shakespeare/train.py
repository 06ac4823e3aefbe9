"""Train the character LSTM on tiny Shakespeare and export it (needs torch).

    python examples/shakespeare/train.py --seed 0             # 320 units
    python examples/shakespeare/train.py --seed 0 --units 90 --weight-noise 0  # a control

Exports to weights/NAME in float16: the rounded numbers are the model, and the scores are theirs.
The number of epochs is fixed; the test text is scored once, after the training.
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
from prepare import HERE, SYMBOLS, load_codes, load_parts, split_codes
from torch import nn

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
    "epochs": 14,
    "batch": 32,
    "chunk": 160,  # characters, from a zero state
    "learning_rate": 5e-3,
    "weight_decay": 1e-2,
    "hidden_dropout": 0.25,
    "weight_noise": 0.2,
}
MAX_GRADIENT_NORM = 1.0
UNITS = 320


class CharacterLstm(nn.Module):
    """One LSTM layer on one-hot symbols; every hidden state feeds a dense layer of 65 logits."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(SYMBOLS, units, batch_first=True)
        self.head = nn.Linear(units, SYMBOLS)
        self.dropout = nn.Dropout(SETTINGS["hidden_dropout"])

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Logits [N, T, 65] of symbols [N, T]."""
        hidden, _ = self.lstm(nn.functional.one_hot(codes, SYMBOLS).float())
        logits: torch.Tensor = self.head(self.dropout(hidden))
        return logits

    def layers(self) -> list[dict[str, Any]]:
        """The layers as model.json describes them."""
        units = self.lstm.hidden_size
        return [
            {"name": "embed", "kind": "one_hot", "inputs": 1, "units": SYMBOLS},
            {"name": "lstm0", "kind": "lstm", "inputs": SYMBOLS, "units": units},
            {"name": "head", "kind": "dense", "inputs": units, "units": SYMBOLS, "reads": "every"},
        ]


class WeightNoise:
    """Gaussian noise on the weights during the forward and the backward pass, drawn anew for a batch;
    `share` is its standard deviation as a share of that of a weight's row.

    It regularises (Graves 2013, section 4.2: adaptive in size here) and leaves a network that
    rounding harms less.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.weights = [p for p in model.parameters() if p.ndim == 2]
        self.share = share

    @torch.no_grad()
    def __enter__(self) -> None:
        self.exact = [weight.clone() for weight in self.weights]
        for weight in self.weights:
            weight += self.share * weight.std(dim=1, keepdim=True) * torch.randn_like(weight)

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for weight, exact in zip(self.weights, self.exact, strict=True):
            weight.copy_(exact)


def train(model: CharacterLstm, text: torch.Tensor, weight_noise: float) -> None:
    """Train on chunks of the text that start elsewhere in every epoch; one-cycle cosine rate."""
    noise = WeightNoise(model, weight_noise)
    epochs, size, chunk = (int(SETTINGS[key]) for key in ("epochs", "batch", "chunk"))
    optimiser = torch.optim.AdamW(
        model.parameters(), SETTINGS["learning_rate"], weight_decay=SETTINGS["weight_decay"]
    )
    count = (len(text) - 1 - chunk) // chunk
    steps = epochs * -(-count // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, SETTINGS["learning_rate"], steps, pct_start=0.1, cycle_momentum=False
    )
    for epoch in range(epochs):
        starts = int(torch.randint(chunk, ())) + chunk * torch.randperm(count)
        total = 0.0
        for batch in starts.split(size):
            codes = text[batch[:, None] + torch.arange(chunk + 1)]
            optimiser.zero_grad()
            with noise:
                logits = model(codes[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), codes[:, 1:].flatten())
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(batch)
        print(f"epoch {epoch + 1}/{epochs}: loss {total / count:.4f}", flush=True)
    model.eval()


@torch.no_grad()
def round_to_float16(model: nn.Module) -> None:
    """Replace the weights by the nearest float16 numbers, the biases by their float16 sum."""
    state = model.state_dict()
    state["lstm.bias_ih_l0"] += state["lstm.bias_hh_l0"]
    state["lstm.bias_hh_l0"].zero_()
    for value in state.values():
        value.copy_(value.half().float())


@torch.no_grad()
def evaluate(model: CharacterLstm, data: Sequences) -> dict[str, float]:
    """Perplexity, mean negative log-likelihood (nats) and accuracy of the next character."""
    pieces = torch.from_numpy(data.x[:, 0].astype(np.int64)).split(data.lengths.tolist())
    codes = nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
    logits = model(codes)
    valid = torch.arange(codes.shape[1]) < torch.from_numpy(data.lengths)[:, None]
    targets = torch.from_numpy(data.y)
    nll = float(nn.functional.cross_entropy(logits[valid].double(), targets))
    accuracy = float((logits[valid].argmax(1) == targets).double().mean())
    return {
        "perplexity": round(float(np.exp(nll)), 6),
        "nll": round(nll, 6),
        "accuracy": round(accuracy, 6),
    }


def reference_logits(tensors: Tensors, codes: Floats) -> Floats:
    """Logits [T, 65] of symbols [T] by the equations, float64."""
    one_hot = np.eye(SYMBOLS)[codes.astype(np.int64)]
    return reference_dense(tensors, "head", reference_lstm(tensors, "lstm0", one_hot))


def check_export(model: CharacterLstm, tensors: Tensors, codes: Floats) -> float:
    """Largest difference of a logit between torch and the tensors; raises if over tolerance."""
    with torch.no_grad():
        expected = model(torch.from_numpy(codes.astype(np.int64))[None])[0].double().numpy()
    return check_logits(expected, reference_logits(tensors, codes))


def main() -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Train the character LSTM.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--weight-noise", type=float, default=SETTINGS["weight_noise"])
    parser.add_argument("--export-to", type=Path, default=HERE / "weights", help="folder of models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    try:
        text, parts = split_codes(load_codes())["train"], load_parts()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    torch.manual_seed(options.seed)
    model = CharacterLstm(options.units)
    train(model, torch.from_numpy(text), options.weight_noise)
    round_to_float16(model)
    scores = {name: evaluate(model, data) for name, data in parts.items()}
    exact = {**recurrent_tensors(model.lstm), **dense_tensors(model.head)}
    tensors = {name: value.astype(np.float16) for name, value in exact.items()}
    check_export(model, tensors, parts["validation"].x[:1000, 0])
    size = "" if options.units == UNITS else f"units{options.units}_"
    folder = options.export_to / f"{size}seed{options.seed}"
    meta = {
        "seed": options.seed,
        "versions": versions(),
        "data_sha256": {name: data.digest for name, data in parts.items()},
        "training": {**SETTINGS, "weight_noise": options.weight_noise},
        "scores": scores,
    }
    write_model(folder, f"shakespeare_lstm{options.units}", model.layers(), tensors, meta)
    print(f"{folder}: {json.dumps(scores)}")
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
