"""The runtime beside torch, ONNX Runtime, LiteRT and OpenVINO: one thread, called from Python.

    make peers && .venv-peers/bin/python benchmarks/runtime.py
    python benchmarks/runtime.py --quick --peers none --out FILE     # does it run at all?

All contenders of a case take turns in one process. Every one carries its state from call to call and
leaves its result where the caller can read it; what it computes is checked before it is timed. Medians
of one run are compared, never times of different runs. RTNeural is C++ and cannot be called from
Python: it is left out.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import _runtime_report as report
import _runtime_timing as timing
from _common import RESULTS, write_result
from _runtime_case import Case, Contender, largest_difference
from _runtime_figures import figures
from _runtime_host import host

COMMAND = ".venv-peers/bin/python benchmarks/runtime.py"
PEERS = {
    "torch": "_runtime_torch",
    "onnxruntime": "_runtime_onnx",
    "litert": "_runtime_litert",
    "openvino": "_runtime_openvino",
}
SIZES = ((16, 32), (32, 128), (64, 256), (32, 1024), (153, 1024), (8256, 64))
CELLS = ("lstm", "gru")
WARM_S = 15.0
"""Seconds that the rounds of a case and mode take, about."""
ROUNDS, COLD_ROUNDS = (15, 300), 30


def load(names: Sequence[str], missing: dict[str, str]) -> list[ModuleType]:
    """The modules of the peers that are installed."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(PEERS[name]))
        except ImportError as error:
            missing[name] = str(error)
    return found


def gather(case: Case, modules: Sequence[ModuleType], missing: dict[str, str]) -> list[Contender]:
    """All contenders of a case that can be made and compute what they should."""
    found = []
    for module in modules:
        for number, make in enumerate(module.contenders(case)):
            name = f"{case.name}: {module.__name__.removeprefix('_runtime_')} {number}"
            try:
                one = make()
                name = f"{case.name}: {one.name}, {one.mode}"
                one.notes["difference"] = largest_difference(one, case)
            except Exception as error:  # whatever a peer raises: it is listed, and the others go on
                missing[name] = f"{type(error).__name__}: {error}"[:300]
                print(f"  left out {name}: {missing[name]}", flush=True)
                continue
            found.append(one)
    return found


def rounds(group: Sequence[Contender]) -> int:
    """How many rounds fit into `WARM_S`, where one takes as long as the first."""
    first = timing.warm(group, 1)
    taken = sum(
        max(s[0] * timing.steps(one), timing.BLOCK_S) for one, s in zip(group, first, strict=True)
    )
    return int(min(max(WARM_S / taken, ROUNDS[0]), ROUNDS[1]))


def measure(case: Case, contenders: Sequence[Contender], quick: bool) -> list[dict[str, Any]]:
    """Rows of one case: µs a step with warm and, for single steps, with cold caches."""
    rows = []
    for mode in ("step", "sequence"):
        group = [one for one in contenders if one.mode == mode]
        times = timing.warm(group, 2 if quick else rounds(group))
        steps = mode == "step"
        cold = timing.cold(group, 2 if quick else COLD_ROUNDS) if steps else [[]] * len(group)
        for one, warm, single in zip(group, times, cold, strict=True):
            rows.append(
                {
                    "cell": case.cell, "inputs": case.inputs, "units": case.units, "mode": mode,
                    "name": one.name, "kind": one.kind, "precision": one.precision,
                    **timing.summary(warm),
                    **({"cold": timing.summary(single)} if steps else {}),
                    **one.notes,
                }
            )  # fmt: skip
            print(f"  {mode:8s} {one.name:45s} {rows[-1]['median_us']:10.2f} µs", flush=True)
    return rows


def one_thread() -> None:
    """Start again with one thread a library: they read it when they are loaded."""
    wanted = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--peers", default="all", help=f"all, none or some of {', '.join(PEERS)}")
    parser.add_argument("--sizes", nargs="*", default=[f"{i},{h}" for i, h in SIZES])
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=CELLS)
    parser.add_argument("--quick", action="store_true", help="two rounds: does it run at all?")
    parser.add_argument("--report", action="store_true", help="only write plots and tables again")
    parser.add_argument("--out", help="result file instead of results/runtime.json", type=Path)
    options = parser.parse_args()
    whole = (len(options.sizes), len(options.cells)) == (len(SIZES), len(CELLS))
    if (options.quick or not whole) and options.out is None:
        parser.error("--quick, or some of the sizes and cells, needs --out")
    if options.report:
        report.write(RESULTS / "runtime.json")
        return
    one_thread()
    logging.disable(logging.WARNING)  # ONNX Runtime's advice on quantisation
    missing: dict[str, str] = {}
    names = {"all": list(PEERS), "none": []}.get(options.peers, options.peers.split(","))
    if unknown := set(names) - set(PEERS):
        parser.error(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    modules = load(names, missing)
    if missing and options.out is None:
        parser.error(f"cannot import {', '.join(missing)}: make peers, or name some by --peers")
    missing |= {name: "not asked for" for name in PEERS if name not in names}
    missing["RTNeural"] = "C++, cannot be called from Python"
    modules.append(importlib.import_module("_runtime_ours"))
    rows: list[dict[str, Any]] = []
    for cell in options.cells:
        for size in options.sizes:
            case = Case(cell, *map(int, size.split(",")))
            print(case.name, flush=True)
            rows += measure(case, gather(case, modules, missing), options.quick)
    reached = figures(rows, COMMAND)
    for row in reached:
        value = "–" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        print(f"{row['name']}: {value} ({row['goal']}, met: {row['met']})")
    content = {
        "host": host(),
        "versions": {k: v for module in modules for k, v in module.versions().items()},
        "missing": missing,
        "rows": rows,
        "figures": reached,
    }
    path = write_result("runtime", content, options.out)
    print(f"written to {path}")
    if options.out is None:
        report.write(path)


if __name__ == "__main__":
    main()
