"""The figures of progressive_fpga.py as SVG: charts with two logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from _fpga_curves import Timed

WIDTH, HEIGHT = 800, 470
LEFT, RIGHT, TOP, BOTTOM = 70, 220, 52, 52
INK, MUTED, LINE = "#1b2733", "#5b6b7b", "#dfe5eb"
COLOURS = ("#0f5ea3", "#d97a26", "#2e8b57", "#8e4ba8", "#a3262a", "#1f9aa8", "#6b7a1f", "#4a5a6a")


class Chart:
    """Two logarithmic axes; what is drawn is clipped to them by the caller's limits."""

    def __init__(
        self, title: str, note: str, x: tuple[str, float, float], y: tuple[str, float, float]
    ) -> None:
        self.x, self.y = x, y
        self.labels = 0
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            "<style>text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px}</style>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(LEFT, 20, title, size=14),
            _text(LEFT, 38, note, fill=MUTED),
        ]
        self._axes()

    def _axes(self) -> None:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in _ticks(*self.x[1:]):
            x = self.place_x(tick)
            self.parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{LINE}"/>')
            self.parts.append(_text(x, bottom + 16, _number(tick), "middle", MUTED))
        for tick in _ticks(*self.y[1:]):
            y = self.place_y(tick)
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="{LINE}"/>')
            self.parts.append(_text(LEFT - 6, y + 4, _number(tick), "end", MUTED))
        self.parts.append(_text((LEFT + right) / 2, HEIGHT - 12, self.x[0], "middle"))
        middle = (TOP + bottom) / 2
        self.parts.append(
            f'<text transform="translate(16 {middle:g}) rotate(-90)" text-anchor="middle" '
            f'fill="{INK}">{escape(self.y[0])}</text>'
        )

    def place_x(self, value: float) -> float:
        return LEFT + (WIDTH - RIGHT - LEFT) * _share(value, *self.x[1:])

    def place_y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * _share(value, *self.y[1:])

    def line(self, points: Sequence[tuple[float, float]], colour: str, dash: str = "") -> None:
        kept = [
            p for p in points
            if self.x[1] <= p[0] <= self.x[2] and self.y[1] <= p[1] <= self.y[2]
        ]  # fmt: skip
        if kept:
            path = "L".join(f"{self.place_x(x):.1f} {self.place_y(y):.1f}" for x, y in kept)
            style = f' stroke-dasharray="{dash}"' if dash else ""
            self.parts.append(
                f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"{style}/>'
            )

    def dot(self, x: float, y: float, colour: str, radius: float = 4) -> None:
        if self.x[1] <= x <= self.x[2] and self.y[1] <= y <= self.y[2]:
            at = f'cx="{self.place_x(x):.1f}" cy="{self.place_y(y):.1f}"'
            self.parts.append(f'<circle {at} r="{radius:g}" fill="{colour}"/>')

    def bar(self, x: float, y: float, colour: str) -> None:
        at, up = self.place_x(x), self.place_y(y)
        self.parts.append(
            f'<path d="M{at - 9:.1f} {up:.1f}h18" stroke="{colour}" stroke-width="2.5"/>'
        )

    def thin(self, x: float, low: float, high: float, colour: str) -> None:
        """A vertical line between two values."""
        ends = f"M{self.place_x(x):.1f} {self.place_y(low):.1f}V{self.place_y(high):.1f}"
        self.parts.append(f'<path d="{ends}" stroke="{colour}" stroke-width="1"/>')

    def label(self, text: str, colour: str) -> None:
        """One more line of the legend."""
        y = TOP + 12 + 17 * self.labels
        x = WIDTH - RIGHT + 14
        self.parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>')
        self.parts.append(_text(x + 9, y, text))
        self.labels += 1

    def svg(self) -> str:
        return "\n".join([*self.parts, "</svg>"]) + "\n"


def _share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


def _ticks(low: float, high: float) -> list[float]:
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    lowest = decades.start - 1
    ticks = [f * 10.0**p for p in range(lowest, decades.stop) for f in factors]
    return [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]


def _number(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"1e{round(math.log10(value))}"


def _text(
    x: float, y: float, text: str, anchor: str = "start", fill: str = INK, size: int = 11
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}" '
        f'style="font-size:{size}px">{escape(text)}</text>'
    )


def roofline(
    rows: Sequence[Mapping[str, Any]],
    ranges: Sequence[tuple[float, float]],
    bandwidth: float,
    name: str,
) -> str:
    """The published rows under the roof of memory.

    Args:
        ranges: for each row the slowest and the fastest arithmetic of all designs that fit.
    """
    low, high = min(r[0] for r in ranges) / 1.5e9, 1.5e-9 * max(r[1] for r in ranges)
    x = ("operational intensity [operations/byte]", 0.2, 1.0)
    chart = Chart(
        "ZC706: roofline of the designs found for the rows of table 1",
        f"{name}; black: memory; dot: attainable; bar: arithmetic of the design found; "
        "thin: of all designs that fit",
        x,
        ("GOP/s", low, high),
    )
    steps = np.geomspace(x[1], x[2], 50)
    chart.line([(s, s * bandwidth / 1e9) for s in steps], INK)
    for row, (least, most), colour in zip(rows, ranges, COLOURS, strict=False):
        design = row["design"]
        chart.thin(design["intensity"], least / 1e9, most / 1e9, colour)
        chart.dot(design["intensity"], design["ops_per_s"] / 1e9, colour, 5)
        chart.bar(design["intensity"], design["compute_ops_per_s"] / 1e9, colour)
        terms = "" if row["steps"] is None else f", {row['steps']} terms"
        chart.label(row["name"] + terms, colour)
    return chart.svg()


def quality(points: Sequence[Timed], title: str, note: str, floor: float = 1e-7) -> str:
    """KL divergence against time, a line for each NZ and the dense product cut short (dashed)."""
    seconds = np.concatenate([p.seconds for p in points])
    highest = max(float(p.curve.kl.max()) for p in points)
    chart = Chart(
        title,
        note,
        ("time of a step [µs]", 0.9e6 * float(seconds.min()), 1.1e6 * float(seconds.max())),
        ("KL divergence from the whole network", floor, max(1.2 * highest, 10 * floor)),
    )
    for point, colour in zip(points, COLOURS * (1 + len(points) // len(COLOURS)), strict=False):
        pairs = list(zip((1e6 * point.seconds).tolist(), point.curve.kl.tolist(), strict=True))
        chart.line(pairs, colour, "" if point.curve.nz else "5 3")
        for x, y in pairs:
            chart.dot(x, y, colour, 2.2)
        chart.label("dense, rows" if point.curve.nz is None else f"NZ {point.curve.nz}", colour)
    return chart.svg()


def speedup(targets: Sequence[Mapping[str, Any]], title: str, note: str) -> str:
    """The speed-up over the dense engine against the KL divergence that is allowed."""
    kl = [row["kl"] for row in targets]
    rates = [row["speedup"] for row in targets]
    chart = Chart(
        title,
        note,
        ("KL divergence that is allowed", min(kl) / 1.2, max(kl) * 1.2),
        ("times faster than the dense engine", min(0.8, 0.8 * min(rates)), 1.4 * max(rates)),
    )
    chart.line(list(zip(kl, rates, strict=True)), COLOURS[0])
    for row in targets:
        chart.dot(row["kl"], row["speedup"], COLOURS[0])
    return chart.svg()
