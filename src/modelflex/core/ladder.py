"""Ladders: what the first terms of a network's weights cost and how good the answers are, rung by rung."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelflex.core.json_values import field, read_json_object
from modelflex.errors import UserError

LADDER_JSON = "ladder.json"
LADDER_SCHEMA = "modelflex.ladder/1"
MAX_RUNGS = 1 << 12
MAX_OPERATIONS = 1 << 53


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
    """

    terms: Mapping[str, int]
    operations: int
    divergence: float
    median: float
    p90: float
    worst: float
    metric: float | None = None


@dataclass(frozen=True)
class Ladder:
    """Rungs from no term to all, each with at least the terms of the one before.

    Attributes:
        divergence: the name of what is measured, "kl" or "relative_error".
        dense_operations: multiplications and additions of the dense weights a step.
        results: how many results the pilot data gave.
    """

    divergence: str
    dense_operations: int
    results: int
    rungs: tuple[Rung, ...]

    def within(self, operations: float) -> Rung:
        """The best rung of at most so many operations a step; the first where none is so cheap."""
        affordable = [rung for rung in self.rungs if rung.operations <= operations]
        return affordable[-1] if affordable else self.rungs[0]

    def reaching(self, divergence: float) -> Rung | None:
        """The cheapest rung from which on no divergence is above a figure; None where there is none."""
        found: Rung | None = None
        for rung in reversed(self.rungs):
            if rung.divergence > divergence:
                break
            found = rung
        return found

    def below(self, terms: Mapping[str, int]) -> Rung:
        """The highest rung whose terms were all used: its figures estimate the quality of such a step."""
        used = [r for r in self.rungs if all(n <= terms.get(w, 0) for w, n in r.terms.items())]
        return used[-1] if used else self.rungs[0]

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
    entries = field(values, "rungs", where, list)
    if not 1 <= len(entries) <= MAX_RUNGS:
        raise UserError(f"{where} has {len(entries)} rungs", f"1 … {MAX_RUNGS}")
    rungs = tuple(_rung(entry, f"{where}, rung {i}", wanted) for i, entry in enumerate(entries))
    for before, after in itertools.pairwise(rungs):
        if any(after.terms[weight] < n for weight, n in before.terms.items()):
            raise UserError(f"{where} has a rung with fewer terms than the one before", "more")
        if after.operations < before.operations:
            raise UserError(f"{where} has a rung of fewer operations than the one before", "more")
    return Ladder(
        field(values, "divergence", where, str),
        field(values, "dense_operations", where, int),
        field(values, "results", where, int),
        rungs,
    )


def _rung(entry: Any, where: str, wanted: Mapping[str, int]) -> Rung:
    terms = field(entry, "terms", where, dict)
    if set(terms) != set(wanted):
        raise UserError(
            f"{where} names the weights {', '.join(map(str, terms))[:80]}",
            f"{', '.join(wanted)}, those of the model that have terms",
        )
    for weight, n in terms.items():
        if type(n) is not int or not 0 <= n <= wanted[weight]:
            raise UserError(
                f"{where} has {str(n)[:20]} terms of '{weight}'", f"0 … {wanted[weight]}"
            )
    figures = {name: entry.get(name) for name in ("divergence", "median", "p90", "worst")}
    metric = entry.get("metric")
    for name, value in {**figures, **({} if metric is None else {"metric": metric})}.items():
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise UserError(f"{where} has the {name} {str(value)[:20]}", "a finite number")
    operations = field(entry, "operations", where, int)
    if not 0 <= operations < MAX_OPERATIONS:
        raise UserError(
            f"{where} has {str(operations)[:20]} operations", f"0 … {MAX_OPERATIONS - 1}"
        )
    return Rung(terms, operations, **figures, metric=metric)
