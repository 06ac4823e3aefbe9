"""How long the command line takes and how much memory: a search of the example, and retargets."""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from _common import figure
from _process import Run, measure
from _seeds import EXAMPLE, load_split, write_parts

SEARCH_RUNS, RETARGET_RUNS = 3, 5
RECIPES, SEARCH_S, MEMORY_BYTES, RETARGET_S = 200, 60.0, 2e9, 2.0
COMMAND = "python benchmarks/main_job.py"

TIGHTER = """
[limits]
required_rate = "156.25 Hz"
[limits.max]
divergence = 0.08
metric_loss = "4 points"
energy_per_step_j = "1.5 uJ"
weight_bytes = "7 kB"
"""
PLATFORM = """
[platform]
name = "systolic"
spec = "bitfusion_32x32"
residency = "streamed"
dram_energy_per_bit = "4 pJ/bit"
"""
RETARGETS = {"limits": TIGHTER, "platform": PLATFORM}


def speed(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and figures; everything is written into `folder`."""
    write_parts(load_split(0), folder / "data")
    (folder / "weights").symlink_to(EXAMPLE / "weights", target_is_directory=True)
    text = (EXAMPLE / "modelflex.toml").read_text(encoding="utf-8")
    (folder / "example.toml").write_text(text, encoding="utf-8")
    # Without hardware limits nothing is rejected by its price: all recipes are evaluated.
    start, end = text.index("[limits]"), text.index("[objective]")
    lifted = text[:start] + "[limits.max]\ndivergence = 0.10\n\n" + text[end:]
    (folder / "no_hardware_limits.toml").write_text(lifted, encoding="utf-8")
    rows = [searched(folder, name) for name in ("example", "no_hardware_limits")]
    rows += [retargeted(folder, name, changes) for name, changes in RETARGETS.items()]
    full, slowest = rows[1], max(row["wall_s"] for row in rows[2:])
    evaluated, wall, peak = full["evaluated"], full["wall_s"], full["peak_bytes"]
    return rows, [
        figure("recipes_evaluated", "≥ 200", evaluated, "recipes", evaluated >= RECIPES, COMMAND),
        figure("search_wall", "≤ 60, two cores", wall, "s", wall <= SEARCH_S, COMMAND),
        figure("search_memory", "≤ 2e9", peak, "bytes", peak <= MEMORY_BYTES, COMMAND),
        figure("retarget_wall", "≤ 2", slowest, "s", slowest <= RETARGET_S, COMMAND),
    ]


def modelflex(*arguments: str) -> list[str]:
    run = "import sys; from modelflex.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", run, *arguments]


def searched(folder: Path, name: str) -> dict[str, Any]:
    runs, counts = [], {}
    for number in range(SEARCH_RUNS):
        out = folder / f"{name}-{number}"
        config = str(folder / f"{name}.toml")
        command = modelflex("search", config, "--out", str(out), "--exhaustive", "--workers", "2")
        runs.append(measure([*command, "--json"], folder))
        counts = json.loads(runs[-1].stdout)["counts"]
    title = f"search --exhaustive --workers 2, {name}.toml"
    return {
        **row(title, runs),
        "evaluated": counts["evaluated"],
        "twins": counts["twins_evaluated"],
    }


def retargeted(folder: Path, name: str, changes: str) -> dict[str, Any]:
    config = folder / f"retarget_{name}.toml"
    config.write_text(changes, encoding="utf-8")
    study = folder / "no_hardware_limits-0"
    command = modelflex("retarget", str(study), "--config", str(config), "--json")
    return row(f"retarget, other {name}", [measure(command, folder) for _ in range(RETARGET_RUNS)])


def row(title: str, runs: list[Run]) -> dict[str, Any]:
    walls = [run.wall_s for run in runs]
    return {
        "part": "speed",
        "role": title,
        "wall_s": statistics.median(walls),
        "wall_s_runs": walls,
        "peak_bytes": max(run.peak_bytes for run in runs),
        "load_average": os.getloadavg()[0],
    }
