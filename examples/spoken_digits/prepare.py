"""Prepare the spoken digits: log-mel features, splits, standardised, stored.

3,000 clips of the digits zero to nine by six speakers, 50 a speaker and digit, 8 kHz, mostly under
a second. The task is to tell the digit. Features are 40 log-mel bands of 25 ms every 10 ms.

Source: Z. Jackson et al., Free Spoken Digit Dataset, github.com/Jakobovski/free-spoken-digit-dataset,
licensed under CC BY-SA 4.0. Read from `fsdd/fsdd.npz` below $MODELFLEX_DATA (default
../shared/data): `pcm` int16 of all clips, `offsets` [3001], `labels`, `speakers`, `speaker_names`,
`index` (0 to 49 within speaker and digit), `rate`.

    python examples/spoken_digits/prepare.py [--held-out theo] [--out FOLDER]

writes `train.npz`, `validation.npz` and `test.npz` with the keys `x` [sum of lengths, 40] float32
(standardised per band with mean and deviation of the training frames), `lengths` [N] and `y` [N].
The test set is the official one (index 0 to 4, 300 clips) or all clips of the held-out speaker;
validation are indices 5 to 9, training the rest, both without the held-out speaker.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelflex.core.data import Sequences
from modelflex.errors import UserError
from modelflex.importers.log_mel import log_mel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from _training import data_file, write_sequences  # noqa: E402

BANDS = 40
DIGITS = 10
FLOOR = 1e-6  # of the power: below it is the recordings' own noise, which differs between speakers
KEYS = ("pcm", "offsets", "labels", "speakers", "speaker_names", "index", "rate")
ORIGIN = "the Free Spoken Digit Dataset as one .npz (see the example's README)"
Indices = npt.NDArray[np.int64]


def load_clips() -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of the data file.

    Raises:
        UserError: it is missing or not the data set.
    """
    path = data_file("fsdd/fsdd.npz", ORIGIN)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in KEYS}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}", ORIGIN) from None


def split_indices(index: Indices, speakers: Indices, held_out: int | None) -> dict[str, Indices]:
    """Clip numbers of train, validation and test, ascending and disjoint.

    Args:
        index: [N], number of the clip within its speaker and digit.
        speakers: [N].
        held_out: the speaker whose clips are the test set; None for the official test set.
    """
    test = index < 5 if held_out is None else speakers == held_out
    validation = (index >= 5) & (index < 10) & ~test
    train = (index >= 10) & ~test
    masks = {"train": train, "validation": validation, "test": test}
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def features(clips: dict[str, npt.NDArray[np.generic]]) -> Sequences:
    """Log-mel frames of all clips, not standardised."""
    pieces = np.split(clips["pcm"], clips["offsets"][1:-1])
    frames = [log_mel(pcm, float(clips["rate"]), BANDS, floor=FLOOR) for pcm in pieces]
    lengths = np.array([len(f) for f in frames], dtype=np.int64)
    return Sequences(np.concatenate(frames), lengths, clips["labels"].astype(np.int64))


def load_parts(held_out: str | None = None) -> dict[str, Sequences]:
    """Train, validation and test sequences, standardised.

    Raises:
        UserError: no such speaker, or the data are missing.
    """
    clips = load_clips()
    names = [str(name) for name in clips["speaker_names"]]
    if held_out is not None and held_out not in names:
        raise UserError(f"no speaker '{held_out}'", f"one of {', '.join(names)}")
    speaker = None if held_out is None else names.index(held_out)
    data = features(clips)
    indices = split_indices(clips["index"], clips["speakers"], speaker)
    parts = {name: data.take(rows) for name, rows in indices.items()}
    mean, std = parts["train"].x.mean(axis=0), parts["train"].x.std(axis=0)
    return {
        name: Sequences(((part.x - mean) / std).astype(np.float32), part.lengths, part.y)
        for name, part in parts.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Write the spoken digits as .npz files.")
    parser.add_argument("--held-out", help="the speaker whose clips are the test set")
    parser.add_argument("--out", type=Path, help="output folder (data, or data/SPEAKER)")
    options = parser.parse_args(arguments)
    folder = options.out or HERE / "data" / (options.held_out or "")
    try:
        write_sequences(folder, load_parts(options.held_out))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
