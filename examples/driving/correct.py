"""Clips of the network's own drives with what the expert would have done: what imitation lacks.

A learner that only saw an expert's drives does not know how to come back from its own mistakes (Ross et
al., DAgger, AISTATS 2011). The expert takes the wheel where the network would end the drive (Zhang &
Cho, SafeDAgger, AAAI 2017).
"""

from __future__ import annotations

import numpy as np
import torch
from clips import FIRST_WORLD, STEPS, stack
from drive import wanted
from network import DrivingNetwork, to_network
from roads import make_world
from simulator import Clip, Drive

FAR_ASIDE = 1.1
"""Metres beside the lane's middle from which the expert steers."""
TOO_FAST = 2.0
"""Metres a second above the expert's speed from which he brakes."""


@torch.no_grad()
def corrected_clips(network: DrivingNetwork, count: int, seed: int) -> Clip:
    """`count` clips side by side, labelled by the expert at every step."""
    first = FIRST_WORLD["corrected"]
    rng = np.random.default_rng([seed, 2])
    drives = [Drive(make_world(n), rng) for n in range(first, first + count)]
    for drive in drives:
        for _ in range(int(rng.integers(0, 40))):
            drive.advance(*drive.expert()[1])
    state = None
    steps: list[list[tuple[object, ...]]] = []
    for _ in range(STEPS):
        frames = np.stack([drive.frame() for drive in drives])
        scalars = np.stack([drive.scalars() for drive in drives]).astype(np.float32)
        pixels = to_network(torch.from_numpy(frames))
        features = network.features(pixels, torch.from_numpy(scalars))[:, None]
        logits, velocities, state = network(features, state)
        p, v = logits[:, 0].softmax(-1).numpy(), velocities[:, 0].numpy()
        labels = [drive.expert() for drive in drives]
        for n, drive in enumerate(drives):
            speed, yaw = wanted(drive, p[n], v[n])
            best = labels[n][1]
            if drive.aside > FAR_ASIDE:
                yaw = best[1]
            drive.advance(best[0] if speed > best[0] + TOO_FAST else speed, yaw)
        steps.append(
            [(frames[n], scalars[n], labels[n][0], labels[n][1] * (0.1, 1.0)) for n in range(count)]
        )
    made = []
    for n in range(count):
        frame, scalar, action, velocity = zip(*(step[n] for step in steps), strict=True)
        made.append(
            Clip(
                np.stack(frame), np.stack(scalar), np.array(action),
                np.stack(velocity).astype(np.float32),
            )
        )  # fmt: skip
    return stack(made)
