"""The roofline platform against a scalar model written apart from it, and what a Cost owes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.cost import COST_UNITS
from modelflex.core.products import ProductRow, ProductTable, make_table, single_recipe
from modelflex.errors import UserError
from modelflex.platforms.roofline import Roofline
from modelflex.registry import PLATFORMS

T = 12.5
"""Steps of the test tables; what runs once an inference has 1/T runs a step."""

TOY = """
name = "toy"
family = "roofline"
title = "A toy"
"""
CONSTANTS: dict[str, tuple[float, str]] = {
    "clock": (100, "MHz"),
    "mac_rate_float32": (1, "MAC/cycle"),
    "mac_rate_int16": (2, "MAC/cycle"),
    "mac_rate_int8": (4, "MAC/cycle"),
    "vector_rate": (0.5, "result/cycle"),
    "sram_capacity": (8, "kB"),
    "sram_bandwidth": (400, "MB/s"),
    "dram_capacity": (100, "kB"),
    "dram_bandwidth": (50, "MB/s"),
    "busy_power": (2, "W"),
    "idle_power": (500, "mW"),
}


def toy_file(folder: Path, **changes: tuple[float, str] | None) -> Path:
    """A spec file; a constant of None is left out."""
    kept = {k: v for k, v in (CONSTANTS | changes).items() if v is not None}
    tables = [
        f'[{k}]\nvalue = {value!r}\nunit = "{unit}"\nsource = "s"\n'
        for k, (value, unit) in kept.items()
    ]
    path = folder / "toy.toml"
    path.write_text(TOY + "".join(tables), encoding="utf-8")
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Roofline:
    return Roofline.from_config({"spec": str(toy_file(tmp_path))})


@pytest.fixture(scope="module")
def toy_of_module(tmp_path_factory: pytest.TempPathFactory) -> Roofline:
    return Roofline.from_config({"spec": str(toy_file(tmp_path_factory.mktemp("spec")))})


def product(
    m: int = 64,
    k: int = 32,
    bits: int = 8,
    activation_bits: int | None = None,
    *,
    site: str = "l.w/0",
    block: int = 1,
    density: float = 1.0,
    active: float = 1.0,
    fixed: float = 0.0,
    reset: float = 0.0,
    state: float = 0.0,
    runs_per_step: float = 1.0,
) -> ProductRow:
    return ProductRow(
        site=site, layout="dense" if block == 1 else "circulant", m=m, k=k, block=block,
        weight_bits=bits, activation_bits=bits if activation_bits is None else activation_bits,
        macs=m * k, stored_bytes=math.ceil(m * k // block * bits / 8) + fixed + reset,
        units=k // block, unit_bytes=m * bits / 8, fixed_bytes=fixed, reset_bytes=reset,
        runs_per_step=runs_per_step, density=density, active=active, state_bytes=state,
        dense_macs=m * k,
    )  # fmt: skip


def elementwise(results: int, state: float = 0.0) -> ProductRow:
    return ProductRow(
        site="l/elementwise", layout="", m=results, k=0, block=1, weight_bits=0,
        activation_bits=0, macs=0, stored_bytes=0.0, units=0, unit_bytes=0.0, fixed_bytes=0.0,
        reset_bytes=0.0, runs_per_step=1.0, state_bytes=state,
    )  # fmt: skip


def random_row(rng: np.random.Generator, site: str) -> ProductRow:
    block, held = int(rng.choice([1, 2, 4])), bool(rng.integers(2))
    bits, activation_bits = rng.choice([1, 2, 4, 5, 8, 12, 16, 32], 2)
    return product(
        block * int(rng.integers(1, 20)), block * int(rng.integers(1, 20)),
        int(bits), int(activation_bits), site=site, block=block,
        density=float(rng.uniform(0.05, 1)) if held else 1.0,
        active=float(rng.uniform(0.05, 1)) if held else 1.0,
        fixed=float(rng.integers(0, 50)), reset=float(rng.integers(1, 50)) if held else 0.0,
        state=float(rng.integers(1, 500)) if held else 0.0,
        runs_per_step=float(rng.choice([1.0, 1 / T])),
    )  # fmt: skip


def random_rows(seed: int, count: int) -> list[ProductRow]:
    rng = np.random.default_rng(seed)
    return [*(random_row(rng, f"w{i}/0") for i in range(count)), elementwise(30, state=64.0)]


def table_of(rows: list[ProductRow], steps: float = T) -> ProductTable:
    return make_table([[row] for row in rows], steps)


def by_hand(rows: list[ProductRow]) -> dict[str, float]:
    """Totals of one recipe on the toy in plain Python, from the documentation."""
    held = sum(r.stored_bytes + r.state_bytes for r in rows)
    dram = held > 8e3
    bandwidth = 50e6 if dram else 400e6
    step_s = once_s = dram_bytes = compute_step_s = operations = fetched = 0.0
    for r in rows:
        bits = max(r.weight_bits, r.activation_bits)
        macs_per_cycle = 4 if bits <= 8 else 2 if bits <= 16 else 1
        slots = r.m + r.k if bits <= 16 else 0
        compute_s = (r.macs * r.active / macs_per_cycle + slots / 0.5) / 100e6
        fetch = r.units * r.unit_bytes * r.density + r.fixed_bytes
        fetched += fetch * r.runs_per_step + r.reset_bytes / T
        if r.runs_per_step == 1:
            step_s += max(compute_s, fetch / bandwidth)
            once_s += r.reset_bytes / bandwidth
            compute_step_s += compute_s
            dram_bytes += fetch if dram else 0
            operations += 2 * r.dense_macs
        else:
            once_s += max(compute_s, (fetch + r.reset_bytes) / bandwidth)
    return {
        "latency_s": T * step_s + once_s,
        "energy_j": 2 * (T * step_s + once_s),
        "latency_per_step_s": step_s,
        "energy_per_step_j": 2 * step_s,
        "throughput_steps_per_s": 1 / step_s,
        "power_w": 2.0,
        "gops": operations / step_s / 1e9,
        "gops_per_w": operations / (2 * step_s) / 1e9,
        "weight_bytes": sum(r.stored_bytes for r in rows),
        "state_bytes": sum(r.state_bytes for r in rows),
        "weight_fetch_bytes_per_step": fetched,
        "macs_per_step": sum(r.macs * r.active * r.runs_per_step for r in rows),
        "dram_bytes_per_step": dram_bytes,
        "bandwidth_bytes_per_s": dram_bytes / compute_step_s,
        "coverage": 1.0,
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=200, deadline=None)
def test_a_recipe_costs_what_the_scalar_model_says(
    toy_of_module: Roofline, seed: int, count: int
) -> None:
    rows = random_rows(seed, count)
    table = table_of(rows)
    totals = toy_of_module.combine(table, toy_of_module.price(table), single_recipe(table))
    assert set(totals) == set(COST_UNITS)
    assert {n: v[0] for n, v in totals.items()} == pytest.approx(by_hand(rows), rel=1e-12)


def test_50_000_recipes_at_once_equal_one_by_one(toy: Roofline) -> None:
    """Recipes of one table lie in different memory levels."""
    rng = np.random.default_rng(5)
    options = [[random_row(rng, f"w{w}/{c}") for c in range(20)] for w in range(20)]
    rest = elementwise(50)
    table = table_of([row for rows in options for row in rows] + [rest])
    picks = rng.integers(0, 20, (50_000, 20))
    choices = np.column_stack([picks + 20 * np.arange(20), np.full(len(picks), 400)])
    totals = toy.combine(table, toy.price(table), choices)
    streamed = totals["dram_bytes_per_step"] > 0
    assert 0.05 < streamed.mean() < 0.95
    for recipe in rng.integers(0, len(picks), 40):
        rows = [options[w][c] for w, c in enumerate(picks[recipe])]
        expected = by_hand([*rows, rest])
        assert {n: v[recipe] for n, v in totals.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("bits", "activation_bits", "macs_per_cycle"),
    [(8, 8, 4), (2, 8, 4), (1, 1, 4), (8, 9, 2), (16, 4, 2), (32, 32, 1), (8, 32, 1)],
)
def test_the_wider_operand_decides_the_rate(
    toy: Roofline, bits: int, activation_bits: int, macs_per_cycle: int
) -> None:
    row = product(4, 4000, bits, activation_bits, density=0.0)
    compute_s = toy.price(table_of([row]))["compute_s"][0]
    results_s = 4004 / 0.5 / 100e6 if max(bits, activation_bits) <= 16 else 0.0
    assert compute_s - results_s == pytest.approx(16_000 / macs_per_cycle / 100e6)


def test_without_an_int8_rate_int8_runs_as_int16(tmp_path: Path) -> None:
    lacking = Roofline.from_config({"spec": str(toy_file(tmp_path, mac_rate_int8=None))})
    assert lacking.peak_macs_per_s == {
        "float32": 100e6, "float16": 100e6, "int16": 200e6, "int8": 200e6,
    }  # fmt: skip
    told = [a for a in lacking.description["assumptions"] if "int16 rate" in a]
    assert len(told) == 1
    assert "no int8" in told[0]
    table = table_of([product(bits=8)])
    same = table_of([product(bits=8, activation_bits=16)])
    np.testing.assert_equal(lacking.price(table)["compute_s"], lacking.price(same)["compute_s"])


def test_delta_saves_operations_and_bytes(toy: Roofline) -> None:
    def step(density: float = 1.0, active: float = 1.0) -> float:
        cost = toy.cost(table_of([product(200, 400, density=density, active=active)], 1.0))
        assert cost.latency_per_step_s is not None
        return cost.latency_per_step_s

    # 80 kB at 50 MB/s against 80 kMAC at 400 MMAC/s and 600 results at 50 M/s.
    assert step() == pytest.approx(1600e-6)
    assert step(density=0.25) == pytest.approx(400e-6)
    assert step(density=0.1) == pytest.approx(200e-6 + 12e-6)
    assert step(density=0.1, active=0.5) == pytest.approx(160e-6)


def test_worst_step_sends_everything(toy: Roofline) -> None:
    rows = [product(200, 400, density=0.2, active=0.2, state=10.0)]
    full = toy.cost(table_of([product(200, 400, state=10.0)]))
    cost = toy.cost(table_of(rows))
    assert cost.resources["worst_step_latency_s"] == full.latency_per_step_s
    assert full.latency_per_step_s is not None
    assert cost.latency_per_step_s == pytest.approx(full.latency_per_step_s / 5)


def test_weights_and_state_decide_the_level(toy: Roofline) -> None:
    """8,000 bytes fit into the SRAM, one more byte of state does not."""
    fits = toy.cost(table_of([product(80, 99, fixed=16.0), elementwise(1, state=64.0)]))
    spills = toy.cost(table_of([product(80, 99, fixed=16.0), elementwise(1, state=65.0)]))
    assert fits.residency == "sram"
    assert fits.resources["sram_bytes"] == 8000
    assert fits.dram_bytes_per_step == 0
    assert spills.residency == "dram"
    assert spills.resources["dram_bytes"] == 8001
    assert spills.dram_bytes_per_step == 80 * 99 + 16


def test_a_level_may_be_asked_for(tmp_path: Path) -> None:
    path = str(toy_file(tmp_path))
    rows = [product(40, 99)]
    cold = Roofline.from_config({"spec": path, "level": "dram"}).cost(table_of(rows))
    assert cold.residency == "dram"
    assert cold.latency_per_step_s == pytest.approx(3960 / 50e6)
    crammed = Roofline.from_config({"spec": path, "level": "sram"})
    assert crammed.cost(table_of([product(100, 100)])).latency_s is None
    assert crammed.cost(table_of(rows)).dram_bytes_per_step == 0
    with pytest.raises(UserError, match=r"level is 'drum'; expected .*did you mean 'dram'"):
        Roofline.from_config({"spec": path, "level": "drum"})


def test_what_fits_nowhere_has_no_time(toy: Roofline) -> None:
    cost = toy.cost(table_of([product(400, 300)]))
    assert cost.weight_bytes == 120_000
    assert cost.weight_fetch_bytes_per_step == 120_000
    assert cost.coverage == 0
    assert cost.unpriced is not None
    assert "take 120 kB and there is room for" in cost.unpriced
    assert toy.cost(table_of([product()])).unpriced is None
    for name in ("latency_s", "energy_j", "power_w", "gops", "dram_bytes_per_step", "residency"):
        assert getattr(cost, name) is None, name


def test_a_chip_without_dram_moves_no_dram_bytes(tmp_path: Path) -> None:
    path = toy_file(tmp_path, dram_capacity=None, dram_bandwidth=None)
    cost = Roofline.from_config({"spec": str(path)}).cost(table_of([product()]))
    assert cost.latency_s is not None
    assert cost.dram_bytes_per_step is None
    assert cost.bandwidth_bytes_per_s is None


def test_bound_names_what_takes_most_of_the_step(toy: Roofline) -> None:
    # In SRAM: 2 kMAC take 5.12 µs and 96 results 1.92 µs, 2048 bytes take 5.12 µs.
    inside = toy.cost(table_of([product()]))
    assert inside.bound == "compute"
    assert inside.latency_per_step_s == pytest.approx(7.04e-6)
    outside = toy.cost(table_of([product(), product(100, 100, site="l.v/0")]))
    assert outside.bound == "memory"
    # A short row that waits for memory does not make a step memory-bound.
    mixed = toy.cost(table_of([product(20, 20, fixed=400.0), elementwise(2000)]))
    assert mixed.bound == "compute"


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_breakdowns_sum_to_totals(toy_of_module: Roofline, seed: int) -> None:
    cost = toy_of_module.cost(table_of(random_rows(seed, 5)))
    for part, total in {
        "latency_s": cost.latency_per_step_s,
        "energy_j": cost.energy_per_step_j,
        "inference_latency_s": cost.latency_s,
        "inference_energy_j": cost.energy_j,
    }.items():
        assert sum(row[part] for row in cost.per_op.values()) == pytest.approx(total)
    assert set(cost.energy_breakdown_j) == {"idle", "above_idle"}
    assert sum(cost.energy_breakdown_j.values()) == pytest.approx(cost.energy_per_step_j)
    assert cost.energy_breakdown_j["idle"] == pytest.approx(0.5 * (cost.latency_per_step_s or 0))


def test_without_a_power_there_is_no_energy(tmp_path: Path) -> None:
    path = toy_file(tmp_path, busy_power=None, idle_power=None)
    cost = Roofline.from_config({"spec": str(path)}).cost(table_of(random_rows(1, 3)))
    assert cost.latency_s is not None
    assert cost.gops is not None
    for name in ("energy_j", "energy_per_step_j", "power_w", "gops_per_w"):
        assert getattr(cost, name) is None, name
    assert cost.energy_breakdown_j == {}
    assert all("energy_j" not in row for row in cost.per_op.values())


def test_without_an_idle_power_all_energy_is_busy(tmp_path: Path) -> None:
    path = toy_file(tmp_path, idle_power=None)
    cost = Roofline.from_config({"spec": str(path)}).cost(table_of(random_rows(1, 3)))
    assert cost.energy_breakdown_j == {"busy": cost.energy_per_step_j}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dram_bandwidth": None}, "dram_capacity only; expected dram_capacity and dram_bandw"),
        ({"idle_power": (3, "W")}, "idle_power of 3 W"),
        ({"busy_power": None}, "idle_power of 0.5 W; expected less than a busy_power"),
        (
            {f"{level}_{of}": None for level in ("sram", "dram") for of in ("capacity", "bandwidth")},
            "no memory level; expected one of l1, l2",
        ),
        ({"vector_rate": None}, "has no 'vector_rate'"),
        ({"mac_rate_int16": (2, "GHz")}, "unit is 'GHz'; expected 'MAC/cycle'"),
    ],
)  # fmt: skip
def test_broken_specs_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Roofline.from_config({"spec": str(toy_file(tmp_path, **changes))})


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UserError, match="residency"):
        Roofline.from_config({"residency": "streamed"})
    with pytest.raises(UserError, match=r"unknown spec 'raspbery_pi_4'.*did you mean 'raspberry"):
        Roofline.from_config({"spec": "raspbery_pi_4"})


def test_the_description_says_that_it_is_a_bound() -> None:
    described = PLATFORMS.get("roofline").from_config({}).description
    assert described["model"].startswith("roofline: an upper bound on speed")
    assert described["coverage"]
    assert described["peak"]["int8"]["value"] == 48e9
    assert described["peak"]["float16"]["source"] == "mac_rate_float32 × clock"
    assert described["constants"]["dram_bandwidth"]["source"]
    assert any("narrower than 8 bits" in line for line in described["assumptions"])
