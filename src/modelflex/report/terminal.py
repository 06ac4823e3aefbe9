"""The outcome of a search for the terminal."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from modelflex.report import tables
from modelflex.report.cells import Cell, Table
from modelflex.report.text import COST_LABELS, binding, verdict
from modelflex.search.study import Study

_STYLES = {"good": "green", "bad": "red", "missing": "dim", "factor": "bold"}


def terminal_table(study: Study) -> Group:
    """What the end of a search shows: verdict, baseline beside pick and naive twin, limits.

    The caller prints it: `rich.console.Console(stderr=True).print(terminal_table(study))`.
    """
    parts: list[RenderableType] = [Text(verdict(study), style="bold")]
    if study.best is not None:
        parts.append(Text(f"Pick: trial {study.best.number}, {study.best.recipe.label}"))
        parts.append(Text(LEGEND, style="dim"))
    if study.best is None:
        parts += [Text(binding(study)), rich_table(tables.violations(study))]
    parts += [
        Text(),
        rich_table(_essential(tables.comparison(study))),
        Text(),
        rich_table(tables.limits(study)),
    ]
    return Group(*parts)


LEGEND = (
    "(3b×8b: bits of weights × inputs; ○4: circulant blocks of 4; θ: delta threshold, ▪ by block; "
    "↻3: rounds of recalibration)"
)
ESSENTIAL = (
    "weight_fetch_bytes_per_step", "weight_bytes", "dram_bytes_per_step", "latency_per_step_s",
    "energy_per_step_j", "power_w", "state_bytes",
)  # fmt: skip
"""Costs that fit on a screen; the report has all."""


def _essential(table: Table) -> Table:
    """The rows of the comparison that a terminal shows."""
    left_out = {text for name, text in COST_LABELS.items() if name not in ESSENTIAL}
    rows = tuple(row for row in table.rows if row[0].text not in left_out)
    return replace(table, rows=rows)


def rich_table(table: Table) -> RenderableType:
    """A table of cells as a terminal shows it."""
    if not table:
        return Text("")
    out = RichTable(box=None, pad_edge=False, header_style="bold underline")
    for i, column in enumerate(table.columns):
        out.add_column(Text(column), justify="right" if i in table.numeric else "left")
    for row in table.rows:
        out.add_row(*map(_text, row))
    return out


def _text(cell: Cell) -> Text:
    # Text, not markup: labels come from outside and may hold brackets.
    text = Text(cell.text, style=_STYLES.get(cell.style, ""))
    if cell.note:
        text.append(f"\n{cell.note}", style="dim")
    return text
