"""Cells and tables of text, and tables made from records and nested mappings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelflex.report.text import DASH
from modelflex.units import show_quantity


@dataclass(frozen=True)
class Cell:
    """One cell: text, a second line, the number it sorts by, a CSS class, a hint on hovering."""

    text: str
    note: str = ""
    sort: float | None = None
    style: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; `numeric` names the columns that are aligned to the right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.rows)


def number(text: str, sort: float | None, note: str = "") -> Cell:
    """A cell that holds a number; an em dash is greyed."""
    return Cell(text, note, sort, "missing" if text == DASH else "")


def records(values: Mapping[str, Mapping[str, Any]], head: str) -> Table:
    """A table of records: one row a name, one column a key; a key's suffix names its unit."""
    return listed(list(values), list(values.values()), head)


def listed(names: Sequence[str], values: Sequence[Mapping[str, Any]], head: str) -> Table:
    """Like `records`, where names may repeat."""
    keys = list(dict.fromkeys(key for record in values for key in record))
    rows = tuple(
        (Cell(name), *(_value(key, record.get(key)) for key in keys))
        for name, record in zip(names, values, strict=True)
    )
    numeric = {
        i + 1
        for i, key in enumerate(keys)
        if any(isinstance(r.get(key), (int, float)) for r in values)
    }
    return Table((head, *(_heading(key) for key in keys)), rows, frozenset(numeric))


_SUFFIXES = (
    ("_bytes", "B"),
    ("_per_step_s", "s"),
    ("_s", "s"),
    ("_j", "J"),
    ("_w", "W"),
    ("_hz", "1/s"),
)


def _heading(key: str) -> str:
    for suffix in ("_s", "_j", "_w", "_hz"):
        key = key.removesuffix(suffix)
    text = key.replace("_", " ").replace("macs", "MACs")
    return text[:1].upper() + text[1:]


def _value(key: str, value: Any) -> Cell:
    if value is None:
        return Cell(DASH, style="missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return Cell(_plain(value, "\u00a0×\u00a0" if key in ("shape", "weights") else ", "))
    if isinstance(value, float) and math.isnan(value):
        return Cell(DASH, style="missing")
    unit = next((u for s, u in _SUFFIXES if key.endswith(s)), "B" if key == "bytes" else "")
    if unit:
        return number(show_quantity(value, unit), value)
    return number(f"{value:,}" if isinstance(value, int) else f"{value:.4g}", value)


def _plain(value: Any, join: str = ", ") -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        rest = {k: v for k, v in value.items() if k != "method"}
        nested = any(isinstance(v, Mapping) for v in rest.values())
        text = ("; " if nested else ", ").join(f"{k} {_plain(v, join)}" for k, v in rest.items())
        return f"{value['method']} ({text})" if "method" in value else text
    if isinstance(value, (list, tuple)):
        return join.join(_plain(v) for v in value)
    return str(value)


def _constant(value: Any, unit: str) -> str:
    """A value with its unit: 8e-12 J/bit becomes "8 pJ/bit"."""
    physical = unit == "B/s" or unit.split("/")[0] in ("s", "J", "W", "Hz")
    if not physical or isinstance(value, bool) or not isinstance(value, (int, float)) or value == 0:
        return f"{_plain(value)} {unit}".rstrip()
    power = min(max(math.floor(math.log10(abs(value)) / 3), -5), 4)
    return f"{value / 1000.0**power:.6g} {'fpnµm kMGT'[power + 5].strip()}{unit}"


def assumptions(values: Mapping[str, Any], head: str) -> Table:
    """A nested mapping as rows; constants stand as {value, unit, source}."""
    rows = tuple(_flat(values, ""))
    used = any(row[2].text for row in rows)
    columns = (head, "Value", "Source")
    return Table(columns, rows) if used else Table(columns[:2], tuple(row[:2] for row in rows))


def _flat(values: Mapping[str, Any], path: str) -> Iterator[tuple[Cell, Cell, Cell]]:
    for key, value in values.items():
        name = f"{path} › {key}" if path else str(key)
        if isinstance(value, Mapping) and "value" in value:
            shown = _constant(value["value"], str(value.get("unit", "")))
            yield Cell(name), Cell(shown), Cell(str(value.get("source", "")))
        elif isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield Cell(name), Cell(_plain(value)), Cell("")
