"""`modelflex advise` and `modelflex allocate` end to end, on a network small enough for seconds."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import modelflex
from modelflex.cli import main
from modelflex.core.recipe import recipe_from_json
from modelflex.search.space import read_space

from .conftest import HEAD, write_project

SPACE = """
[[space]]
name = "small"
recalibrate = 1
[space.vary]
bits = [2, 3, 4]
[[space.rules]]
weights = "*"
format = { method = "uniform", bits = "$bits", scales = "row" }
"""


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[Any, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return left.value.code, out, err


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_project(tmp_path)
    (tmp_path / "modelflex.toml").write_text(HEAD + SPACE, encoding="utf-8")
    return tmp_path


def test_advise_tells_reasons_and_writes_a_space(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = project / "space.toml"
    given = (project / "model.json", project / "calibration.npz")
    code, out, _ = call(capsys, "advise", *given, "--out", written)
    assert code == 0
    assert "Try first" in out
    assert "uniform (format)" in out
    grids = tomllib.loads(written.read_text(encoding="utf-8"))["space"]
    code, out, _ = call(capsys, "advise", *given, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["space"] == grids
    assert found["suggestions"][0]["factor"] >= found["suggestions"][-1]["factor"]
    assert len(read_space(grids)) > 10
    code, out, _ = call(capsys, "advise", project / "model.json")
    assert code == 0
    assert "unknown" in out


def test_allocate_meets_its_budget_beside_the_best_of_the_search(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = project / "modelflex.toml", project / "run"
    call(capsys, "search", config, "--out", folder, "--workers", "1", "--exhaustive")
    code, out, _ = call(
        capsys, "allocate", config, "--minimize", "weight_bytes", "--divergence", "0.05",
        "--out", folder, "--evaluations", "12", "--json",
    )  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert found["within"]
    assert found["divergence"] <= 0.05
    assert len(found["evaluations"]) <= 12
    assert found["cost"] <= found["best_of_space"]["cost"]
    artefact = modelflex.load(folder / "allocated")
    assert artefact.weight_bytes == found["cost"]
    stored = json.loads((folder / "allocated" / "recipe.json").read_text(encoding="utf-8"))
    assert recipe_from_json(stored) == recipe_from_json(found["recipe"])
    assert (folder / "best").is_dir()  # the search's pick stays


def test_allocate_says_when_nothing_is_within(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("allocate", project / "modelflex.toml", "--out", project / "run")
    code, out, err = call(
        capsys, *given, "--minimize", "weight_bytes", "--limit", "10 B", "--evaluations", "4"
    )
    assert code == 3
    assert "misses it least" in out
    assert "uniform, bits" in " ".join(out.split())
    assert "percentile" not in out  # a default: only what differs is shown
    assert "reference" in err
    code, _, err = call(capsys, *given)
    assert code == 2
    assert "the budget has neither limit nor divergence; expected one of them, above zero" in err
    assert err.count("\n") == 1
