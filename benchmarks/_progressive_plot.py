"""Curves of divergence over operations, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 400
LEFT, TOP, RIGHT, BOTTOM = 64, 40, 180, 48
COLOURS = {
    "dense tiles": "#8a97a5", "bit planes": "#b58900", "published": "#d97a26", "refit": "#b3261e",
    "low rank": "#6c4fa3", "low rank, whitened": "#2a8f5b", "ours": "#0f5ea3", "ours, tuned": "#0aa5c2",
}  # fmt: skip
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LEAST, MOST = 1e-4, 10.0
INK, LINE = "#1b2733", "#c9d2dc"


def plot(rows: Sequence[dict[str, Any]], network: str) -> str:
    """The curves of a network's first checkpoint on test data; both axes logarithmic."""
    first = rows[0]["checkpoint"]
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(share: float) -> float:
        low, top = math.log(SHARES[0]), math.log(SHARES[-1])
        return LEFT + wide * (math.log(share) - low) / (top - low)

    def y(kl: float) -> float:
        low, top = math.log(LEAST), math.log(MOST)
        return TOP + high * (top - math.log(min(max(kl, LEAST), MOST))) / (top - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12" fill="{INK}">',
        f"<title>Divergence over operations, {escape(network)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(first)}, test data: KL over share of '
        "dense operations</text>",
    ]
    for share in SHARES:
        parts.append(f'<path d="M{x(share):.1f} {TOP}v{high}" stroke="{LINE}"/>')
        parts.append(
            f'<text x="{x(share):.1f}" y="{HEIGHT - 28}" text-anchor="middle">{100 * share:g} %</text>'
        )
    for power in range(-4, 2):
        down = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {down:.1f}h{wide}" stroke="{LINE}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    parts.append(
        f'<text x="{LEFT + wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">operations</text>'
    )
    mine = {r["scheme"]: r for r in rows if r["checkpoint"] == first}
    chosen = [mine[scheme] for scheme in COLOURS if scheme in mine]
    for place, row in enumerate(chosen):
        colour = COLOURS[row["scheme"]]
        points = [(s, kl) for s, kl in row["curve"] if SHARES[0] <= s <= SHARES[-1]]
        line = " ".join(f"{x(s):.1f},{y(kl):.1f}" for s, kl in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = TOP + 14 + 20 * place
        start = WIDTH - RIGHT + 14
        parts.append(f'<path d="M{start} {at - 4}h22" stroke="{colour}" stroke-width="3"/>')
        parts.append(f'<text x="{start + 28}" y="{at}">{escape(row["scheme"])}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
