"""The SCALE-Sim 3.0.0 mode against what SCALE-Sim 3.0.0 reported, and what cannot be asked of it."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.errors import UserError
from modelflex.platforms.systolic import scalesim_limits
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import Bandwidth, Points, one_point
from modelflex.platforms.systolic.scalesim import calc, simulate
from modelflex.platforms.systolic.workload import Convolution, Gemm

GOLDEN = json.loads((Path(__file__).parent / "scalesim_golden.json").read_text(encoding="utf-8"))
BUFFERS = ("ifmap_kb", "filter_kb", "ofmap_kb")
LSTM = Gemm("gates", m=1, n=4096, k=1056)
DATAFLOWS: tuple[Dataflow, ...] = ("os", "ws", "is")

# Printed by SCALE-Sim 3.0.0 for M=1, K=1056, N=4096 on 32×32 with 1/2/1 MB; USER at 10 words/cycle:
# cycles, stalls; SRAM of ifmap, filter, ofmap; DRAM likewise; overall utilisation as printed.
SCALE_SIM: dict[tuple[Dataflow, int | None], tuple[float, ...]] = {
    ("os", None): (143_103, 0, 135_168, 4_325_376, 12_288, 1_056, 4_325_376, 4_096, 2.95),
    ("ws", None): (401_279, 0, 135_168, 4_325_376, 135_168, 1_056, 4_325_376, 135_168, 1.05),
    ("is", None): (138_269, 0, 1_056, 4_325_376, 135_168, 1_056, 4_325_376, 135_168, 3.05),
    ("os", 10): (423_775, 280_672, 135_168, 4_325_376, 12_288, 33_800, 5_242_900, 4_096, 1.0),
    ("ws", 10): (2_163_869, 1_762_590, 135_168, 4_325_376, 135_168, 1_060, 22_020_180, 135_168, 0.2),
    ("is", 10): (852_423, 714_154, 1_056, 4_325_376, 135_168, 33_800, 9_437_220, 135_168, 0.5),
}  # fmt: skip
UTILISATIONS = {"os": (3.1, 2.95), "ws": (100.0, 0.79), "is": (3.1, 3.03)}
"""Mapping and compute utilisation as printed; the bandwidth does not change them."""

# Total cycles of its runs over topologies/conv_nets, CALC, os/ws/is.
NETWORKS = {
    ("alexnet", 32): (850_960, 1_136_239, 1_158_205),
    ("Googlenet", 32): (1_659_992, 1_987_921, 2_525_262),
    ("Resnet18", 32): (1_718_353, 2_519_815, 2_838_997),
    ("alexnet", 128): (67_567, 139_901, 146_717),
    ("Googlenet", 128): (256_885, 350_751, 510_730),
    ("Resnet18", 128): (262_370, 417_628, 595_543),
}


def point(rows: int, columns: int, *buffers: int, bandwidth: float | None = None) -> Points:
    sizes = {"rows": rows, "columns": columns, **dict(zip(BUFFERS, buffers, strict=True))}
    return one_point(sizes, bandwidth)


def layer(sizes: list[int]) -> Gemm | Convolution:
    height, width, down, across, channels, filters, *strides = sizes
    if down == channels == strides[0] == 1 and across == width:
        return Gemm("product", height, filters, width)
    return Convolution("layer", height, width, down, across, channels, filters, *strides)


def differences(columns: dict[str, Any], reported: dict[str, float]) -> dict[str, Any]:
    """Columns that differ: counts are exact, percentages differ by rounding only."""
    return {
        name: (columns[name].item(), value)
        for name, value in reported.items()
        if abs(columns[name].item() - value)
        > (1e-12 * value if name.endswith("utilization") else 0)
    }


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=range(len(GOLDEN["cases"])))
def test_random_layers_are_reported_as_by_scale_sim(case: dict[str, Any]) -> None:
    at = point(
        case["rows"], case["columns"], *(case[name] for name in BUFFERS),
        bandwidth=case["bandwidth"],
    )  # fmt: skip
    columns = simulate(case["dataflow"], layer(case["layer"]), at)
    assert set(columns) == set(case["reported"])
    assert differences(columns, case["reported"]) == {}


def test_the_random_layers_reach_what_is_hard() -> None:
    """Both modes, all dataflows, overhanging windows, refetches, drains, stalls, narrow buffers."""
    cases = GOLDEN["cases"]
    limited = [case for case in cases if case["bandwidth"] is not None]
    assert {(c["dataflow"], c["bandwidth"] is None) for c in cases} == {
        (dataflow, free) for dataflow in DATAFLOWS for free in (True, False)
    }
    assert sum(c["reported"]["stall_cycles"] > 0 for c in limited) >= 8
    assert any(c["reported"]["dram_ofmap"] > c["reported"]["sram_ofmap"] for c in cases)
    assert any(max(c["rows"], c["columns"]) > 512 for c in cases)
    assert any(
        (c["layer"][side] - c["layer"][side + 2]) % c["layer"][side + 6]
        for c in cases
        for side in (0, 1)
    )


@pytest.mark.parametrize(("dataflow", "bandwidth"), SCALE_SIM)
def test_lstm_product(dataflow: Dataflow, bandwidth: int | None) -> None:
    columns = simulate(dataflow, LSTM, point(32, 32, 1024, 2048, 1024, bandwidth=bandwidth))
    names = (
        "cycles", "stall_cycles", "sram_ifmap", "sram_filter", "sram_ofmap",
        "dram_ifmap", "dram_filter", "dram_ofmap",
    )  # fmt: skip
    *counts, overall = SCALE_SIM[dataflow, bandwidth]
    assert [columns[name].item() for name in names] == counts
    printed = (overall, *UTILISATIONS[dataflow])
    for kind, percent in zip(("overall", "mapping", "compute"), printed, strict=True):
        digits = len(f"{percent:g}".partition(".")[2])
        assert abs(columns[f"{kind}_utilization"].item() - percent) <= 0.5 * 10.0**-digits + 1e-9


@pytest.mark.parametrize(("network", "side"), NETWORKS)
def test_convolutional_networks(cnn_tables: Path, network: str, side: int) -> None:
    table = cnn_tables / "conv_nets" / f"{network}.csv"
    rows = list(csv.reader(table.read_text(encoding="utf-8").splitlines()[1:]))
    layers = [
        Convolution(row[0], *(int(size) for size in row[1:8]), int(row[7]))
        for row in rows
        if len(row) > 7
    ]
    at = point(side, side, 1024, 1024, 1024)
    totals = [sum(simulate(d, x, at)["cycles"].item() for x in layers) for d in DATAFLOWS]
    assert tuple(totals) == NETWORKS[network, side]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_many_points_are_the_points_one_by_one(dataflow: Dataflow) -> None:
    draw = np.random.default_rng(5)
    sides, sizes = draw.integers(1, 700, (2, 40)), draw.integers(1, 5, (3, 40))
    together = simulate(dataflow, Gemm("g", 30, 170, 90), Points(*sides, *sizes))
    for at in range(40):
        alone = Points(*(field[at : at + 1] for field in (*sides, *sizes)))
        for name, column in simulate(dataflow, Gemm("g", 30, 170, 90), alone).items():
            assert together[name][at] == column[0], name


def test_shapes_broadcast_with_points() -> None:
    sizes = (np.array([[3], [40]]), np.array([[70], [9]]), np.array([[20], [300]]))
    at = Points(*(np.array([x, x + 3]) for x in (4, 9, 1, 1, 1)))
    columns = calc("os", *sizes, at)
    assert columns["cycles"].shape == (2, 2)
    alone = simulate("os", Gemm("g", 40, 9, 300), Points(*(field[1:] for field in at[:5])))
    assert {name: column[1, 1] for name, column in columns.items()} == {
        name: column[0] for name, column in alone.items()
    }


def test_a_convolution_of_whole_rows_is_the_product() -> None:
    """Windows of one row of the input, one filter column: im2col is the input itself."""
    at = Points(*(np.array([x, x + 5, x + 11]) for x in (3, 4, 1, 1, 1)))
    limited = at._replace(bandwidth=Bandwidth(*[np.array([1.0, 3.0, 8.0])] * 3))
    for dataflow in DATAFLOWS:
        for points in (at, limited):
            product = simulate(dataflow, Gemm("g", 60, 70, 50), points)
            windows = simulate(dataflow, Convolution("c", 60, 50, 1, 50, 1, 70), points)
            for name, column in product.items():
                assert column.tolist() == windows[name].tolist(), (dataflow, name)


@pytest.mark.parametrize(
    ("workload", "bandwidth", "words"),
    [
        (LSTM, 2.5, "whole words a cycle"),
        (Convolution("c", 9, 9, 3, 3, 2, 4, batch=2), None, "knows no batch"),
        (Gemm("one", 1, 1, 1), None, "one cycle"),
        (Gemm("huge", 2**20, 2**10, 2**20), 10.0, "cut it into several"),
        (Gemm("wide", 2, 2**28, 1), 10.0, "cut it into several"),
        (Convolution("huge", 2**16, 2**16, 3, 3, 1, 4), 10.0, "cut it into several"),
        (Convolution("huge", 2**16, 2**16, 3, 3, 1, 4), None, "cut it into several"),
    ],
)
def test_what_it_cannot_do_is_told(
    workload: Gemm | Convolution, bandwidth: float | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        simulate("os", workload, point(1, 1, 1, 1, 1, bandwidth=bandwidth))


def test_shares_of_huge_layers_do_not_overflow() -> None:
    at = one_point({"rows": 2**14, "columns": 2**14, **dict.fromkeys(BUFFERS, 2**20)}, None)
    columns = simulate("ws", Gemm("dot", 1, 1, 2**38), at)
    cycles, units = columns["cycles"].item(), 2**28
    assert cycles * units > 2**63
    expected = 100 * Fraction(2**38, cycles * units)
    assert columns["overall_utilization"].item() == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("bandwidth", [None, 1])
def test_what_would_be_followed_for_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, bandwidth: int | None
) -> None:
    layer = Gemm("g", 60, 1100, 3)
    wide = {"rows": 60, "columns": 1100, **dict.fromkeys(BUFFERS, 1)}
    assert simulate("os", layer, one_point(wide, bandwidth))["cycles"].item() > 0
    monkeypatch.setattr(scalesim_limits, "MAX_FOLLOWED", 500)
    with pytest.raises(UserError, match="too large to follow"):
        simulate("os", layer, one_point(wide, bandwidth))
