"""Evaluation: how well a network's outputs serve the task, and how far they are from the original's."""

from __future__ import annotations

import importlib
import math
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.divergence import (
    VALUES,
    divergence_name,
    divergences,
    judged,
    log_softmax,
    mean_divergence,
)
from modelflex.core.fingerprint import fingerprint, module_fingerprint
from modelflex.core.fixed import Array
from modelflex.core.quality import Quality
from modelflex.errors import UserError

TASKS = ("classification", "per_step", "next_symbol", "regression", "none")
Z95 = 1.959963984540054
GROUPS = 20
"""Groups of sequences left out in turn by the jackknife."""

Metric = Callable[[Array, Array, Array], float]
"""(outputs [N or ΣT, K], y, lengths [N]) → a figure."""


@dataclass(frozen=True)
class Task:
    """What the outputs are for.

    Attributes:
        kind: one of `TASKS`; "none" is label-free: divergence only.
        metric: the user's own function instead of the task's, or None.
        name, direction: of the metric.
        source: what the user's function hangs on, so that results of another version are not reused.
        reusable: whether `source` holds in other processes; if not, nothing is reused.
    """

    kind: str
    metric: Metric | None = None
    name: str = ""
    direction: str = "max"
    source: str = ""
    reusable: bool = True


_METRICS: Mapping[str, tuple[str, str]] = {
    "classification": ("accuracy", "max"),
    "per_step": ("accuracy", "max"),
    "next_symbol": ("perplexity", "min"),
    "regression": ("rmse", "min"),
}


def make_task(kind: str, quality: str | Metric | None = None, direction: str | None = None) -> Task:
    """A task, with the user's own quality as a function or as "module:function" (which worker
    processes can import).

    Raises:
        UserError: an unknown kind or direction, a function that cannot be imported, or a quality
            without labels to judge by.
    """
    if kind not in TASKS:
        raise UserError(f"the task is '{kind}'", f"one of {', '.join(TASKS)}")
    if direction not in (None, "max", "min"):
        raise UserError(f"the direction of quality is '{direction}'", "'max' or 'min'")
    if quality is None:
        name, usual = _METRICS.get(kind, ("", "max"))
        if direction not in (None, usual):
            raise UserError(
                f"the direction of {name or 'no metric'} is '{direction}'", f"'{usual}'"
            )
        return Task(kind, None, name, usual)
    if kind == "none":
        raise UserError(
            "the task is 'none' and there is a quality function",
            "no quality: label-free has no metric",
            "name the task whose labels y the function takes",
        )
    function = _import(quality) if isinstance(quality, str) else quality
    if not callable(function):
        raise UserError(
            f"quality {quality!r} is a {type(function).__name__}",
            "a function (outputs, y, lengths) → float",
        )
    name = quality if isinstance(quality, str) else getattr(function, "__name__", "quality")
    if isinstance(quality, str):
        source = module_fingerprint(quality.partition(":")[0], function)
    else:
        source = fingerprint(function)
    label = name.rsplit(":", 1)[-1]
    known = source is not None
    return Task(kind, function, label, direction or "max", source or uuid.uuid4().hex, known)


def _import(path: str) -> Metric:
    module, _, name = path.partition(":")
    if not module or not name:
        raise UserError(f"quality is '{path}'", "module:function")
    try:
        function: Metric = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's own may fail in any way
        raise UserError(
            f"quality '{path}' cannot be imported ({type(error).__name__}: {error})",
            "a function (outputs, y, lengths) → float",
            "put its module on PYTHONPATH or install it",
        ) from None
    return function


def metric_value(task: Task, output: str, outputs: Array, y: Array, lengths: Array) -> float:
    """The task's figure for outputs [N or ΣT, K]; the user's own function sees all of them, classes are
    numbers of logits.

    Args:
        output: what the outputs are; see `check_output`.
    """
    if task.metric is not None:
        return _own_metric(task.name, task.metric, outputs, y, lengths)
    scores = outputs[..., : judged(output, outputs.shape[-1])]
    if task.kind in ("classification", "per_step"):
        return float(np.mean(scores.argmax(axis=-1) == y))
    if task.kind == "next_symbol":
        chosen = np.take_along_axis(log_softmax(scores), y[:, None].astype(np.int64), axis=-1)
        return float(np.exp(-chosen.mean()))
    if task.kind == "regression":
        return float(np.sqrt(np.mean(np.square(outputs - y.reshape(outputs.shape)))))
    raise UserError(
        "a task without labels has no metric", "a task with labels, or a quality function"
    )


def _own_metric(name: str, metric: Metric, outputs: Array, y: Array, lengths: Array) -> float:
    try:
        found = metric(outputs, y, lengths)
    except Exception as error:  # the user's own function may fail in any way
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"quality '{name}' failed with {type(error).__name__}: {error} "
            f"({last.filename}, line {last.lineno})",
            "a function (outputs, y, lengths) → float",
        ) from error
    try:
        value = float(found)
    except (TypeError, ValueError):
        raise UserError(f"quality '{name}' returned {found!r:.80}", "a number") from None
    if not math.isfinite(value):
        raise UserError(f"quality '{name}' returned {value}", "a finite number")
    return value


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    p, z2 = successes / n, Z95 * Z95
    centre, half = p + z2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return max(0.0, min(low, p)), min(1.0, max(high, p))  # p lies inside; rounding must not hide it


def score(
    task: Task, output: str, outputs: Array, original: Array | None, data: Sequences
) -> dict[str, Quality]:
    """ "metric" (where the task has one and labels are there) and "divergence" from `original`.

    Args:
        output: what the outputs are; see `check_output`.
        outputs: of the network under test, [N or ΣT, K].
        original: of the uncompressed network on the same data; None leaves divergence out.

    Raises:
        UserError: outputs are not finite.
    """
    if not np.all(np.isfinite(outputs)):
        raise UserError("the network's outputs are not finite", "finite numbers")
    found: dict[str, Quality] = {}
    if original is not None:
        rows = divergences(output, original, outputs)
        interval = _row_interval(rows, data, output)
        name = divergence_name(output)
        found["divergence"] = Quality(
            name, "min", mean_divergence(output, rows), interval, data.count
        )
    if task.name and data.y is not None:
        value = metric_value(task, output, outputs, data.y, data.lengths)
        if task.kind == "classification" and task.metric is None:
            interval = wilson(round(value * data.count), data.count)
        else:
            interval = _jackknife(task, output, outputs, data, value)
        found["metric"] = Quality(task.name, task.direction, value, interval, data.count)
    return found


def _owner(rows: int, data: Sequences) -> Array:
    """The sequence that every output row belongs to."""
    if rows == data.count:
        return np.arange(data.count)
    return np.repeat(np.arange(data.count), data.lengths)


def _row_interval(rows: Array, data: Sequences, output: str) -> tuple[float, float]:
    """95 % interval of a mean over rows that are dependent within a sequence (ratio estimator);
    NaN for one sequence, which says nothing about others.
    """
    if data.count < 2:
        return math.nan, math.nan
    owner = _owner(rows.size, data)
    sums, sizes = np.bincount(owner, rows), np.bincount(owner)
    mean, n = float(rows.mean()), sums.size
    spread = float(np.sqrt(np.sum((sums - mean * sizes) ** 2) / (n - 1)))
    half = Z95 * spread / (float(sizes.mean()) * math.sqrt(n))
    low, high = max(0.0, mean - half), mean + half
    return (math.sqrt(low), math.sqrt(high)) if output == VALUES else (low, high)


def _jackknife(
    task: Task, output: str, outputs: Array, data: Sequences, value: float
) -> tuple[float, float]:
    """95 % interval from leaving out groups of sequences in turn; NaN for one sequence."""
    if data.y is None or data.count < 2:
        return math.nan, math.nan
    groups = min(GROUPS, data.count)
    out_owner, y_owner = _owner(outputs.shape[0], data), _owner(data.y.shape[0], data)
    part = np.arange(data.count) % groups
    values = np.array([
        metric_value(task, output, outputs[part[out_owner] != g], data.y[part[y_owner] != g],
                     data.lengths[part != g])
        for g in range(groups)
    ])  # fmt: skip
    half = Z95 * math.sqrt((groups - 1) / groups * float(np.sum((values - values.mean()) ** 2)))
    return value - half, value + half
