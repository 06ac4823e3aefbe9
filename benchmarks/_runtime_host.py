"""The processor as far as it matters for speed: instruction sets and caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ISA = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "asimd", "asimddp")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def host() -> dict[str, Any]:
    """Instruction sets and caches of the first core, where the system tells them, and the load."""
    cpuinfo = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.split(":", 1)[1].split())
                break
    caches = {}
    for index in sorted(CACHES.glob("index*")):
        level, kind, size = ((index / n).read_text().strip() for n in ("level", "type", "size"))
        caches[f"L{level} {kind.lower()}"] = size
    load = Path("/proc/loadavg")
    return {
        "instruction_sets": [name for name in ISA if name in flags],
        "caches": caches,
        "load_average": float(load.read_text().split()[0]) if load.exists() else None,
    }
