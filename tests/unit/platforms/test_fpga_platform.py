"""The FPGA platform against a scalar model written apart from it, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelflex.core.products import ProductRow, ProductTable, make_table, single_recipe
from modelflex.errors import UserError
from modelflex.platforms.fpga import Fpga
from modelflex.registry import PLATFORMS

T = 12.5
CLOCK, BANDWIDTH = 100e6, 4e9
ROW = ProductRow(
    site="l.w/0", layout="dense", m=100, k=60, block=1, weight_bits=8, activation_bits=8, macs=6000,
    stored_bytes=6100.0, units=60, unit_bytes=100.0, fixed_bytes=50.0, reset_bytes=0.0,
    runs_per_step=1.0, dense_macs=6000,
)  # fmt: skip


def row(**changes: Any) -> ProductRow:
    return ProductRow(**{**vars(ROW), **changes})


def table(*rows: ProductRow) -> ProductTable:
    return make_table([[r] for r in rows], T)


@pytest.fixture(scope="module")
def fpga() -> Fpga:
    return Fpga.from_config({"row_tile": 4, "column_tile": 8})


def seconds(r: ProductRow) -> float:
    """Of one run with T_r = 4, T_c = 8."""
    if r.layout == "dense":
        cycles = math.ceil(r.m / 16) * math.ceil(math.ceil(r.k * r.active) / 8) * r.positions
    else:
        cycles = math.ceil(r.macs * r.active / (4 * 4 * 8))
    results = 0.0
    if max(r.weight_bits, r.activation_bits) <= 16:
        results = r.m * r.positions + (r.map_size or r.k)
    cycles += math.ceil((results + 4.8 * r.functions) / 4)
    return max(cycles / CLOCK, (r.units * r.unit_bytes * r.density + r.fixed_bytes) / BANDWIDTH)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"active": 0.3, "density": 0.3},
        {"layout": "circulant", "macs": 6000, "units": 8, "unit_bytes": 90.0, "block": 8},
        {"layout": "row_sparse", "macs": 900, "units": 1, "unit_bytes": 1300.0},
        {"positions": 9, "map_size": 200, "macs": 54_000},
        {"layout": "", "m": 500, "k": 0, "macs": 0, "units": 0, "weight_bits": 0,
         "activation_bits": 0, "functions": 120, "fixed_bytes": 0.0},
        {"weight_bits": 2, "unit_bytes": 25.0},
        {"unit_bytes": 1e5},
    ],
)  # fmt: skip
def test_rows_by_hand(fpga: Fpga, changes: dict[str, Any]) -> None:
    found = fpga.combine(t := table(row(**changes)), fpga.price(t), single_recipe(t))
    expected = seconds(row(**changes))
    assert found["latency_per_step_s"][0] == pytest.approx(expected)
    assert found["latency_s"][0] == pytest.approx(T * expected)
    assert found["energy_per_step_j"][0] == pytest.approx(2.695 * expected)


def test_an_lstm_row_takes_its_37_operations(fpga: Fpga) -> None:
    """Adding W_x·x, 3 products, a sum: 8 results; five nonlinearities."""
    r = row(layout="", m=13 * 64, k=0, macs=0, units=0, weight_bits=0, activation_bits=0,
            functions=5 * 64, fixed_bytes=0.0)  # fmt: skip
    assert seconds(r) == pytest.approx(37 * 64 / 4 / CLOCK)
    found = fpga.price(table(r))
    assert found["compute_s"][0] == pytest.approx(37 * 64 / 4 / CLOCK)


def test_what_runs_once_is_no_part_of_a_step(fpga: Fpga) -> None:
    once = row(site="head", runs_per_step=1 / T)
    t = table(ROW, once)
    cost = fpga.cost(t)
    assert cost.latency_per_step_s == pytest.approx(seconds(ROW))
    assert cost.latency_s == pytest.approx((T + 1) * seconds(ROW))
    parts = [part["inference_latency_s"] for part in cost.per_op.values()]
    assert sum(parts) == pytest.approx(cost.latency_s)


def test_wide_operands_are_not_priced(fpga: Fpga) -> None:
    wide = row(weight_bits=32, activation_bits=32)
    cost = fpga.cost(table(wide, ROW))
    assert cost.latency_s is None
    assert cost.coverage == pytest.approx(0.5)
    assert cost.weight_bytes == 12_200
    assert cost.unpriced is not None
    assert "1 of 2 rows" in cost.unpriced
    assert "word_bits = 32" in cost.unpriced
    single = Fpga.from_config({"word_bits": 32, "row_tile": 4, "column_tile": 8})
    assert single.cost(table(wide)).latency_s == pytest.approx(T * seconds(wide))
    assert single.cost(table(wide)).unpriced is None


def test_inputs_that_the_chip_cannot_hold_are_not_priced(fpga: Fpga) -> None:
    # 545 block RAMs, 8 of them for DMA, as 8 banks: 134 halves of 1024 words each.
    assert fpga.input_words == 8 * 134 * 1024
    assert fpga.cost(table(row(k=fpga.input_words))).latency_s is not None
    large = fpga.cost(table(row(k=fpga.input_words + 1)))
    assert large.latency_s is None
    assert large.unpriced is not None
    assert large.unpriced.startswith("1 of 1 rows have more than 1097728 inputs")


def test_chips_without_a_measured_power_have_no_energy() -> None:
    cost = Fpga.from_config({"spec": "kv260"}).cost(table(ROW))
    assert cost.energy_j is cost.power_w is cost.gops_per_w is None
    assert cost.latency_s is not None
    assert cost.energy_breakdown_j == {}
    assert all("energy_j" not in part for part in cost.per_op.values())


def test_the_worst_step_sends_everything(fpga: Fpga) -> None:
    sparse = row(active=0.1, density=0.1)
    cost = fpga.cost(table(sparse))
    assert cost.latency_per_step_s == pytest.approx(seconds(sparse))
    assert cost.resources["worst_step_latency_s"] == pytest.approx(seconds(ROW))


@pytest.mark.parametrize("spec", ["zc706", "pynq_z2", "ultra96", "kv260", "zcu104"])
@pytest.mark.parametrize("bits", [16, 32])
def test_default_engines_fill_the_chip_and_fit(spec: str, bits: int) -> None:
    made = Fpga.from_config({"spec": spec, "word_bits": bits})
    assert bool(made.taken.fits(made.chip))
    for tiles in ((2 * made.row_tile, made.column_tile), (made.row_tile, 2 * made.column_tile)):
        options = {"spec": spec, "word_bits": bits}
        with pytest.raises(UserError, match="does not fit"):
            Fpga.from_config(options | dict(zip(("row_tile", "column_tile"), tiles, strict=True)))
    assert made.description["engine"]["row_tile"] == made.row_tile


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spec": "zc76"}, "unknown spec 'zc76'.*did you mean 'zc706'"),
        ({"spec": "cortex_m4"}, "for the family 'roofline'; expected the family 'fpga'"),
        ({"word_bits": 8}, "word_bits is 8; expected one of 16, 32"),
        ({"row_tile": 4}, "one of platform.row_tile and platform.column_tile is given"),
        ({"row_tile": 0, "column_tile": 4}, "platform.row_tile is 0"),
        ({"row_tile": 4, "column_tile": 2000}, "platform.column_tile is 2000"),
        ({"row_tile": 64, "column_tile": 64}, "does not fit zc706"),
        ({"bandwidth": "-1 GB/s"}, "bandwidth is -1"),
        ({"bandwidth": "1 W"}, "unknown unit 'W'"),
        ({"utilization": 2.0}, "utilization is 2"),
        ({"utilization": 0.001}, "no engine fits zc706"),
        ({"tiles": 3}, "unknown key 'tiles'"),
        ({"row_tile": 1.5, "column_tile": 1}, "platform.row_tile is 1.5"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PLATFORMS.get("fpga").from_config(options)
