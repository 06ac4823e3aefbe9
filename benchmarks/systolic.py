"""The systolic simulator beside SCALE-Sim 3.0.0: equal numbers, and how much faster.

    python benchmarks/systolic.py [--scalesim-python PYTHON] [--cases 300]

SCALE-Sim needs an environment of its own; without `--scalesim-python` one is made in
build/scalesim (Python 3.11 or 3.12, scalesim==3.0.0 and numpy==1.26.4 from PyPI). Everything is
measured on one core: NumPy's elementwise arithmetic has no threads. SCALE-Sim's runs of the LSTM
product take minutes each; ours are repeated before and after every one of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _scalesim
import numpy as np
from _common import figure, write_result
from _process import measure

from modelflex.platforms.systolic import scalesim
from modelflex.platforms.systolic.points import Bandwidth, Points, one_point
from modelflex.platforms.systolic.simulate import simulate
from modelflex.platforms.systolic.workload import Gemm

COMMAND = "python benchmarks/systolic.py"
BUILD = Path(__file__).resolve().parents[1] / "build" / "scalesim"
M, N, K = 1, 4096, 1056
PRODUCT = Gemm("LSTM gates, 32 inputs, 1024 units", M, N, K)
BUFFERS = {"ifmap_kb": 1024, "filter_kb": 2048, "ofmap_kb": 1024}
RUNS = [("os", None), ("ws", None), ("is", None), ("os", 10), ("ws", 10), ("is", 10)]
"""Dataflow and words a cycle (None: CALC) of SCALE-Sim's runs of the product on 32×32 units."""
POINTS = 2**16
REPEATS = 7
SEED = 2026


def scalesim_python(given: str | None) -> str:
    """An interpreter with SCALE-Sim; made in build/scalesim where none is given."""
    if given is not None:
        return given
    python = BUILD / "bin" / "python"
    if not python.exists():
        if sys.version_info[:2] > (3, 12):
            raise SystemExit("numpy 1.26.4 needs Python ≤ 3.12: give --scalesim-python")
        print("making an environment for SCALE-Sim …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(BUILD)], check=True)
        wanted = [f"scalesim=={_scalesim.VERSION}", f"numpy=={_scalesim.NUMPY}"]
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
    return str(python)


def many_points(bandwidth: bool) -> Points:
    """Arrays of 1 … 256 × 1 … 256 with buffers of 64 … 4096 kB."""
    rng = np.random.default_rng(0)
    sides = [rng.integers(1, 257, POINTS) for _ in range(2)]
    buffers = [rng.integers(64, 4097, POINTS) for _ in range(3)]
    words = Bandwidth(*[rng.integers(1, 65, POINTS)] * 3)
    return Points(*sides, *buffers, words if bandwidth else None)


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of every repeat."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


class Ours:
    """Seconds a configuration of our modes; every `measure` adds repeats of all of them."""

    def __init__(self) -> None:
        free, limited = many_points(False), many_points(True)
        product = PRODUCT.shape
        self.work: dict[str, tuple[Callable[[], Any], int]] = {}
        for flow in ("os", "ws", "is"):
            self.work[f"default, {flow}"] = (lambda f=flow: simulate(f, product, free), POINTS)
            self.work[f"default, {flow}, finite bandwidth"] = (
                lambda f=flow: simulate(f, product, limited),
                POINTS,
            )
            self.work[f"compatible, {flow}"] = (
                lambda f=flow: scalesim.simulate(f, PRODUCT, free),
                POINTS,
            )
        for flow, bandwidth in RUNS:
            if bandwidth is not None:
                point = one_point({"rows": 32, "columns": 32, **BUFFERS}, bandwidth)
                self.work[f"compatible, {flow}, {bandwidth} words a cycle"] = (
                    lambda f=flow, p=point: scalesim.simulate(f, PRODUCT, p),
                    1,
                )
        self.seconds: dict[str, list[float]] = {name: [] for name in self.work}

    def measure(self) -> None:
        for name, (work, points) in self.work.items():
            repeats = REPEATS if points > 1 else 2
            self.seconds[name] += [s / points for s in timed(work, repeats)]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])


def product_case(dataflow: str, bandwidth: int | None) -> dict[str, Any]:
    return {
        "dataflow": dataflow, "rows": 32, "columns": 32, **BUFFERS, "bandwidth": bandwidth,
        "layer": _scalesim.gemm_layer(M, N, K),
    }  # fmt: skip


def product_runs(python: str, ours: Ours) -> list[dict[str, Any]]:
    """SCALE-Sim's runs of the LSTM product, ours measured before and after each."""
    rows = []
    ours.measure()
    for dataflow, bandwidth in RUNS:
        mode = "CALC" if bandwidth is None else f"USER {bandwidth}"
        print(f"SCALE-Sim, {dataflow} {mode} …", end=" ", flush=True)
        (theirs,) = _scalesim.simulate(python, [product_case(dataflow, bandwidth)])
        ours.measure()
        found = _scalesim.ours(product_case(dataflow, bandwidth))
        print(f"{theirs['seconds']:.1f} s", flush=True)
        rows.append(
            {
                "run": f"{dataflow} {mode}",
                "dataflow": dataflow,
                "bandwidth": bandwidth,
                "scalesim_s": theirs["seconds"],
                "differs": _scalesim.differences(found, theirs),
                "reported": {name: theirs[name] for name in _scalesim.REPORTED},
            }
        )
    return rows


def random_comparison(python: str, cases: int) -> dict[str, Any]:
    """Random layers, arrays, dataflows, buffers and bandwidths through both."""
    drawn = _scalesim.random_cases(cases, SEED)
    print(f"SCALE-Sim, {cases} random cases …", end=" ", flush=True)
    theirs = _scalesim.simulate(python, drawn)
    ran = [
        (case, report) for case, report in zip(drawn, theirs, strict=True) if "error" not in report
    ]
    start = time.perf_counter()
    ours = [_scalesim.ours(case) for case, _ in ran]
    ours_s = time.perf_counter() - start
    unequal = [
        {"case": case, "differs": wrong}
        for (case, report), found in zip(ran, ours, strict=True)
        if (wrong := _scalesim.differences(found, report))
    ]
    modes = [case["bandwidth"] is None for case, _ in ran]
    found = {
        "cases": len(drawn),
        "crashed_in_scalesim": len(drawn) - len(ran),
        "compared": len(ran),
        "compared_calc": sum(modes),
        "compared_user": len(modes) - sum(modes),
        "equal": len(ran) - len(unequal),
        "unequal": unequal,
        "scalesim_s": sum(report["seconds"] for _, report in ran),
        "ours_s": ours_s,
    }
    print(f"{found['equal']} of {found['compared']} equal", flush=True)
    return found


def sweep_file(folder: Path, rows: int) -> Path:
    """A sweep of the product over 8·rows arrays, 4 buffers and 128 K densities for every 128 rows."""
    path = folder / f"sweep{rows}.toml"
    path.write_text(
        f"""[workload]
gemm = [[{M}, {N}, {K}]]
[sweep]
rows = {{ from = 1, to = {rows}, step = 1 }}
columns = {{ from = 8, to = 256, step = 8 }}
filter_kb = [256, 512, 1024, 2048]
ifmap_kb = [1024]
ofmap_kb = [1024]
dataflow = ["os", "ws", "is"]
bits = [2, 4, 8, 16]
density = [0.25, 0.5, 0.75, 1.0]
""",
        encoding="utf-8",
    )
    return path


def sweeps() -> list[dict[str, Any]]:
    """Whole sweeps from the command line, to a table and plots: seconds and peak memory."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sides in (1, 16, 64, 160):
            command = [
                sys.executable, "-c", "from modelflex.cli import main; main()",
                "simulate", "systolic", "--sweep", str(sweep_file(folder, sides)),
                "--out", str(folder / f"out{sides}"), "--json",
            ]  # fmt: skip
            ran = measure(command, folder)
            found = json.loads(ran.stdout)
            row = {
                "points": found["points"],
                "seconds": ran.wall_s,
                "peak_bytes": ran.peak_bytes,
            }
            rows.append(row)
            print(
                f"sweep of {row['points']:,} points: {row['seconds']:.1f} s, "
                f"{row['peak_bytes'] / 1e6:.0f} MB",
                flush=True,
            )
    return rows


def figures(
    ours: Ours, runs: list[dict[str, Any]], compared: dict[str, Any], swept: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What was reached of each goal."""
    found = []

    def add(name: str, goal: str, value: float, unit: str, met: bool) -> None:
        found.append(figure(name, goal, value, unit, met, COMMAND))

    equal = sum(not run["differs"] for run in runs)
    add(
        "LSTM product on 32×32: SCALE-Sim's runs that the compatible mode equals",
        f"all {len(runs)}", equal, "runs", equal == len(runs),
    )  # fmt: skip
    share = compared["equal"] / compared["compared"]
    enough = compared["compared"] >= 200
    add(
        f"random cases equal ({compared['compared_calc']} CALC, {compared['compared_user']} USER)",
        "100 % of at least 200", 100 * share, "%", share == 1 and enough,
    )  # fmt: skip
    for mode in ("default", "compatible"):
        rate = min(1 / ours.median(f"{mode}, {flow}") for flow in ("os", "ws", "is"))
        add(
            f"{mode} mode, LSTM product, full output, one core (slowest dataflow)",
            "≥ 1 M configurations/s", rate / 1e6, "M configurations/s", rate >= 1e6,
        )  # fmt: skip
    for run in runs:
        flow, bandwidth = run["dataflow"], run["bandwidth"]
        if bandwidth is None:
            for mode in ("default", "compatible"):
                ratio = run["scalesim_s"] / ours.median(f"{mode}, {flow}")
                add(
                    f"{mode} mode over SCALE-Sim, LSTM product, {run['run']}, per configuration",
                    "≥ 10⁷ times faster", ratio, "×", ratio >= 1e7,
                )  # fmt: skip
            continue
        ratio = run["scalesim_s"] / ours.median(f"compatible, {flow}, {bandwidth} words a cycle")
        add(
            f"finite bandwidth over SCALE-Sim, LSTM product, {run['run']}, compatible mode",
            "≥ 100 times faster", ratio, "×", ratio >= 100,
        )  # fmt: skip
        ratio = run["scalesim_s"] / ours.median(f"default, {flow}, finite bandwidth")
        add(
            f"finite bandwidth over SCALE-Sim, LSTM product, {run['run']}, default mode, "
            "per configuration of many",
            "≥ 100 times faster", ratio, "×", ratio >= 100,
        )  # fmt: skip
    growth = swept[-1]["peak_bytes"] - swept[0]["peak_bytes"]
    per_point = growth / (swept[-1]["points"] - swept[0]["points"])
    add(
        f"memory of a sweep of {swept[-1]['points']:,} points over one of {swept[0]['points']:,}",
        "linear in the points at most, in bounded chunks (≤ 100 B a point)",
        per_point, "B/point", per_point <= 100,
    )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--scalesim-python", help="interpreter that has scalesim 3.0.0")
    parser.add_argument("--cases", type=int, default=300, help="random cases to compare")
    options = parser.parse_args()
    python = scalesim_python(options.scalesim_python)
    compared = random_comparison(python, options.cases)
    ours = Ours()
    runs = product_runs(python, ours)
    swept = sweeps()
    reached = figures(ours, runs, compared, swept)
    for row in reached:
        print(f"{row['name']}: {row['value']:.4g} {row['unit']} ({row['goal']}, met: {row['met']})")
    rows = {
        "scalesim_runs": runs,
        "random_cases": compared,
        "seconds_per_configuration": {
            name: {"median": ours.median(name), "all": seconds}
            for name, seconds in ours.seconds.items()
        },
        "sweeps": swept,
    }
    print(f"written to {write_result('systolic', {'rows': rows, 'figures': reached})}")


if __name__ == "__main__":
    main()
