"""What was reached of each goal: ratios of medians of one run, warm caches, one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from _common import figure

OURS = "ModelFlex"
LARGE, MIDDLE, SMALL = (153, 1024), (64, 256), (16, 32)
Rows = Sequence[Mapping[str, Any]]


def _case(rows: Rows, cell: str, size: tuple[int, int], mode: str) -> list[Mapping[str, Any]]:
    wanted = (cell, *size, mode)
    keys = ("cell", "inputs", "units", "mode")
    return [row for row in rows if tuple(row[k] for k in keys) == wanted]


def _median(rows: Rows, name: str) -> float | None:
    return next((row["median_us"] for row in rows if row["name"] == name), None)


def _best(rows: Rows, chosen: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any] | None:
    """The fastest peer among those chosen."""
    peers = [row for row in rows if row["kind"] == "peer" and chosen(row)]
    return min(peers, key=lambda row: row["median_us"], default=None)


def _any(row: Mapping[str, Any]) -> bool:
    return True


def _int8(row: Mapping[str, Any]) -> bool:
    return row["precision"] == "int8"


def _onnx_fp32(row: Mapping[str, Any]) -> bool:
    return row["precision"] == "fp32" and row["name"].startswith("ONNX Runtime")


PEERS = ("torch", "ONNX Runtime", "LiteRT", "OpenVINO")
AGAINST = {
    "ONNX Runtime fp32": (_onnx_fp32, PEERS[1:2]),
    "the best int8 peer": (_int8, PEERS),
    "the best peer": (_any, PEERS),
}
"""Which rows of peers count, and the runtimes of which there must be one: without it, no goal is met."""
STEP_GOALS = (
    ("lstm", LARGE, "fp32", "ONNX Runtime fp32", 1.0),
    ("lstm", LARGE, "int8", "ONNX Runtime fp32", 4.0),
    ("lstm", LARGE, "int8", "the best int8 peer", 1.25),
    ("lstm", MIDDLE, "int8", "ONNX Runtime fp32", 8.0),
    ("lstm", MIDDLE, "int8", "the best int8 peer", 2.5),
    ("lstm", SMALL, "int8", "the best peer", 5.0),
    ("lstm", LARGE, "int4", "ONNX Runtime fp32", 10.0),
    ("lstm", LARGE, "int4", "the best int8 peer", 3.0),
    ("lstm", LARGE, "circulant 8, int8", "ONNX Runtime fp32", 30.0),
    ("lstm", LARGE, "circulant 8, int8, padded inputs", "ONNX Runtime fp32", 30.0),
    ("lstm", LARGE, "delta int8, 20 % active", "ONNX Runtime fp32", 20.0),
    ("gru", MIDDLE, "int8", "the best peer", 2.5),
)
"""(cell, size, ours, against whom, how many times faster)."""


def figures(rows: Rows, command: str) -> list[dict[str, Any]]:
    """Every goal beside what was reached; goals whose cases were not run are left out."""
    found = [_speedup(rows, "step", goal, command) for goal in STEP_GOALS]
    found.append(_roofline(rows, command))
    found.append(_dense_limit(rows, command))
    sizes = dict.fromkeys((row["cell"], (row["inputs"], row["units"])) for row in rows)
    found += [
        _speedup(rows, "sequence", (cell, size, "int8", "the best peer", 1.0), command)
        for cell, size in sizes
    ]
    return [row for row in found if row is not None]


def _speedup(
    rows: Rows, mode: str, goal: tuple[str, tuple[int, int], str, str, float], command: str
) -> dict[str, Any] | None:
    cell, size, variant, against, times = goal
    case = _case(rows, cell, size, mode)
    counted, wanted = AGAINST[against]
    ours, peer = _median(case, f"{OURS} {variant}"), _best(case, counted)
    if ours is None or peer is None:
        return None
    what = "streaming step" if mode == "step" else "step of a 100-step sequence"
    ratio = peer["median_us"] / ours
    name = (
        f"{cell.upper()} ({size[0]},{size[1]}), {what}, {variant} over {against} ({peer['name']})"
    )
    found = [row["name"] for row in case if row["kind"] == "peer" and counted(row)]
    lacking = [one for one in wanted if not any(name.startswith(one) for name in found)]
    if lacking:
        name += f"; not measured: {', '.join(lacking)}"
    return figure(name, f"≥ {times:g}×", ratio, "×", ratio >= times and not lacking, command)


def _roofline(rows: Rows, command: str) -> dict[str, Any] | None:
    case = _case(rows, "lstm", LARGE, "step")
    ours, read = _median(case, f"{OURS} fp32"), _median(case, "read loop, fp32 bytes")
    if ours is None or read is None:
        return None
    share = 100 * read / ours
    name = "LSTM (153,1024), streaming step, fp32: share of the read roofline"
    return figure(name, "≥ 90 %", share, "%", share >= 90, command)


def _dense_limit(rows: Rows, command: str) -> dict[str, Any] | None:
    ratios = {}
    for row in rows:
        if row["name"] == f"{OURS} delta int8, all active" and row["mode"] == "step":
            case = _case(rows, row["cell"], (row["inputs"], row["units"]), "step")
            if (dense := _median(case, f"{OURS} int8")) is not None:
                where = f"{row['cell'].upper()} ({row['inputs']},{row['units']})"
                ratios[where] = row["median_us"] / dense
    if not ratios:
        return None
    worst = max(ratios, key=lambda where: ratios[where])
    name = (
        f"delta int8, all columns active, over dense int8, streaming step, slowest case ({worst})"
    )
    return figure(name, "≤ 1.1×", ratios[worst], "×", ratios[worst] <= 1.1, command)
