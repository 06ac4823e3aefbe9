"""The common look of the plots; colours stay apart for colour-blind readers and in grey."""

from __future__ import annotations

import math
from typing import Any

INK = "#16202c"
MUTED = "#5b6878"
GRID = "#c3ccd6"
AWARE = "#0b62a8"
NAIVE = "#dd7a1a"
LIMIT = "#a3262a"
FORBIDDEN = "rgba(163,38,42,.06)"
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"


PLAIN = "~g"
"""Tick format of quantities that carry no SI prefix, such as divergences."""


def layout(height: int, **more: Any) -> dict[str, Any]:
    """The layout that all plots share."""
    return {
        "height": height,
        "margin": {"l": 72, "r": 16, "t": 88, "b": 56},
        "font": {"family": FONT, "size": 12.5, "color": INK},
        "paper_bgcolor": "#fff",
        "plot_bgcolor": "#fff",
        "hoverlabel": {
            "bgcolor": "#fff",
            "bordercolor": GRID,
            "align": "left",
            "font": {"family": FONT, "size": 12, "color": INK},
        },
        "shapes": [],
        "annotations": [],
        **more,
    }


def axis(title: str, log: bool, **more: Any) -> dict[str, Any]:
    """One axis; ticks carry SI prefixes, unless `tickformat` says how they are written."""
    out = {
        "title": {"text": title, "standoff": 8, "font": {"size": 12.5, "color": MUTED}},
        "type": "log" if log else "linear",
        "gridcolor": "#e8ecf1",
        "zeroline": False,
        "linecolor": GRID,
        "showline": True,
        "mirror": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": GRID,
        "automargin": True,
        "exponentformat": "SI",
        **more,
    }
    if log:
        # Without a format the 2 and 5 of "D2" stand as lone digits, and powers in larger type.
        out.setdefault("tickformat", "~s")
    if log and "dtick" not in more:
        low, high = sorted(more.get("range", (0, 1)))
        decades = high - low
        # "D2" labels 1, 2 and 5; over more decades there is room for powers only.
        out["dtick"] = "D2" if decades <= 3 else math.ceil(decades / 6)
    return out
