"""The chip that priced a sweep: the constants that it took, each with its source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from modelflex.core.spec import Spec
from modelflex.platforms.systolic.memories import read_dram
from modelflex.platforms.systolic.sweep import DEFAULT_UNIT, swept_chip
from modelflex.platforms.systolic.sweep_config import ChipConfig
from modelflex.report.cells import Table, assumptions

_CAPACITY: Final = re.compile(r"_\d+(B|KiB|MiB)$")
_ACCESS: Final = ("read_energy", "write_energy", "shift_energy", "shifts_per_access")


class ShownChip(NamedTuple):
    """What the page says of the chip: one line, and the constants."""

    title: str
    constants: Table


def read(config: ChipConfig | None) -> ShownChip:
    """The chip of a sweep; without one only its unit is known.

    Raises:
        UserError: an unknown or broken spec, unit or memory.
    """
    if config is None:
        title = (
            "No chip was given: figures are cycles and words. "
            f"Operands are packed as units {DEFAULT_UNIT} do."
        )
        return ShownChip(title, Table((), ()))
    spec, chip, memory = swept_chip(config)
    unit, sram = chip.unit.spec, memory.spec
    node = f"{spec.names['node']} nm"
    leakage = ["leakage"] if config.leakage else []
    own = ["clock", "accumulator_width"]
    own += [f"{name}_energy" for name in ("sram", "dram") if getattr(config, name) is None]
    hanging = [] if config.sram is None else [*_ACCESS, *leakage]
    values = {
        "spec": {"value": spec.name, "source": spec.title},
        "node": node,
        **_constants(spec, own),
        "unit": _named(unit, ["brick_width", "bricks_per_side", "energy", "area", *leakage]),
        "SRAM": _named(sram, ["area", *hanging]),
    }
    used = f"{spec.name}, {node}, units {unit.name}, SRAM {sram.name}"
    if config.dram is not None:
        dram = read_dram(config.dram).spec
        values["DRAM"] = _named(dram, ["energy"])
        used += f", DRAM {dram.name}"
    return ShownChip(f"{used}: constants and sources", assumptions(values, "Assumption"))


def _named(spec: Spec, parts: Sequence[str]) -> dict[str, Any]:
    return {"name": {"value": spec.name, "source": spec.title}, **_constants(spec, parts)}


def _constants(spec: Spec, parts: Sequence[str]) -> dict[str, Any]:
    """Those of these names; a memory's carry its capacity besides (area_4KiB)."""
    constants: dict[str, Any] = spec.to_json()["constants"]
    return {
        name: constant for name, constant in constants.items() if _CAPACITY.sub("", name) in parts
    }
