"""The plots of a sweep: a heat map over two axes, and the Pareto front."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep import SweepSummary
from modelflex.platforms.systolic.sweep_config import Axis
from modelflex.platforms.systolic.sweep_found import bins
from modelflex.report.style import GRID, INK, MUTED, axis, layout
from modelflex.report.sweep_text import FIGURES, axis_name, place_on, records_of, show_figure

Figure = dict[str, Any]

_SCALE: Final = [[0.0, "#0b3c66"], [0.35, "#2f86c1"], [0.7, "#a9d3ec"], [1.0, "#d6e8f5"]]
"""The best is darkest."""
_GAPS: Final = 40
"""Most cells along a side that are set apart."""
_ROUNDING: Final = 1e-9
_LABELS: Final = 16
_CHARACTERS: Final = 56
"""Most labels up a map, and most characters of the labels across it."""


def map_figure(found: SweepSummary, column: str) -> Figure:
    """A heat map of the least values of a column."""
    x, y = found.map_axes
    least, across, up = found.least[column], _bin_labels(x), _bin_labels(y)
    title, unit = FIGURES[column]
    text = f"least {title}" + (f" [{unit}]" if unit else "")
    if _same(least):
        text += f": {show_figure(column, float(np.nanmin(least)))} in all cells"
    heading = {
        "text": text,
        "showarrow": False,
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "font": {"size": 12.5, "color": MUTED},
    }
    figure: Figure = {
        "data": _heat(least, column, (across, up)),
        "layout": layout(
            150 + min(22 * max(len(up), 4), 520),
            xaxis=_side(x, across, anchor="y"),
            yaxis=_side(y, up, anchor="x"),
            annotations=[heading],
        ),
    }
    figure["layout"]["margin"] |= {"t": 30, "l": 56}
    return figure


def _same(values: Array) -> bool:
    """Whether all are equal, but for rounding."""
    return bool(np.nanmax(values) <= np.nanmin(values) * (1 + _ROUNDING))


def _side(swept: Axis, labels: list[str], anchor: str) -> Figure:
    """One axis of a map; one that has a single value keeps silent."""
    # Numbers with texts, not categories: places keep their order and equal sizes.
    step = math.ceil(len(labels) / _LABELS)
    if anchor.startswith("y"):
        step = math.ceil(len(labels) * (2 + max(map(len, labels))) / _CHARACTERS)
    # Ticks that nobody sees keep labels clear of a star at the edge.
    made = axis(axis_name(swept), False, anchor=anchor, tickcolor="rgba(0,0,0,0)", ticklen=7)
    return made | {
        "tickvals": list(range(0, len(labels), step)),
        "ticktext": [html.escape(label) for label in labels[::step]],
        "showgrid": False,
        "range": [-0.5, len(labels) - 0.5],
        "visible": swept.size > 1,
    }


def _bin_labels(axis: Axis) -> list[str]:
    labels, place = axis.labels(), bins(axis.size)
    first = np.searchsorted(place, np.arange(place[-1] + 1))
    last = np.append(first[1:], axis.size) - 1
    return [
        labels[a] if a == b else f"{labels[a]}…{labels[b]}"
        for a, b in zip(first, last, strict=True)
    ]


def _heat(least: Array, column: str, labels: tuple[list[str], list[str]]) -> list[Figure]:
    # By logarithm: values differ by orders of magnitude.
    shade = np.log10(np.maximum(least, np.finfo(float).tiny))
    low, high = float(np.nanmin(shade)), float(np.nanmax(shade))
    ticks = np.linspace(low, high, 5)
    texts = [
        [
            "" if np.isnan(v) else f"{x}, {y}: {show_figure(column, v)}"
            for x, v in zip(labels[0], row, strict=True)
        ]
        for y, row in zip(labels[1], least.tolist(), strict=True)
    ]
    bar = {
        "thickness": 12,
        "outlinewidth": 0,
        "tickvals": ticks.tolist(),
        "ticktext": [show_figure(column, 10**tick) for tick in ticks.tolist()],
    }
    y, x = np.unravel_index(int(np.nanargmin(least)), least.shape)
    return [
        {
            "type": "heatmap",
            "z": shade.tolist(),
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "hoverongaps": False,
            "colorscale": _SCALE,
            "zmin": low,
            "zmax": low + 1 if _same(least) else high,
            "showscale": not _same(least),
            # Between many cells gaps would be all that one sees.
            "xgap": int(len(labels[0]) <= _GAPS),
            "ygap": int(len(labels[1]) <= _GAPS),
            "colorbar": bar,
        },
        {
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
    records = records_of(found.front)
    shades = [_on_axis(third, record[third]) for record in records]
    title, unit = FIGURES[third]
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
                "showscale": len(set(shades)) > 1,
                "colorbar": {
                    "title": {"text": f"{title} [{unit}]" if unit else title},
                    "thickness": 12,
                },
            },
        }
    )
    for side, column in (("xaxis", across), ("yaxis", up)):
        both = np.concatenate([found.front[column], found.sample[column]])
        figure["layout"][side] = _front_axis(column, float(both.min()), float(both.max()))
    figure["layout"]["legend"] = {
        "x": 0.99,
        "y": 0.99,
        "xanchor": "right",
        "bgcolor": "rgba(255,255,255,.8)",
    }
    return figure


def _front_axis(column: str, low: float, high: float) -> Figure:
    name, unit = FIGURES[column]
    title = f"{name} [{unit}]" if unit else name
    # Below a decade a logarithmic axis may have no power of ten that tells where one is.
    if low <= 0 or high < 10 * low:
        pad = max(0.06 * (high - low), 0.02 * high) or 1.0
        return axis(title, False, range=[low - pad, high + pad])
    ends = np.log10([low, high])
    pad = 0.05 * (ends[1] - ends[0])
    return axis(title, True, range=[ends[0] - pad, ends[1] + pad])


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
    lines = [f"{FIGURES[c][0]} {show_figure(c, row[c])}" for c in objectives]
    lines += [html.escape(f"{axis_name(a)} {place_on(row, a)}") for a in varied]
    return "<br>".join(lines)
