"""Compare the SCALE-Sim 3.0.0 mode of the systolic simulator with SCALE-Sim itself, on random layers.

    python scripts/compare_scalesim.py --python ENV/bin/python --cases 300 --seed 0

ENV is an environment with scalesim==3.0.0 and numpy==1.26.4. Every difference is printed; the exit
code is 1 if there is one. `--golden FILE` writes the cases and what SCALE-Sim reports for them.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.platforms.systolic.points import Points
from modelflex.platforms.systolic.scalesim import simulate
from modelflex.platforms.systolic.workload import Convolution, Gemm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import _scalesim

MOST_WORK = 400_000
"""Words that a case asks for and writes, at most: SCALE-Sim takes some µs for each."""
NOTE = (
    "Reported by SCALE-Sim 3.0.0 (PyPI scalesim==3.0.0, numpy==1.26.4) for random layers; "
    "made with scripts/compare_scalesim.py --golden."
)


def random_case(draw: random.Random) -> dict[str, Any]:
    """A layer, an array, buffers and a bandwidth that SCALE-Sim simulates in a second or two."""
    while True:
        rows, columns = (draw.choice((draw.randint(1, 12), draw.randint(1, 40))) for _ in range(2))
        case = {
            "dataflow": draw.choice(("os", "ws", "is")),
            "rows": rows,
            "columns": columns,
            **{f"{name}_kb": draw.choice((1, 1, 1, 2, 3, 5, 8, 64)) for name in ("ifmap", "filter", "ofmap")},
            "bandwidth": draw.choice((None, draw.choice((1, 2, 3, 5, 10, 16, 33, 100)))),
            "layer": draw.choice((_random_gemm, _random_convolution))(draw),
        }  # fmt: skip
        if _work(case) <= MOST_WORK:
            return case


def _size(draw: random.Random, most: int) -> int:
    return round(math.exp(draw.uniform(0, math.log(most + 0.49))))


def _random_gemm(draw: random.Random) -> list[int]:
    return _scalesim.gemm_layer(_size(draw, 200), _size(draw, 200), _size(draw, 300))


def _random_convolution(draw: random.Random) -> list[int]:
    height, width = _size(draw, 30), _size(draw, 30)
    window = min(_size(draw, 6), height), min(_size(draw, 6), width)
    stride = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2, 3))
    return [height, width, *window, _size(draw, 20), _size(draw, 50), *stride]


def _work(case: dict[str, Any]) -> int:
    height, width, down, across, channels, n, stride_down, stride_across = case["layer"]
    m = (-(-(height - down) // stride_down) + 1) * (-(-(width - across) // stride_across) + 1)
    k = down * across * channels
    rows, columns = case["rows"], case["columns"]
    sr, sc, t = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[case["dataflow"]]
    folds = -(-sr // rows) * -(-sc // columns)
    return int(folds * (t + 3 * rows + columns) * (rows + 2 * columns)) + m * k + k * n


def workload(layer: list[int]) -> Gemm | Convolution:
    """The layer as we know it."""
    height, width, down, across, channels, filters, *strides = layer
    if down == channels == strides[0] == 1 and across == width:
        return Gemm("layer", height, filters, width)
    return Convolution("layer", height, width, down, across, channels, filters, *strides)


def ours(case: dict[str, Any]) -> dict[str, float]:
    """What our mode reports."""
    fields = ("rows", "columns", "ifmap_kb", "filter_kb", "ofmap_kb")
    width = case["bandwidth"]
    points = Points(
        *(np.array([case[name]]) for name in fields),
        bandwidth=None if width is None else np.array([float(width)]),
    )
    return {
        name: float(column[0])
        for name, column in simulate(case["dataflow"], workload(case["layer"]), points).items()
    }


def differences(found: dict[str, float], reported: dict[str, float]) -> dict[str, Any]:
    """Columns that differ; counts must be equal, percentages but for rounding."""
    return {
        name: (found[name], reported[name])
        for name in _scalesim.REPORTED
        if not math.isclose(found[name], reported[name], rel_tol=1e-12)
    }


def main() -> int:
    """Run both on random cases; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter that has scalesim 3.0.0")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--golden", type=Path, help="write cases and results to this file")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    cases = [random_case(draw) for _ in range(options.cases)]
    reports = _scalesim.simulate(options.python, cases)
    differing = crashed = 0
    theirs_s = ours_s = 0.0
    for case, report in zip(cases, reports, strict=True):
        if "error" in report:
            crashed += 1
            print("SCALE-Sim failed:", report["error"], json.dumps(case))
            continue
        theirs_s += report.pop("seconds")
        started = time.perf_counter()
        found = ours(case)
        ours_s += time.perf_counter() - started
        wrong = differences(found, report)
        if wrong:
            differing += 1
            print(json.dumps(case), "(ours, SCALE-Sim):", wrong)
    compared = len(cases) - crashed
    if options.golden:
        golden = {
            "note": NOTE,
            "cases": [{**c, "reported": r} for c, r in zip(cases, reports, strict=True)],
        }
        made = options.golden.with_suffix(".tmp")
        made.write_text(
            json.dumps(golden, indent=None, separators=(",", ":")).replace('{"data', '\n{"data')
            + "\n"
        )
        os.replace(made, options.golden)
    print(f"{compared - differing} of {compared} equal; {crashed} failed in SCALE-Sim;",
          f"SCALE-Sim {theirs_s:.1f} s, ours {ours_s:.2f} s")  # fmt: skip
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
