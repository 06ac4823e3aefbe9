"""SCALE-Sim 3.0.0 as an oracle, in an interpreter of its own (it needs numpy==1.26.4).

    python3.11 -m venv ENV && ENV/bin/pip install scalesim==3.0.0 numpy==1.26.4

`simulate` sends cases to that interpreter, which runs this file: JSON in, JSON out. The simulator's
objects are used as its own command line uses them; only reading and writing of files and its
progress output are left out. This file needs the standard library and, over there, scalesim.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

REPORTED = (
    "cycles", "stall_cycles",
    "mapping_utilization", "compute_utilization", "overall_utilization",
    "sram_ifmap", "sram_filter", "sram_ofmap",
    "dram_ifmap", "dram_filter", "dram_ofmap",
)  # fmt: skip


def gemm_layer(m: int, n: int, k: int) -> list[int]:
    """The layer that SCALE-Sim makes of a product: a convolution with windows of one row."""
    return [m, k, 1, k, 1, n, 1, 1]


def simulate(python: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What SCALE-Sim reports for every case, and the seconds it took.

    Args:
        python: interpreter that has scalesim.
        cases: dataflow, rows, columns, ifmap_kb, filter_kb, ofmap_kb, bandwidth (None for CALC),
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
        made.bandwidths = [case["bandwidth"]]
        made.ifmap_sram_bank_bandwidth = made.filter_sram_bank_bandwidth = case["bandwidth"]
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
    return {**dict(zip(REPORTED, map(float, reported), strict=True)), "seconds": seconds}


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
