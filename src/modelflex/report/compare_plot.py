"""The plot of a comparison: quality against what is stored, fetched and computed."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from modelflex.report.style import AWARE, LIMIT, NAIVE, PLAIN, axis, layout
from modelflex.report.text import metric_name, show_metric
from modelflex.search.comparison import COSTS, EFFICIENT, Compared, Comparison

_TITLES = {
    "weight_bytes": "Weights stored [B]",
    "weight_fetch_bytes_per_step": "Weights fetched a step [B]",
    "macs_per_step": "Multiply-accumulates a step",
}
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "triangle-down", "star",
            "hexagon", "pentagon")  # fmt: skip
_SIDES = (("naive", NAIVE), ("data-aware", AWARE))
FLOOR = 1e-6
"""Divergences below are drawn here: the axis is logarithmic."""
GAP = {"x": 0.07, "y": 0.1}
"""Between panels, as a share of the plot."""
PANEL, MARGINS = 360, 160
"""Heights in pixels."""

Figure = dict[str, Any]


def costs_figure(found: Comparison) -> Figure:
    """Divergence, and the metric where there is one, against each cost; a colour for whether data are
    used, a symbol for a kind of method.
    """
    measures = ["divergence", *(["metric"] if found.metric else [])]
    figure: Figure = {"data": [], "layout": layout(MARGINS + PANEL * len(measures))}
    for panel, (measure, cost) in enumerate(itertools.product(measures, COSTS)):
        m, c = divmod(panel, len(COSTS))
        key = str(panel + 1) if panel else ""
        place = {"xaxis": f"x{key}", "yaxis": f"y{key}"}
        for trace in _traces(found, measure, cost):
            first = panel == 0 or (c == 0 and trace["mode"] == "lines" and measure == "metric")
            own = {"legendgroup": trace["name"], "showlegend": first}
            figure["data"].append({**trace, **own, **place})
        figure["layout"][f"xaxis{key}"] = axis(
            _TITLES[cost],
            True,
            domain=_domain(c, len(COSTS), GAP["x"]),
            anchor=f"y{key}",
            dtick=_ticks([getattr(row, cost) for row in found.rows]),
            **({"matches": f"x{c + 1 if c else ''}"} if m else {}),
        )
        figure["layout"][f"yaxis{key}"] = _quality_axis(
            found,
            measure,
            named=c == 0,
            domain=_domain(len(measures) - 1 - m, len(measures), GAP["y"]),
            anchor=f"x{key}",
        )
    figure["layout"]["legend"] = {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"}
    return figure


def _ticks(values: Sequence[float]) -> int | str:
    """Powers of ten; 2 and 5 as well where there would be one or two."""
    return 1 if max(values) > 100 * min(values) else "D2"


def _domain(number: int, count: int, gap: float) -> list[float]:
    """Where one of several panels beside each other stands."""
    size = (1 - gap * (count - 1)) / count
    start = number * (size + gap)
    return [start, min(start + size, 1.0)]


def _quality_axis(found: Comparison, measure: str, named: bool, **place: Any) -> Figure:
    if measure == "divergence":
        name, form = metric_name(found.divergence), {"tickformat": PLAIN, "dtick": 1}
        return axis(_title(name, named), True, **form, **place)
    title, share = _title(metric_name(found.metric), named), found.metric == "accuracy"
    form = {"tickformat": ".0%" if share else PLAIN}
    if found.direction != "min":
        return axis(title, False, **form, **place)
    ticks = _ticks([row.metric for row in found.rows if row.metric is not None])
    return axis(title, True, dtick=ticks, **form, **place)


def _title(name: str, named: bool) -> str:
    return name[0].upper() + name[1:] if named else ""


def _traces(found: Comparison, measure: str, cost: str) -> list[Figure]:
    kinds = list(dict.fromkeys(_kind(row) for row in found.rows))
    traces = []
    for (side, colour), (kind, symbol) in itertools.product(
        _SIDES, zip(kinds, itertools.cycle(_SYMBOLS), strict=False)
    ):
        own = [r for r in found.rows if r.data_aware == (side == "data-aware") and _kind(r) == kind]
        if own:
            marker = {"color": colour, "symbol": symbol, "size": 6, "opacity": 0.75}
            traces.append({
                **_at(own, measure, cost), "mode": "markers", "name": f"{kind}, {side}",
                "text": [_hover(found, row) for row in own], "hoverinfo": "text", "marker": marker,
            })  # fmt: skip
    if measure == "metric":
        return [*traces, _allowed(found, cost)]
    rows = {row.number: row for row in found.rows}
    for side, colour in _SIDES:
        front = [rows[number] for number in found.fronts[cost][side]]
        traces.append({
            **_at(front, measure, cost), "mode": "lines", "name": f"front, {side}",
            "line": {"color": colour, "width": 1.5, "shape": "hv"}, "hoverinfo": "skip",
        })  # fmt: skip
    return traces


def _at(rows: Sequence[Compared], measure: str, cost: str) -> Figure:
    values = [getattr(row, measure) for row in rows]
    y = [max(v, FLOOR) for v in values] if measure == "divergence" else values
    return {"type": "scatter", "x": [getattr(row, cost) for row in rows], "y": y}


def _allowed(found: Comparison, cost: str) -> Figure:
    """What is not degraded lies on the good side of this line."""
    base = found.baseline["metric"].value
    edge = base / EFFICIENT if found.direction == "min" else base * EFFICIENT
    seen = [getattr(row, cost) for row in found.rows]
    return {
        "type": "scatter", "mode": "lines", "name": f"{100 * EFFICIENT:g} % of the performance",
        "x": [min(seen), max(seen)], "y": [edge, edge], "hoverinfo": "skip",
        "line": {"color": LIMIT, "width": 1, "dash": "dash"},
    }  # fmt: skip


def _kind(row: Compared) -> str:
    return row.family.partition(":")[0]


def _hover(found: Comparison, row: Compared) -> str:
    told: Mapping[str, str] = {metric_name(found.divergence): f"{row.divergence:.3g}"}
    if row.metric is not None:
        told = {**told, metric_name(found.metric): show_metric(found.metric, row.metric)}
    figures = ", ".join(f"{name} {value}" for name, value in told.items())
    lines = (f"#{row.number} {row.family}", row.label, figures, row.verdict)
    return "<br>".join(html.escape(line) for line in lines)
