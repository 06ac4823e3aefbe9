"""Two drives through one world, frame by frame, with what the exact network holds for likely on the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from camera import colour
from drive import failure_of, wanted
from measure import Policy, schemes, within
from recurrent import Encoder, load_recurrent
from roads import Bytes, World, make_world
from simulator import PERIOD, Drive

SHARE = 0.0655
"""Of the dense operations."""
EVERY = 6
"""Steps between the frames that are shown."""
SHOTS = 6
LONGEST = 110


@dataclass(frozen=True)
class Shot:
    """One shown frame: the image, time and way, probabilities of both networks, how the drive ended."""

    image: Bytes
    seconds: float
    metres: float
    exact: list[float]
    approximated: list[float]
    failure: str


def shots_of(world: World, policies: tuple[Policy, Policy]) -> list[Shot]:
    """Drive with the second policy; the first, exact one only looks on."""
    drive, made = Drive(world), []
    for step in range(LONGEST):
        looks, frames, scalars = drive.looks(), drive.frame()[None], drive.scalars()[None]
        (exact, _), (p, v) = (policy(frames, scalars) for policy in policies)
        drive.advance(*wanted(drive, p[0], v[0]))
        failure = failure_of(drive)
        if step % EVERY == 0 or failure:
            image = colour(looks, world.light)
            made.append(
                Shot(image, step * PERIOD, drive.at, exact[0].tolist(), p[0].tolist(), failure)
            )
        if failure:
            break
    if len(made) > SHOTS:  # the last is how it ended
        chosen = np.unique(np.linspace(0, len(made) - 1, SHOTS).round().astype(int))
        made = [made[i] for i in chosen]
    return made


def two_drives(folder: Path, published: str, world: int) -> dict[str, list[Shot]]:
    """The published scheme (`published` names its NZ, see `schemes`) and the data-aware on the same road."""
    recurrent, encoder = load_recurrent(folder), Encoder(folder)
    made, found = schemes(folder, recurrent), {}
    aware = "data-aware, all outputs"
    for scheme, of in (("published", published), (aware, aware)):
        approximated = within(made[of], SHARE * 2 * recurrent.w.size).make()
        exact = recurrent.w, recurrent.bias
        policies = [Policy(encoder, recurrent, *weights) for weights in (exact, approximated)]
        found[scheme] = shots_of(make_world(world), (policies[0], policies[1]))
    return found
