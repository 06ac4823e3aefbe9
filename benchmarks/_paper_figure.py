"""The figure of paper_sensitivity.py, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 1000, 876
INK, MUTED, LINE, RED = "#1b2733", "#5b6b7b", "#c9d2dc", "#b3261e"
BLUE, ORANGE, WHITE = (15, 94, 163), (217, 122, 38), (255, 255, 255)
STYLE = f"text{{font-family:'DejaVu Sans',Verdana,Helvetica,Arial,sans-serif;font-size:12px;fill:{INK}}}"
PAIR = (18, 1)
AXIS_NAMES = {"units that spend": "units spending"}


def draw(found: Mapping[str, Any]) -> str:
    """The study of `paper_sensitivity.study` as one static picture: SVG text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img">',
        "<title>Sensitivity of the ModelFlex paper's 18 feasible solutions of 36</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_solutions(found, 20, 30),
        *_origins(found, 540, 30),
        *_distribution(found, 20, 340),
        *_tornados(found, 20, 516),
    ]
    return "\n".join(parts) + "\n</svg>\n"


def _text(
    x: float, y: float, text: str, size: int = 12, anchor: str = "start", fill: str = INK
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" style="font-size:{size}px;fill:{fill}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _box(
    x: float, y: float, width: float, height: float, fill: str, edge: str = "none", line: float = 1
) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" fill="{fill}" '
        f'stroke="{edge}" stroke-width="{line:g}"/>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, edge: str = LINE, width: float = 1) -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" '
        f'stroke="{edge}" stroke-width="{width:g}"/>'
    )


def _circle(x: float, y: float, radius: float, fill: str) -> str:
    return (
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" '
        f'stroke="{_mix(BLUE, 1)}" stroke-width="1.6"/>'
    )


def _heading(x: float, y: float, title: str, *notes: str) -> list[str]:
    lines = [_text(x, y + 17 + 14 * i, note, 11, fill=MUTED) for i, note in enumerate(notes)]
    return [_text(x, y, title, 15), *lines]


def _mix(colour: Sequence[int], amount: float) -> str:
    """From white (0) to the colour (1)."""
    mixed = (round(w + (c - w) * amount) for w, c in zip(WHITE, colour, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _shaded(
    x: float, y: float, width: float, height: float, share: float, most: float
) -> list[str]:
    """A cell whose shade grows with a share, and the share in percent."""
    amount = 0.85 * (share / most) ** 0.5
    cell = [_box(x, y, width, height, _mix(BLUE, amount), LINE, 0.5)]
    if share < 0.0005:
        return cell
    ink = "white" if amount > 0.55 else INK
    return [*cell, _text(x + width / 2, y + height / 2 + 4, _percent(share), 11, "middle", ink)]


def _percent(share: float) -> str:
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def _solutions(found: Mapping[str, Any], x: float, y: float) -> list[str]:
    """Bits by block and density: the share of combinations in which each solution is feasible."""
    rows = found["solutions"]
    keys = ("bits", "block", "density")
    bits, blocks, densities = (list(dict.fromkeys(row[key] for row in rows)) for key in keys)
    wide, high, gap, left, top = 46, 38, 10, 46, 100
    parts = _heading(
        x, y, "Feasible in how many % of the combinations",
        "blue: ≥ 90 %, orange: ≤ 10 %, grey: hangs on constants",
        "outlined: the 18 of the fit; dotted: the 18 of its rival",
    )  # fmt: skip
    columns = [(block, density) for block in blocks for density in densities]
    places = [x + left + i * wide + i // len(densities) * gap for i in range(len(columns))]
    for place, (block, density) in zip(places, columns, strict=True):
        parts.append(_text(place + wide / 2, y + top - 8, f"δ {density:g}", 11, "middle", MUTED))
        if density == densities[1]:
            parts.append(_text(place + wide / 2, y + top - 26, f"block {block}", 12, "middle"))
    for i, width in enumerate(bits):
        parts.append(_text(x + left - 8, y + top + i * high + 24, f"{width} bit", 12, "end"))
    outlines = []
    for row in rows:
        place = places[columns.index((row["block"], row["density"]))]
        down = y + top + bits.index(row["bits"]) * high
        share = row["feasible_share"]
        robust = share >= 0.9 or share <= 0.1
        fill = _mix(BLUE if share >= 0.9 else ORANGE, 0.85) if robust else "#e9edf1"
        ink = "white" if robust else INK
        parts.append(_box(place, down, wide, high, fill, "white"))
        parts.append(_text(place + wide / 2, down + 23, _percent(share), 12, "middle", ink))
        if row["feasible_under_fit"]:
            outlines.append(_box(place + 2, down + 2, wide - 4, high - 4, "none", INK, 1.6))
        if row["feasible_under_rival"]:
            outlines.append(_circle(place + wide - 9, down + 9, 2.5, "white"))
    return parts + outlines


def _origins(found: Mapping[str, Any], x: float, y: float) -> list[str]:
    """Dataflow and residency by DRAM energy: the share that gives the published pair."""
    rows = found["published_where"]
    most = max(max(row["dram_energy"].values()) for row in rows)
    wide, high, left, top = 31, 20, 120, 62
    parts = _heading(
        x, y, "Where 18 and 1 come from",
        "% of the combinations with this dataflow, residency of the weights",
        "and DRAM energy that give exactly 18 and 1 (* not cited)",
    )  # fmt: skip
    uncited = {level["label"] for level in found["axes"]["DRAM energy"] if not level["cited"]}
    for i, label in enumerate(rows[0]["dram_energy"]):
        text = label.split()[0] + "*" * (label in uncited)
        middle = x + left + (i + 0.5) * wide
        parts.append(_text(middle, y + top - 5, text, 11, "middle", MUTED))
    parts.append(_text(x + left - 8, y + top - 5, "pJ/bit", 11, "end", MUTED))
    down = y + top
    for i, row in enumerate(rows):
        down += 6 if i and row["dataflow"] != rows[i - 1]["dataflow"] else 0
        label = f"{row['dataflow']}, {row['residency']}"
        parts.append(_text(x + left - 8, down + 14, label, 12, "end"))
        for j, share in enumerate(row["dram_energy"].values()):
            parts += _shaded(x + left + j * wide, down, wide, high, share, most)
        down += high
    return parts


def _distribution(found: Mapping[str, Any], x: float, y: float) -> list[str]:
    """Feasible by quantisation alone: the share of the combinations that give each pair."""
    size = found["combinations"]["cited"]
    shares = {
        (row["feasible"], row["quantisation_alone"]): row["combinations"] / size
        for row in found["distribution"]
    }
    last = max(n for n, _ in shares)
    high, left, top = 28, 46, 36
    wide = (WIDTH - 2 * x - left) / (last + 1)
    parts = _heading(
        x, y, "What the 36 verdicts add up to",
        f"% of the {size:,} combinations of cited constants; across: feasible solutions; up: those by "
        f"quantisation alone; ringed: as published ({100 * found['published']['cited'] / size:.1f} %)",
    )  # fmt: skip
    levels = sorted({alone for _, alone in shares}, reverse=True)
    for i, alone in enumerate(levels):
        down = y + top + i * high
        parts.append(_text(x + left - 8, down + 18, str(alone), 12, "end"))
        for n in range(last + 1):
            share = shares.get((n, alone), 0.0)
            parts += _shaded(x + left + n * wide, down, wide, high, share, max(shares.values()))
    bottom = y + top + len(levels) * high + 14
    for n in range(last + 1):
        parts.append(_text(x + left + (n + 0.5) * wide, bottom, str(n), 11, "middle", MUTED))
    ring = x + left + PAIR[0] * wide, y + top + levels.index(PAIR[1]) * high
    return [*parts, _box(*ring, wide, high, "none", RED, 3)]


def _tornados(found: Mapping[str, Any], x: float, y: float) -> list[str]:
    """One axis at a time: the feasible count at each level, from the fit and from its rival."""
    parts = _heading(
        x, y, "One choice at a time: feasible solutions at each of its levels",
        "full: 18 and 1; open: another pair, the extreme ones named (level: feasible, by quantisation "
        "alone)",
    )  # fmt: skip
    axes = [row["axis"] for row in found["tornado"]["fit"]]
    high, top = 25, 76
    for i, axis in enumerate(axes):
        name = AXIS_NAMES.get(axis, axis)
        parts.append(_text(x + 108, y + top + i * high + 4, name, 12, "end"))
    for start, name, title in (
        (128, "fit", "from the fit: os, streamed, DRAM 4 pJ/bit"),
        (565, "rival", "from its rival: ws, what fits stays, cited constants"),
    ):
        parts.append(_text(x + start + 8, y + top - 26, title, 12))
        rows = {row["axis"]: row["levels"] for row in found["tornado"][name]}
        parts += _tornado([rows[axis] for axis in axes], x + start, y + top, high)
    return parts


def _tornado(rows: Sequence[Any], x: float, y: float, high: float) -> list[str]:
    scale, bottom = 13.0, y + len(rows) * high - 8
    parts = []
    for n in range(0, 25, 6):
        edge, line = (RED, 1.5) if n == PAIR[0] else (LINE, 1.0)
        parts.append(_line(x + n * scale, y - 12, x + n * scale, bottom, edge, line))
        parts.append(_text(x + n * scale, bottom + 13, str(n), 11, "middle", MUTED))
    for i, levels in enumerate(rows):
        middle = y + i * high
        ranked = sorted(levels, key=lambda level: level["feasible"])
        ends = [x + level["feasible"] * scale for level in (ranked[0], ranked[-1])]
        parts.append(_line(ends[0], middle, ends[1], middle, _mix(BLUE, 0.35), 7))
        for level in levels:
            pair = (level["feasible"], level["quantisation_alone"])
            fill = _mix(BLUE, 1) if pair == PAIR else "white"
            parts.append(_circle(x + pair[0] * scale, middle, 4.5, fill))
        if ranked[-1]["feasible"] > PAIR[0]:
            parts.append(_text(ends[1] + 9, middle + 4, _level(ranked[-1]), 10, fill=MUTED))
        if ranked[0]["feasible"] < PAIR[0]:
            inside = ends[0] - x > 9 * scale
            place, down, anchor = (ends[0] - 9, 4, "end") if inside else (ends[0] + 9, -7, "start")
            parts.append(_text(place, middle + down, _level(ranked[0]), 10, anchor, MUTED))
    return parts


def _level(level: Mapping[str, Any]) -> str:
    return f"{level['level']}: {level['feasible']}, {level['quantisation_alone']}"
