"""Loading ragged sequences from files, arrays and iterables, and checking them against a task."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.data import Sequences, check_unmasked, checked_lengths
from modelflex.core.divergence import VALUES, judged
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import check_symbols_read
from modelflex.errors import UserError, nearest

ARRAYS = ("x", "lengths", "y")
CLASSES = ("classification", "per_step", "next_symbol")
TASKS = (*CLASSES, "regression", "none")
NPZ_ERRORS = (
    OSError,
    ValueError,  # a malformed header, or Python objects
    EOFError,
    KeyError,
    RuntimeError,  # encrypted, or compressed by an unknown method
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
NPZ_BYTES = 4 << 30
"""Most bytes of an unpacked .npz file: a small file can unpack to any size."""
EXPECTED = "an .npz file, arrays x, lengths and y, or an iterable of sequences [T, F]"


def load_sequences(source: Any, where: str = "data") -> Sequences:
    """Ragged sequences from what the user has.

    Args:
        source: the path of an .npz file, or a mapping, with `x` [ΣT, F], `lengths` [N] and perhaps
            `y`; the tuple (x, lengths) or (x, lengths, y) of the same arrays; an array [N, T, F] of
            sequences of one length, alone or as (x, y) or {"x", "y"}; or an iterable of sequences
            x_i [T_i, F] or of tuples (x_i, y_i). There y_i is one target, a row of them, or T_i
            of them, one a step (if every y_i is as long as its x_i, these are steps).
        where: what the data are called in messages.

    Raises:
        UserError: an unreadable file, NaN or infinity, empty sequences, or shapes that do not fit.
    """
    if isinstance(source, Sequences):
        return _checked(source.x, source.lengths, source.y, where)
    if isinstance(source, str | os.PathLike):
        where = f"{where} '{os.fspath(source)}'"
        source = _read_npz(Path(source), where)
    if isinstance(source, Mapping):
        _check_names(source, where)
        if "x" not in source:
            raise UserError(f"{where} has no array x", "x [ΣT, F], lengths [N], y")
        return _from_arrays(source["x"], source.get("lengths"), source.get("y"), where)
    if isinstance(source, tuple) and 2 <= len(source) <= 3 and hasattr(source[0], "__array__"):
        dimensions = np.ndim(source[0]), _array(source[1], f"{where}[1]").ndim
        if dimensions[0] == 3 and len(source) == 2:
            return _from_arrays(source[0], None, source[1], where)
        if dimensions[0] == 2 and dimensions[1] == 1:
            return _from_arrays(
                source[0], source[1], source[2] if len(source) == 3 else None, where
            )
    if hasattr(source, "__array__"):
        return _from_arrays(source, None, None, where)
    if not isinstance(source, Iterable):
        raise UserError(f"{where} is a {type(source).__name__}", EXPECTED)
    return _from_items(list(source), where)


def check_task(sequences: Sequences, model: Model, task: str, where: str = "data") -> Sequences:
    """The sequences with their targets in the form that `task` takes.

    Args:
        task: "classification" (y int [N]), "per_step" or "next_symbol" (y int [ΣT]), "regression"
            (y [N, K], or [ΣT, K] for a model with an output at every step; [N] where K is 1), or
            "none" (y is dropped). Classes are 0 … K−1 for the model's K outputs that are logits.

    Raises:
        UserError: features, targets, task and model do not fit each other.
    """
    if task not in TASKS:
        raise UserError(f"unknown task '{task}'", "a task", nearest(task, TASKS))
    features = sequences.x.shape[1]
    if features != model.inputs:
        raise UserError(f"{where} has {features} features", f"{model.inputs}, the model's inputs")
    check_symbols_read(sequences.x, model, where)
    if task == "none":
        return replace(sequences, y=None)
    if task != "regression" and model.per_step != (task != "classification"):
        given = "every step" if model.per_step else "the last step only"
        raise UserError(
            f"the task '{task}' for a model with outputs at {given}",
            "an output a sequence" if model.per_step else "an output at every step",
            "change the task, or which steps the head reads",
        )
    if task == "regression" and model.output != VALUES:
        raise UserError(f"a regression model whose output is '{model.output}'", "output = 'values'")
    if sequences.y is None:
        raise UserError(
            f"{where} has no targets y", f"y for the task '{task}'", "or use the task 'none'"
        )
    rows = sequences.steps if model.per_step else sequences.count
    targets = _values if task == "regression" else _classes
    outputs = judged(model.output, model.outputs)
    return replace(sequences, y=targets(sequences.y, rows, outputs, where))


def _values(y: Array, rows: int, outputs: int, where: str) -> Array:
    """Targets of a regression, float64 [rows, outputs]."""
    if y.ndim == 1 and outputs == 1:
        y = y[:, None]
    if y.shape != (rows, outputs):
        raise UserError(
            f"{where}: y has the shape {y.shape}", f"{(rows, outputs)}, a row an output"
        )
    return y.astype(np.float64)


def _classes(y: Array, rows: int, outputs: int, where: str) -> Array:
    """Class numbers, int64 [rows]."""
    if y.shape != (rows,):
        raise UserError(
            f"{where}: y has the shape {y.shape}", f"({rows},), a class number an output"
        )
    if y.dtype.kind not in "iu":
        raise UserError(
            f"{where}: y is of type {y.dtype}", "integer class numbers", "use y.astype(int)"
        )
    if y.min() < 0 or y.max() >= outputs:
        raise UserError(
            f"{where}: y holds classes {y.min()} … {y.max()}",
            f"0 … {outputs - 1} for the model's {outputs} logits",
        )
    return y.astype(np.int64)


# --- arrays --------------------------------------------------------------------------------------
def _from_arrays(x: Any, lengths: Any, y: Any, where: str) -> Sequences:
    x = _array(x, f"{where}: x")
    if x.ndim == 3:
        if lengths is not None:
            raise UserError(
                f"{where}: x has 3 dimensions and there are lengths", "x [ΣT, F] with lengths"
            )
        n, steps, features = x.shape
        x, lengths = x.reshape(n * steps, features), np.full(n, steps)
        if y is not None:
            y = _array(y, f"{where}: y")
            if y.shape[:2] == (n, steps):
                y = y.reshape(n * steps, *y.shape[2:])
    if lengths is None:
        raise UserError(f"{where} has no lengths", "lengths [N] beside x [ΣT, F], or x [N, T, F]")
    return _checked(x, _array(lengths, f"{where}: lengths"), y, where)


def _checked(x: Array, lengths: Array, y: Any, where: str) -> Sequences:
    """Sequences from arrays of unknown shape and content."""
    if x.ndim != 2 or not x.size:
        raise UserError(
            f"{where}: x has the shape {x.shape}",
            "[ΣT, F] and not empty",
            "use x[:, None] for one feature",
        )
    lengths = checked_lengths(lengths, x.shape[0], where)
    if y is not None:
        y = _array(y, f"{where}: y")
        if y.ndim not in (1, 2) or y.shape[0] not in (lengths.size, x.shape[0]):
            raise UserError(
                f"{where}: y has the shape {y.shape}",
                f"{lengths.size} rows (one a sequence) or {x.shape[0]} (one a step)",
            )
        _finite(y, f"{where}: y")
        y = y.astype(np.float64 if y.dtype.kind == "f" else np.int64)
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(x, np.float32)
    return Sequences(_finite(single, f"{where}: x"), lengths, y)


def _array(values: Any, where: str) -> Array:
    check_unmasked(values, where)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{where} is no array ({str(error)[:100]})", "an array of numbers"
        ) from None
    if array.dtype.kind not in "fiub":
        raise UserError(f"{where} is of type {array.dtype}", "real numbers in rows of equal length")
    return array


def _finite(values: Array, where: str) -> Array:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        nan = int(np.count_nonzero(np.isnan(values)))
        raise UserError(
            f"{where} holds {nan} NaN and {bad - nan} infinite of {values.size} numbers",
            "finite float32 numbers",
            "repair these recordings or leave them out",
        )
    return values


def _check_names(names: Iterable[Any], where: str) -> None:
    for name in names:
        if name not in ARRAYS:
            raise UserError(
                f"{where}: unknown array {name!r}", ", ".join(ARRAYS), nearest(str(name), ARRAYS)
            )


# --- files and iterables -------------------------------------------------------------------------
def _read_npz(path: Path, where: str) -> dict[str, Array]:
    if not path.is_file():
        raise UserError(f"{where}: there is no such file", EXPECTED, "check the path")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{where} is no .npz file", EXPECTED, "write it by numpy.savez")
    try:
        with zipfile.ZipFile(path) as members:
            _check_members(members.infolist(), where)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except NPZ_ERRORS as error:
        raise UserError(
            f"{where} can't be read ({str(error)[:120]})",
            "an .npz file of plain arrays",
            "write it again by numpy.savez, without objects",
        ) from None


def _check_members(members: list[zipfile.ZipInfo], where: str) -> None:
    """Refuse what would be unpacked in vain, before it is."""
    _check_names((member.filename.removesuffix(".npy") for member in members), where)
    size = sum(member.file_size for member in members)
    if size > NPZ_BYTES:
        raise UserError(
            f"{where} unpacks to {size} bytes", f"at most {NPZ_BYTES}", "give fewer recordings"
        )


def _from_items(items: list[Any], where: str) -> Sequences:
    """Sequences x_i, or tuples (x_i, y_i)."""
    if not items:
        raise UserError(f"{where} is empty", "at least one sequence")
    pairs = [item if isinstance(item, tuple) else (item, None) for item in items]
    if any(len(pair) != 2 for pair in pairs) or len({pair[1] is None for pair in pairs}) > 1:
        raise UserError(
            f"{where}: sequences with and without targets", "only x_i, or only (x_i, y_i)"
        )
    xs = [_array(x, f"{where}[{i}]") for i, (x, _) in enumerate(pairs)]
    for i, x in enumerate(xs):
        if x.ndim != 2 or not x.size or x.shape[1] != xs[0].shape[-1]:
            raise UserError(
                f"{where}[{i}] has the shape {x.shape}",
                f"[T, {xs[0].shape[-1] if xs[0].ndim == 2 else 'F'}], T ≥ 1",
            )
    lengths = np.array([len(x) for x in xs], np.int64)
    y = None
    if pairs[0][1] is not None:
        y = _targets(
            [_array(t, f"{where}[{i}]: y") for i, (_, t) in enumerate(pairs)], lengths, where
        )
    return _checked(np.concatenate(xs), lengths, y, where)


def _targets(ys: list[Array], lengths: Array, where: str) -> Array:
    """Targets [N] or [N, K] from one a sequence, [ΣT] or [ΣT, K] from one a step."""
    per_step = all(y.ndim and len(y) == n for y, n in zip(ys, lengths, strict=True))
    try:
        return np.concatenate(ys) if per_step else np.stack(ys)
    except ValueError:
        shapes = sorted({str(y.shape) for y in ys})
        raise UserError(
            f"{where}: targets of the shapes {', '.join(shapes[:4])}",
            "the same shape for every sequence, or one target a step",
        ) from None
