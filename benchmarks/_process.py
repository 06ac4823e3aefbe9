"""Run a command and measure it with all its child processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL_S = 0.05


@dataclass(frozen=True)
class Run:
    """Wall time, and the largest sum of resident memory over the process tree that was seen.

    Pages that processes share are counted for each of them, so the memory is an upper bound.
    """

    wall_s: float
    peak_bytes: int
    exit_code: int
    stdout: str


def measure(command: Sequence[str], folder: Path) -> Run:
    """Run a command to its end; its output goes through `folder`. Linux only (/proc).

    Raises:
        RuntimeError: exit code 2 or above 3: what it said.
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    peak = 0
    with out.open("w") as stdout, err.open("w") as stderr:
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=stdout, stderr=stderr) as process:
            while True:
                peak = max(peak, sum(_resident(pid) for pid in _tree(process.pid)))
                try:
                    process.wait(INTERVAL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
            wall = time.perf_counter() - started
    if process.returncode not in (0, 3):
        raise RuntimeError(
            f"{' '.join(command)}: exit code {process.returncode}\n{err.read_text()}"
        )
    return Run(wall, peak, process.returncode, out.read_text())


def _tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it ended in between
            continue
    return found


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
