"""What the figures are drawn with: SVG text, logarithmic axes, and images as PNG."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from roads import Bytes

INK, MUTED, LINE = "#1b2733", "#5b6b7b", "#dbe2e9"
COLOURS = {
    "dense, cut short": "#9aa8b6",
    "published": "#d97a26",
    "data-aware, actions": "#0f5ea3",
    "data-aware, all outputs": "#3f9b57",
    "exact": "#1b2733",
}
"""Scheme → colour, the same in every figure."""


@dataclass(frozen=True)
class Axis:
    """Numbers between two ends on a length, on a logarithmic scale if so said."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = True

    def at(self, value: float) -> float:
        """Where a value lies; those outside lie at the ends."""
        low, high, x = self.low, self.high, min(max(value, self.low), self.high)
        if self.logarithmic:
            low, high, x = math.log10(low), math.log10(high), math.log10(x)
        return self.start + (self.end - self.start) * (x - low) / (high - low)

    @property
    def ticks(self) -> list[float]:
        """Powers of ten, or quarters."""
        if not self.logarithmic:
            return [self.low + (self.high - self.low) * i / 4 for i in range(5)]
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        return [10.0**power for power in range(first, last + 1)]


def text(x: float, y: float, content: str, anchor: str = "start", fill: str = INK) -> str:
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(content)}</text>'


def page(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """A whole SVG file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">',
            f"<title>{escape(title)}</title>",
            "<style>text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px}</style>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def frame(x: Axis, y: Axis, below: str, beside: str, show: str = "{:g}") -> list[str]:
    """Grid, ticks and names of two axes; `show` formats the ticks of x."""
    parts = []
    for value in x.ticks:
        at = x.at(value)
        parts.append(f'<path d="M{at:.1f} {y.end:.1f}V{y.start:.1f}" stroke="{LINE}"/>')
        parts.append(text(at, y.start + 15, show.format(value), "middle", MUTED))
    for value in y.ticks:
        at = y.at(value)
        parts.append(f'<path d="M{x.start:.1f} {at:.1f}H{x.end:.1f}" stroke="{LINE}"/>')
        parts.append(text(x.start - 6, at + 4, f"{value:g}", "end", MUTED))
    parts.append(text((x.start + x.end) / 2, y.start + 31, below, "middle"))
    parts.append(text(x.start - 34, y.end - 10, beside))
    return parts


def line(x: Axis, y: Axis, points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    """Points joined, each with a dot."""
    placed = [(x.at(a), y.at(b)) for a, b in points]
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in placed)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{1 + width:.1f}"/>' for a, b in placed)
    return (
        f'<g fill="{colour}"><path d="{path}" stroke="{colour}" stroke-width="{width}" '
        f'fill="none"/>{dots}</g>'
    )


def legend(x: float, y: float, names: Sequence[str], step: int = 17) -> list[str]:
    """A coloured square and the name of every scheme, one under the other."""
    parts = []
    for number, name in enumerate(names):
        at = y + step * number
        parts.append(f'<rect x="{x}" y="{at - 9}" width="10" height="10" fill="{COLOURS[name]}"/>')
        parts.append(text(x + 16, at, name))
    return parts


def bars(
    x: float, y: float, values: Mapping[str, Sequence[float]], labels: Sequence[str], height: float
) -> list[str]:
    """Bars of probabilities, one group a label and one bar a scheme; the first scheme is an outline."""
    parts, wide = [], 34.0
    names = list(values)
    each = (wide - 6) / max(1, len(names) - 1)
    for k, label in enumerate(labels):
        left = x + wide * k
        parts.append(text(left + wide / 2 - 3, y + 12, label, "middle", MUTED))
        for i, name in enumerate(names[1:]):
            tall = height * values[name][k]
            parts.append(
                f'<rect x="{left + each * i:.1f}" y="{y - tall:.1f}" width="{each - 1:.1f}" '
                f'height="{tall:.1f}" fill="{COLOURS[name]}"/>'
            )
        tall = height * values[names[0]][k]
        parts.append(
            f'<rect x="{left - 1:.1f}" y="{y - tall:.1f}" width="{wide - 5:.1f}" height="{tall:.1f}" '
            f'fill="none" stroke="{COLOURS[names[0]]}" stroke-dasharray="2 2"/>'
        )
    parts.append(f'<path d="M{x - 2:.1f} {y:.1f}h{wide * len(labels):.1f}" stroke="{MUTED}"/>')
    return parts


def png(pixels: Bytes) -> bytes:
    """An RGB image [height, width, 3] as a PNG file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    height, width = pixels.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def picture(x: float, y: float, width: float, height: float, pixels: Bytes) -> str:
    """An image inside an SVG file."""
    content = base64.b64encode(png(pixels)).decode("ascii")
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'href="data:image/png;base64,{content}"/>'
    )
