"""The sensitivity study of the paper's 36 solutions, against loops over folds and the platform."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.platforms.systolic import Systolic

ROOT = Path(__file__).resolve().parents[3]
MODULES = ("_common", "modelflex_paper", "_paper_prices", "_paper_figure", "paper_sensitivity")
CACTI_PJ_PER_BYTE = {
    "128 B": 0.1709, "1 KB": 0.2833, "2 KB": 0.4758, "4 KB": 0.856, "8 KB": 1.598, "16 KB": 2.495,
    "32 KB": 3.654, "64 KB": 4.797, "128 KB": 6.864,
}  # fmt: skip
HOROWITZ_PJ = {"8 KB": 10, "32 KB": 20, "1 MB": 100}
FIXED_PJ = {16: 0.603, 8: 0.203, 4: 0.0824, 2: 0.0407}
FIXED_UW = {16: 57.0, 8: 16.1, 4: 5.31, 2: 1.74}
PRODUCTS = {16: 0.25, 8: 1, 4: 4, 2: 16}


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield import_module("paper_sensitivity")
    sys.path.remove(str(ROOT / "benchmarks"))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def prices(study: ModuleType) -> Any:
    return study.prices()


@pytest.fixture(scope="module")
def found(study: ModuleType) -> dict[str, Any]:
    return study.study()


def sram_pj_per_bit(label: str) -> float:
    size, source = label.rsplit(" ", 1)
    return HOROWITZ_PJ[size] / 64 if source == "Horowitz" else CACTI_PJ_PER_BYTE[size] / 8


def by_hand(
    point: Mapping[str, str], solution: tuple[int, int, float], dram_pj: float | None = None
) -> tuple[float, float]:
    """(s, J) of one step of one solution, fold by fold on 32×32 units at 200 MHz."""
    bits, block, density = solution
    inputs, outputs, side = 1056, 4096, 32
    sent = math.ceil(inputs * density)
    terms = -(-sent * bits * bits // 64)
    held = max(bits, 8) if point["on-chip words"] == "whole bytes" else bits
    scalesim = point["on-chip words"] == "SCALE-Sim's"
    weights = outputs * sent / block  # words that are read
    dataflow = point["dataflow"]
    cycles, words, sums = 0, 0.0, 0
    if dataflow == "os":
        for _ in range(0, outputs, side):
            cycles += terms + 2 * side - 2
            words += sent
            sums += side + (2 * side if scalesim else 0)
        words += weights
    else:
        across = range(0, outputs, side) if dataflow == "ws" else range(1)
        for row, _ in itertools.product(range(0, terms, side), across):
            columns, time = (side, 1) if dataflow == "ws" else (outputs, outputs)
            cycles += time + 3 * side - 2
            sums += columns if row == 0 or scalesim else 2 * columns
        words += weights + sent * len(across)
    state = (outputs * 8 + inputs * 2) * 8 if density < 1 else 0
    results = (inputs + outputs) * (2 if density < 1 else 1)  # delta encodes and accumulates
    compute_s = (cycles + results / 32) / 200e6

    stored, state_bytes = outputs * inputs * bits / block / 8, state / 8
    share = (4 * 2**20 - state_bytes) / stored
    streamed = {
        "streamed": 1.0,
        "all or none": float(share < 1),
        "what fits": max(1 - share, 0.0),
    }[point["residency"]]
    dram_bits = weights * bits * streamed
    limited = point["DRAM bandwidth"] != "unlimited"
    latency = max(compute_s, dram_bits / 8 / 12.8e9 if limited else 0.0)

    fixed = point["unit"] == "fixed"
    unit_pj = PRODUCTS[bits] * FIXED_PJ[bits] if fixed else 0.459
    unit_uw = PRODUCTS[bits] * FIXED_UW[bits] if fixed else 59.3
    busy = outputs * terms if point["units that spend"] == "busy ones" else cycles * side * side
    if dram_pj is None:
        dram_pj = float(point["DRAM energy"].split()[0])
    sram_bits = words * held + sums * 32 + 2 * state + results * 96
    pj = busy * unit_pj + results * 3.2 + dram_bits * dram_pj
    pj += sram_bits * sram_pj_per_bit(point["SRAM energy"])
    leakage = 1024 * unit_uw * 1e-6 * latency if point["leakage"] == "of the units" else 0.0
    return latency, pj * 1e-12 + leakage


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_prices_are_those_of_a_loop_over_folds(
    study: ModuleType, prices: Any, data: st.DataObject
) -> None:
    point = {
        axis: data.draw(st.sampled_from([level.label for level in study.AXES[axis]]), label=axis)
        for axis in study.PRICED
    }
    index = data.draw(st.integers(0, 35))
    here = (*study.at(point, study.PRICED), index)
    latency, energy = by_hand(point, study.GRID[index])
    assert prices.latency_s[here] == pytest.approx(latency, rel=1e-9)
    assert prices.energy_j[here] == pytest.approx(energy, rel=1e-3)  # constants as rounded above


@pytest.mark.parametrize(
    ("dataflow", "residency", "bandwidth"),
    list(
        itertools.product(
            ("os", "ws", "is"),
            (("streamed", "streamed"), ("fit", "all or none"), ("partial", "what fits")),
            (("unlimited", "unlimited"), ("12.8 GB/s", "12.8 GB/s")),
        )
    ),
)
def test_prices_are_those_of_the_platform(
    study: ModuleType,
    prices: Any,
    dataflow: str,
    residency: tuple[str, str],
    bandwidth: tuple[str, str],
) -> None:
    platform = Systolic.from_config(
        {"dataflow": dataflow, "residency": residency[0], "dram_bandwidth": bandwidth[0]}
    )
    table = import_module("modelflex_paper").solutions()
    totals = platform.combine(table, platform.price(table), np.arange(36)[:, None])
    here = study.at(
        study.CITED
        | {"dataflow": dataflow, "residency": residency[1], "DRAM bandwidth": bandwidth[1]},
        study.PRICED,
    )
    np.testing.assert_allclose(prices.latency_s[here], totals["latency_per_step_s"], rtol=1e-12)
    np.testing.assert_allclose(prices.energy_j[here], totals["energy_per_step_j"], rtol=1e-12)


def test_the_counts_under_the_named_constants(found: dict[str, Any]) -> None:
    assert {name: tuple(pair.values()) for name, pair in found["counts"].items()} == {
        "fit": (18, 1),
        "rival": (18, 1),
        "cited": (14, 0),
    }
    assert found["latency_alone"] == {"os": [24, 2], "ws": [18, 1], "is": [24, 2]}


def test_streamed_from_8_pj_per_bit_up_nothing_gives_the_published_pair(
    found: dict[str, Any],
) -> None:
    rows = [
        row["dram_energy"] for row in found["published_where"] if row["residency"] == "streamed"
    ]
    shares = {float(label.split()[0]): [row[label] for row in rows] for label in rows[0]}
    for energy, of_dataflow in shares.items():
        assert all(share > 0 for share in of_dataflow) if energy < 8 else not any(of_dataflow)


def test_quantisation_alone_under_the_fit(found: dict[str, Any]) -> None:
    rows = [tuple(row.values()) for row in found["fit_quantisation_alone"]]
    expected = [(16, 2.74, 542), (8, 0.72, 209.5), (4, 0.21, 91), (2, 0.08, 43)]
    for row, hand in zip(rows, expected, strict=True):
        assert row[0] == hand[0]
        assert row[1] == pytest.approx(hand[1], abs=0.005)
        assert row[2] == pytest.approx(hand[2], abs=0.6)


def test_the_verdicts_of_the_fit_change_just_outside_its_ranges(
    study: ModuleType, found: dict[str, Any]
) -> None:
    def feasible(dram_pj: float, limit_uj: float) -> list[bool]:
        priced = [by_hand(study.FIT, solution, dram_pj) for solution in study.GRID]
        return [latency <= 0.5e-3 and energy <= limit_uj * 1e-6 for latency, energy in priced]

    fitted = feasible(4.0, 50.0)
    assert sum(fitted) == 18
    low, high = found["fit_ranges"]["dram_energy_pj_per_bit"]
    assert feasible(low + 1e-3, 50.0) == fitted == feasible(high - 1e-3, 50.0)
    assert feasible(low - 1e-3, 50.0) != fitted != feasible(high + 1e-3, 50.0)
    low, high = found["fit_ranges"]["energy_limit_uj"]
    assert feasible(4.0, low + 1e-3) == fitted == feasible(4.0, high - 1e-3)
    assert feasible(4.0, low - 1e-3) != fitted != feasible(4.0, high + 1e-3)


def test_shares_count_every_cited_combination_once(
    study: ModuleType, prices: Any, found: dict[str, Any]
) -> None:
    size = math.prod(sum(x.cited for x in levels) for levels in study.AXES.values())
    assert found["combinations"]["cited"] == size
    assert sum(row["combinations"] for row in found["distribution"]) == size

    fixed = ("SRAM energy", "leakage", "unit", "on-chip words")  # so that a loop is quick
    labels = {axis: [x.label for x in levels if x.cited] for axis, levels in study.AXES.items()}
    labels |= {axis: [study.CITED[axis]] for axis in fixed}
    feasible = study.verdicts(prices)
    alone = [i for i, (_, block, density) in enumerate(study.GRID) if (block, density) == (1, 1)]
    rows = [
        feasible[study.at(dict(zip(labels, combination, strict=True)))]
        for combination in itertools.product(*labels.values())
    ]
    hits = sum(row.sum() == 18 and row[alone].sum() == 1 for row in rows)
    assert hits > 0
    assert study.is_published(np.array(rows)).sum() == hits


def test_an_axis_that_decides_everything_explains_all_variance(study: ModuleType) -> None:
    shape = tuple(len(levels) for levels in study.AXES.values())
    feasible = np.zeros((*shape, 36), bool)
    feasible[:, :, 1, ..., :5] = True  # the third axis: residency
    shares = study.main_effects(feasible)
    assert shares.pop("residency") == pytest.approx(1.0)
    assert max(shares.values()) == pytest.approx(0.0)


def test_figure_and_page_are_those_of_the_result_file(
    study: ModuleType, found: dict[str, Any]
) -> None:
    kept = json.loads((ROOT / "benchmarks/results/paper_sensitivity.json").read_text("utf-8"))
    assert kept["published"] == found["published"]
    drawn = study.draw(kept)
    ElementTree.fromstring(drawn)
    assert (ROOT / "docs/images/paper_sensitivity.svg").read_text("utf-8") == drawn
    page = (ROOT / "docs/paper_experiment.md").read_text("utf-8")
    for name in ("cited", "all", "at_limits"):
        assert f"{kept['published'][name]:,} of {kept['combinations'][name]:,}" in page
