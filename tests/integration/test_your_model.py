"""The scripts that users copy: their own torch network and data, from Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex.export.artefact import save_artefact

pytest.importorskip("torch")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "your_model"


def run(script: str, folder: Path) -> str:
    """What a script of the example prints when it is started in `folder`."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / script)],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_and_search(tmp_path: Path) -> None:
    printed = run("train_and_search.py", tmp_path)
    out = tmp_path / "runs" / "your_model"
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    baseline, best = summary["baseline"], summary["best"]
    assert baseline["test_accuracy"] > 0.9
    assert best["quality"]["divergence"]["value"] <= 0.02
    assert best["validation_accuracy"] >= baseline["validation_accuracy"] - 0.01
    assert best["test_accuracy"] > baseline["test_accuracy"] - 0.06
    assert best["size_ratio"] > 4
    assert best["fetch_ratio"] > 4
    # 4·32 rows of 2 + 32 columns with one bias, and 4 rows of 32 with theirs, in float32.
    assert baseline["cost"]["weight_bytes"] == 4 * (128 * 35 + 4 * 33)
    figures = re.search(r"test accuracy  (\S+) → (\S+)\n", printed)
    assert figures is not None
    assert float(figures[1]) == pytest.approx(baseline["test_accuracy"], abs=5e-4)
    assert float(figures[2]) == pytest.approx(best["test_accuracy"], abs=5e-4)
    assert (out / "report.html").stat().st_size > 100_000
    check_artefact(out / "best", tmp_path / "again", features=2)


def check_artefact(folder: Path, again: Path, features: int) -> None:
    """Loading, saving and loading changes no byte, and results are the same to the bit."""
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    recipe = modelflex.recipe_from_json(
        json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    )
    loaded = modelflex.load(folder)
    save_artefact(loaded, again, recipe=recipe, provenance=provenance)
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()
    rng = np.random.default_rng(5)
    sequences = [rng.standard_normal((n, features)).astype(np.float32) for n in (1, 9, 40)]
    np.testing.assert_array_equal(modelflex.run(loaded, sequences), modelflex.run(again, sequences))


def test_own_quality(tmp_path: Path) -> None:
    printed = run("own_quality.py", tmp_path)
    assert "user's own function 'event_f1'" in printed
    summary = json.loads((tmp_path / "runs" / "own_quality" / "summary.json").read_text("utf-8"))
    f1 = {role: summary[role]["quality"]["metric"] for role in ("baseline", "best")}
    assert f1["baseline"]["metric"] == "event_f1"
    assert 0.7 < f1["baseline"]["value"] < 1
    assert f1["best"]["value"] >= f1["baseline"]["value"] - 0.01
    assert summary["baseline"]["test_accuracy"] is None
    assert summary["best"]["cost"]["energy_per_step_j"] <= 1e-6
    assert summary["best"]["cost"]["weight_bytes"] * 8 < summary["baseline"]["cost"]["weight_bytes"]
    for role in ("baseline", "best"):
        assert f"{role:8} F1 {f1[role]['value']:.3f}" in printed
