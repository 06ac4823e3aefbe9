"""The numbers in docs/systolic.md against the simulator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelflex.platforms.systolic.layers import simulate_layer
from modelflex.platforms.systolic.points import one_point
from modelflex.platforms.systolic.workload import Gemm

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "systolic.md").read_text("utf-8")
GATES = Gemm("gates", 1, 4096, 1056)
SIZES = {"rows": 32, "columns": 32, "ifmap_kb": 1024, "filter_kb": 2048, "ofmap_kb": 1024}
RUN = re.compile(r"^\| (os|ws|is)(?:, W = ([0-9]+))? \| ([0-9][0-9,]+ \|.*) \|$", re.MULTILINE)
RUNS = RUN.findall(TEXT)


def test_all_runs_are_found() -> None:
    assert len(RUNS) == 6


@pytest.mark.parametrize(("dataflow", "bandwidth", "cells"), RUNS)
def test_runs_are_those_of_the_simulator_and_of_scale_sim(
    dataflow: str, bandwidth: str, cells: str
) -> None:
    point = one_point(SIZES, float(bandwidth) if bandwidth else None)
    expected = []
    for compat in (True, False):
        got = simulate_layer(dataflow, GATES, point, compat)
        dram = (str(got["dram"][operand]) for operand in ("ifmap", "filter", "ofmap"))
        expected += [f"{got['cycles']:,}", f"{got['stall_cycles']:,}", " / ".join(dram)]
    assert [cell.strip() for cell in cells.split("|")] == expected


def test_a_buffer_of_two_tiles_takes_what_the_text_says() -> None:
    cycles = [
        simulate_layer("os", GATES, one_point(SIZES | {"filter_kb": kb}, 40))["cycles"]
        for kb in (66, 33)
    ]
    words = re.search(r"\(two tiles of 33 kB\) ([0-9,]+) cycles.*?takes ([0-9,]+)", TEXT, re.DOTALL)
    assert words
    assert list(words.groups()) == [f"{c:,}" for c in cycles]
