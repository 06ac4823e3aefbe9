"""Draw docs/images/driving_*.svg from results.json and from two drives; write the tables of docs/driving.md.

python examples/driving/draw.py [--data FOLDER] [--world 300005]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from charts import COLOURS, INK, MUTED, Axis, bars, frame, legend, line, page, picture, text
from clips import FIRST_WORLD, HERE, data_folder
from measure import RESULTS, best_published
from simulator import ACTIONS
from strip import SHARE, Shot, two_drives
from tables import (
    curve_table,
    deadline_drive_table,
    deadline_table,
    drive_table,
    score_table,
    time_table,
    write_tables,
)

IMAGES = HERE.parents[1] / "docs" / "images"
SHORT = ("ahead", "stop", "left", "right")
"""The actions as they fit under bars."""
TILES = ("dense, tiles of rows", "dense, tiles of columns")
Rows = Sequence[Mapping[str, Any]]


def envelope(curves: Mapping[str, Rows], key: str = "operations") -> list[tuple[float, float]]:
    """(cost, KL) of the best that is known at every cost, of several curves together."""
    points = sorted((row[key], row["kl"]) for rows in curves.values() for row in rows)
    best: list[tuple[float, float]] = []
    for cost, kl in points:
        if not best or kl < best[-1][1]:
            best.append((cost, kl))
    return best


def chosen_published(content: Mapping[str, Any]) -> dict[str, Rows]:
    """The published scheme's points that are best on pilot clips at their cost, scored on test clips."""
    pilot, test = (
        {name: rows for name, rows in content["curves"][part].items() if name.startswith("publ")}
        for part in ("pilot", "test")
    )
    kept = {cost for cost, _ in envelope(pilot)}
    return {name: [row for row in rows if row["operations"] in kept] for name, rows in test.items()}


def shown_curves(content: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Scheme → (share of the dense operations, KL on test clips)."""
    test, dense = content["curves"]["test"], content["dense_operations"]
    made = {
        "dense, cut short": envelope({name: test[name] for name in TILES}),
        "published": sorted(
            (row["operations"], row["kl"])
            for rows in chosen_published(content).values()
            for row in rows
        ),
        **{
            name: [(row["operations"], row["kl"]) for row in rows]
            for name, rows in test.items()
            if name.startswith("data-aware")
        },
    }
    return {name: [(cost / dense, kl) for cost, kl in points] for name, points in made.items()}


def draw_curves(content: Mapping[str, Any]) -> str:
    """Divergence against operations."""
    x, y = Axis(3e-4, 1.0, 60, 560), Axis(3e-5, 3.0, 330, 50)
    parts = [text(12, 20, "Divergence of the actions from the exact network's, test clips")]
    parts += frame(
        x, y, "operations of the augmented product, share of the dense one", "mean KL, nats", "{:g}"
    )
    curves = shown_curves(content)
    for name, points in curves.items():
        shown = [point for point in points if min(point) > 0]
        parts.append(line(x, y, shown, COLOURS[name], 1.6))
    parts += legend(580, 66, list(curves))
    return page(760, 375, "Divergence against operations", parts)


def timed_curves(content: Mapping[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """Scheme → (median µs of a step, KL); tiles are taken as their share of the dense step."""
    known = {(row["of"], row["terms"]): row["median_us"] for row in content["times"]}
    test, whole = content["curves"]["test"], content["dense_operations"]
    tiles = envelope({name: test[name] for name in TILES})
    dense = known["dense", None]
    made = {"dense, cut short": [(dense * cost / whole, kl) for cost, kl in tiles]}
    for name in dict.fromkeys(row["of"] for row in content["times"] if row["terms"] is not None):
        made[name] = [(known[name, row["terms"]], row["kl"]) for row in test[name]]
    return made


def draw_times(content: Mapping[str, Any]) -> str:
    """Divergence against the measured time of a step, and what real deadlines gave."""
    x, y = Axis(5, 3000, 60, 560), Axis(3e-5, 3.0, 330, 50)
    parts = [text(12, 20, "Divergence against the time of a step of LSTM and head, compiled code")]
    parts += frame(x, y, "median µs of a step, one thread", "mean KL, nats")
    curves = timed_curves(content)
    dense = x.at(curves["dense, cut short"][-1][0])
    parts.append(
        f'<path d="M{dense:.1f} {y.start}V{y.end}" stroke="{INK}" stroke-dasharray="4 3"/>'
    )
    parts.append(text(dense + 4, y.end + 12, "dense"))
    for name, points in curves.items():
        scheme = "published" if name.startswith("published") else name
        shown = [point for point in points if point[1] > 0]
        parts.append(line(x, y, shown, COLOURS[scheme], 1.6))
        if scheme == "published":
            cost, kl = shown[-1]
            parts.append(text(x.at(cost) + 8, y.at(kl) + 4, name.split(", ")[1], fill=MUTED))
    for row in content["deadlines"]:
        at = x.at(row["took_median_us"]), y.at(row["kl"])
        parts.append(_ring(*at))
    parts += legend(580, 66, ["dense, cut short", "published", "data-aware, actions"])
    parts += [_ring(585, 113), text(596, 117, "steps with a deadline")]
    return page(760, 375, "Divergence against time", parts)


def _ring(x: float, y: float) -> str:
    """The mark of what real deadlines gave."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{INK}"/>'


def draw_moments(content: Mapping[str, Any]) -> str:
    """Probabilities of the actions after parts of the operations."""
    schemes = [name for name in content["moments"][0] if name in COLOURS and name != "exact"]
    shares, width, height = content["shares"], 168, 108
    parts = [
        text(12, 20, "Probabilities of the actions after a part of the operations"),
        text(12, 36, "(dashed: all operations)", fill=MUTED),
    ]
    for column, share in enumerate(shares):
        parts.append(text(150 + width * column, 58, f"{100 * share:.2g} % of the operations"))
    for row, moment in enumerate(content["moments"]):
        base = 66 + height * (row + 1) - 26
        parts.append(text(12, base - 40, f"clip {moment['clip']}, step {moment['step']}"))
        parts.append(text(12, base - 24, f"“{ACTIONS[moment['action']]}”", fill=MUTED))
        for column in range(len(shares)):
            values = {name: moment[name][column] for name in schemes}
            values = {"exact": moment["exact"], **values}
            parts += bars(150 + width * column, base, values, SHORT, height - 44)
    below = 66 + height * len(content["moments"]) + 12
    for number, name in enumerate(schemes):
        parts += legend(150 + 180 * number, below, [name])
    return page(150 + width * len(shares), below + 14, "Actions after given operations", parts)


def draw_drives(content: Mapping[str, Any]) -> str:
    """Accidents against operations and against time, and the way that is made."""
    rows, wide = content["drives"], 350
    exact = next(row for row in rows if row["scheme"] == "exact")
    schemes = list(dict.fromkeys(row["scheme"] for row in rows if row["scheme"] != "exact"))
    shares, times = (3e-3, 1.0, "operations, share of the dense product"), (8, 1500, "µs of a step")
    panels = (
        ("drives that end in an accident", shares, _share, _failed),
        ("drives that end in an accident", times, _time, _failed),
        ("way made, share of the exact network's", shares, _share, _way),
    )
    parts = [
        text(12, 20, f"Closed-loop drives in {exact['drives']} worlds (dashed: exact network)")
    ]
    for number, (title, (low, high, below), cost, value) in enumerate(panels):
        left = 50 + wide * number
        x, y = Axis(low, high, left, left + wide - 50), Axis(0.0, 1.0, 280, 62, logarithmic=False)
        parts += frame(x, y, below, title)
        level = y.at(value(content, exact))
        parts.append(
            f'<path d="M{x.start} {level:.1f}H{x.end}" stroke="{INK}" stroke-dasharray="4 3"/>'
        )
        for scheme in schemes:
            own = [row for row in rows if row["scheme"] == scheme and row["share"] > 0]
            points = sorted((cost(content, row), value(content, row)) for row in own)
            parts.append(line(x, y, points, COLOURS[scheme], 1.6))
        if cost is _time:
            for row in content["deadline_drives"]:
                at = x.at(row["deadline_us"]), y.at(row["failed"])
                parts.append(_ring(*at))
    for number, name in enumerate(schemes):
        parts += legend(50 + 190 * number, 336, [name])
    parts += [_ring(815, 332), text(826, 336, "real deadlines, all outputs")]
    return page(wide * len(panels) + 20, 350, "Accidents against operations and time", parts)


def _share(content: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    return float(row["share"])


def _time(content: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Median µs; tiles are taken as their share of the dense step, terms by their number."""
    known = {(case["of"], case["terms"]): case["median_us"] for case in content["times"]}
    if row["terms"] is None:
        return float(known["dense", None] * row["share"])
    of = row["of"] if row["of"].startswith("published") else "data-aware, actions"
    return float(known[of, row["terms"]])


def _failed(content: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    return float(row["failed"])


def _way(content: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    exact = next(row for row in content["drives"] if row["scheme"] == "exact")
    return float(row["metres"] / exact["metres"])


def draw_strip(drives: Mapping[str, Sequence[Shot]]) -> str:
    """Frames of two drives, with what the exact network and the approximation hold for likely."""
    wide, tall, gap = 200, 120, 12
    most = max(len(shots) for shots in drives.values())
    parts = [
        text(12, 20, f"The same road with {100 * SHARE:.2g} % of the operations"),
        text(12, 36, "(dashed: what all operations would say at this place)", fill=MUTED),
    ]
    for row, (scheme, shots) in enumerate(drives.items()):
        top = 56 + row * (tall + 118)
        parts += legend(12, top, [scheme])
        for column, shot in enumerate(shots):
            left = 12 + column * (wide + gap)
            parts.append(picture(left, top + 10, wide, tall, shot.image))
            said = f"{shot.seconds:.1f} s, {shot.metres:.0f} m" + (
                f": {shot.failure}" if shot.failure else ""
            )
            parts.append(text(left, top + tall + 24, said, fill="#b3261e" if shot.failure else INK))
            values = {"exact": shot.exact, scheme: shot.approximated}
            parts += bars(left + 20, top + tall + 80, values, SHORT, 46)
    width = 12 + most * (wide + gap)
    return page(width, 56 + len(drives) * (tall + 118), "Frames and actions", parts)


def page_tables(content: Mapping[str, Any]) -> dict[str, str]:
    """The tables of docs/driving.md by the names of their places."""
    return {
        "scores": score_table(content),
        "curves": curve_table(shown_curves(content)),
        "times": time_table(timed_curves(content)),
        "deadlines": deadline_table(content),
        "drives": drive_table(content),
        "deadline drives": deadline_drive_table(content),
    }


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw the figures of docs/driving.md.")
    parser.add_argument("--data", type=Path, help="folder of recordings and trained networks")
    parser.add_argument(
        "--world", type=int, default=FIRST_WORLD["drive"] + 5, help="of the image strip"
    )
    options = parser.parse_args()
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    folder = data_folder(options.data)
    published = best_published(content["curves"]["pilot"], SHARE * content["dense_operations"])
    write_tables(page_tables(content))
    figures: dict[str, Callable[[], str]] = {
        "curves": lambda: draw_curves(content),
        "times": lambda: draw_times(content),
        "moments": lambda: draw_moments(content),
        "drives": lambda: draw_drives(content),
        "strip": lambda: draw_strip(two_drives(folder, published, options.world)),
    }
    for name, made in figures.items():
        path = IMAGES / f"driving_{name}.svg"
        path.write_text(made(), encoding="utf-8")
        print(f"{path}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
