"""Clips of expert drives, recorded once and kept in a folder that git ignores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from roads import make_world
from simulator import Clip, record

HERE = Path(__file__).resolve().parent
STEPS = 100
"""Steps of a clip: 20 s."""
COUNTS = {"train": 320, "pilot": 40, "test": 60}
FIRST_WORLD = {"train": 0, "corrected": 50_000, "pilot": 100_000, "test": 200_000, "drive": 300_000}
"""World seeds of a part begin here: no two parts share a world."""
FIELDS = ("frames", "scalars", "actions", "velocities")
SOURCES = ("roads.py", "camera.py", "simulator.py", "clips.py")


def data_folder(given: Path | None) -> Path:
    """Where recordings and trained networks lie: as given, or in data/ here, which git ignores."""
    folder = given or HERE / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _record(seed: int) -> Clip:
    return record(make_world(seed), STEPS, np.random.default_rng([seed, 1]))


def stack(clips: Sequence[Clip]) -> Clip:
    """Clips of equal length as one, with an axis of clips in front."""
    return Clip(*(np.stack([getattr(clip, name) for clip in clips]) for name in FIELDS))


def version() -> str:
    """Digest of the code that recordings depend on."""
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()[:12]


def load_clips(part: str, folder: Path, count: int | None = None, workers: int = 2) -> Clip:
    """The clips of a part [N, T, ...], recorded where they are not in `folder` yet."""
    count = COUNTS[part] if count is None else count
    path = folder / f"clips_{part}_{count}_{version()}.npz"
    if not path.is_file():
        first = FIRST_WORLD[part]
        with ProcessPoolExecutor(workers) as pool:
            clips = stack(list(pool.map(_record, range(first, first + count), chunksize=4)))
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb") as file:
            np.savez(file, **{name: getattr(clips, name) for name in FIELDS})
        os.replace(temporary, path)
    with np.load(path) as stored:
        return Clip(*(stored[name] for name in FIELDS))
