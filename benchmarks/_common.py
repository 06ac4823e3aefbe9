"""What all benchmarks share: the machine they ran on, and their result files."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, operating system and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def figure(
    name: str, goal: str, value: float | None, unit: str, met: bool | None, command: str
) -> dict[str, Any]:
    """One figure beside its goal; `met` is None for figures reported without a goal, `value` where
    nothing was found that has one.
    """
    return {
        "name": name,
        "goal": goal,
        "value": value,
        "unit": unit,
        "met": met,
        "command": command,
    }


def write_result(name: str, content: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write results/NAME.json (or `path`), machine included, all or nothing; returns its path."""
    path = RESULTS / f"{name}.json" if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **content}, indent=1, allow_nan=False) + "\n"
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{name}-", suffix=".json", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
    return path
