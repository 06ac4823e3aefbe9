"""SCALE-Sim 3.0.0 as an oracle, in an interpreter of its own (it needs numpy==1.26.4).

    python3.11 -m venv ENV && ENV/bin/pip install scalesim==3.0.0 numpy==1.26.4

`simulate` sends cases to that interpreter, which runs this file: JSON in, JSON out. The simulator's
objects are used as its own command line uses them; only reading and writing of files and its
progress output are left out. At its top, the file needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

VERSION = "3.0.0"
NUMPY = "1.26.4"
REPORTED = (
    "cycles", "stall_cycles",
    "mapping_utilization", "compute_utilization", "overall_utilization",
    "sram_ifmap", "sram_filter", "sram_ofmap",
    "dram_ifmap", "dram_filter", "dram_ofmap",
)  # fmt: skip
BUFFERS = ("ifmap_kb", "filter_kb", "ofmap_kb")
MOST_WORK = 1_000_000
"""Cells of the demand matrices of a case, at most: SCALE-Sim takes some µs for each."""


def gemm_layer(m: int, n: int, k: int) -> list[int]:
    """The layer that SCALE-Sim makes of a product: a convolution with windows of one row."""
    return [m, k, 1, k, 1, n, 1, 1]


def simulate(python: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What SCALE-Sim reports for every case, and the seconds it took.

    Args:
        python: interpreter that has scalesim.
        cases: dataflow, rows, columns, ifmap_kb, filter_kb, ofmap_kb, bandwidth (None for CALC, else
            one number, or one for each of ifmap, filter, ofmap),
            layer: input height and width, filter height and width, channels, filters, strides.

    Returns:
        For every case the columns `REPORTED` and `seconds`, or `error`.

    Raises:
        RuntimeError: the interpreter cannot run it.
    """
    done = subprocess.run(
        [python, __file__], input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{python} cannot run SCALE-Sim: {done.stderr.strip()[-500:]}")
    return list(json.loads(done.stdout))


def random_cases(count: int, seed: int) -> list[dict[str, Any]]:
    """Random layers, arrays, dataflows, buffers and bandwidths, as `simulate` takes them."""
    draw = random.Random(seed)
    return [_random_case(draw) for _ in range(count)]


def _random_case(draw: random.Random) -> dict[str, Any]:
    """A layer, an array, buffers and a bandwidth that SCALE-Sim simulates in a second or two."""
    while True:
        wide = draw.random() < 0.08
        case = {
            "dataflow": draw.choice(("os", "ws", "is")),
            **_random_array(draw, wide),
            **{name: draw.choice((1, 1, 1, 1, 2, 3, 5, 16)) for name in BUFFERS},
            "bandwidth": draw.choice((None, _words(draw), [_words(draw) for _ in range(3)])),
            "layer": draw.choice((_random_gemm, _random_convolution))(draw, 700 if wide else 200),
        }
        m, n, k = _product(case["layer"])
        # Small operands fit into any buffer; a few will do.
        small = max(m * k, k * n) < 3000 and draw.random() < 0.9
        if not small and 100 <= _work(case) <= MOST_WORK:
            return case


def _words(draw: random.Random) -> int:
    return draw.choice((1, 1, 2, 2, 3, 4, 6, 10, 33, 700))


def _random_array(draw: random.Random, wide: bool) -> dict[str, int]:
    """Wide: more rows or columns than half of the smallest buffer has words."""
    sides = [draw.randint(1, draw.choice((12, 40))) for _ in range(2)]
    if wide:
        sides = [draw.randint(1, 4), draw.randint(500, 700)]
        draw.shuffle(sides)
    return {"rows": sides[0], "columns": sides[1]}


def _size(draw: random.Random, most: int) -> int:
    return round(math.exp(draw.uniform(0, math.log(most + 0.49))))


def _random_gemm(draw: random.Random, most: int) -> list[int]:
    return gemm_layer(*(_size(draw, most) for _ in range(3)))


def _random_convolution(draw: random.Random, most: int) -> list[int]:
    height, width = _size(draw, 30), _size(draw, 30)
    window = min(_size(draw, 6), height), min(_size(draw, 6), width)
    stride = draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2, 3))
    return [height, width, *window, _size(draw, 20), _size(draw, most // 4), *stride]


def _product(layer: list[int]) -> tuple[int, int, int]:
    height, width, down, across, channels, n, stride_down, stride_across = layer
    m = (-(-(height - down) // stride_down) + 1) * (-(-(width - across) // stride_across) + 1)
    return m, n, down * across * channels


def _work(case: dict[str, Any]) -> int:
    m, n, k = _product(case["layer"])
    rows, columns = case["rows"], case["columns"]
    sr, sc, t = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[case["dataflow"]]
    folds = -(-sr // rows) * -(-sc // columns)
    return int(folds * (t + 2 * rows + columns) * (rows + 2 * columns)) + m * k + k * n


def ours(case: dict[str, Any]) -> dict[str, float]:
    """What our SCALE-Sim 3.0.0 mode reports for a case."""
    from modelflex.platforms.systolic import scalesim
    from modelflex.platforms.systolic.points import one_point
    from modelflex.platforms.systolic.workload import Convolution, Gemm

    height, width, down, across, channels, filters, *strides = case["layer"]
    layer: Gemm | Convolution = Gemm("layer", height, filters, width)
    if gemm_layer(height, filters, width) != case["layer"]:
        layer = Convolution("layer", height, width, down, across, channels, filters, *strides)
    sizes = {name: case[name] for name in ("rows", "columns", *BUFFERS)}
    columns = scalesim.simulate(case["dataflow"], layer, one_point(sizes, case["bandwidth"]))
    return {name: column[0].item() for name, column in columns.items()}


def differences(found: dict[str, float], reported: dict[str, float]) -> dict[str, Any]:
    """Columns that differ; counts must be equal, percentages but for rounding."""
    return {
        name: (found[name], reported[name])
        for name in REPORTED
        if not math.isclose(
            found[name], reported[name], rel_tol=1e-12 if name.endswith("utilization") else 0.0
        )
    }


def _configuration(case: dict[str, Any]) -> Any:
    from scalesim.scale_config import scale_config

    made = scale_config()
    made.df = case["dataflow"]
    made.array_rows, made.array_cols = case["rows"], case["columns"]
    made.ifmap_sz_kb = case["ifmap_kb"]
    made.filter_sz_kb = case["filter_kb"]
    made.ofmap_sz_kb = case["ofmap_kb"]
    if case["bandwidth"] is not None:
        made.use_user_bandwidth = True
        words = case["bandwidth"]
        ifmap, filters, ofmap = words if isinstance(words, list) else [words] * 3
        made.bandwidths = [ofmap]
        made.ifmap_sram_bank_bandwidth, made.filter_sram_bank_bandwidth = ifmap, filters
        made.ifmap_sram_bank_num = made.filter_sram_bank_num = 1
    made.valid_conf_flag = True
    return made


def _one(case: dict[str, Any]) -> dict[str, Any]:
    from scalesim.layout_utils import layouts
    from scalesim.single_layer_sim import single_layer_sim
    from scalesim.topology_utils import topologies

    topology = topologies()
    topology.append_topo_arrays("layer", ["layer", *case["layer"], 1, 1])
    topology.num_layers = 1
    topology.topo_load_flag = True
    layer = single_layer_sim()
    layer.set_params(
        layer_id=0, config_obj=_configuration(case), topology_obj=topology, layout_obj=layouts(),
        verbose=False,
    )  # fmt: skip
    started = time.perf_counter()
    layer.run()
    layer.calc_report_data()
    seconds = time.perf_counter() - started
    reported = (
        layer.total_cycles, layer.stall_cycles,
        layer.mapping_eff, layer.compute_util, layer.overall_util,
        layer.ifmap_sram_reads, layer.filter_sram_reads, layer.ofmap_sram_writes,
        layer.ifmap_dram_reads, layer.filter_dram_reads, layer.ofmap_dram_writes,
    )  # fmt: skip
    exact = {
        name: float(value) if name.endswith("utilization") else int(value)
        for name, value in zip(REPORTED, reported, strict=True)
    }
    return {**exact, "seconds": seconds}


def _all(cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for case in cases:
        try:
            results.append(_one(case))
        except Exception as error:  # its crashes are results, too
            results.append({"error": f"{type(error).__name__}: {error}"})
    return results


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answers = _all(json.load(sys.stdin))
    json.dump(answers, sys.stdout)
