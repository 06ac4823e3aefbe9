"""The Pareto plots: quality against fetched bytes, latency and energy, with the limits drawn in."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from modelflex.core.trial import Trial
from modelflex.report.scales import Edge, Scale, cost_scales, quality_scales
from modelflex.report.style import (
    AWARE,
    FORBIDDEN,
    GRID,
    INK,
    LIMIT,
    NAIVE,
    PLAIN,
    axis,
    layout,
)
from modelflex.report.text import (
    divergence_metric,
    is_naive,
    label,
    metric_name,
    naive_twin,
    ratio,
    show_cost,
    show_factor,
    show_limit,
    show_metric,
    subject,
    task_metric,
)
from modelflex.search.pareto import pareto_front
from modelflex.search.study import Study
from modelflex.units import show_quantity

Figure = dict[str, Any]
_Scales = tuple[Scale, Scale]


def drawn_limits(study: Study) -> frozenset[str]:
    """The limited fields that `pareto_figure` draws."""
    trials = [t for t in study.trials if t.evaluation is not None]
    scales = [*cost_scales(study, trials), *quality_scales(study, trials)] if trials else []
    return frozenset(edge.field for scale in scales for edge in scale.limits)


def pareto_figure(study: Study) -> Figure | None:
    """Panels of quality (rows) against cost (columns); None when nothing was evaluated."""
    trials = [t for t in study.trials if t.evaluation is not None]
    columns = cost_scales(study, trials)
    if not trials or not columns:
        return None
    rows = quality_scales(study, trials)
    # Texts stand once, by the trial's number; the page hands them to the points of every panel.
    hover = {str(t.number): _hover(study, t) for t in trials}
    figure: Figure = {"data": [], "layout": layout(430 * len(rows) + 70, meta={"hover": hover})}
    gap_x, gap_y, top = 0.075, 0.14, 1.0
    width = (1 - gap_x * (len(columns) - 1)) / len(columns)
    height = (top - gap_y * (len(rows) - 1)) / len(rows)
    for r, y in enumerate(rows):
        for c, x in enumerate(columns):
            index = r * len(columns) + c + 1
            left, bottom = c * (width + gap_x), top - height - r * (height + gap_y)
            _panel(figure, study, trials, (x, y), index, first=index == 1)
            key = str(index) if index > 1 else ""
            figure["layout"][f"xaxis{key}"] = axis(
                x.title, x.log, domain=[left, left + width], anchor=f"y{key}", **x.layout
            )
            title = y.title if c == 0 else ""
            figure["layout"][f"yaxis{key}"] = axis(
                title,
                y.log,
                domain=[bottom, bottom + height],
                anchor=f"x{key}",
                **({"tickformat": PLAIN} if y.log else {}),
                **y.layout,
            )
    figure["layout"]["legend"] = {
        "orientation": "h",
        "x": 0,
        "y": 1.0 + 36 / (430 * len(rows)),
        "yanchor": "bottom",
        "font": {"size": 12.5},
        "itemwidth": 30,
    }
    return figure


def _panel(
    figure: Figure,
    study: Study,
    trials: Sequence[Trial],
    scales: _Scales,
    index: int,
    first: bool,
) -> None:
    x, y = scales
    key = str(index) if index > 1 else ""
    place = {"xaxis": f"x{key}", "yaxis": f"y{key}", "showlegend": first}
    shown = [t for t in trials if x.place(t) is not None and y.place(t) is not None]
    naive = [t for t in shown if is_naive(t)]
    aware = [t for t in shown if not is_naive(t)]
    data = figure["data"]
    data.append(_twin_lines(study, aware, scales) | place)
    for name, group, colour in (("naive", naive, NAIVE), ("data-aware", aware, AWARE)):
        data.append(_points(name, group, colour, scales) | place)
        data.append(_front(name, group, colour, scales) | place)
    title, pick = subject(study)
    for name, trial, colour in (
        ("naive twin", naive_twin(study), NAIVE),
        (title.lower(), pick, AWARE),
    ):
        group = [t for t in shown if trial is not None and t.number == trial.number]
        data.append(_star(name, group, colour, scales) | place)
    for scale, side in ((x, "x"), (y, "y")):
        for edge in scale.limits:
            _draw_limit(figure["layout"], scale, side, key, edge)


def _points(
    name: str,
    group: Sequence[Trial],
    colour: str,
    scales: _Scales,
) -> Figure:
    # Open markers miss a limit, full ones are within all limits.
    fill = [colour if t.status == "feasible" else "rgba(255,255,255,.55)" for t in group]
    return _trace(name, group, scales) | {
        "mode": "markers",
        "legendgroup": name,
        "customdata": [t.number for t in group],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "size": 6.5,
            "color": fill,
            "opacity": 0.9,
            "line": {"color": colour, "width": 1.2},
        },
    }


def _front(name: str, group: Sequence[Trial], colour: str, scales: _Scales) -> Figure:
    x, y = scales
    xs = np.array([x.place(t) for t in group], np.float64)
    ys = np.array([y.place(t) for t in group], np.float64) * y.sign
    best = [group[i] for i in pareto_front(xs, ys)]
    return _trace(f"front, {name}", best, scales) | {
        "mode": "lines",
        "legendgroup": f"front {name}",
        "hoverinfo": "skip",
        "line": {"color": colour, "width": 2, "shape": "hv"},
    }


def _star(
    name: str,
    group: Sequence[Trial],
    colour: str,
    scales: _Scales,
) -> Figure:
    return _trace(name, group, scales) | {
        "mode": "markers",
        "legendgroup": name,
        "customdata": [t.number for t in group],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "star",
            "size": 17,
            "color": colour,
            "line": {"color": INK, "width": 1.3},
        },
    }


def _trace(name: str, group: Sequence[Trial], scales: _Scales) -> Figure:
    x, y = scales
    return {
        "type": "scatter",
        "name": name,
        "x": [x.place(t) for t in group],
        "y": [y.place(t) for t in group],
    }


def _twin_lines(study: Study, aware: Sequence[Trial], scales: _Scales) -> Figure:
    x, y = scales
    xs: list[float | None] = []
    ys: list[float | None] = []
    for trial in aware:
        twin = None if trial.twin is None else study.trials[trial.twin]
        if twin is None or twin.evaluation is None or None in (x.place(twin), y.place(twin)):
            continue
        xs += [x.place(twin), x.place(trial), None]
        ys += [y.place(twin), y.place(trial), None]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "recipe to its naive twin",
        "legendgroup": "twins",
        "x": xs,
        "y": ys,
        "hoverinfo": "skip",
        "line": {"color": GRID, "width": 0.8},
    }


def _draw_limit(out: Figure, scale: Scale, side: str, key: str, edge: Edge) -> None:
    """Draw a dashed line, shade the forbidden side, and say where a limit lies outside."""
    value, other = edge.value, "y" if side == "x" else "x"
    refs = {f"{side}ref": f"{side}{key}", f"{other}ref": f"{other}{key} domain"}
    across = {f"{other}0": 0, f"{other}1": 1}
    text = html.escape(edge.text)
    if scale.low <= value <= scale.high:
        # The shading reaches beyond the axis, so that it stays when the reader zooms out.
        width = scale.high / scale.low if scale.log else scale.high - scale.low
        above = scale.high * width if scale.log else scale.high + width
        below = scale.low / width if scale.log else scale.low - width
        area = {"type": "rect", "fillcolor": FORBIDDEN, "line": {"width": 0}, "layer": "below"}
        line = {"type": "line", "line": {"color": LIMIT, "width": 1.3, "dash": "dash"}}
        far = above if edge.kind == "max" else below
        out["shapes"].append(area | refs | across | {f"{side}0": value, f"{side}1": far})
        out["shapes"].append(line | refs | across | {f"{side}0": value, f"{side}1": value})
    else:
        ends = ("left", "right") if side == "x" else ("lower", "upper")
        text += f", beyond the {ends[(value > scale.high) != scale.reverse]} edge"
    spot = min(max(value, scale.low), scale.high)
    at = math.log10(spot) if scale.log else spot
    if side == "x":
        place = {
            "x": at,
            "y": 1,
            "xanchor": "left" if value < scale.low else "right",
            "yanchor": "bottom",
        }
    else:
        up = (edge.kind == "max") != scale.reverse
        place = {"x": 0.985, "y": at, "xanchor": "right", "yanchor": "bottom" if up else "top"}
    # Several limits may stand at the same edge of a panel.
    stacked = sum(
        (n["xref"], n["yref"]) == (refs["xref"], refs["yref"]) for n in out["annotations"]
    )
    look = {
        "showarrow": False,
        "yshift": 14 * stacked,
        "font": {"size": 11, "color": LIMIT},
        "bgcolor": "rgba(255,255,255,.75)",
    }
    out["annotations"].append({"text": text, **look, **place, **refs})


def _hover(study: Study, trial: Trial) -> str:
    cost, base = trial.cost, study.baseline.cost
    lines = [
        f"<b>{html.escape(label(trial))}</b>",
        f"recipe {trial.number}, {html.escape(trial.status)}",
        f"{metric_name(divergence_metric(study))} {show_metric('', trial.divergence)}",
    ]
    metric = task_metric(study)
    if metric is not None:
        lines.append(f"validation {metric_name(metric)} {show_metric(metric, trial.metric)}")
    fetched = ratio(base.weight_fetch_bytes_per_step, cost.weight_fetch_bytes_per_step)
    lines += [
        f"fetched {show_quantity(cost.weight_fetch_bytes_per_step, 'B')} a step "
        f"({show_factor(fetched)} less)",
        f"stored {show_quantity(cost.weight_bytes, 'B')} "
        f"({show_factor(ratio(base.weight_bytes, cost.weight_bytes))} smaller)",
        f"latency {show_cost('latency_per_step_s', cost.latency_per_step_s)} a step",
        f"energy {show_cost('energy_per_step_j', cost.energy_per_step_j)} a step",
    ]
    missed = [html.escape(show_limit(study, v)) for v in trial.violations]
    return "<br>".join([*lines, *(f"misses {text}" for text in missed)])
