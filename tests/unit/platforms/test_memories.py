"""Memory types against the rows of CACTI, BitFusion's published areas, and cited energies."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic.memories import MEMORIES, read_dram, read_onchip

SHIPPED = {
    path.stem: tomllib.loads(path.read_text(encoding="utf-8"))
    for path in sorted(MEMORIES.glob("*.toml"))
}
DRAMS = [name for name, content in SHIPPED.items() if content["family"] == "dram"]
ON_CHIP = [name for name, content in SHIPPED.items() if content["family"] == "onchip"]
KIB, MIB = 1024, 2**20


@pytest.mark.parametrize("name", SHIPPED)
def test_every_constant_has_a_unit_and_a_source(name: str) -> None:
    content = dict(SHIPPED[name])
    assert content.pop("name") == name
    assert content.pop("family") in ("dram", "onchip")
    assert content.pop("title")
    for constant in content.values():
        assert set(constant) == {"value", "unit", "source"}
        assert len(constant["source"].split()) >= 3


@pytest.mark.parametrize(
    ("name", "low", "typical", "high"),
    [
        ("lpddr4", 4, 8, 15), ("lpddr3", 12, 15, 20), ("lpddr2", 40, 40, 40), ("ddr3", 70, 70, 70),
        ("gddr5", 14, 14, 14), ("hbm2", 3.9, 3.9, 3.9), ("hmc", 4.2, 4.2, 4.2),
        ("bitfusion", 6, 15, 15), ("horowitz", 20, 30, 40),
    ],
)  # fmt: skip
def test_cited_dram_energies(name: str, low: float, typical: float, high: float) -> None:
    dram = read_dram(name)
    found = (dram.energy_low_j_per_bit, dram.energy_j_per_bit, dram.energy_high_j_per_bit)
    assert [joules * 1e12 for joules in found] == pytest.approx([low, typical, high])
    assert 1e9 < dram.bandwidth_bytes_per_s < 1e12
    assert 0 < dram.standby_w < 10


def test_every_shipped_dram_is_tested() -> None:
    assert len(DRAMS) == 9
    assert sorted(ON_CHIP) == ["domain_wall", "sram"]


def test_dram_energies_must_be_in_order(tmp_path: Path) -> None:
    text = (MEMORIES / "lpddr4.toml").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace("value = 8\n", "value = 18\n"), encoding="utf-8")
    with pytest.raises(UserError, match="expected energy_low ≤ energy ≤ energy_high"):
        read_dram(str(path))


# CACTI, 45 nm: bytes, read and write pJ/byte, mm², mW.
@pytest.mark.parametrize(
    ("capacity", "read", "write", "area", "leakage"),
    [
        (128, 0.171, 0.231, 0.0015, 0.25),
        (1 * KIB, 0.283, 0.824, 0.0088, 1.79),
        (2 * KIB, 0.476, 0.910, 0.0151, 3.23),
        (4 * KIB, 0.857, 1.08, 0.030, 7.3),
        (8 * KIB, 1.60, 1.39, 0.0575, 13.7),
        (16 * KIB, 2.50, 2.11, 0.109, 27.1),
        (128 * KIB, 6.86, 5.42, 1.025, 188.7),
    ],
)
def test_sram_at_the_points_of_cacti(
    capacity: int, read: float, write: float, area: float, leakage: float
) -> None:
    sram = read_onchip("sram")
    found = (
        float(sram.energy_j_per_byte(capacity, "read")) * 1e12,
        float(sram.energy_j_per_byte(capacity, "write")) * 1e12,
        float(sram.area_m2(capacity)) * 1e6,
        float(sram.leakage_w(capacity)) * 1e3,
    )
    assert found == pytest.approx((read, write, area, leakage), rel=0.01)


def test_sram_between_two_points() -> None:
    # √2 KiB lies in the middle of 1 and 2 KiB in the logarithm: the geometric means.
    sram, middle = read_onchip("sram"), math.sqrt(2) * KIB
    read = math.sqrt(0.2833 * 0.4758)
    assert float(sram.energy_j_per_byte(middle, "read")) * 1e12 == pytest.approx(read, rel=1e-4)
    area = math.sqrt(0.00882362 * 0.015132)
    assert float(sram.area_m2(middle)) * 1e6 == pytest.approx(area, rel=1e-4)


def test_sram_beyond_the_points() -> None:
    sram = read_onchip("sram")
    energies = sram.energy_j_per_byte(np.array([128, 512, 4096]) * KIB, "read")
    assert energies * 1e12 == pytest.approx([6.864, 2 * 6.864, math.sqrt(32) * 6.864])
    assert sram.leakage_w(256 * KIB) == pytest.approx(2 * 188.699e-3)
    assert sram.area_m2(64) == pytest.approx(0.5 * 1.49898e-9)
    assert sram.energy_j_per_byte(1, "write") == sram.energy_j_per_byte(128, "write")


def test_sram_is_within_twice_of_horowitz() -> None:
    # Horowitz, ISSCC 2014, 45 nm: 10, 20, 100 pJ for 8 bytes; a fit is 0.45·√KB pJ a byte.
    sram = read_onchip("sram")
    for kilobytes, picojoules in ((8, 10 / 8), (32, 20 / 8), (1024, 100 / 8)):
        assert picojoules == pytest.approx(0.45 * math.sqrt(kilobytes), rel=0.2)
        found = float(sram.energy_j_per_byte(kilobytes * KIB, "read")) * 1e12
        assert picojoules < found < 2 * picojoules


# BitFusion's published run: 16×32 units; WBUF 64 KB, IBUF 32 KB: .767 and .242 mm². Each unit has
# its own bank of weights, each of 16 rows one of inputs.
@pytest.mark.parametrize(
    ("capacity", "banks", "area"), [(64 * KIB, 16 * 32, 0.767), (32 * KIB, 16, 0.242)]
)
def test_areas_of_bitfusions_buffers(capacity: int, banks: int, area: float) -> None:
    found = read_onchip("sram").area_m2(capacity, bank_bytes=capacity // banks)
    assert float(found) * 1e6 == pytest.approx(area, abs=1e-3)


def test_an_access_costs_that_of_its_bank() -> None:
    sram = read_onchip("sram")
    banked = sram.energy_j_per_byte(4 * MIB, "read", bank_bytes=4 * KIB)
    assert float(banked) / 8 * 1e12 == pytest.approx(0.107, abs=5e-4)
    assert float(sram.leakage_w(4 * MIB, 4 * KIB)) == pytest.approx(1024 * 7.30186e-3)
    # A last bank that is not full is there all the same; a bank is never larger than the memory.
    assert sram.area_m2(9 * KIB, 4 * KIB) == pytest.approx(3 * sram.area_m2(4 * KIB))
    assert sram.area_m2(2 * KIB, 4 * KIB) == sram.area_m2(2 * KIB)


def test_domain_wall_memory_reads_after_a_shift() -> None:
    memory = read_onchip("domain_wall")
    found = [float(memory.energy_j_per_byte(4 * KIB, a)) * 1e12 for a in ("read", "write")]
    assert found == pytest.approx([0.6 + 0.5, 0.95 + 0.5])


@pytest.mark.parametrize("kilobytes", [128, 1024, 4096])
def test_domain_wall_memory_trades_access_energy_for_leakage_and_area(kilobytes: int) -> None:
    memory, sram = read_onchip("domain_wall"), read_onchip("sram")
    capacity = kilobytes * KIB
    assert memory.energy_j_per_byte(capacity, "read") > sram.energy_j_per_byte(capacity, "read")
    assert memory.leakage_w(capacity) < sram.leakage_w(capacity) / 5
    # TapeCache: 7.8 times smaller than SRAM.
    assert float(sram.area_m2(capacity) / memory.area_m2(capacity)) == pytest.approx(7.8, rel=0.01)


@pytest.mark.parametrize("name", ON_CHIP)
@given(data=st.data())
def test_nothing_gets_cheaper_by_growing(name: str, data: st.DataObject) -> None:
    memory = read_onchip(name)
    sizes = st.floats(1, 2**30)
    capacities = np.sort(data.draw(st.lists(sizes, min_size=2, max_size=8)))
    for values in (
        memory.energy_j_per_byte(capacities, "read"),
        memory.energy_j_per_byte(capacities, "write"),
        memory.leakage_w(capacities),
        memory.area_m2(capacities),
    ):
        assert values.shape == capacities.shape
        assert (values > 0).all()
        assert (np.diff(values) >= -1e-9 * values[1:]).all()
    bank = data.draw(sizes)
    cut = memory.energy_j_per_byte(capacities, "read", bank)
    assert (cut <= memory.energy_j_per_byte(capacities, "read")).all()


def test_capacities_and_banks_broadcast() -> None:
    sram = read_onchip("sram")
    capacities, banks = np.array([[KIB], [MIB]]), np.array([256.0, 4096.0, np.inf])
    table = sram.leakage_w(capacities, banks)
    assert table.shape == (2, 3)
    assert table[1, 1] == sram.leakage_w(MIB, 4096)


def test_sizes_must_be_above_zero() -> None:
    sram = read_onchip("sram")
    with pytest.raises(UserError, match="a memory of 0 bytes; expected above zero"):
        sram.area_m2(np.array([1024, 0]))
    with pytest.raises(UserError, match="a bank of -4 bytes"):
        sram.energy_j_per_byte(1024, "read", -4)
    with pytest.raises(UserError, match="a memory of nan bytes"):
        sram.leakage_w(float("nan"))


SOUND = """
name = "own"
family = "onchip"
title = "t"
read_energy_2KiB = {value = 1.0, unit = "pJ/B", source = "s"}
write_energy_2KiB = {value = 2.0, unit = "pJ/B", source = "s"}
leakage_2KiB = {value = 3.0, unit = "mW", source = "s"}
area_2KiB = {value = 4_000_000, unit = "nm²", source = "s"}
"""


def test_a_memory_of_ones_own_with_one_point(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SOUND, encoding="utf-8")
    memory = read_onchip(str(path))
    assert float(memory.energy_j_per_byte(8 * KIB, "write")) == pytest.approx(4e-12)
    assert float(memory.leakage_w(1 * KIB)) == pytest.approx(1.5e-3)
    assert float(memory.area_m2(2 * KIB)) == pytest.approx(4e-12)


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ("write_energy_2KiB", "write_energy_4KiB", "has no 'write_energy_2KiB'"),
        ("leakage_2KiB", "leakage_4KiB", "has no 'leakage_2KiB'"),
        ("leakage_2KiB", "leakage_2kB", "unknown key 'leakage_2kB'; .*did you mean 'leakage_2KiB'"),
        ("leakage_2KiB", "shift_energy_2KiB", "has no 'leakage_2KiB'"),
        ('family = "onchip"', 'family = "dram"', "for the family 'dram'; expected the family 'onc"),
        ("4_000_000", "4.5", "area_2KiB.value is 4.5; expected a whole number"),
        ("2KiB", "", "unknown key 'read_energy_'"),
        ('title = "t"', "title =", "not valid TOML"),
    ],
)
def test_broken_memories_are_refused(
    tmp_path: Path, found: str, replacement: str, message: str
) -> None:
    assert found in SOUND
    path = tmp_path / "own.toml"
    path.write_text(SOUND.replace(found, replacement), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_onchip(str(path))


def test_unknown_and_missing_memories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown spec 'sramm'.*did you mean 'sram'"):
        read_onchip("sramm")
    with pytest.raises(UserError, match="cannot read the spec"):
        read_onchip(str(tmp_path / "none.toml"))
    with pytest.raises(UserError, match="for the family 'dram'"):
        read_onchip("lpddr4")
    with pytest.raises(UserError, match="for the family 'onchip'"):
        read_dram("sram")
