"""One chip: what a spec and the options make of it, in numbers that pricing multiplies with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelflex.core.spec import SPECS, Spec, find_spec, read_spec
from modelflex.errors import UserError
from modelflex.platforms.systolic.config import FIELDS, NAMES, SystolicConfig
from modelflex.platforms.systolic.memories import read_dram, read_onchip
from modelflex.platforms.systolic.points import MAX_SIDE
from modelflex.platforms.systolic.technology import scale
from modelflex.platforms.systolic.units import Unit, read_unit
from modelflex.units import parse_quantity

DEFAULT_SRAM = "sram"
"""The memory type whose area is taken where none is chosen."""


@dataclass(frozen=True)
class Chip:
    """An array of units with SRAM, DRAM and a vector unit.

    Attributes:
        rows, columns: units of the array.
        unit: what multiplies; its energy is in the chip's technology.
        clock: cycles a second.
        sram_bytes: capacity.
        sram_read_j, sram_write_j, dram_j: energy of a byte.
        dram_bandwidth: bytes a second, infinite if unlimited.
        accumulator_bits: width of a sum outside the array.
        register_j: energy of a bit that moves on by one register; 0 where they are not counted.
        vector_lanes, vector_j, vector_read_bytes, vector_write_bytes: results a cycle, energy of a
            result, and its traffic.
        function_results: results that σ or tanh count for beside their own.
        leakage_w: leakage and standby power that are counted.
        area_m2: units and SRAM.
        sources: what was chosen instead of the spec's constants, with its own constants.
    """

    rows: int
    columns: int
    unit: Unit
    clock: float
    sram_bytes: float
    sram_read_j: float
    sram_write_j: float
    dram_j: float
    dram_bandwidth: float
    accumulator_bits: int
    register_j: float
    vector_lanes: int
    vector_j: float
    vector_read_bytes: float
    vector_write_bytes: float
    function_results: int
    leakage_w: float
    area_m2: float
    sources: Mapping[str, Any]

    @property
    def units(self) -> int:
        """Of the whole array."""
        return self.rows * self.columns


def read_chip(config: SystolicConfig) -> tuple[Spec, Chip]:
    """The spec with the quantities that options replace, without those that are not used, and the chip.

    Raises:
        UserError: an unknown spec, unit, memory or node, a wrong or broken value.
    """
    spec = _spec(config)
    for side in ("array_rows", "array_columns"):
        if spec[side] > MAX_SIDE:
            raise UserError(
                f"the spec '{spec.name}': {side} is {spec[side]:g}", f"at most {MAX_SIDE}"
            )
    unit = read_unit(spec.names["unit"] if config.unit is None else config.unit)
    memory = _memory(config, spec)
    energy, area = _technology(config, spec)
    units = spec["array_rows"] * spec["array_columns"]
    leakage_w = units * unit.leakage_w + memory.sram_leakage_w + memory.standby_w
    sources = {"unit": unit.spec.to_json(), **memory.sources}
    unlimited = config.dram_bandwidth == "unlimited"
    # Two operands are read for every result that is written.
    vector_bytes = spec["vector_traffic"] / 8
    chip = Chip(
        rows=int(spec["array_rows"]),
        columns=int(spec["array_columns"]),
        unit=replace(unit, energy_j=unit.energy_j * energy),
        clock=spec["clock"],
        sram_bytes=spec["sram_capacity"],
        sram_read_j=memory.sram_read_j * energy,
        sram_write_j=memory.sram_write_j * energy,
        dram_j=8 * spec["dram_energy"],
        dram_bandwidth=np.inf if unlimited else spec["dram_bandwidth"],
        accumulator_bits=int(spec["accumulator_width"]),
        register_j=spec["register_energy"] * energy if config.registers else 0.0,
        vector_lanes=int(spec["vector_lanes"]),
        vector_j=spec["vector_energy"] * energy,
        vector_read_bytes=vector_bytes * 2 / 3,
        vector_write_bytes=vector_bytes / 3,
        function_results=int(spec["function_results"]),
        leakage_w=leakage_w if config.leakage else 0.0,
        area_m2=(units * unit.area_m2 + memory.sram_area_m2) * area,
        sources=sources,
    )
    if config.sram is not None:  # another energy was counted, which `sources` tells
        kept = {name: c for name, c in spec.constants.items() if name != "sram_energy"}
        spec = replace(spec, constants=kept)
    return spec, chip


@dataclass(frozen=True)
class _Memory:
    sram_read_j: float
    sram_write_j: float
    sram_leakage_w: float
    sram_area_m2: float
    standby_w: float
    sources: Mapping[str, Any]


def _spec(config: SystolicConfig) -> Spec:
    spec = read_spec(find_spec(SPECS, config.spec), "systolic", FIELDS, NAMES)
    if config.dram is not None:
        dram = read_dram(config.dram)
        chosen = {
            "dram_energy": (dram.energy_j_per_bit, "J/bit"),
            "dram_bandwidth": (dram.bandwidth_bytes_per_s, "B/s"),
        }
        for name, (value, unit) in chosen.items():
            spec = spec.with_constant(name, f"{value!r} {unit}", unit, f"DRAM {dram.spec.name}")
    energy, bandwidth = config.dram_energy_per_bit, config.dram_bandwidth
    if energy is not None:
        spec = spec.with_constant("dram_energy", energy, "J/bit", "platform.dram_energy_per_bit")
    if bandwidth is not None and bandwidth != "unlimited":
        spec = spec.with_constant("dram_bandwidth", bandwidth, "B/s", "platform.dram_bandwidth")
    return spec


def _memory(config: SystolicConfig, spec: Spec) -> _Memory:
    capacity = spec["sram_capacity"]
    onchip = read_onchip(DEFAULT_SRAM if config.sram is None else config.sram)
    bank = np.inf
    if config.sram_bank is not None:
        bank = parse_quantity(config.sram_bank, "B", "platform.sram_bank")
    sources: dict[str, Any] = {}
    read_j = write_j = 8 * spec["sram_energy"]
    if config.sram is not None:
        read_j, write_j = (
            float(onchip.energy_j_per_byte(capacity, access, bank)) for access in ("read", "write")
        )
        sources["sram"] = onchip.spec.to_json()
        sources |= {
            f"sram_{access}": {
                "value": joules,
                "unit": "J/B",
                "source": f"points of {onchip.spec.name}",
            }
            for access, joules in (("read", read_j), ("write", write_j))
        }
    standby_w = 0.0
    if config.dram is not None:
        dram = read_dram(config.dram)
        sources["dram"] = dram.spec.to_json()
        standby_w = dram.standby_w
    return _Memory(
        sram_read_j=read_j,
        sram_write_j=write_j,
        # Transistors of an unknown kind: leakage of a type that nobody chose would be a guess.
        sram_leakage_w=0.0 if config.sram is None else float(onchip.leakage_w(capacity, bank)),
        sram_area_m2=float(onchip.area_m2(capacity, bank)),
        standby_w=standby_w,
        sources=sources,
    )


def _technology(config: SystolicConfig, spec: Spec) -> tuple[float, float]:
    """Factors on the energy of switching and on areas."""
    volts = spec["supply_voltage"]
    target = volts
    if config.supply_voltage is not None:
        target = parse_quantity(config.supply_voltage, "V", "platform.supply_voltage")
    if config.node is None and config.supply_voltage is None:
        return 1.0, 1.0
    node = spec.names["node"]
    factors = scale(node, volts, node if config.node is None else config.node, target)
    return float(factors.energy), factors.area
