"""Ragged sequences: many recordings of different lengths in one array."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

MAX_COPIES = 1000


@dataclass(frozen=True)
class Draw:
    """What calibration uses of the recordings that there are.

    Attributes:
        limit: at most so many of them, drawn with the seed; None for all.
        copies: how many times they are repeated with noise (what the weights see of few recordings
            spans too little of what they will see).
        noise: standard deviation of that noise, in standard deviations of each input.
    """

    limit: int | None = None
    copies: int = 0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"calibration_limit is {self.limit}", "at least 1, or none")
        if not 0 <= self.copies <= MAX_COPIES:
            raise UserError(f"calibration_copies is {self.copies}", f"0 … {MAX_COPIES}")
        if not 0 <= self.noise < float("inf") or (self.copies > 0) != (self.noise > 0):
            raise UserError(
                f"calibration_noise is {self.noise} for {self.copies} copies",
                "both above zero, or both zero",
            )

    def apply(self, sequences: Sequences, seed: int) -> Sequences:
        """The recordings to calibrate on."""
        if self.limit is not None and self.limit < sequences.count:
            chosen = np.random.default_rng(seed).choice(sequences.count, self.limit, replace=False)
            sequences = sequences.take(np.sort(chosen))
        return sequences.varied(self.copies, self.noise, seed) if self.copies else sequences


@dataclass(frozen=True, eq=False)
class Sequences:
    """Recordings one after another.

    Attributes:
        x: float32 [ΣT, F]; integer programs read float64 without rounding it first.
        lengths: int64 [N], each ≥ 1, summing to ΣT.
        y: targets: [N] or [ΣT] class numbers, [N, K] or [ΣT, K] values, or None.

    Raises:
        UserError: x is no array of rows, or lengths are not as they should be.
    """

    x: Array
    lengths: Array
    y: Array | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.x, np.ndarray) or not self.x.ndim:
            raise UserError(f"x of the sequences is {_told(self.x)}", "an array [ΣT, F]")
        check_unmasked(self.x, "x of the sequences")
        lengths = checked_lengths(self.lengths, self.x.shape[0], "the sequences")
        object.__setattr__(self, "lengths", lengths)

    @property
    def count(self) -> int:
        """How many recordings."""
        return int(self.lengths.size)

    @property
    def steps(self) -> int:
        """Time steps of all recordings."""
        return int(self.lengths.sum())

    @property
    def mean_length(self) -> float:
        """Mean time steps of a recording."""
        return float(self.lengths.mean())

    def take(self, indices: Array) -> Sequences:
        """The recordings `indices`, in that order."""
        starts = np.concatenate([[0], np.cumsum(self.lengths)])
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in indices])
        y = self.y
        if y is not None:
            y = y[rows] if y.shape[0] == self.x.shape[0] != self.count else y[indices]
        return Sequences(self.x[rows], self.lengths[indices], y)

    def varied(self, copies: int, noise: float, seed: int) -> Sequences:
        """The recordings, followed by `copies` of all of them with Gaussian noise.

        Args:
            noise: standard deviation, in standard deviations of each input.
        """
        rng = np.random.default_rng(seed)
        size = (noise * self.x.std(axis=0)).astype(np.float32)
        more = [
            self.x + size * rng.standard_normal(self.x.shape, np.float32) for _ in range(copies)
        ]
        y = None if self.y is None else np.concatenate([self.y] * (copies + 1))
        return Sequences(np.concatenate([self.x, *more]), np.tile(self.lengths, copies + 1), y)

    def followed_by(self, more: Sequences) -> Sequences:
        """These recordings and others after them, without targets."""
        x, lengths = (self.x, more.x), (self.lengths, more.lengths)
        return Sequences(np.concatenate(x), np.concatenate(lengths))

    def cut(self, steps: int) -> Sequences:
        """The recordings in pieces of at most `steps` time steps, without targets."""
        pieces = [min(steps, n - at) for n in self.lengths.tolist() for at in range(0, n, steps)]
        return Sequences(self.x, np.array(pieces, np.int64))

    def mixtures(self, count: int, seed: int) -> Sequences:
        """`count` recordings that lie between two of these, float32, without targets.

        Each is the mean of one and of another stretched to its length, with a weight drawn evenly from
        0 … 1 (Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018, of the inputs alone):
        networks are undecided about them that are sure of all recordings. The ones are evenly spaced
        (recordings often come sorted by class), the others drawn.
        """
        rng = np.random.default_rng(seed)
        starts = np.cumsum(self.lengths) - self.lengths
        made, lengths = [], []
        for number in range(count):
            one, other = number * self.count // count, int(rng.integers(self.count))
            length, rows = int(self.lengths[one]), int(self.lengths[other])
            place = np.linspace(0, rows - 1, length, dtype=np.float32)[:, None]
            before = place.astype(np.int64)[:, 0]
            after = np.minimum(before + 1, rows - 1)
            second = self.x[starts[other] : starts[other] + rows]
            part = place - before[:, None]
            stretched = (1 - part) * second[before] + part * second[after]
            weight = np.float32(rng.random())
            first = self.x[starts[one] : starts[one] + length]
            made.append((weight * first + (1 - weight) * stretched).astype(np.float32))
            lengths.append(length)
        return Sequences(np.concatenate(made), np.array(lengths, np.int64))

    @property
    def digests(self) -> list[bytes]:
        """SHA-256 of every recording's inputs, to find one in other data."""
        pieces = np.split(self.x, np.cumsum(self.lengths)[:-1])
        return [hashlib.sha256(np.ascontiguousarray(p).tobytes()).digest() for p in pieces]

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        sha = hashlib.sha256()
        for array in (self.x, self.lengths, self.y):
            if array is not None:
                sha.update(f"{array.dtype}{array.shape}".encode())
                sha.update(np.ascontiguousarray(array).tobytes())
        return sha.hexdigest()


def checked_lengths(lengths: Any, rows: int, where: str) -> Array:
    """Lengths of recordings, int64 [N], that share `rows` time steps out among them.

    Raises:
        UserError: no whole numbers [N], one below 1, or another sum.
    """
    if (
        not isinstance(lengths, np.ndarray)
        or lengths.ndim != 1
        or not lengths.size
        or lengths.dtype.kind not in "iu"
    ):
        raise UserError(f"{where}: lengths are {_told(lengths)}", "an array of integers [N], N ≥ 1")
    if lengths.min() < 1 or lengths.max() > rows:
        raise UserError(
            f"{where}: lengths are {lengths.min()} … {lengths.max()}",
            f"1 … {rows} (the rows of x)",
            "leave out empty sequences",
        )
    lengths = lengths.astype(np.int64, copy=False)
    if lengths.sum() != rows:
        raise UserError(f"{where}: lengths sum to {lengths.sum()}", f"{rows}, the rows of x")
    return lengths


def check_unmasked(given: Any, where: str) -> None:
    """Refuse arrays of numpy.ma: what their mask hides would be computed with.

    Raises:
        UserError: it is one.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise UserError(
            f"{where} is a masked array",
            "an array without a mask",
            "fill it (x.filled), or leave masked steps out",
        )


def as_sequences(given: Any) -> Sequences:
    """Sequences from an array [N, T, F] or an iterable of arrays [T, F], in the type that they have.

    Raises:
        UserError: something else, or arrays that do not fit each other.
    """
    expected = (
        "Sequences (modelflex.load_sequences), an array [N, T, F] or an iterable of arrays [T, F]"
    )
    if isinstance(given, Sequences):
        return given
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UserError(f"the data are {_told(given)}", expected)
    try:
        given = list(given)
        parts = [np.asarray(part) for part in given]
    except (ValueError, TypeError, RuntimeError) as error:  # rows of unequal length; a 0-d array
        raise UserError(f"the data are no arrays ({str(error)[:100]})", expected) from None
    if not parts:
        raise UserError("the data are empty", "at least one sequence")
    for number, part in enumerate(parts):
        check_unmasked(given[number], f"sequence {number} of the data")
        if part.ndim != 2 or part.shape[1] != parts[0].shape[-1] or not part.size:
            wanted = parts[0].shape[1] if parts[0].ndim == 2 else "F"
            raise UserError(
                f"sequence {number} of the data has the shape {part.shape}",
                f"[T, {wanted}], T ≥ 1",
                "for a single sequence x [T, F] give [x]",
            )
    lengths = np.array([len(part) for part in parts], np.int64)
    try:
        return Sequences(np.concatenate(parts), lengths)
    except TypeError as error:
        raise UserError(f"the data are no numbers ({str(error)[:100]})", expected) from None


def _told(given: Any) -> str:
    """What an object is."""
    if isinstance(given, np.ndarray):
        return f"{given.dtype} of the shape {given.shape}"
    return f"a {type(given).__name__}"
