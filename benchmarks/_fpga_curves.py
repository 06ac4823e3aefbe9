"""Quality against time on an FPGA: curves of a decomposition joined with the engine's times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _fpga_table import aggregate

from modelflex.core.fixed import Array
from modelflex.platforms.fpga.engine import Engine
from modelflex.platforms.fpga.explore import Design, explore, explore_dense


class Curve(NamedTuple):
    """KL divergence against the number of terms (of rows, where `nz` is None: dense, cut short).

    `check` is that of other data than those by which points are chosen.
    """

    nz: int | None
    steps: Array
    kl: Array
    check: Array


class Timed(NamedTuple):
    """A curve with the seconds of every point, each on the fastest design for it."""

    curve: Curve
    seconds: Array


def read_curves(path: Path) -> tuple[list[Curve], bool]:
    """Curves from an .npz, and whether all gates share each v.

    Arrays nz, steps, kl, check of one length, where nz 0 is the dense product by rows; and `shared`.
    """
    with np.load(path, allow_pickle=False) as stored:
        nz, steps, kl, check = (np.asarray(stored[name]) for name in ("nz", "steps", "kl", "check"))
        shared = bool(stored["shared"])
    if len({a.shape for a in (nz, steps, kl, check)}) > 1 or nz.ndim != 1 or not nz.size:
        raise SystemExit(f"{path}: nz, steps, kl and check must be of one length")
    if not (np.isfinite(kl).all() and np.isfinite(check).all()):
        raise SystemExit(f"{path}: divergences must be finite")
    found = []
    for kept in np.unique(nz):
        mine = np.flatnonzero(nz == kept)
        order = mine[np.argsort(steps[mine])]
        found.append(
            Curve(int(kept) or None, steps[order].astype(np.int64), kl[order], check[order])
        )
    return found, shared


def steps_to(curve: Curve, target: float) -> int | None:
    """The fewest terms from which on no larger number is worse than the target; None if none is."""
    above = np.flatnonzero(curve.kl > target)
    first = 0 if above.size == 0 else int(above[-1]) + 1
    return int(curve.steps[first]) if first < curve.steps.size else None


def published_steps(curves: Iterable[Curve], columns: int) -> list[dict[str, Any]]:
    """KL < 1e-6: fewer than 15 terms with half of the inputs or more, more than 75 with about 2 %.

    `holds` is None where a curve ends before it can tell.
    """
    rows = []
    for curve in curves:
        if curve.nz is None:
            continue
        share, steps, last = curve.nz / columns, steps_to(curve, 1e-6), int(curve.steps[-1])
        holds: bool | None = None
        if share >= 0.5:
            claim = "< 15"
            holds = steps < 15 if steps is not None else (False if last >= 14 else None)
        elif 0.01 <= share <= 0.03:
            claim = "> 75"
            holds = steps > 75 if steps is not None else (True if last >= 75 else None)
        else:
            continue
        rows.append(
            {"nz": curve.nz, "share": share, "claim": claim, "steps": steps, "until": last, "holds": holds}
        )  # fmt: skip
    return rows


def timed(engine: Engine, curves: Iterable[Curve]) -> list[Timed]:
    """Seconds of all points; another design is another bitstream."""
    found = []
    for curve in curves:
        if curve.nz is None:
            design = fitting(explore_dense(engine))
            tiles = design.row_tile, design.column_tile
            seconds = engine.dense(*tiles, rows=curve.steps).time_s
        else:
            steps = [int(n) for n in curve.steps]
            best = explore(engine, [curve.nz], steps).best
            seconds = np.array([fitting(design).time_s for _, _, design in best])
        found.append(Timed(curve, seconds))
    return found


def fitting(design: Design | None) -> Design:
    if design is None:
        raise SystemExit("no design fits the chip")
    return design


def speedups(points: Iterable[Timed], dense_s: float, targets: Array) -> Mapping[str, Any]:
    """For each KL target the fastest refined point that keeps it, and aggregates over the targets met."""
    refined = [p for p in points if p.curve.nz is not None]
    rows = []
    for target in targets:
        met = [
            (float(p.seconds[i]), p.curve.nz, int(p.curve.steps[i]), float(p.curve.check[i]))
            for p in refined
            for i in np.flatnonzero(p.curve.kl <= target)
        ]
        if met:
            seconds, nz, steps, check = min(met)
            rows.append(
                {"kl": float(target), "nz": nz, "steps": steps, "seconds": seconds,
                 "speedup": dense_s / seconds, "check": check}
            )  # fmt: skip
    return {"targets": rows, "aggregate": aggregate([r["speedup"] for r in rows]) if rows else None}
