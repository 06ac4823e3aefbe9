"""Energy counters of processors with RAPL (Running Average Power Limit), as Linux shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

POWERCAP: Final = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """The counter of a package: microjoules that start again from 0 after `wrap_uj`."""

    file: Path
    wrap_uj: int


def counters(folder: Path = POWERCAP) -> tuple[Counter, ...]:
    """Counters of the processor's packages; none where they may not be read."""
    found = []
    for domain in sorted(folder.glob("intel-rapl:*")):
        try:
            if domain.name.count(":") == 1 and (domain / "name").read_text().startswith("package"):
                int((domain / "energy_uj").read_text())
                wrap = int((domain / "max_energy_range_uj").read_text())
                found.append(Counter(domain / "energy_uj", wrap))
        except (OSError, ValueError):
            continue
    return tuple(found)


def read_uj(packages: tuple[Counter, ...]) -> list[int]:
    """What the counters show now."""
    return [int(counter.file.read_text()) for counter in packages]


def joules_between(packages: tuple[Counter, ...], before: list[int], after: list[int]) -> float:
    """Energy of all packages from one reading to the next; counters wrapped at most once."""
    used = 0
    for counter, first, then in zip(packages, before, after, strict=True):
        used += then - first if then >= first else then - first + counter.wrap_uj + 1
    return used * 1e-6
