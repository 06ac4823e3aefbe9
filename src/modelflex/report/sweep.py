"""The page of a sweep: best points, a heat map and the Pareto front, without a network."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep import SweepSummary
from modelflex.platforms.systolic.sweep_config import Axis, SweepConfig
from modelflex.platforms.systolic.sweep_found import bins
from modelflex.platforms.systolic.workload import Workload
from modelflex.report.cells import Cell, Table
from modelflex.report.style import GRID, INK, MUTED, axis, layout
from modelflex.report.summary import strict_json
from modelflex.units import show_quantity

Figure = dict[str, Any]

_FIGURES: Final = {
    "latency_s": ("latency", "s"),
    "energy_j": ("energy", "J"),
    "area_m2": ("area", "mm²"),
    "edp_js": ("energy × latency", "J·s"),
    "cycles": ("cycles", ""),
    "dram_words": ("DRAM traffic", "words"),
    "units": ("units", ""),
}
"""Column → (name, unit on axes)."""

_SCALE: Final = [[0.0, "#0b3c66"], [0.35, "#2f86c1"], [0.7, "#a9d3ec"], [1.0, "#f3f8fc"]]
"""The best is darkest."""
_FRONT_ROWS: Final = 300
_SHOWN_VALUES: Final = 24
_GAPS: Final = 40


def render_sweep(
    found: SweepSummary, config: SweepConfig, layers: Sequence[Workload], name: str
) -> str:
    """The page as text, about 5 MB: the plotting library is inside."""
    # Plotly's Python package takes a moment to load; only pages need it.
    from plotly.offline import get_plotlyjs

    folder = files("modelflex.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script, source = (
        folder.joinpath(file).read_text("utf-8")
        for file in ("style.css", "page.js", "sweep.html.j2")
    )
    varied = [axis for axis in config.axes if axis.size > 1]
    figures = (
        {"map": map_figure(found), "pareto": front_figure(found, varied)} if found.best else {}
    )
    x, y = found.map_axes
    values = " and ".join(_FIGURES[column][0] for column in found.least)
    columns = [*found.objectives, *(c for c in found.best if c not in found.objectives)]
    return environment.from_string(source).render(
        name=name,
        found=found,
        style=Markup(style),
        script=Markup(script),
        plotly=Markup(get_plotlyjs()),
        figures=strict_json(figures),
        verdict=_verdict(found, varied),
        tiles=_tiles(found),
        best=_best_table(found, varied, columns),
        map_title=f"Least {values} over {_axis_name(x)} and {_axis_name(y)}",
        coarse=any(len(set(bins(a.size).tolist())) < a.size for a in (x, y)),
        front=_points_table(_records(found.front)[:_FRONT_ROWS], varied, columns),
        left_out=max(0, len(found.front.get("fits", ())) - _FRONT_ROWS),
        objectives=", ".join(_FIGURES[column][0] for column in found.objectives),
        axes=_axes_table(config.axes),
        layers=_layers_table(layers),
        priced=config.chip is not None,
        leakage=config.chip is not None and config.chip.leakage,
    )


def show_figure(column: str, value: float) -> str:
    """A text for people."""
    unit = _FIGURES[column][1]
    if unit in ("s", "J"):
        return show_quantity(value, unit)
    if column == "area_m2":
        return f"{1e6 * value:.4g} mm²"
    if column == "edp_js":
        return f"{value:.4g} J·s"
    return f"{value:,.0f}"


def _verdict(found: SweepSummary, varied: Sequence[Axis]) -> str:
    if not found.best:
        return "No point has buffers that hold what one fold needs."
    column, row = next(iter(found.best.items()))
    return f"Least {_FIGURES[column][0]}: {show_figure(column, row[column])} at {_describe(row, varied)}."


def _describe(row: Mapping[str, Any], varied: Sequence[Axis]) -> str:
    parts = [f"{_axis_name(a)} {_place(row, a)}" for a in varied]
    return ", ".join(parts) or "the only point"


def _axis_name(axis: Axis) -> str:
    return axis.name.replace("_kb", " kB").replace("_", " ")


def _place(row: Mapping[str, Any], axis: Axis) -> str:
    values = {name: np.array([row[name]]) for name in axis.columns}
    return Axis(axis.name, values).labels()[0]


def _tiles(found: SweepSummary) -> list[tuple[str, str]]:
    tiles = [(f"{found.points:,}", "points of the grid")]
    if found.infeasible:
        tiles.append((f"{found.infeasible:,}", "whose buffers hold no tile"))
    for column in found.objectives[:2]:
        if column in found.best:
            text = show_figure(column, found.best[column][column])
            tiles.append((text, f"least {_FIGURES[column][0]}"))
    return [*tiles, (f"{len(found.front.get('fits', ())):,}", "points on the Pareto front")]


def _points_table(
    records: Sequence[Mapping[str, Any]], varied: Sequence[Axis], columns: Sequence[str]
) -> Table:
    """A row a point: where it lies on the axes, and its figures."""
    rows = tuple(
        (
            *(_axis_cell(record, a) for a in varied),
            *(Cell(show_figure(c, record[c]), sort=record[c]) for c in columns),
        )
        for record in records
    )
    headings = [_axis_name(a) for a in varied] + [_FIGURES[c][0] for c in columns]
    return Table(tuple(headings), rows, frozenset(range(len(headings))))


def _best_table(found: SweepSummary, varied: Sequence[Axis], columns: Sequence[str]) -> Table:
    table = _points_table(list(found.best.values()), varied, columns)
    heads = [Cell(f"least {_FIGURES[column][0]}") for column in found.best]
    rows = tuple((head, *row) for head, row in zip(heads, table.rows, strict=True))
    return Table(("", *table.columns), rows, frozenset(range(1, len(table.columns) + 1)))


def _axis_cell(row: Mapping[str, Any], axis: Axis) -> Cell:
    value = row[next(iter(axis.columns))]
    return Cell(_place(row, axis), sort=None if isinstance(value, str) else min(value, 1e300))


def _records(columns: Mapping[str, Array]) -> list[dict[str, Any]]:
    values = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _axes_table(axes: Sequence[Axis]) -> Table:
    rows = []
    for each in axes:
        labels = each.labels()
        shown = ", ".join(labels[:_SHOWN_VALUES])
        if len(labels) > _SHOWN_VALUES:
            shown += f", … {labels[-1]} ({len(labels):,} values)"
        rows.append((Cell(_axis_name(each)), Cell(shown)))
    return Table(("Axis", "Values"), tuple(rows))


def _layers_table(layers: Sequence[Workload]) -> Table:
    rows = tuple(
        (Cell(layer.name), *(Cell(f"{int(size):,}") for size in layer.shape[:3]))
        for layer in layers
    )
    return Table(("Layer", "M", "N", "K"), rows, frozenset((1, 2, 3)))


def map_figure(found: SweepSummary) -> Figure:
    """A heat map for each of the first two objectives, one beside the other."""
    x, y = found.map_axes
    across, up = _bin_labels(x), _bin_labels(y)
    columns = list(found.least)
    width = (1 - 0.16 * (len(columns) - 1)) / len(columns)
    figure: Figure = {"data": [], "layout": layout(150 + min(22 * max(len(up), 4), 520))}
    figure["layout"]["margin"] |= {"t": 30, "r": 40}
    for i, (column, least) in enumerate(found.least.items()):
        key, start = "" if i == 0 else str(i + 1), i * (width + 0.16)
        title, unit = _FIGURES[column]
        figure["data"] += _heat(least, column, key, (across, up), start + width)
        for side, labels, text in (("x", across, x), ("y", up, y)):
            other = "y" if side == "x" else "x"
            made = axis(_axis_name(text), False, anchor=f"{other}{key}", ticks="")
            # Numbers with texts, not categories: places keep their order and equal sizes.
            step = max(1, math.ceil(len(labels) / 16))
            made |= {
                "tickvals": list(range(0, len(labels), step)),
                "ticktext": [html.escape(label) for label in labels[::step]],
                "showgrid": False,
                "range": [-0.5, len(labels) - 0.5],
            }
            figure["layout"][f"{side}axis{key}"] = made
        figure["layout"][f"xaxis{key}"]["domain"] = [start, start + width]
        figure["layout"]["annotations"].append(
            {
                "text": f"least {title}" + (f" [{unit}]" if unit else ""),
                "showarrow": False,
                "xref": "paper",
                "yref": "paper",
                "x": start,
                "y": 1,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 12.5, "color": MUTED},
            }
        )
    return figure


def _bin_labels(axis: Axis) -> list[str]:
    labels, place = axis.labels(), bins(axis.size)
    first = np.searchsorted(place, np.arange(place[-1] + 1))
    last = np.append(first[1:], axis.size) - 1
    return [
        labels[a] if a == b else f"{labels[a]}…{labels[b]}"
        for a, b in zip(first, last, strict=True)
    ]


def _heat(
    least: Array, column: str, key: str, labels: tuple[list[str], list[str]], right: float
) -> list[Figure]:
    # By logarithm: values differ by orders of magnitude.
    shade = np.log10(np.maximum(least, np.finfo(float).tiny))
    low, high = float(np.nanmin(shade)), float(np.nanmax(shade))
    ticks = np.linspace(low, high, 5) if high > low else np.array([low])
    place = {"xaxis": f"x{key}", "yaxis": f"y{key}"}
    texts = [
        [
            "" if np.isnan(v) else f"{x}, {y}: {show_figure(column, v)}"
            for x, v in zip(labels[0], row, strict=True)
        ]
        for y, row in zip(labels[1], least.tolist(), strict=True)
    ]
    bar = {
        "x": right + 0.005,
        "thickness": 12,
        "outlinewidth": 0,
        "tickvals": ticks.tolist(),
        "ticktext": [show_figure(column, 10**tick) for tick in ticks.tolist()],
    }
    y, x = np.unravel_index(int(np.nanargmin(least)), least.shape)
    return [
        place
        | {
            "type": "heatmap",
            "z": shade.tolist(),
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "hoverongaps": False,
            "colorscale": _SCALE,
            "zmin": low,
            "zmax": high if high > low else low + 1,
            # Between many cells gaps would be all that one sees.
            "xgap": int(len(labels[0]) <= _GAPS),
            "ygap": int(len(labels[1]) <= _GAPS),
            "colorbar": bar,
        },
        place
        | {
            "type": "scatter",
            "mode": "markers",
            "x": [int(x)],
            "y": [int(y)],
            "showlegend": False,
            "hoverinfo": "skip",
            "cliponaxis": False,
            "marker": {
                "symbol": "star",
                "size": 13,
                "color": "#ffd166",
                "line": {"color": INK, "width": 1},
            },
        },
    ]


def front_figure(found: SweepSummary, varied: Sequence[Axis]) -> Figure:
    """The front over the first two objectives, coloured by the third, before a sample of the grid."""
    across, up, third = found.objectives
    records = _records(found.front)
    shades = [_on_axis(third, record[third]) for record in records]
    title, unit = _FIGURES[third]
    figure: Figure = {"data": [], "layout": layout(520, hovermode="closest")}
    figure["layout"]["margin"] |= {"t": 24}
    figure["data"].append(
        _cloud("sample of the grid", found.sample, across, up)
        | {"hoverinfo": "skip", "marker": {"size": 4, "color": GRID}}
    )
    figure["data"].append(
        _cloud("Pareto front", found.front, across, up)
        | {
            "text": [_hover(record, varied, found.objectives) for record in records],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "size": 9,
                "color": shades,
                "colorscale": "Viridis",
                "line": {"color": INK, "width": 0.7},
                "colorbar": {
                    "title": {"text": f"{title} [{unit}]" if unit else title},
                    "thickness": 12,
                },
            },
        }
    )
    for side, column in (("xaxis", across), ("yaxis", up)):
        name, unit = _FIGURES[column]
        both = np.concatenate([found.front[column], found.sample[column]])
        low, high = np.log10(both.min()), np.log10(both.max())
        pad = max(0.05 * (high - low), 0.05)
        figure["layout"][side] = axis(
            f"{name} [{unit}]" if unit else name, True, range=[low - pad, high + pad]
        )
    figure["layout"]["legend"] = {
        "x": 0.99,
        "y": 0.99,
        "xanchor": "right",
        "bgcolor": "rgba(255,255,255,.8)",
    }
    return figure


def _on_axis(column: str, value: float) -> float:
    return 1e6 * value if column == "area_m2" else value


def _cloud(name: str, rows: Mapping[str, Array], across: str, up: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rows[across].tolist(),
        "y": rows[up].tolist(),
    }


def _hover(row: Mapping[str, Any], varied: Sequence[Axis], objectives: Sequence[str]) -> str:
    lines = [f"{_FIGURES[c][0]} {show_figure(c, row[c])}" for c in objectives]
    lines += [html.escape(f"{_axis_name(a)} {_place(row, a)}") for a in varied]
    return "<br>".join(lines)
