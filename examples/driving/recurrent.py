"""The driving LSTM in NumPy with any matrix in the place of its own, many clips or cars side by side.

The augmented matrix W [256, 8320] multiplies [features (8254), velocities fed back (2), h (64)]; rows are
the gates i, f, g, o (Rizakis et al., ARC 2018, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from roads import Bytes, Floats
from simulator import ACTIONS

import modelflex
from modelflex.core import divergence
from modelflex.core.model import Model

OUTPUT = f"logits:{len(ACTIONS)}"
"""The network's outputs: logits of the actions, then velocities, which come back as inputs."""


@dataclass(frozen=True, eq=False)
class Recurrent:
    """LSTM and head.

    Attributes:
        w: the augmented matrix [4·units, features + velocities + units].
        bias: [4·units].
        head, head_bias: [actions + velocities, units] and [actions + velocities].
    """

    w: Floats
    bias: Floats
    head: Floats
    head_bias: Floats

    @property
    def units(self) -> int:
        return self.head.shape[1]

    @property
    def features(self) -> int:
        return self.w.shape[1] - self.units - (len(self.head) - len(ACTIONS))

    def start(self, count: int) -> tuple[Floats, Floats, Floats]:
        """h, c and velocities before the first step of `count` sequences."""
        quiet = np.zeros((count, self.units), np.float32)
        return quiet, quiet, np.zeros((count, len(self.head) - len(ACTIONS)), np.float32)

    def gates(self, seen: Floats, state: tuple[Floats, Floats, Floats], w: Floats) -> Floats:
        """Pre-activations [N, 4·units] from what the features give, `seen` [N, 4·units]."""
        h, _, v = state
        return seen + np.concatenate([v, h], 1) @ w[:, self.features :].T

    def step(
        self, z: Floats, state: tuple[Floats, Floats, Floats]
    ) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
        """Outputs [N, actions + velocities] and the new state from pre-activations."""
        i, f, g, o = np.split(z, 4, axis=1)
        c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
        y = h @ self.head.T + self.head_bias
        return y, (h, c, y[:, len(ACTIONS) :])

    def run(self, features: Floats, w: Floats | None = None, bias: Floats | None = None) -> Floats:
        """Outputs [N, T, actions + velocities] of features [N, T, features], with other weights if given."""
        w = self.w if w is None else w.astype(np.float32)
        bias = self.bias if bias is None else bias.astype(np.float32)
        count, steps = features.shape[:2]
        flat = features.reshape(count * steps, -1).astype(np.float32, copy=False)
        seen = (flat @ w[:, : self.features].T + bias).reshape(count, steps, -1)
        state, made = self.start(count), []
        for t in range(steps):
            y, state = self.step(self.gates(seen[:, t], state, w), state)
            made.append(y)
        return np.stack(made, 1)


def _sigmoid(a: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh(0.5 * a)


def load_recurrent(folder: Path) -> Recurrent:
    """LSTM and head as `train.py` wrote them into `folder`/lstm."""
    tensors = safetensors.numpy.load_file(folder / "lstm" / "model.safetensors")
    w = np.concatenate([tensors["lstm0.w_x"], tensors["lstm0.w_h"]], 1)
    return Recurrent(w, tensors["lstm0.w_x.bias"], tensors["head.w"], tensors["head.w.bias"])


def load_encoder(folder: Path) -> Model:
    """The layers before the LSTM as a model of their own."""
    whole = modelflex.load(folder / "network")
    layers = tuple(layer for layer in whole.layers if layer.kind in ("conv2d", "relu"))
    names = {name for layer in layers for name in layer.weight_shapes}
    weights = {name: weight for name, weight in whole.weights.items() if name in names}
    return Model("driving_encoder", layers, weights, "values")


def inputs_of(frames: Bytes, scalars: Floats) -> Floats:
    """What the whole model reads, float32 [..., HEIGHT·WIDTH + 4]: pixels, then scalars."""
    pixels = frames.reshape(*frames.shape[:-2], -1).astype(np.float32) * np.float32(1 / 128) - 1
    return np.concatenate([pixels, scalars.astype(np.float32)], -1)


def probabilities(outputs: Floats) -> Floats:
    """Of the actions, from outputs [..., actions + velocities]."""
    return np.exp(divergence.log_softmax(outputs[..., : len(ACTIONS)]))


def divergences(exact: Floats, outputs: Floats) -> Floats:
    """KL(exact ‖ outputs) of the actions in nats, one for each step."""
    return divergence.divergences(OUTPUT, exact, outputs)


def load_features(folder: Path, part: str) -> Floats:
    """Features of a part's clips, float16 [N, T, 8254]."""
    found: Floats = np.load(folder / f"features_{part}.npy", mmap_mode="r")
    return found


class Encoder:
    """Features of frames, many at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = load_encoder(folder)

    def __call__(self, frames: Bytes, scalars: Floats) -> Floats:
        x = inputs_of(frames, scalars)
        return modelflex.run(self.model, x[:, None]).astype(np.float32)
