"""Plots and tables of docs/runtime.md from the result file."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "runtime.md"
PANEL, ROW, LEFT, HEAD, COLUMNS = 330, 17, 118, 44, 3
INK, MUTED, LINE = "#1b2733", "#5b6b7b", "#dbe2e9"
FILL = {"peer": "#9aa8b6", "ours": "#0f5ea3", "roofline": "#d97a26"}
FAMILIES = (
    ("torch fp32", "torch", "fp32"),
    ("torch int8", "torch", "int8"),
    ("OpenVINO fp32", "OpenVINO", "fp32"),
    ("OpenVINO int8", "OpenVINO", "int8"),
    ("ORT fp32", "ONNX Runtime", "fp32"),
    ("ORT int8", "ONNX Runtime", "int8"),
    ("LiteRT int8", "LiteRT", "int8"),
)
"""Label, beginning of the contender's name, precision: the fastest of each is shown."""
OURS = ("fp32", "int8", "int4", "2-bit", "circulant 8, int8", "delta int8, 20 % active")
SHORT = {"delta int8, 20 % active": "delta 20 %", "circulant 8, int8": "circulant 8"}
LOOPS = ("fp32", "int8")
Row = Mapping[str, Any]
Rows = Sequence[Row]


def chosen(rows: Rows, cell: str, size: tuple[int, int], mode: str) -> list[tuple[str, Row]]:
    """Label and row of what is shown of a case."""
    case = [
        row
        for row in rows
        if (row["cell"], row["inputs"], row["units"], row["mode"]) == (cell, *size, mode)
    ]
    found: list[tuple[str, Row]] = []
    for label, start, precision in FAMILIES:
        known = [r for r in case if r["name"].startswith(start) and r["precision"] == precision]
        if known:
            found.append((label, min(known, key=lambda row: row["median_us"])))
    by_name = {row["name"]: row for row in case}
    for name in OURS:
        if (row := by_name.get(f"ModelFlex {name}")) is not None:
            found.append((f"ours {SHORT.get(name, name)}", row))
    for name in LOOPS:
        if (row := by_name.get(f"read loop, {name} bytes")) is not None:
            found.append((f"read loop {name}", row))
    return found


def sizes(rows: Rows, cell: str) -> list[tuple[int, int]]:
    return list(dict.fromkeys((r["inputs"], r["units"]) for r in rows if r["cell"] == cell))


def table(rows: Rows, cell: str, mode: str, cold: bool = False) -> str:
    """Median µs a step, a line for each contender, as Markdown; empty where nothing was measured."""
    columns = {size: dict(chosen(rows, cell, size, mode)) for size in sizes(rows, cell)}
    labels = list(dict.fromkeys(label for column in columns.values() for label in column))
    head = " | ".join(f"{i},{h}" for i, h in columns)
    lines = [f"| µs a step | {head} |", "|---|" + "---|" * len(columns)]
    for label in labels:
        cells = []
        for column in columns.values():
            row = column.get(label)
            value = None if row is None else (row["cold"] if cold else row)["median_us"]
            cells.append("–" if value is None else _digits(value))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def goals(figures: Rows) -> str:
    """The figures beside their goals, as Markdown."""
    lines = ["| figure | goal | reached | met |", "|---|---|---|---|"]
    for row in figures:
        met = {True: "yes", False: "no", None: "–"}[row["met"]]
        lines.append(
            f"| {row['name']} | {row['goal']} | {row['value']:.3g} {row['unit']} | {met} |"
        )
    return "\n".join(lines)


def plot(rows: Rows, cell: str, mode: str) -> str:
    """A panel for each size: bars of warm medians on a logarithmic axis, a dot where caches are cold."""
    panels = [(size, chosen(rows, cell, size, mode)) for size in sizes(rows, cell)]
    height = HEAD + ROW * max(len(shown) for _, shown in panels) + 14
    lines = -(-len(panels) // COLUMNS)
    width, whole = COLUMNS * PANEL, lines * height + 30
    what = "streaming step" if mode == "step" else "100-step sequence"
    title = f"{cell.upper()}, {what}: median µs a step, one thread"
    note = " (dot: cold caches)" if mode == "step" else ""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {whole}" '
        f'width="{width}" height="{whole}" role="img">',
        f"<title>{escape(title)}</title>",
        "<style>text{font-family:'DejaVu Sans',Verdana,Arial,sans-serif;font-size:11px;"
        f"fill:{INK}}}</style>",
        f'<rect width="{width}" height="{whole}" fill="white"/>',
        _text(10, 20, title + note, "start", INK),
    ]
    for k, (size, shown) in enumerate(panels):
        parts += _panel(size, shown, PANEL * (k % COLUMNS), 30 + height * (k // COLUMNS))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str, fill: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


def _panel(size: tuple[int, int], shown: list[tuple[str, Row]], left: int, top: int) -> list[str]:
    values = [row["median_us"] for _, row in shown]
    values += [row["cold"]["median_us"] for _, row in shown if "cold" in row]
    low, high = (math.log10(value) for value in (min(values), max(values)))
    low, high = math.floor(low), math.ceil(high + 1e-9)
    start, end = left + LEFT, left + PANEL - 52

    def place(value: float) -> float:
        return start + (end - start) * (math.log10(value) - low) / (high - low)

    bottom = top + HEAD + ROW * len(shown)
    parts = [_text(start, top + 18, f"({size[0]}, {size[1]})", "start", INK)]
    for power in range(low, high + 1):
        x = place(10.0**power)
        parts.append(f'<path d="M{x:.1f} {top + HEAD - 4}V{bottom}" stroke="{LINE}"/>')
        parts.append(_text(x, top + HEAD - 8, f"{10.0**power:g}", "middle", MUTED))
    for k, (label, row) in enumerate(shown):
        y, x = top + HEAD + ROW * k, place(row["median_us"])
        parts.append(_text(start - 6, y + 11, label, "end", INK))
        parts.append(
            f'<rect x="{start}" y="{y + 2}" width="{x - start:.1f}" height="{ROW - 5}" '
            f'fill="{FILL[row["kind"]]}"/>'
        )
        cold = place(row["cold"]["median_us"]) if "cold" in row else x
        if "cold" in row:
            parts.append(f'<circle cx="{cold:.1f}" cy="{y + 8}" r="3" fill="{INK}"/>')
        parts.append(_text(max(x, cold) + 6, y + 11, _digits(row["median_us"]), "start", MUTED))
    return parts


def blocks(content: Mapping[str, Any]) -> dict[str, str]:
    """What stands between the markers of docs/runtime.md, by name."""
    rows = content["rows"]
    found = {"goals": goals(content["figures"])}
    for cell in ("lstm", "gru"):
        found[f"{cell} step"] = table(rows, cell, "step")
        found[f"{cell} cold"] = table(rows, cell, "step", cold=True)
        found[f"{cell} sequence"] = table(rows, cell, "sequence")
    return found


def filled(text: str, content: Mapping[str, Any]) -> str:
    """The page with its tables; markers are <!-- NAME --> … <!-- end -->."""
    for name, block in blocks(content).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = pattern.sub(lambda found, b=block: f"{found[1]}\n{b}\n\n{found[2]}", text)
    return text


def write(result: Path) -> None:
    """Write the plots and the tables of the page."""
    content = json.loads(result.read_text("utf-8"))
    for cell in ("lstm", "gru"):
        for mode in ("step", "sequence"):
            if sizes(content["rows"], cell):
                _replace(
                    DOCS / f"images/runtime_{cell}_{mode}.svg", plot(content["rows"], cell, mode)
                )
    _replace(PAGE, filled(PAGE.read_text("utf-8"), content))


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
