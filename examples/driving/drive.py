"""Closed-loop drives: the network sees, predicts, and its predicted velocities drive the car.

Many worlds are driven side by side; a drive ends at the end of its route, with its first accident, or
when its steps are up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from clips import FIRST_WORLD
from roads import Bytes, Floats, World, make_world
from simulator import Drive

STEPS = 200
"""Steps of a drive at most: 40 s."""
CREEP = 0.6
"""A wanted speed below this, in m/s, is a stop."""

Policy = Callable[[Bytes, Floats], tuple[Floats, Floats]]
"""(frames [N, H, W], scalars [N, 4]) → (probabilities [N, 4], velocities [N, 2]); it keeps its own state."""


@dataclass(frozen=True)
class Outcome:
    """How a drive went: what ended it ("collision", "off road", "red light", "" for none), and how far."""

    failure: str
    metres: float
    steps: int


def wanted(drive: Drive, probabilities: Floats, velocities: Floats) -> tuple[float, float]:
    """Speed (m/s) and yaw rate (rad/s) of a prediction; whoever predicts a stop does not speed up."""
    speed, yaw = 10 * float(velocities[0]), float(velocities[1])
    if int(np.argmax(probabilities)) == 1:
        speed = min(speed, drive.speed)
    return (0.0 if speed < CREEP else speed), yaw


def failure_of(drive: Drive) -> str:
    """What has gone wrong in a drive."""
    if drive.collided:
        return "collision"
    if drive.left_road:
        return "off road"
    return "red light" if drive.ran_red else ""


def drive_all(worlds: Sequence[World], policy: Policy, steps: int = STEPS) -> list[Outcome]:
    """Drive all worlds with one policy."""
    drives = [Drive(world) for world in worlds]
    outcomes: list[Outcome | None] = [None] * len(drives)
    for step in range(steps):
        frames = np.stack([drive.frame() for drive in drives])
        scalars = np.stack([drive.scalars() for drive in drives])
        probabilities, velocities = policy(frames, scalars)
        for number, drive in enumerate(drives):
            if outcomes[number] is not None:
                continue
            drive.advance(*wanted(drive, probabilities[number], velocities[number]))
            failure = failure_of(drive)
            if failure or drive.finished:
                outcomes[number] = Outcome(failure, drive.at, step + 1)
        if all(outcomes):
            break
    ends = [Outcome("", drive.at, steps) for drive in drives]
    return [found or end for found, end in zip(outcomes, ends, strict=True)]


def drive_worlds(count: int) -> list[World]:
    """Worlds that no clip was recorded in."""
    first = FIRST_WORLD["drive"]
    return [make_world(seed) for seed in range(first, first + count)]
