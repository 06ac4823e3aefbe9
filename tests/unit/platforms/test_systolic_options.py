"""Options of the systolic platform: units, memories, technology, leakage, registers, area, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.cost import Cost
from modelflex.core.products import ProductRow, make_table
from modelflex.errors import UserError
from modelflex.platforms.systolic import Systolic

from .systolic_by_hand import write_spec
from .systolic_rows import elementwise, networks, product, value

GATES = product("lstm0.w_h/0", 4096, 1056)
"""The gate product of the ModelFlex paper."""
CYCLES = 128 * (1056 + 62)
UNITS = 32 * 32


def costs(row: ProductRow = GATES, **options: Any) -> Cost:
    return Systolic.from_config(options).cost(make_table([[row]], 10.0))


# --- units: (dynamic pJ a cycle, leakage µW, area µm²) of BitFusion's synthesis, 45 nm -----------
SYNTHESIS = {
    "fusion_8_2": (0.459, 59.3, 1734.6),
    "fusion_16_2": (2.11, 295, 8831),
    "fusion_4_2": (0.118, 11.0, 354.4),
    "fixed_16": (0.603, 57.0, 1679),
    "fixed_8": (0.203, 16.1, 510.7),
    "fixed_4": (0.0824, 5.3, 191.6),
    "fixed_2": (0.0407, 1.7, 81.1),
}


@pytest.mark.parametrize("unit", SYNTHESIS)
def test_units_bring_their_energy_leakage_and_area(unit: str) -> None:
    picojoules, microwatts, square_microns = SYNTHESIS[unit]
    # 2-bit operands: (side)² terms a cycle where bricks of 2 bits fuse, else one.
    row = product("w/0", 4096, 1024, weight_bits=2, activation_bits=2)
    side = {"fusion_8_2": 4, "fusion_16_2": 8, "fusion_4_2": 2}.get(unit, 1)
    cycles = 128 * (1024 // side**2 + 62)
    found, leaking = (costs(row, unit=unit, leakage=leaks) for leaks in (False, True))
    assert found.resources["array_cycles_per_step"] == cycles
    assert found.energy_breakdown_j["arithmetic"] == pytest.approx(
        cycles * UNITS * picojoules * 1e-12, rel=5e-3
    )
    assert leaking.energy_breakdown_j["leakage"] == pytest.approx(
        UNITS * microwatts * 1e-6 * value(leaking.latency_per_step_s), rel=3e-2
    )
    bare = costs(row, unit="fusion_8_2").resources["area_m2"] - UNITS * 1734.552e-12
    assert found.resources["area_m2"] - bare == pytest.approx(
        UNITS * square_microns * 1e-12, rel=1e-3
    )


@pytest.mark.parametrize(
    ("unit", "bits", "cycles_a_term"),
    [("fixed_8", 8, 1), ("fixed_8", 16, 4), ("fixed_8", 4, 1), ("fixed_4", 16, 16), ("fixed_16", 8, 1),
     ("fixed_2", 6, 9), ("fusion_16_2", 16, 1), ("fusion_4_2", 8, 4)],
)  # fmt: skip
def test_wide_operands_take_passes(unit: str, bits: int, cycles_a_term: int) -> None:
    row = product("w/0", 32, 1056, weight_bits=bits, activation_bits=bits)
    found = costs(row, unit=unit).resources["array_cycles_per_step"]
    assert found == 1056 * cycles_a_term + 62


# --- DRAM: (pJ a bit, GB/s) ----------------------------------------------------------------------
DRAMS = {"lpddr4": 8, "lpddr2": 40, "ddr3": 70, "gddr5": 14, "hbm2": 3.9, "hmc": 4.2}


@pytest.mark.parametrize("dram", DRAMS)
def test_drams_bring_their_energy(dram: str) -> None:
    found = costs(dram=dram)
    assert found.energy_breakdown_j["dram"] == pytest.approx(4096 * 1056 * 8 * DRAMS[dram] * 1e-12)


def test_a_chosen_dram_has_its_bandwidth_and_standby_power() -> None:
    platform = Systolic.from_config({"dram": "hbm2", "leakage": True})
    assert platform.chip.dram_bandwidth == 256e9
    assert platform.chip.leakage_w == pytest.approx(UNITS * 59.3e-6 + 0.5)
    # The energy is counted only where leakage is.
    assert Systolic.from_config({"dram": "hbm2"}).chip.leakage_w == 0
    # Quantities of the configuration come last.
    own = Systolic.from_config(
        {"dram": "hbm2", "dram_bandwidth": "1 GB/s", "dram_energy_per_bit": "5 pJ/bit"}
    )
    assert own.chip.dram_bandwidth == 1e9
    assert own.chip.dram_j == pytest.approx(40e-12)
    constants = own.description["constants"]
    assert constants["dram_energy"]["source"] == "set by platform.dram_energy_per_bit"
    assert constants["dram_bandwidth"]["source"] == "set by platform.dram_bandwidth"


# --- SRAM ----------------------------------------------------------------------------------------
def test_the_sram_of_4_kib_banks_is_that_of_cacti() -> None:
    """0.857 and 1.08 pJ a byte; 1024 banks of 7.3 mW and 0.030 mm²."""
    options = {"sram": "sram", "sram_bank": "4 KiB"}
    found = costs(**options)
    read = 1056 * 128 + 4096 * 1056 + 8 * (4096 + 1056)
    written = 4 * 4096 + 4 * (4096 + 1056)
    assert found.energy_breakdown_j["sram"] == pytest.approx(
        read * 0.857e-12 + written * 1.08e-12, rel=2e-3
    )
    leaking = Systolic.from_config({**options, "leakage": True}).chip.leakage_w
    assert leaking == pytest.approx(1024 * 7.3e-3 + UNITS * 59.3e-6, rel=1e-3)
    assert found.resources["area_m2"] == pytest.approx(
        1024 * 0.030e-6 + UNITS * 1734.6e-12, rel=3e-3
    )


def test_larger_banks_cost_more_energy_and_less_area() -> None:
    banks = [{}, *({"sram_bank": f"{kib} KiB"} for kib in (1024, 128, 32, 8, 2))]
    found = [costs(sram="sram", **bank) for bank in banks]
    energies = [c.energy_breakdown_j["sram"] for c in found]
    assert energies == sorted(energies, reverse=True)
    # A bank as large as the memory is the memory.
    assert energies[0] == costs(sram="sram", sram_bank="4 MiB").energy_breakdown_j["sram"]
    # Beyond the last point as √capacity: 4 MiB against 128 KiB.
    assert energies[0] / energies[2] == pytest.approx(32**0.5)


def test_domain_wall_memory_is_smaller_and_leaks_less() -> None:
    sram, tracks = (
        Systolic.from_config({"sram": name, "leakage": True}).chip
        for name in ("sram", "domain_wall")
    )
    assert tracks.area_m2 < sram.area_m2 / 2
    assert tracks.leakage_w < sram.leakage_w / 2
    assert tracks.sram_write_j > tracks.sram_read_j


def test_a_chosen_memory_replaces_the_constant_in_the_description() -> None:
    plain, chosen = (
        Systolic.from_config(options).description
        for options in ({}, {"sram": "sram", "sram_bank": "4 KiB"})
    )
    assert "sram_energy" in plain["constants"]
    assert "sram_energy" not in chosen["constants"]
    assert chosen["sram_read"]["value"] == pytest.approx(0.8574e-12)
    assert chosen["sram_write"]["value"] == pytest.approx(1.078e-12)
    assert chosen["sram_bank"] == "4 KiB"
    assert chosen["sram"]["name"] == "sram"


# --- technology ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "energy", "area"),
    [
        # a₂V² + a₁V + a₀ of both nodes, and the published factors of area.
        ({"node": "32"}, (0.8367, -0.4341, 0.1701, 0.9), 0.46),
        ({"node": "16", "supply_voltage": "0.8 V"}, (0.2958, -0.1241, 0.03024, 0.8), 0.19),
        ({"node": "7", "supply_voltage": "700 mV"}, (0.1776, -0.09097, 0.02447, 0.7), 0.059),
        ({"supply_voltage": "0.7 V"}, (1.018, -0.3107, 0.1539, 0.7), 1.0),
        ({"node": "45"}, (1.018, -0.3107, 0.1539, 0.9), 1.0),
    ],
)
def test_technology_scales_switching_and_area(
    options: dict[str, str], energy: tuple[float, ...], area: float
) -> None:
    a2, a1, a0, volts = energy
    before = 1.018 * 0.81 - 0.3107 * 0.9 + 0.1539
    factor = (a2 * volts**2 + a1 * volts + a0) / before
    plain, scaled = (costs(leakage=True, registers=True, **o) for o in ({}, options))
    for part in ("arithmetic", "registers", "elementwise", "sram"):
        assert scaled.energy_breakdown_j[part] == pytest.approx(
            factor * plain.energy_breakdown_j[part]
        )
    # Leakage, DRAM and the clock stay.
    for part in ("leakage", "dram"):
        assert scaled.energy_breakdown_j[part] == plain.energy_breakdown_j[part]
    assert scaled.latency_s == plain.latency_s
    assert scaled.resources["area_m2"] == pytest.approx(area * plain.resources["area_m2"])


def test_the_description_names_the_technology() -> None:
    description = Systolic.from_config({"node": "28", "supply_voltage": "0.8 V"}).description
    assert (description["node"], description["supply_voltage"]) == ("28", "0.8 V")
    assert Systolic.from_config({}).description["node"] == "45"


def test_the_description_says_what_leaks() -> None:
    for options, told in (
        ({}, "not counted"),
        ({"sram": "sram"}, "not counted"),
        ({"leakage": True}, "units"),
        ({"leakage": True, "dram": "hbm2"}, "units, DRAM standby"),
        ({"leakage": True, "dram": "hbm2", "sram": "sram"}, "units, SRAM, DRAM standby"),
    ):
        assert Systolic.from_config(options).description["leakage"] == told


# --- parts of the energy -------------------------------------------------------------------------
def test_registers_are_those_of_the_skew() -> None:
    """1056 inputs for each of 128 folds pass no register (one row), weights 31/2 on average."""
    without, with_ = (costs(registers=r) for r in (False, True))
    assert "registers" not in without.energy_breakdown_j
    moved = 4096 * 1056 * 8 * 31 / 2
    assert with_.energy_breakdown_j["registers"] == pytest.approx(moved * 5.1e-15)
    assert value(with_.energy_per_step_j) == pytest.approx(
        value(without.energy_per_step_j) + moved * 5.1e-15
    )


def test_functions_count_for_more_results() -> None:
    """σ and tanh take three results beside their own, of 12 bytes and 3.2 pJ each."""
    plain, curved = (costs(elementwise(640, functions)) for functions in (0, 320))
    assert plain.latency_per_step_s == pytest.approx(20 / 200e6)
    assert curved.latency_per_step_s == pytest.approx(50 / 200e6)
    assert curved.energy_breakdown_j["elementwise"] == pytest.approx(1600 * 3.2e-12)
    assert curved.energy_breakdown_j["sram"] == pytest.approx(1600 * 12 * 8 * 0.107e-12)
    assert "array_utilization" not in curved.resources


def test_the_default_area_is_units_and_sram() -> None:
    """32 times the 128 KiB of CACTI's last row (1.02522 mm²) beside 1024 units."""
    found = costs().resources["area_m2"]
    assert found == pytest.approx(32 * 1.02522e-6 + UNITS * 1734.552e-12)


ALL = st.fixed_dictionaries(
    {
        "unit": st.sampled_from([None, *SYNTHESIS]),
        "dram": st.sampled_from([None, *DRAMS]),
        "sram": st.sampled_from([None, "sram", "domain_wall"]),
        "node": st.sampled_from([None, "45", "28", "7"]),
        "leakage": st.booleans(),
        "registers": st.booleans(),
        "batch": st.sampled_from([1, 4]),
        "workload": st.sampled_from(["streaming", "sequence"]),
        "residency": st.sampled_from(["streamed", "fit", "partial"]),
        "circulant": st.sampled_from(["expanded", "fft"]),
    }
)


@given(networks(("dense", "circulant", "n_m", "block_sparse")), ALL)
def test_breakdowns_sum_to_totals_with_every_option(
    network: tuple[list[ProductRow], float], options: dict[str, Any]
) -> None:
    rows, steps = network
    cost = Systolic.from_config(options).cost(make_table([[row] for row in rows], steps))
    totals = {
        "latency_s": cost.latency_per_step_s,
        "energy_j": cost.energy_per_step_j,
        "inference_latency_s": cost.latency_s,
        "inference_energy_j": cost.energy_j,
    }
    for name, total in totals.items():
        assert sum(op[name] for op in cost.per_op.values()) == pytest.approx(total, rel=1e-9)
    assert sum(cost.energy_breakdown_j.values()) == pytest.approx(cost.energy_per_step_j, rel=1e-9)
    assert ("leakage" in cost.energy_breakdown_j) == options["leakage"]
    assert ("registers" in cost.energy_breakdown_j) == options["registers"]
    assert 0 <= cost.resources["array_utilization"] <= 1


# --- refusals ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workload": "sequences"}, "platform.workload is 'sequences'"),
        ({"batch": 0}, "platform.batch is 0; expected 1 … 65536"),
        ({"batch": 2**16 + 1}, "platform.batch is 65537"),
        ({"batch": 1.5}, "platform.batch is 1.5"),
        ({"batch": True}, "platform.batch is True"),
        ({"batch": "4"}, "platform.batch is '4'"),
        ({"circulant": "direct"}, "platform.circulant is 'direct'"),
        ({"unit": "fusion_8_4"}, "unknown spec 'fusion_8_4'"),
        ({"unit": "lpddr4.toml"}, "cannot read the spec lpddr4.toml"),
        ({"dram": "lpddr5"}, "unknown spec 'lpddr5'.*did you mean 'lpddr"),
        ({"dram": "sram"}, "is for the family 'onchip'; expected the family 'dram'"),
        ({"sram": "lpddr4"}, "is for the family 'dram'; expected the family 'onchip'"),
        ({"sram": "bitfusion"}, "is for the family 'dram'"),
        ({"sram_bank": "4 KiB"}, "platform.sram_bank is given without platform.sram"),
        ({"sram": "sram", "sram_bank": "0 B"}, "a bank of 0 bytes"),
        ({"sram": "sram", "sram_bank": "-4 KiB"}, "a bank of -4096 bytes"),
        ({"sram": "sram", "sram_bank": "4 banks"}, "platform.sram_bank has the unknown unit"),
        ({"node": "29"}, "unknown technology node '29'"),
        ({"node": 28}, "platform.node is 28"),
        ({"supply_voltage": "2 V"}, "supply voltage at 45 nm is 2 V; expected 0.5 to 1 V"),
        ({"supply_voltage": "0.8 A"}, "platform.supply_voltage has the unknown unit 'A'"),
        ({"node": "180"}, "supply voltage at 180 nm is 0.9 V"),
        ({"leakage": "yes"}, "platform.leakage is 'yes'"),
        ({"registers": 1}, "platform.registers is 1"),
        ({"reuse": True}, "unknown key 'reuse'"),
    ],
)
def test_wrong_options_are_told_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Systolic.from_config(options)
    assert len(str(caught.value).splitlines()) == 1


def test_a_spec_that_names_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    path = Path(write_spec(tmp_path / "chip.toml"))
    path.write_text(path.read_text().replace("fusion_8_2", "fusion_9_2"))
    with pytest.raises(UserError, match=r"unknown spec 'fusion_9_2'.*'fusion_8_2'"):
        Systolic.from_config({"spec": str(path)})
