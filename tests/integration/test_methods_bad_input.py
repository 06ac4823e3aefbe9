"""Wrong input to compare, advise, allocate and to models: one line, exit code 2, nothing half-written."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import modelflex

from .refusal import everything, one_line


def overflowing(folder: Path) -> None:
    """Finite weights whose products are not."""
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["head.w"] = np.full_like(tensors["head.w"], 3e38)
    safetensors.numpy.save_file(tensors, path)


OVERFLOWING = (
    ("advise", "model.json", "calibration.npz"),
    ("analyze", "model.json", "--data", "calibration.npz"),
    ("compare", "model.json", "calibration.npz", "--only", "activity*", "--out", "out"),
)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("command", OVERFLOWING, ids=lambda command: command[0])
def test_outputs_beyond_floating_point_are_refused(
    folder: Path, capsys: Any, command: tuple[str, ...]
) -> None:
    overflowing(folder)
    assert "the network's outputs are not finite" in one_line(capsys, *command)


@pytest.mark.filterwarnings("error")
def test_run_gives_no_nan(folder: Path) -> None:
    overflowing(folder)
    with pytest.raises(modelflex.UserError, match="outputs are not finite"):
        modelflex.run("model.json", "test.npz")


@pytest.mark.parametrize("out", ["", ".", "..", "/"])
def test_an_advised_space_needs_the_name_of_a_file(folder: Path, capsys: Any, out: str) -> None:
    before = everything()
    line = one_line(capsys, "advise", "model.json", "calibration.npz", "--out", out)
    assert "a writable path" in line
    assert everything() == before


def test_a_folder_whose_name_holds_a_nul(folder: Path) -> None:
    before = everything()
    with pytest.raises(modelflex.UserError, match="cannot be made"):
        modelflex.pipeline.compare("model.json", "calibration.npz", out="a\0b")
    assert everything() == before


MANY = ("1000000", "99999999999999999999")


@pytest.mark.parametrize("workers", MANY)
def test_more_processes_than_make_sense(folder: Path, capsys: Any, workers: str) -> None:
    before = everything()
    command = ("search", "modelflex.toml", "--out", "out", "--workers", workers)
    assert "less than or equal to 1024" in one_line(capsys, *command)
    assert everything() == before
    with pytest.raises(modelflex.UserError, match=r"0 \(one a core\) … 1024"):
        modelflex.pipeline.compare(
            "model.json", "calibration.npz", only="activity: nonzero", workers=int(workers)
        )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "command",
    [
        ("compare", "model.json", "calibration.npz", "--workers", "2"),
        ("allocate", "modelflex.toml", "--divergence", "0.001", "--evaluations", "40"),
    ],
    ids=lambda command: command[0],
)
def test_an_interrupted_command_says_that_it_continues(
    folder: Path, command: tuple[str, ...]
) -> None:
    line = [sys.executable, "-c", "from modelflex.cli import main; main()", *command]
    line += ["--out", "out"]
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: evaluations(Path("out/study.sqlite")) > 0)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert err.splitlines()[-1] == (
        "modelflex: interrupted; finished trials are kept, the same command continues"
    )
    assert [p for p in Path("out").iterdir() if not p.name.startswith("study.sqlite")] == []


def evaluations(study: Path) -> int:
    """Evaluations that a study holds; 0 where there is none yet."""
    try:
        with sqlite3.connect(f"file:{study}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT COUNT(*) FROM evaluation").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def wait_for(happens: Callable[[], bool]) -> None:
    """Wait, a minute at most."""
    end = time.monotonic() + 60
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
