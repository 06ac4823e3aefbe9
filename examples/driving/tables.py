"""The tables of docs/driving.md from results.json, written between its markers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clips import HERE

PAGE = HERE.parents[1] / "docs" / "driving.md"
LEVELS = (1.0, 0.1, 0.01, 0.001)
Points = Sequence[tuple[float, float]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def reached(points: Points, level: float) -> float | None:
    """The least cost from which on nothing is above a divergence; None where nothing reaches it."""
    found: float | None = None
    for cost, kl in sorted(points, reverse=True):
        if kl > level:
            break
        found = cost
    return found


def digits(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def level_rows(curves: Mapping[str, Points]) -> list[list[str]]:
    """A row for each scheme: the cost of every level, "–" where it is not reached."""
    rows = []
    for name, points in curves.items():
        costs = [reached(points, level) for level in LEVELS]
        rows.append([name, *("–" if cost is None else digits(cost) for cost in costs)])
    return rows


def score_table(content: Mapping[str, Any]) -> str:
    """How good the exact network is."""
    names = {
        "accuracy": "accuracy of the next action",
        "nll": "its negative log-likelihood, nats",
        "speed_error_m_s": "mean error of the speed, m/s",
        "yaw_rate_error_rad_s": "mean error of the yaw rate, rad/s",
    }
    scores = content["scores"]
    rows = [
        [told, f"{scores['pilot'][k]:.3g}", f"{scores['test'][k]:.3g}"] for k, told in names.items()
    ]
    return table(["", "pilot, 40 clips", "test, 60 clips"], rows)


def curve_table(curves: Mapping[str, Points]) -> str:
    """Share of the operations that a divergence takes."""
    percent = {name: [(100 * cost, kl) for cost, kl in points] for name, points in curves.items()}
    head = ["% of the dense operations to reach", *(f"KL ≤ {level:g}" for level in LEVELS)]
    return table(head, level_rows(percent))


def time_table(curves: Mapping[str, Points]) -> str:
    """Microseconds that a divergence takes."""
    head = ["median µs to reach", *(f"KL ≤ {level:g}" for level in LEVELS)]
    return table(head, level_rows(curves))


def deadline_table(content: Mapping[str, Any]) -> str:
    """What steps with a deadline gave."""
    head = ["deadline, µs", "mean terms", "took, median µs", "took, p99 µs", "KL", "same action"]
    keys = ("deadline_us", "terms", "took_median_us", "took_p99_us")
    rows = [
        [
            *(f"{row[key]:.0f}" for key in keys),
            f"{row['kl']:.2g}",
            f"{100 * row['same_action']:.1f} %",
        ]
        for row in content["deadlines"]
    ]
    return table(head, rows)


def _kinds(row: Mapping[str, Any]) -> str:
    """How often each accident happened."""
    return ", ".join(f"{name} {count}" for name, count in row["failures"].items()) or "–"


def deadline_drive_table(content: Mapping[str, Any]) -> str:
    """Drives with a deadline for every step."""
    rows = [
        [
            f"{row['deadline_us']:.0f}",
            digits(row["terms"]),
            f"{100 * row['failed']:.0f} %",
            _kinds(row),
            f"{row['metres'] / row['drives']:.0f}",
        ]
        for row in content["deadline_drives"]
    ]
    return table(["deadline, µs", "mean terms", "failed", "of which", "metres a drive"], rows)


def drive_table(content: Mapping[str, Any]) -> str:
    """Accidents of every scheme."""
    rows = []
    for row in content["drives"]:
        rows.append(
            [
                row["of"] if row["scheme"] == "published" else row["scheme"],
                "" if row["terms"] is None else str(row["terms"]),
                f"{digits(100 * row['share'])} %",
                f"{100 * row['failed']:.0f} %",
                _kinds(row),
                f"{row['metres'] / row['drives']:.0f}",
            ]
        )
    head = ["", "terms", "operations", "failed", "of which", "metres a drive"]
    return table(head, rows)


def write_tables(tables: Mapping[str, str], page: Path = PAGE) -> None:
    """Put tables between <!-- name --> and <!-- end --> of the page."""
    text = page.read_text(encoding="utf-8")
    for name, content in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        text, count = re.subn(
            pattern, lambda m, c=content: f"{m[1]}{c}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"{count} places for the table '{name}' in {page}")
    page.write_text(text, encoding="utf-8")
