"""Memory types: what a moved byte, a waiting bit and a stored byte cost, by capacity.

On-chip types are given at a few capacities of one bank and interpolated between them, straight in
the logarithms of both. Outside:

- energy: below the first point that of the first point; above the last one it grows as √capacity,
  as wires do. The exponent is that of Horowitz's SRAM figures (Computing's Energy Problem, ISSCC
  2014: 10, 20, 100 pJ for 64 bits from 8 KB, 32 KB, 1 MB, that is about 0.45·√KB pJ/byte at 45 nm),
  the level that of the last point, so that energy never falls. It is an extrapolation from 1 MB on.
- leakage and area: proportional to the capacity.

A memory may be cut into banks of equal size: an access then costs that of one bank, leakage and
area are those of all banks. Wires and decoders between banks are not counted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from modelflex.core.files import read_text
from modelflex.core.fixed import Array
from modelflex.core.spec import MAX_BYTES, Spec, SpecField, find_spec, read_spec
from modelflex.errors import UserError

MEMORIES: Final = Path(__file__).resolve().parents[1] / "memories"

DRAM_FIELDS: Final[Mapping[str, SpecField]] = {
    "energy_low": SpecField("J/bit"),
    "energy": SpecField("J/bit"),
    "energy_high": SpecField("J/bit"),
    "bandwidth": SpecField("B/s"),
    "standby": SpecField("W"),
}
"""The constants of a DRAM type."""

POINT_FIELDS: Final[Mapping[str, SpecField]] = {
    "read_energy": SpecField("J/B"),
    "write_energy": SpecField("J/B"),
    "leakage": SpecField("W"),
    "area": SpecField("nm²", "count"),
}
"""The constants of an on-chip type at one capacity; their names end in it: read_energy_4KiB."""

SHIFT_FIELD: Final = SpecField("J/B")
"""shift_energy_…: moving the tracks of a byte by one domain, in memories that shift."""

SHIFTS_FIELD: Final = SpecField("shift", "count")
"""shifts_per_access, in memories that shift."""

WIRE_EXPONENT: Final = 0.5
"""Growth of the access energy with the capacity beyond the last point."""

_SQUARE_METRES_PER_NM2: Final = 1e-18
_LABEL: Final = re.compile(r"[a-z_]+_([1-9]\d{0,5})(B|KiB|MiB)")
_MULTIPLES: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20}


@dataclass(frozen=True)
class DramType:
    """A DRAM, read from a spec.

    Attributes:
        spec: the constants with their sources.
        energy_low_j_per_bit, energy_j_per_bit, energy_high_j_per_bit: cited range of the energy of
            a moved bit; equal where a single figure is known.
        bandwidth_bytes_per_s: peak.
        standby_w: while it waits for the next access, refresh not included.
    """

    spec: Spec
    energy_low_j_per_bit: float
    energy_j_per_bit: float
    energy_high_j_per_bit: float
    bandwidth_bytes_per_s: float
    standby_w: float


def read_dram(name: str) -> DramType:
    """The DRAM of a shipped spec, or of the .toml file at the path `name`.

    Raises:
        UserError: an unknown name, a broken spec, energies that are not in order.
    """
    spec = read_spec(find_spec(MEMORIES, name), "dram", DRAM_FIELDS)
    low, typical, high = (spec[field] for field in ("energy_low", "energy", "energy_high"))
    if not low <= typical <= high:
        raise UserError(
            f"DRAM '{spec.name}': energies of {low:g}, {typical:g} and {high:g} J/bit",
            "energy_low ≤ energy ≤ energy_high",
        )
    return DramType(spec, low, typical, high, spec["bandwidth"], spec["standby"])


@dataclass(frozen=True, eq=False)
class OnChipType:
    """An on-chip memory, read from a spec; its methods take arrays that broadcast.

    Attributes:
        spec: the constants with their sources.
        capacities: [points], bytes of one bank, ascending.
        points: name of `POINT_FIELDS` → [points], in SI units; shifts are part of both energies.
    """

    spec: Spec
    capacities: Array
    points: Mapping[str, Array]

    def energy_j_per_byte(
        self,
        capacity_bytes: Array | float,
        access: Literal["read", "write"],
        bank_bytes: Array | float = np.inf,
    ) -> Array:
        """Energy of a byte read from, or written to, a memory of banks of `bank_bytes`."""
        bank, _ = _banks(capacity_bytes, bank_bytes)
        return self._curve(f"{access}_energy", bank, below=0.0, above=WIRE_EXPONENT)

    def leakage_w(self, capacity_bytes: Array | float, bank_bytes: Array | float = np.inf) -> Array:
        """Leakage of the whole memory."""
        bank, count = _banks(capacity_bytes, bank_bytes)
        return count * self._curve("leakage", bank, below=1.0, above=1.0)

    def area_m2(self, capacity_bytes: Array | float, bank_bytes: Array | float = np.inf) -> Array:
        """Area of the whole memory."""
        bank, count = _banks(capacity_bytes, bank_bytes)
        return count * self._curve("area", bank, below=1.0, above=1.0)

    def _curve(self, name: str, bank_bytes: Array, below: float, above: float) -> Array:
        """Interpolated in the logarithms; outside a power of the capacity: [as bank_bytes]."""
        known, values = self.capacities, self.points[name]
        inside = np.clip(bank_bytes, known[0], known[-1])
        power = np.where(bank_bytes < known[0], below, above)
        value = np.exp(np.interp(np.log(inside), np.log(known), np.log(values)))
        return np.asarray(value * (bank_bytes / inside) ** power)


def _banks(capacity_bytes: Array | float, bank_bytes: Array | float) -> tuple[Array, Array]:
    """Bytes of a bank, and how many banks it takes."""
    capacity, bank = np.asarray(capacity_bytes, float), np.asarray(bank_bytes, float)
    for what, size in (("memory", capacity), ("bank", bank)):
        if not (size > 0).all():
            raise UserError(f"a {what} of {np.extract(~(size > 0), size)[0]:g} bytes", "above zero")
    bank = np.minimum(bank, capacity)
    return bank, np.ceil(capacity / bank)


def read_onchip(name: str) -> OnChipType:
    """The on-chip memory of a shipped spec, or of the .toml file at the path `name`.

    The file chooses its capacities: for each one that any constant names, all are expected.

    Raises:
        UserError: an unknown name, a broken or incomplete spec.
    """
    path = find_spec(MEMORIES, name)
    keys = list(_keys(path))
    sizes = {
        int(match[1]) * _MULTIPLES[match[2]]: f"{match[1]}{match[2]}"
        for match in map(_LABEL.fullmatch, keys)
        if match
    }
    shifts = any(key.startswith("shift") for key in keys)
    at_point = {**POINT_FIELDS, "shift_energy": SHIFT_FIELD} if shifts else POINT_FIELDS
    # Without any point the reader names the first constant that is missing.
    labels = [label for _, label in sorted(sizes.items())] or ["4KiB"]
    expected = {f"{field}_{label}": kind for label in labels for field, kind in at_point.items()}
    if shifts:
        expected["shifts_per_access"] = SHIFTS_FIELD
    spec = read_spec(path, "onchip", expected)
    return _onchip(spec, labels, np.array(sorted(sizes), float), shifts)


def _onchip(spec: Spec, labels: list[str], capacities: Array, shifts: bool) -> OnChipType:
    def column(field: str) -> Array:
        return np.array([spec[f"{field}_{label}"] for label in labels])

    moved = spec["shifts_per_access"] * column("shift_energy") if shifts else 0.0
    points = {
        "read_energy": column("read_energy") + moved,
        "write_energy": column("write_energy") + moved,
        "leakage": column("leakage"),
        "area": column("area") * _SQUARE_METRES_PER_NM2,
    }
    return OnChipType(spec, capacities, points)


def _keys(path: Path) -> Iterator[str]:
    """Names of the constants; none of a broken file, which the reader of specs will refuse."""
    try:
        yield from tomllib.loads(read_text(path, MAX_BYTES, "spec"))
    except (UserError, ValueError, RecursionError):
        return
