"""Prepare the JapaneseVowels data for the JapaneseVowels example: read, split, standardise, store.

The data are 640 utterances of the Japanese vowels /ae/ by nine male speakers, each a series of 7 to
29 frames of 12 LPC cepstrum coefficients (10 kHz, frames of 25.6 ms every 6.4 ms). The task is to
tell the speaker. 270 utterances (30 a speaker) are the official training set, 370 the test set.

Source: M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through
regions", Pattern Recognition Letters 20 (11-13), 1999, pp. 1103-1111; UCI Machine Learning
Repository, doi:10.24432/C5NS47, licensed under CC BY 4.0 (see README.md). The copy read
here is the pair of `.ts` files inside the wheel of aeon 1.6.0 (BSD-3-Clause).

Only the wheel's files are used: aeon itself is never imported, so its dependencies may be missing
(`pip install --no-deps aeon==1.6.0`).

    python examples/japanese_vowels/prepare.py [--seed 0] [--out examples/japanese_vowels/data]

writes `train.npz`, `validation.npz` and `test.npz` with the keys `x` [sum of lengths, 12] float32
(standardised), `lengths` [N] int64 and `y` [N] int64 (0 to 8).
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).resolve().parent
SPEAKERS = 9
COEFFICIENTS = 12
TRAINING_SEQUENCES = 270
TEST_SEQUENCES = 370
HELD_OUT_PER_SPEAKER = 7
SPLIT_SCHEMA = "modelflex.example.split/1"


class DataError(ValueError):
    """The data are missing or not what they should be; the message says how to mend it."""


class Ragged(NamedTuple):
    """Labelled sequences of different lengths, one behind the other."""

    x: npt.NDArray[np.float64]  # [sum of lengths, features]
    lengths: npt.NDArray[np.int64]  # [N], frames
    y: npt.NDArray[np.int64]  # [N], class index from 0

    def take(self, indices: npt.NDArray[np.int64]) -> Ragged:
        """Return the sequences at `indices` [n], in that order."""
        ends = np.cumsum(self.lengths)
        frames = [np.arange(ends[i] - self.lengths[i], ends[i]) for i in indices]
        return Ragged(self.x[np.concatenate(frames)], self.lengths[indices], self.y[indices])

    def sha256(self) -> str:
        """Digest of values, lengths and labels."""
        digest = hashlib.sha256()
        for array in self:
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


class Split(NamedTuple):
    """Which official training sequences are held out, and the scaling fitted on the others."""

    seed: int
    validation: npt.NDArray[np.int64]  # [63], indices into the official training set, ascending
    mean: npt.NDArray[np.float64]  # [12]
    std: npt.NDArray[np.float64]  # [12]

    def train(self) -> npt.NDArray[np.int64]:
        """Return the indices [207] of the sequences that are not held out, ascending."""
        return np.setdiff1d(np.arange(TRAINING_SEQUENCES), self.validation)


class Parts(NamedTuple):
    """The standardised data of one split; `test` is the official test set."""

    train: Ragged
    validation: Ragged
    test: Ragged


def read_ts(path: Path) -> Ragged:
    """Read a `.ts` file of labelled multivariate series of unequal length.

    The subset of the format read here: `#` comment lines, `@key value` header lines (of which
    `@dimensions`, `@timeStamps` and `@classLabel` matter), then after `@data` one series a line:
    dimensions separated by `:`, values of a dimension by `,`, the class label last. Labels become
    indices in the order of `@classLabel`. Format: https://www.aeon-toolkit.org (aeon.datasets).

    Raises DataError naming file and line if the file is missing, truncated, malformed or holds a
    missing or non-finite value.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a .ts file ({error})") from error
    header: dict[str, list[str]] = {}
    series: list[npt.NDArray[np.float64]] = []
    labels: list[int] = []
    in_data = False
    for number, raw in enumerate(lines, start=1):
        line = raw.strip()
        where = f"{path}, line {number}"
        if not line or line.startswith("#"):
            continue
        if in_data:
            values, label = _read_series(line, header, where)
            series.append(values)
            labels.append(label)
        elif line.lower() == "@data":
            _check_header(header, where)
            in_data = True
        elif line.startswith("@"):
            key, *rest = line[1:].split()
            header[key.lower()] = rest
        else:
            raise DataError(f"{where}: expected a header line (@...) or @data, found {line[:40]!r}")
    if not series:
        raise DataError(f"{path}: no series after @data; the file is truncated, reinstall it")
    return Ragged(
        np.concatenate(series),
        np.array([len(values) for values in series], dtype=np.int64),
        np.array(labels, dtype=np.int64),
    )


def _check_header(header: dict[str, list[str]], where: str) -> None:
    dimensions = header.get("dimensions", [])
    if len(dimensions) != 1 or not dimensions[0].isdecimal() or int(dimensions[0]) < 1:
        raise DataError(f"{where}: expected '@dimensions N' before @data, found {dimensions}")
    label = header.get("classlabel", [])
    if len(label) < 2 or label[0].lower() != "true":
        raise DataError(f"{where}: expected '@classLabel true A B ...' before @data, found {label}")
    if header.get("timestamps", ["false"])[0].lower() != "false":
        raise DataError(f"{where}: series with time stamps are not supported (@timeStamps false)")


def _read_series(
    line: str, header: dict[str, list[str]], where: str
) -> tuple[npt.NDArray[np.float64], int]:
    """One data line as ([frames, dimensions], class index)."""
    *channels, label = line.split(":")
    expected = int(header["dimensions"][0])
    if len(channels) != expected:
        raise DataError(
            f"{where}: expected {expected} dimensions and a label, found {len(channels) + 1} "
            "fields; the file is truncated or not JapaneseVowels, reinstall it"
        )
    names = header["classlabel"][1:]
    if label.strip() not in names:
        raise DataError(f"{where}: expected a label among {' '.join(names)}, found {label[:20]!r}")
    try:
        columns = [np.array(channel.split(","), dtype=np.float64) for channel in channels]
    except ValueError as error:
        raise DataError(f"{where}: a value is not a number ({error})") from error
    lengths = sorted({len(column) for column in columns})
    if len(lengths) != 1:
        raise DataError(f"{where}: the dimensions differ in length ({lengths} frames)")
    values = np.stack(columns, axis=1)
    if not np.isfinite(values).all():
        raise DataError(f"{where}: a value is NaN or infinite; expected finite numbers")
    return values, names.index(label.strip())


def data_folder() -> Path:
    """Find the folder of the `.ts` files in the installed aeon wheel, without importing it."""
    spec = importlib.util.find_spec("aeon")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "datasets" / "data" / "JapaneseVowels"
        if folder.is_dir():
            return folder
    raise DataError(
        "JapaneseVowels: the wheel of aeon with the data was not found; "
        "install it with 'pip install --no-deps aeon==1.6.0'"
    )


def load_official() -> tuple[Ragged, Ragged]:
    """Read the official training (270) and test (370) sequences, as recorded.

    Raises DataError if the wheel is missing or its files are not the complete data set.
    """
    folder = data_folder()
    parts = []
    for name, count in (("TRAIN", TRAINING_SEQUENCES), ("TEST", TEST_SEQUENCES)):
        path = folder / f"JapaneseVowels_{name}.ts"
        data = read_ts(path)
        if len(data.y) != count or data.x.shape[1] != COEFFICIENTS:
            raise DataError(
                f"{path}: expected {count} series of {COEFFICIENTS} dimensions, found "
                f"{len(data.y)} of {data.x.shape[1]}; reinstall aeon==1.6.0"
            )
        parts.append(data)
    return parts[0], parts[1]


def make_split(official_train: Ragged, seed: int) -> Split:
    """Hold 7 sequences of each speaker out, at random; fit the scaling on the remaining 207.

    Mean and standard deviation are those of all frames of the remaining sequences.
    """
    rng = np.random.default_rng(seed)
    held = [
        rng.choice(np.flatnonzero(official_train.y == speaker), HELD_OUT_PER_SPEAKER, replace=False)
        for speaker in range(SPEAKERS)
    ]
    validation = np.sort(np.concatenate(held)).astype(np.int64)
    kept = np.setdiff1d(np.arange(len(official_train.y)), validation)
    frames = official_train.take(kept).x
    return Split(seed, validation, frames.mean(axis=0), frames.std(axis=0))


def split_path(seed: int) -> Path:
    """Where the split of a seed is committed."""
    return HERE / "weights" / f"seed{seed}" / "split.json"


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON."""
    fields = {
        "schema": SPLIT_SCHEMA,
        "seed": split.seed,
        "validation": split.validation.tolist(),
        "mean": split.mean.tolist(),
        "std": split.std.tolist(),
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read_split(path: Path) -> Split:
    """Read a split; raises DataError if it is missing, of another schema or malformed."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["schema"] != SPLIT_SCHEMA:
            raise DataError(
                f"{path}: schema {fields['schema']!r}, expected {SPLIT_SCHEMA!r}; "
                "write it again with train.py"
            )
        split = Split(
            int(fields["seed"]),
            np.array(fields["validation"], dtype=np.int64),
            np.array(fields["mean"], dtype=np.float64),
            np.array(fields["std"], dtype=np.float64),
        )
    except FileNotFoundError as error:
        known = sorted(p.parent.name for p in (HERE / "weights").glob("seed*/split.json"))
        raise DataError(f"{path}: no such split; there are {', '.join(known) or 'none'}") from error
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a split file ({error!r}); restore it from git") from error
    _check_split(split, path)
    return split


def _check_split(split: Split, path: Path) -> None:
    indices = split.validation
    in_range = indices.ndim == 1 and bool(((indices >= 0) & (indices < TRAINING_SEQUENCES)).all())
    if not in_range or len(np.unique(indices)) != len(indices):
        raise DataError(f"{path}: validation must be distinct indices below {TRAINING_SEQUENCES}")
    if split.mean.shape != (COEFFICIENTS,) or split.std.shape != (COEFFICIENTS,):
        raise DataError(f"{path}: mean and std must have {COEFFICIENTS} values each")
    if not np.isfinite(split.mean).all() or not (np.isfinite(split.std) & (split.std > 0)).all():
        raise DataError(f"{path}: mean and std must be finite, and std positive")


def apply_split(split: Split, official_train: Ragged, official_test: Ragged) -> Parts:
    """Standardise the data and cut the official training set in two."""

    def scaled(data: Ragged) -> Ragged:
        return data._replace(x=(data.x - split.mean) / split.std)

    return Parts(
        scaled(official_train.take(split.train())),
        scaled(official_train.take(split.validation)),
        scaled(official_test),
    )


def load_split(seed: int) -> Parts:
    """Train, validation and test sequences of a committed split, standardised.

    Raises DataError if the split or the data are missing or malformed.
    """
    return apply_split(read_split(split_path(seed)), *load_official())


def write_parts(parts: Parts, out: Path) -> list[Path]:
    """Write one `.npz` a part into `out`; returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, data in parts._asdict().items():
        path = out / f"{name}.npz"
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, x=data.x.astype(np.float32), lengths=data.lengths, y=data.y)
        os.replace(temporary, path)
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code (2 for bad input)."""
    parser = argparse.ArgumentParser(description="Write the JapaneseVowels data as .npz files.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the committed split")
    parser.add_argument("--out", type=Path, default=HERE / "data", help="output folder")
    options = parser.parse_args(arguments)
    try:
        parts = load_split(options.seed)
        paths = write_parts(parts, options.out)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, data in zip(paths, parts, strict=True):
        print(f"{path}: {len(data.y)} sequences, {len(data.x)} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
