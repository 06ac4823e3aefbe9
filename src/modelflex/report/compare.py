"""A comparison of methods: the page, and what a terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from modelflex.core.files import replacing
from modelflex.report.cells import Cell, Table, assumptions, number
from modelflex.report.page import render_page
from modelflex.report.style import AWARE, NAIVE, axis, layout
from modelflex.report.tables import step_table
from modelflex.report.terminal import rich_table
from modelflex.report.text import metric_name, show_factor, show_metric
from modelflex.search.comparison import COSTS, EFFICIENT, Compared, Comparison
from modelflex.units import show_quantity

_TITLES = {
    "weight_bytes": "Weights stored [B]",
    "weight_fetch_bytes_per_step": "Weights fetched a step [B]",
    "macs_per_step": "Multiply-accumulates a step",
}
_STYLES = {"superior": "good", "efficient": "good", "degraded": "bad"}
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star",
            "hexagon", "pentagon")  # fmt: skip
FLOOR = 1e-6
"""Divergences below are drawn here: the axis is logarithmic."""


def write_comparison(found: Comparison, path: Path) -> None:
    """Write the page of a comparison; the file appears whole or not at all."""
    text = render_comparison(found)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_comparison(found: Comparison) -> str:
    """The page as text, about 5 MB."""
    return render_page(
        "compare.html.j2",
        {"costs": _costs_figure(found)},
        name=found.name,
        kicker="ModelFlex comparison of methods",
        verdict=_verdict(found),
        success=bool(found.best),
        advice=None,
        tiles=_tiles(found),
        notes=found.notes,
        best=best_table(found),
        rows=_rows_table(found, found.rows),
        break_even=_break_even_table(found),
        steps={
            f"{family} — {_row(found, found.best[family]).label}": step_table(
                steps, divergence_name(found)
            )
            for family, steps in found.steps.items()
        },
        provenance=assumptions(found.provenance, "Of this run"),
        efficient=100 * EFFICIENT,
        task=found.task != "none",
        tested=bool(found.test),
    )


def comparison_text(found: Comparison) -> RenderableType:
    """The best of every family and the verdict, for a terminal."""
    parts: list[RenderableType] = [
        Text(_verdict(found), style="bold"),
        rich_table(best_table(found)),
    ]
    parts += [Text(f"Note: {note}") for note in found.notes]
    return Group(*parts)


def divergence_name(found: Comparison) -> str:
    """What the divergence of this comparison is called."""
    row = found.rows[0] if found.rows else None
    return "divergence" if row is None else metric_name(found.divergence)


def _row(found: Comparison, number: int) -> Compared:
    return next(row for row in found.rows if row.number == number)


def _verdict(found: Comparison) -> str:
    if not found.best:
        return f"No method keeps {100 * EFFICIENT:g} % of the performance."
    row = min(
        (_row(found, n) for n in found.best.values()),
        key=lambda r: r.weight_fetch_bytes_per_step,
    )
    return (
        f"At {100 * EFFICIENT:g} % or more of the performance, {row.family} ({row.label}) fetches "
        f"the least: {show_factor(row.fetch_saving)} fewer weight bytes a step, "
        f"{show_factor(row.memory_saving)} smaller."
    )


def _tiles(found: Comparison) -> list[tuple[str, str]]:
    counts = {v: sum(row.verdict == v for row in found.rows) for v in _STYLES}
    tiles = [(f"{len(found.rows):,}", "recipes evaluated")]
    return tiles + [(f"{count:,}", verdict) for verdict, count in counts.items()]


def _figures(found: Comparison, row: Compared) -> list[Cell]:
    cells = [number(f"{row.divergence:.3g}", row.divergence)]
    if row.metric is not None:
        cells.append(number(show_metric(found.metric, row.metric), row.metric))
    cells.append(number(f"{100 * row.relative_performance:.2f} %", row.relative_performance))
    for name, saving in zip(
        COSTS, (row.memory_saving, row.fetch_saving, row.compute_saving), strict=True
    ):
        value = getattr(row, name)
        unit = "" if name == "macs_per_step" else "B"
        cells.append(number(show_quantity(value, unit), value, show_factor(saving)))
    cells.append(Cell(row.verdict, style=_STYLES[row.verdict]))
    return cells


def _columns(found: Comparison) -> list[str]:
    task = [metric_name(found.metric).capitalize()] if found.metric else []
    relative = "Relative performance"
    costs = ["Stored", "Fetched a step", "MACs a step"]
    return [divergence_name(found).capitalize(), *task, relative, *costs, "Verdict"]


def best_table(found: Comparison) -> Table:
    """A row a family: what fetches least while it is not degraded, with its score on test data."""
    columns = ["Family", "Recipe", *_columns(found)]
    tested = bool(found.test) and bool(found.metric)
    if tested:
        base = found.test["baseline"]["metric"].value
        columns.append(f"Test (uncompressed {show_metric(found.metric, base)})")
    rows = []
    for family, which in found.best.items():
        row = _row(found, which)
        cells = [Cell(family), Cell(row.label), *_figures(found, row)]
        if tested:
            score = found.test.get(str(which), {}).get("metric")
            value = None if score is None else score.value
            cells.append(number(show_metric(found.metric, value), value))
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows), frozenset(range(2, len(columns))))


def _rows_table(found: Comparison, rows: Sequence[Compared]) -> Table:
    columns = ("#", "Family", "Recipe", "Data", *_columns(found))
    made = tuple(
        (
            Cell(str(row.number), sort=row.number),
            Cell(row.family),
            Cell(row.label),
            Cell("fitted" if row.data_aware else "none"),
            *_figures(found, row),
        )
        for row in rows
    )
    return Table(columns, made, frozenset({0, *range(4, len(columns) - 1)}))


def _break_even_table(found: Comparison) -> Table:
    rows = tuple(
        (
            Cell(row.label),
            Cell(row.site),
            Cell(row.layout),
            number(f"{100 * row.density:.3g} %", row.density),
            number(f"{100 * row.break_even_density:.3g} %", row.break_even_density),
            Cell(
                "smaller than dense"
                if row.density < row.break_even_density
                else "larger than dense",
                style="good" if row.density < row.break_even_density else "bad",
            ),
        )
        for row in found.break_even
    )
    columns = ("Recipe", "Product", "Layout", "Density", "Breaks even at", "Storage")
    return Table(columns, rows, frozenset({3, 4}))


def _costs_figure(found: Comparison) -> dict[str, Any]:
    """Divergence against each cost; a colour for whether data are used, a symbol for a kind."""
    figure: dict[str, Any] = {"data": [], "layout": layout(520)}
    kinds = list(dict.fromkeys(row.family.partition(":")[0] for row in found.rows))
    gap = 0.07
    width = (1 - gap * (len(COSTS) - 1)) / len(COSTS)
    for c, cost in enumerate(COSTS):
        key = str(c + 1) if c else ""
        place = {"xaxis": f"x{key}", "yaxis": f"y{key}", "showlegend": c == 0}
        for aware, colour in ((False, NAIVE), (True, AWARE)):
            for kind, symbol in zip(kinds, _SYMBOLS * len(kinds), strict=False):
                own = [
                    row
                    for row in found.rows
                    if row.data_aware == aware and row.family.partition(":")[0] == kind
                ]
                figure["data"] += _scatter(own, cost, kind, colour, symbol, aware, place)
        for name, colour in (("naive", NAIVE), ("data-aware", AWARE)):
            front = [_row(found, n) for n in found.fronts[cost][name]]
            figure["data"].append({
                "type": "scatter",
                "mode": "lines",
                "name": f"front, {name}",
                "x": [getattr(row, cost) for row in front],
                "y": [max(row.divergence, FLOOR) for row in front],
                "line": {"color": colour, "width": 1.5, "shape": "hv"},
                "hoverinfo": "skip",
                **place,
            })  # fmt: skip
        left = c * (width + gap)
        figure["layout"][f"xaxis{key}"] = axis(
            _TITLES[cost], True, domain=[left, left + width], anchor=f"y{key}", dtick=1
        )
        title = divergence_name(found) if c == 0 else ""
        figure["layout"][f"yaxis{key}"] = axis(title, True, anchor=f"x{key}", dtick=1)
    figure["layout"]["legend"] = {"orientation": "h", "x": 0, "y": 1.04, "yanchor": "bottom"}
    return figure


def _scatter(
    rows: Sequence[Compared],
    cost: str,
    kind: str,
    colour: str,
    symbol: str,
    aware: bool,
    place: dict[str, Any],
) -> list[dict[str, Any]]:
    if not rows:
        return []
    return [{
        "type": "scatter",
        "mode": "markers",
        "name": f"{kind}, {'data-aware' if aware else 'naive'}",
        "x": [getattr(row, cost) for row in rows],
        "y": [max(row.divergence, FLOOR) for row in rows],
        "text": [f"{row.family}<br>{row.label}<br>{row.verdict}" for row in rows],
        "hoverinfo": "text",
        "marker": {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.75},
        **place,
    }]  # fmt: skip
