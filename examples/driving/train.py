"""Train the driving network on clips of the expert and export it (needs torch).

    python examples/driving/train.py --seed 0 [--data FOLDER]

Clips are recorded first (see clips.py); every random number hangs on the seed. The pilot and the test
clips take no part in the training.
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
from clips import FIELDS, data_folder, load_clips
from correct import corrected_clips
from network import FEATURE_DROPOUT, DrivingNetwork, to_network
from simulator import Clip
from torch import nn

import modelflex

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _training import check_logits, versions
from export import export, write_features
from recurrent import inputs_of

EPOCHS = 6
CORRECTED_CLIPS, CORRECTED_EPOCHS = 96, 3
"""Clips of the network's own drives, and epochs over all clips with them."""
BATCH = 4
LEARNING_RATE, CORRECTED_LEARNING_RATE = 1e-3, 5e-4
WEIGHT_DECAY = 2e-2
SPEED_LOSS, YAW_LOSS = 10.0, 10.0
MAX_GRADIENT_NORM = 1.0
PIXEL_NOISE = 0.02


def loss_of(
    logits: torch.Tensor, velocities: torch.Tensor, clips: list[torch.Tensor]
) -> torch.Tensor:
    """Cross-entropy of the actions and weighted squared errors of speed and yaw rate."""
    actions, wanted = clips
    errors = ((velocities - wanted) ** 2).mean((0, 1))
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), actions.flatten())
    return entropy + SPEED_LOSS * errors[0] + YAW_LOSS * errors[1]


def train(network: DrivingNetwork, data: Clip, epochs: int, rate: float) -> None:
    """A fixed number of epochs with a one-cycle learning rate."""
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=WEIGHT_DECAY)
    count = len(data.actions)
    steps = epochs * -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps, pct_start=0.15
    )
    fields = [torch.from_numpy(np.ascontiguousarray(v)) for v in vars(data).values()]
    network.train()
    for epoch in range(epochs):
        started, total = time.perf_counter(), 0.0
        for batch in torch.randperm(count).split(BATCH):
            frames, scalars, *targets = (value[batch] for value in fields)
            gain = 1 + 0.15 * torch.randn(len(batch), 1, 1, 1)
            pixels = to_network(frames * gain)
            pixels = pixels + PIXEL_NOISE * torch.randn_like(pixels)
            logits, velocities, _ = network(network.features(pixels, scalars))
            loss = loss_of(logits, velocities, targets)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(batch)
        took = time.perf_counter() - started
        print(f"epoch {epoch}: loss {total / count:.4f}, {took:.0f} s", flush=True)
    network.eval()


@torch.no_grad()
def all_features(network: DrivingNetwork, data: Clip) -> torch.Tensor:
    """Features [N, T, 8254], a few clips at a time."""
    made = []
    for start in range(0, len(data.actions), BATCH):
        part = slice(start, start + BATCH)
        pixels = to_network(torch.from_numpy(data.frames[part]))
        made.append(network.features(pixels, torch.from_numpy(data.scalars[part])))
    return torch.cat(made)


@torch.no_grad()
def evaluate(network: DrivingNetwork, data: Clip, features: torch.Tensor) -> dict[str, float]:
    """Accuracy and likelihood of the actions, and errors of the velocities."""
    logits, velocities, _ = network(features)
    actions = torch.from_numpy(data.actions)
    errors = (velocities - torch.from_numpy(data.velocities)).abs().mean((0, 1))
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), actions.flatten())
    return {
        "accuracy": round(float((logits.argmax(-1) == actions).double().mean()), 4),
        "nll": round(float(entropy), 4),
        "speed_error_m_s": round(10 * float(errors[0]), 3),
        "yaw_rate_error_rad_s": round(float(errors[1]), 4),
    }


@torch.no_grad()
def check_export(network: DrivingNetwork, folder: Path, data: Clip) -> float:
    """Largest difference of an output between torch and the exported model on two clips."""
    clips = Clip(*(value[:2] for value in vars(data).values()))
    logits, velocities, _ = network(all_features(network, clips))
    expected = torch.cat([logits, velocities], -1).double().numpy()
    model = modelflex.load(folder / "network")
    found = modelflex.run(model, inputs_of(clips.frames, clips.scalars))
    return check_logits(expected.reshape(found.shape), found)


def finish(network: DrivingNetwork, folder: Path, meta: dict[str, Any]) -> None:
    """Score the network, write it and the features of the pilot and test clips into `folder`."""
    scores = {}
    for part in ("pilot", "test"):
        data = load_clips(part, folder)
        features = all_features(network, data)
        scores[part] = evaluate(network, data, features)
        print(part, json.dumps(scores[part]), flush=True)
        write_features(folder, part, features)
    export(folder, network, {**meta, "scores": scores})
    difference = check_export(network, folder, data)
    print(f"wrote {folder}; largest difference of an output {difference:.1e}")


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train the driving network.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of recordings and trained networks")
    parser.add_argument("--clips", type=int, help="training clips, to try something quickly")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    folder, started = data_folder(options.data), time.perf_counter()
    data = load_clips("train", folder, options.clips)
    shares = np.bincount(data.actions.ravel()) / data.actions.size
    print(f"clips: {time.perf_counter() - started:.0f} s; actions {shares.round(3)}")
    torch.manual_seed(options.seed)
    network = DrivingNetwork()
    train(network, data, options.epochs, LEARNING_RATE)
    own = corrected_clips(network, CORRECTED_CLIPS, options.seed)
    both = Clip(*(np.concatenate([getattr(d, name) for d in (data, own)]) for name in FIELDS))
    torch.manual_seed(options.seed)
    train(network, both, CORRECTED_EPOCHS, CORRECTED_LEARNING_RATE)
    settings = {
        "clips": len(data.actions),
        "epochs": options.epochs,
        "corrected_clips": CORRECTED_CLIPS,
        "corrected_epochs": CORRECTED_EPOCHS,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "weight_decay": WEIGHT_DECAY,
        "feature_dropout": FEATURE_DROPOUT,
    }
    finish(network, folder, {"seed": options.seed, "versions": versions(), "training": settings})
    print(f"{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
