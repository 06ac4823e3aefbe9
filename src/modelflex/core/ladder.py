"""Ladders: what the first terms of a network's weights cost and how good the answers are, rung by rung."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.json_values import field, read_json_object
from modelflex.errors import UserError

LADDER_JSON = "ladder.json"
LADDER_SCHEMA = "modelflex.ladder/1"
MAX_RUNGS = 1 << 12
MAX_OPERATIONS, MAX_TERMS = 1 << 53, 1 << 31


@dataclass(frozen=True)
class Rung:
    """Some terms of every weight that has them, and what they gave on pilot data.

    Attributes:
        terms: weight → how many of its first terms are used at every step.
        operations: multiplications and additions of these terms a step.
        divergence: mean KL (nats), or the relative error, from the network with all its weights
            dense; see `core/divergence.py`.
        median, p90, worst: of the divergence of single results.
        metric: the task's figure; None without labels.

    Raises:
        UserError: numbers of terms or operations that are none, or figures that are not finite.
    """

    terms: Mapping[str, int]
    operations: int
    divergence: float
    median: float
    p90: float
    worst: float
    metric: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.terms, Mapping):
            raise UserError(f"a rung's terms are {str(self.terms)[:30]}", "weight → number")
        for weight, n in self.terms.items():
            if not _is_whole(n) or not 0 <= n < MAX_TERMS:
                found = f"a rung has {str(n)[:20]} terms of '{weight}'"
                raise UserError(found, f"a whole number, 0 … {MAX_TERMS - 1}")
        if not _is_whole(self.operations) or not 0 <= self.operations < MAX_OPERATIONS:
            found = f"a rung has {str(self.operations)[:20]} operations"
            raise UserError(found, f"a whole number, 0 … {MAX_OPERATIONS - 1}")
        for name in ("divergence", "median", "p90", "worst", "metric"):
            value = getattr(self, name)
            if (name != "metric" or value is not None) and not _is_finite(value):
                raise UserError(f"a rung has the {name} {str(value)[:20]}", "a finite number")


@dataclass(frozen=True)
class Ladder:
    """Rungs from no term to all, each with at least the terms of the one before.

    A runtime spends a budget on the highest rung that it buys, and says of its answers what the highest
    rung all of whose terms were used says.

    Attributes:
        divergence: the name of what is measured, "kl" or "relative_error".
        dense_operations: multiplications and additions of the dense weights a step.
        results: how many results the pilot data gave.

    Raises:
        UserError: no rung or too many, rungs of different weights, or one that has fewer terms or
            operations than the one before.
    """

    divergence: str
    dense_operations: int
    results: int
    rungs: tuple[Rung, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.rungs) <= MAX_RUNGS:
            raise UserError(f"a ladder has {len(self.rungs)} rungs", f"1 … {MAX_RUNGS}")
        for before, after in itertools.pairwise(self.rungs):
            if set(before.terms) != set(after.terms):
                found = f"a ladder has rungs of the weights {_names(before)} and {_names(after)}"
                raise UserError(found, "the same weights in every rung")
            if any(after.terms[weight] < n for weight, n in before.terms.items()):
                raise UserError("a ladder has a rung with fewer terms than the one before", "more")
            if after.operations < before.operations:
                raise UserError(
                    "a ladder has a rung of fewer operations than the one before", "more"
                )

    def reaching(self, divergence: float) -> Rung | None:
        """The cheapest rung from which on no divergence is above a figure; None where there is none."""
        found: Rung | None = None
        for rung in reversed(self.rungs):
            if rung.divergence > divergence:
                break
            found = rung
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "schema": LADDER_SCHEMA,
            "divergence": self.divergence,
            "dense_operations": self.dense_operations,
            "results": self.results,
            "rungs": [asdict(rung) for rung in self.rungs],
        }


def read_ladder(path: Path, wanted: Mapping[str, int]) -> Ladder:
    """The ladder in a file.

    Args:
        wanted: weight → all terms of it, of the model that the ladder is for.

    Raises:
        UserError: no ladder, one of another model, or numbers that are none.
    """
    values, where = read_json_object(path), f"'{path}'"
    if values.get("schema") != LADDER_SCHEMA:
        raise UserError(f"{where} has the schema {values.get('schema')!r}", f"'{LADDER_SCHEMA}'")
    divergence = field(values, "divergence", where, str)
    dense, results = (field(values, name, where, int) for name in ("dense_operations", "results"))
    entries = field(values, "rungs", where, list)
    rungs = tuple(_rung(entry, f"{where}, rung {i}", wanted) for i, entry in enumerate(entries))
    try:
        return Ladder(divergence, dense, results, rungs)
    except UserError as error:
        raise UserError(f"{where}: {error.found}", error.expected) from None


def _rung(entry: Any, where: str, wanted: Mapping[str, int]) -> Rung:
    terms = field(entry, "terms", where, dict)
    operations = field(entry, "operations", where, int)
    figures = [entry.get(name) for name in ("divergence", "median", "p90", "worst", "metric")]
    try:
        made = Rung(terms, operations, *figures)
    except UserError as error:
        raise UserError(f"{where}: {error.found}", error.expected) from None
    if set(terms) != set(wanted):
        raise UserError(
            f"{where} names the weights {_names(made)}",
            f"{', '.join(wanted)}, those of the model that have terms",
        )
    for weight, n in terms.items():
        if n > wanted[weight]:
            raise UserError(
                f"{where} has {str(n)[:20]} terms of '{weight}'", f"0 … {wanted[weight]}"
            )
    return made


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _names(rung: Rung) -> str:
    return ", ".join(map(str, rung.terms))[:80] or "none"
