"""The plots beside the fronts: the waterfall of the pick, its energy, the hidden states' rank."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

from modelflex.report.style import AWARE, GRID, INK, MUTED, NAIVE, PLAIN, axis, layout
from modelflex.report.text import divergence_metric, metric_name, ratio, show_step, subject
from modelflex.search.study import Study
from modelflex.units import show_quantity

Figure = dict[str, Any]
_DECADES = 1e3
_PALETTE = ("#0b62a8", "#dd7a1a", "#2e8b57", "#8e4ba8", "#a3262a", "#4a5a6a", "#b8860b", "#1f9aa8")


def waterfall_figure(study: Study) -> Figure | None:
    """Fetched bytes, stored bytes and divergence after each step.

    The axes are logarithmic: the length of a bar is the factor that its step contributes.
    """
    if not study.steps:
        return None
    names = [f"{i}. {html.escape(step.label)}" for i, step in enumerate(study.steps)]
    figure: Figure = {
        "data": [],
        "layout": layout(110 + 46 * len(names), bargap=0.35, showlegend=False),
    }
    figure["layout"]["margin"] |= {"t": 26}
    columns = (
        ("weights fetched a step [B]", [s.fetch_bytes_per_step for s in study.steps]),
        ("weights stored [B]", [float(s.weight_bytes) for s in study.steps]),
    )
    domains = ([0.0, 0.4], [0.43, 0.74], [0.78, 1.0])
    for i, (title, values) in enumerate(columns):
        key = "" if i == 0 else str(i + 1)
        figure["data"] += _falls(values, key)
        low, high = _log_range(values)
        figure["layout"][f"xaxis{key}"] = axis(
            title, True, domain=domains[i], anchor=f"y{key}", range=[low, high]
        )
        figure["layout"][f"yaxis{key}"] = _steps_axis(names, key, shown=i == 0)
    figure["data"].append(_divergence(study))
    title = f"{metric_name(divergence_metric(study))} from uncompressed"
    seen = [s.divergence for s in study.steps if s.divergence > 0]
    ends = list(_log_range([max(v, max(seen) / _DECADES) for v in seen]))
    figure["layout"]["xaxis3"] = axis(
        title, True, domain=domains[2], anchor="y3", range=ends, dtick=1, tickformat=PLAIN
    )
    figure["layout"]["yaxis3"] = _steps_axis(names, "3", shown=False)
    return figure


def _log_range(values: list[float]) -> tuple[float, float]:
    positive = [v for v in values if v > 0] or [1.0]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    pad = max(0.14 * (high - low), 0.15)
    return low - pad, high + pad


def _steps_axis(names: list[str], key: str, shown: bool) -> Figure:
    out = axis("", False, anchor=f"x{key}", showticklabels=shown, ticks="")
    # Numbers, not categories: two steps may have the same label. The first stands on top.
    rows = list(range(len(names)))
    return out | {"tickvals": rows, "ticktext": names, "range": [len(names) - 0.5, -0.5]}


def _falls(values: list[float], key: str) -> list[Figure]:
    """Bars from the value before to the value after, where a mark carries the figure."""
    place = {"xaxis": f"x{key}", "yaxis": f"y{key}", "hoverinfo": "skip"}
    before, after = values[:-1], values[1:]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": list(range(1, len(values))),
        "base": [min(b, a) for b, a in zip(before, after, strict=True)],
        "x": [abs(b - a) for b, a in zip(before, after, strict=True)],
        "marker": {
            "color": [
                "#8db8dc" if a <= b else "#efb987" for b, a in zip(before, after, strict=True)
            ]
        },
    }
    factors = [None, *(ratio(b, a) for b, a in zip(before, after, strict=True))]
    texts = [
        f"{show_quantity(v, 'B')}   {show_step(f)}".rstrip()
        for v, f in zip(values, factors, strict=True)
    ]
    middle = 10 ** (sum(_log_range(values)) / 2)
    dots = {
        "type": "scatter",
        "mode": "markers+text",
        "y": list(range(len(values))),
        "x": values,
        "text": texts,
        # Texts lean to the inside of the panel.
        "textposition": ["middle left" if v > middle else "middle right" for v in values],
        "textfont": {"size": 11.5, "color": INK},
        "cliponaxis": False,
        "marker": {"symbol": "line-ns", "size": 20, "line": {"color": AWARE, "width": 3}},
    }
    return [bars | place, dots | place]


def _divergence(study: Study) -> Figure:
    shown = [(i, s.divergence) for i, s in enumerate(study.steps) if s.divergence > 0]
    # Rounding to 16 bits is orders below the rest: such points stand at the edge, as triangles.
    edge = max((v for _, v in shown), default=1.0) / _DECADES
    values = [max(v, edge) for _, v in shown]
    middle = 10 ** (sum(_log_range(values)) / 2)
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "xaxis": "x3",
        "yaxis": "y3",
        "y": [i for i, _ in shown],
        "x": values,
        "text": [f" {v:.2g} " for _, v in shown],
        "textposition": ["middle left" if v > middle else "middle right" for v in values],
        "textfont": {"size": 11.5, "color": INK},
        "hoverinfo": "skip",
        "line": {"color": GRID, "width": 1.2},
        "marker": {
            "size": 8,
            "color": NAIVE,
            "symbol": ["triangle-left" if v < edge else "circle" for _, v in shown],
        },
    }


def energy_figure(study: Study) -> Figure | None:
    """Where the energy of a step goes: by part, and by operation."""
    trial = subject(study)[1]
    if trial is None:
        return None
    ops = {n: c["energy_j"] for n, c in trial.cost.per_op.items() if c.get("energy_j")}
    parts = {n.replace("_", " "): v for n, v in trial.cost.energy_breakdown_j.items()}
    groups = [g for g in (("by part", parts), ("by operation", ops)) if g[1]]
    if not groups:
        return None
    rows = max(len(values) for _, values in groups)
    figure: Figure = {"data": [], "layout": layout(120 + 30 * rows, showlegend=False, bargap=0.3)}
    figure["layout"]["margin"] |= {"t": 16, "r": 60}
    for i, (title, values) in enumerate(groups):
        key = "" if i == 0 else str(i + 1)
        figure["data"].append(_energy_bars(values, key))
        width = 1.0 if len(groups) == 1 else 0.38
        start = i * (1 - width)
        high = max(values.values()) * 1.5 or 1.0
        figure["layout"][f"xaxis{key}"] = axis(
            f"energy a step {title} [J]",
            False,
            domain=[start, start + width],
            anchor=f"y{key}",
            range=[0, high],
            exponentformat="SI",
        )
        figure["layout"][f"yaxis{key}"] = axis("", False, anchor=f"x{key}", ticks="") | {
            "type": "category",
            "autorange": "reversed",
        }
    return figure


def _energy_bars(values: Mapping[str, float], key: str) -> Figure:
    total = sum(values.values())
    ordered = sorted(values.items(), key=lambda item: -item[1])
    shares = [
        f"{show_quantity(v, 'J')} ({100 * v / total:.0f} %)" if total else "" for _, v in ordered
    ]
    return {
        "type": "bar",
        "orientation": "h",
        "xaxis": f"x{key}",
        "yaxis": f"y{key}",
        "y": [html.escape(n) for n, _ in ordered],
        "x": [v for _, v in ordered],
        "text": shares,
        "textposition": "outside",
        "cliponaxis": False,
        "hoverinfo": "skip",
        "marker": {"color": "#8db8dc", "line": {"color": AWARE, "width": 1}},
    }


def rank_figure(study: Study) -> Figure | None:
    """Share of a hidden state's energy in its first principal directions, one line a layer."""
    found: Mapping[str, Mapping[str, Any]] = study.analysis.get("hidden_rank", {})
    found = {name: r for name, r in found.items() if r.get("spectrum")}
    if not found:
        return None
    figure: Figure = {"data": [], "layout": layout(340)}
    figure["layout"]["margin"] |= {"t": 20}
    for i, (name, rank) in enumerate(found.items()):
        figure["data"] += _rank_traces(name, rank, _PALETTE[i % len(_PALETTE)])
    for share in (0.9, 0.99):
        figure["layout"]["shapes"].append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": share,
                "y1": share,
                "line": {"color": MUTED, "width": 1, "dash": "dot"},
            }
        )
    figure["layout"]["xaxis"] = axis(
        "principal directions of the hidden state", False, rangemode="tozero"
    )
    figure["layout"]["yaxis"] = axis("share of energy", False, tickformat=".0%", range=[0, 1.03])
    figure["layout"]["legend"] = {"x": 0.98, "y": 0.06, "xanchor": "right", "yanchor": "bottom"}
    return figure


def _rank_traces(name: str, rank: Mapping[str, Any], colour: str) -> list[Figure]:
    """A layer's line, and marks where it reaches 90 and 99 %."""
    spectrum = [float(v) for v in rank["spectrum"]]
    marks = [int(rank[k]) for k in ("rank_90", "rank_99") if rank.get(k) is not None]
    marks = [m for m in marks if 1 <= m <= len(spectrum)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": html.escape(name),
            "x": list(range(1, len(spectrum) + 1)),
            "y": spectrum,
            "line": {"color": colour, "width": 2},
            "hovertemplate": "%{x} directions hold %{y:.1%}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "showlegend": False,
            "hoverinfo": "skip",
            "x": marks,
            "y": [spectrum[m - 1] for m in marks],
            "text": [f" {m}" for m in marks],
            "textposition": "bottom right",
            "textfont": {"color": colour},
            "marker": {"size": 8, "color": colour},
        },
    ]
