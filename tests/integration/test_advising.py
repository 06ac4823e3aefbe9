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


MIXED = """
[[space]]
[space.vary]
structure = [{ method = "dense", fit = "least_squares" }, { method = "circulant", block = 8 }]
how = ["hard", { method = "pwl", segments = 8 }]
[[space.rules]]
weights = "*"
structure = "$structure"
format = { method = "uniform", bits = 4 }
[[space.layers]]
layers = "lstm0"
nonlinearity = "$how"
[[space.layers]]
layers = "*"
nonlinearity = "hard"
"""


def test_allocate_offers_what_fits_and_keeps_what_the_space_agrees_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks of 8 divide W_h (64×16), not W_x (64×4) and the head (3×16)."""
    config, given = project / "modelflex.toml", ("--minimize", "weight_bytes", "--limit", "700 B")
    config.write_text(HEAD + MIXED, encoding="utf-8")
    code, _, err = call(capsys, "search", config, "--out", project / "searched")
    assert code == 2
    assert "a circulant block of 8 does not divide a weight of 64×4" in err
    out = ("--out", project / "run", "--evaluations", "5")
    code, text, _ = call(capsys, "allocate", config, *given, *out, "--json")
    assert code == 0
    found = json.loads(text)
    methods = {r["weights"]: r["structure"]["method"] for r in found["recipe"]["rules"]}
    assert methods == {"lstm0.w_x": "dense", "lstm0.w_h": "circulant", "head.w": "dense"}
    assert found["recipe"]["layers"] == [{"layers": "head", "nonlinearity": {"method": "hard"}}]
    differing, *left_out = found["notes"]
    assert "several nonlinearities (hard, pwl) for lstm0" in differing
    assert [note.split(":")[0] for note in left_out] == ["lstm0.w_x of 64×4", "head.w of 3×16"]
    config.write_text(HEAD + MIXED.replace(', { method = "pwl", segments = 8 }', ""))
    code, text, _ = call(capsys, "allocate", config, *given, *out)
    text = " ".join(text.split())
    assert code == 0
    assert "σ and tanh by hard" in text
    assert "Note: head.w of 3×16: 1 of 2 choices are not offered" in text
