"""The same seed gives the same study, in one process or several, killed in between or not."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("search_for_a_test.py")
RECIPES = 24


def small_search(out: Path | None, workers: int) -> Any:
    spec = importlib.util.spec_from_file_location("search_for_a_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run(out, workers)


def command(out: Path, workers: int, kill_after: int = 0) -> list[str]:
    return [sys.executable, str(SCRIPT), str(out), str(workers), str(kill_after)]


def without_paths(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary less what names the folder or the clock."""
    return json.loads(
        json.dumps({k: v for k, v in summary.items() if k not in ("paths", "seconds")})
    )


def rows(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Key → (result without its compute time, when it was filed) of every finished evaluation."""
    db = sqlite3.connect(folder / "study.sqlite")
    found = db.execute("SELECT key, result, created_s FROM evaluation").fetchall()
    db.close()
    made = {}
    for key, result, created in found:
        values = json.loads(result)
        values.pop("seconds")
        made[key] = values, created
    return made


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One uninterrupted run in this process."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    result = small_search(folder, 1)
    assert result.best is not None
    return folder, without_paths(result.summary())


def test_the_number_of_processes_changes_nothing(
    alone: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, summary = alone
    again = subprocess.run(command(tmp_path / "out", 2), capture_output=True, text=True, check=True)
    assert without_paths(json.loads(again.stdout)) == summary
    one, two = ({k: v[0] for k, v in rows(f).items()} for f in (folder, tmp_path / "out"))
    assert one == two
    assert len(one) >= 2 * RECIPES
    for name in ("model.safetensors", "model.json", "recipe.json"):
        saved = [(f / "best" / name).read_bytes() for f in (folder, tmp_path / "out")]
        assert saved[0] == saved[1]


@pytest.mark.parametrize(("workers", "kill_after"), [(1, 7), (1, 30), (2, 9)])
def test_a_killed_search_continues_to_the_same_result(
    alone: tuple[Path, dict[str, Any]], tmp_path: Path, workers: int, kill_after: int
) -> None:
    _, summary = alone
    out = tmp_path / "out"
    killed = subprocess.run(command(out, workers, kill_after), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = rows(out)
    assert len(before) >= kill_after, "a trial that was told as finished is lost"
    assert len(before) < 2 * RECIPES
    assert {p.name for p in out.iterdir()} <= {
        "study.sqlite", "study.sqlite-wal", "study.sqlite-shm",
    }, "half-written results"  # fmt: skip
    result = small_search(out, 1)
    assert without_paths(result.summary()) == summary
    after = rows(out)
    assert before.items() <= after.items(), "a finished trial was evaluated again"
    assert len(after) >= 2 * RECIPES


def test_no_process_outlives_a_killed_search(tmp_path: Path) -> None:
    """Workers notice that their parent is gone."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc to find processes in")
    mark = f"MODELFLEX_TEST={tmp_path.name}-{os.getpid()}"
    name, value = mark.split("=")
    killed = subprocess.run(
        command(tmp_path / "out", 2, 9),
        capture_output=True,
        check=False,
        env={**os.environ, name: value},
    )
    assert killed.returncode == -signal.SIGKILL
    end = time.monotonic() + 20
    while left := [pid for pid in os.listdir("/proc") if pid.isdigit() and _carries(pid, mark)]:
        assert time.monotonic() < end, f"processes {left} are still there"
        time.sleep(0.1)


def _carries(pid: str, mark: str) -> bool:
    try:
        return mark.encode() in Path("/proc", pid, "environ").read_bytes()
    except OSError:
        return False


def test_finishing_again_evaluates_nothing(alone: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = alone
    before = rows(folder)
    assert without_paths(small_search(folder, 1).summary()) == summary
    assert rows(folder) == before
