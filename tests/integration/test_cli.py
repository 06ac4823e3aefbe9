"""The command line end to end, on a network small enough to search in seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelflex
from modelflex.cli import main
from modelflex.core.cost import Cost

from .conftest import HEAD, TOML, write_project

COMMAND = [sys.executable, "-c", "import sys; from modelflex.cli import main; sys.exit(main())"]

QUALITY = {"divergence", "metric"}
ACCURACIES = {"validation_accuracy", "test_accuracy"}
COST = {field.name for field in fields(Cost)}
BEST = {*ACCURACIES, "recipe", "quality", "cost", "fetch_ratio", "size_ratio",
        "exported_state_bytes"}  # fmt: skip
COUNTS = {"recipes", "feasible_cost", "evaluated", "feasible"}
PATHS = {
    "study": "study.sqlite",
    "best": "best",
    "report": "report.html",
    "summary": "summary.json",
    "config": "config.json",
}

SMALL = """
[[space]]
name = "small"
[space.vary]
bits = [4, 8]
[[space.rules]]
weights = "*"
format = { method = "uniform", bits = "$bits", scales = "row" }
"""
LARGER = TOML.replace("[2, 4, 8]", "[2, 3, 4, 5, 6, 7, 8]").replace("[1, 2]", "[1, 2, 4]")


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    given = [*COMMAND, *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, encoding="utf-8", timeout=120)


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[Any, str, str]:
    """Exit code, stdout and stderr of a command in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def evaluations(folder: Path) -> dict[str, float]:
    """Key → when it was filed."""
    database = sqlite3.connect(f"{(folder / 'study.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return dict(database.execute("SELECT key, created_s FROM evaluation"))
    finally:
        database.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(configuration, output folder, printed object) of one search in a process of its own."""
    config = write_project(tmp_path_factory.mktemp("finished") / "project")
    folder = config.parent / "out"
    done = run("search", config, "--out", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert "12/12" in done.stderr  # 6 recipes and their naive twins
    return config, folder, json.loads(done.stdout)


# --- search --------------------------------------------------------------------------------------
def test_the_printed_object_has_the_stable_keys(finished: Any) -> None:
    _, _, found = finished
    assert {"baseline", "best", "naive", "counts", "paths"} <= set(found)
    assert {*ACCURACIES, "quality", "cost"} <= set(found["baseline"])
    assert set(found["best"]) >= BEST
    assert "test_accuracy" in found["naive"]
    assert set(found["counts"]) >= COUNTS
    assert set(found["paths"]) == set(PATHS)
    for role in ("baseline", "best"):
        assert set(found[role]["cost"]) == COST
        assert set(found[role]["quality"]) == QUALITY


def test_the_figures_hang_together(finished: Any) -> None:
    _, _, found = finished
    baseline, best, naive = found["baseline"], found["best"], found["naive"]
    for figure in (
        baseline["validation_accuracy"],
        baseline["test_accuracy"],
        best["validation_accuracy"],
        best["test_accuracy"],
        naive["test_accuracy"],
    ):
        assert 0 <= figure <= 1
    # Every tenth target was made wrong.
    assert baseline["validation_accuracy"] == pytest.approx(0.9)
    # 4·16 rows of 4 + 16 columns, biases, and the head of 3·16 with its bias, in float32.
    assert baseline["cost"]["weight_bytes"] == 4 * (64 * 20 + 64 + 3 * 16 + 3)
    assert best["size_ratio"] == pytest.approx(5580 / best["cost"]["weight_bytes"])
    lengths = np.load(finished[0].parent / "validation.npz")["lengths"]
    fetched = 4 * (64 * 20 + 64 + (3 * 16 + 3) / lengths.mean())
    own = best["cost"]["weight_fetch_bytes_per_step"]
    assert best["fetch_ratio"] == pytest.approx(fetched / own)
    assert best["quality"]["divergence"]["value"] <= 0.5
    assert best["cost"]["weight_bytes"] <= 3000
    counts = found["counts"]
    assert counts["recipes"] == 6
    assert counts["feasible"] <= counts["evaluated"] <= counts["feasible_cost"] <= 6


def test_the_state_that_is_told_is_that_of_the_exported_code(
    finished: Any, tmp_path: Path, capsys: Any
) -> None:
    _, folder, found = finished
    out = tmp_path / "c99"
    assert call(capsys, "export", folder / "best", "--format", "c99", "--out", out)[0] == 0
    headers = "".join(path.read_text("utf-8") for path in out.glob("*.h"))
    (told,) = re.findall(r"#define \w+_STATE_BYTES (\d+)", headers)
    assert found["best"]["exported_state_bytes"] == int(told)


def test_everything_is_written_and_the_summary_is_what_was_printed(finished: Any) -> None:
    _, folder, found = finished
    assert found["paths"] == {name: str(folder / file) for name, file in PATHS.items()}
    assert {path.name for path in folder.iterdir()} == set(PATHS.values())
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8")) == found
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["limits"]
    assert {path.name for path in (folder / "best").iterdir()} == {
        "model.json",
        "model.safetensors",
        "recipe.json",
        "provenance.json",
    }


def test_the_artefact_reproduces_the_stated_accuracy(finished: Any) -> None:
    config, folder, found = finished
    test = np.load(config.parent / "test.npz")
    outputs = modelflex.run(folder / "best", (test["x"], test["lengths"]))
    assert np.mean(outputs.argmax(axis=1) == test["y"]) == found["best"]["test_accuracy"]


def test_the_same_command_continues(finished: Any, capsys: Any) -> None:
    config, folder, found = finished
    before = evaluations(folder)
    code, out, _ = call(capsys, "search", config, "--out", folder, "--json")
    assert code == 0
    assert json.loads(out) == found
    assert evaluations(folder) == before


def test_for_people_a_table_and_the_paths_are_printed(finished: Any, capsys: Any) -> None:
    config, folder, _ = finished
    code, out, err = call(capsys, "search", config, "--out", folder)
    assert code == 0
    for path in PATHS.values():
        assert str(folder / path) in out
    assert "evaluating" not in out
    assert "evaluating" in err


def test_exhaustive_evaluates_all_that_fit(tmp_path: Path, capsys: Any) -> None:
    config = write_project(tmp_path / "project", LARGER)
    counts, recipes = [], []
    for more in ([], ["--exhaustive"]):
        given = ("search", config, "--out", tmp_path / "out", "--json", *more)
        code, text, _ = call(capsys, *given)
        assert code == 0
        counts.append(json.loads(text)["counts"])
        recipes.append(json.loads(text)["best"]["recipe"])
    assert counts[0]["evaluated"] < counts[0]["feasible_cost"]
    assert counts[1]["evaluated"] == counts[1]["feasible_cost"]
    assert recipes[0] == recipes[1]


def test_nothing_feasible_is_exit_code_3_and_names_the_nearest(tmp_path: Path, capsys: Any) -> None:
    toml = TOML.replace("divergence = 0.5", "divergence = 1e-9")
    config = write_project(tmp_path / "project", toml)
    out = tmp_path / "out"
    code, text, _ = call(capsys, "search", config, "--out", out, "--json")
    assert code == 3
    found = json.loads(text)
    assert found["best"] is None
    assert found["naive"] is None
    assert found["counts"]["feasible"] == 0
    assert "best" not in found["paths"]
    assert not (out / "best").exists()
    assert found["nearest"][0]["violations"][0]["field"] == "divergence"
    code, text, _ = call(capsys, "search", config, "--out", out)
    assert code == 3
    assert "KL from the uncompressed network ≤ 1e-09" in " ".join(text.split())


def test_a_pick_that_new_limits_forbid_does_not_stay_behind(tmp_path: Path, capsys: Any) -> None:
    config = write_project(tmp_path / "project")
    out = tmp_path / "out"
    assert call(capsys, "search", config, "--out", out, "--json")[0] == 0
    config.write_text(TOML.replace("divergence = 0.5", "divergence = 1e-9"), encoding="utf-8")
    assert call(capsys, "search", config, "--out", out, "--json")[0] == 3
    assert not (out / "best").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_stopped_search_loses_nothing_and_continues_to_the_same_result(
    tmp_path: Path, stop: signal.Signals, capsys: Any
) -> None:
    config, out = write_project(tmp_path / "project", LARGER), tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "search", str(config), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    while process.poll() is None and _rows(out) < 2:
        time.sleep(0.002)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    kept = evaluations(out)
    assert len(kept) >= 2
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert err.splitlines()[-1].startswith("modelflex: interrupted")
    found = []
    for folder in (out, tmp_path / "undisturbed"):
        code, text, _ = call(capsys, "search", config, "--out", folder, "--json")
        assert code == 0
        found.append({k: v for k, v in json.loads(text).items() if k != "paths"})
    assert found[0] == found[1]
    assert len(kept) < len(evaluations(out))
    assert kept.items() <= evaluations(out).items()


def _rows(out: Path) -> int:
    try:
        return len(evaluations(out))
    except sqlite3.OperationalError:  # no file or no table yet
        return 0


# --- tasks and networks --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("task", "network"),
    [
        ("none", {}),
        ("none", {"reads": "every"}),
        ("per_step", {"reads": "every"}),
        ("next_symbol", {"reads": "every"}),
        ("regression", {"output": "values"}),
        ("regression", {"output": "values", "reads": "every"}),
        ("classification", {"kinds": ("gru",)}),
        ("classification", {"kinds": ("lstm", "lstm")}),
        ("per_step", {"kinds": ("gru", "lstm"), "reads": "every"}),
    ],
    ids=str,
)
def test_all_tasks_and_networks(
    tmp_path: Path, capsys: Any, task: str, network: dict[str, Any]
) -> None:
    toml = HEAD.replace('"classification"', f'"{task}"').replace("3 kB", "9 kB") + SMALL
    config = write_project(tmp_path / "project", toml, **network)
    code, out, _ = call(capsys, "search", config, "--out", tmp_path / "out", "--json")
    assert code == 0
    found = json.loads(out)
    accuracy, metric = found["best"]["test_accuracy"], found["best"]["quality"]["metric"]
    if task in ("classification", "per_step"):
        assert 0.5 < accuracy <= 1
    else:
        assert accuracy is None
        assert found["naive"]["test_accuracy"] is None
    names = {"next_symbol": "perplexity", "regression": "rmse", "none": None}
    assert (metric and metric["metric"]) == names.get(task, "accuracy")
    assert (tmp_path / "out" / "report.html").is_file()


def test_own_quality_of_a_module_beside_the_configuration(tmp_path: Path, capsys: Any) -> None:
    kind = 'kind = "classification"'
    toml = HEAD.replace(kind, kind + '\nquality = "share_right:share"').replace("= 1\n", "= 2\n")
    config = write_project(tmp_path / "project", toml + SMALL)
    (config.parent / "share_right.py").write_text(
        "def share(outputs, y, lengths):\n    return float((outputs.argmax(1) == y).mean())\n",
        encoding="utf-8",
    )
    code, out, _ = call(capsys, "search", config, "--out", tmp_path / "out", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["baseline"]["quality"]["metric"]["metric"] == "share"
    assert found["baseline"]["quality"]["metric"]["value"] == pytest.approx(0.9)


def test_a_closure_as_quality_runs_in_this_process_and_says_so(project: Path) -> None:
    folder, seen = project.parent, []

    def right(outputs: Any, y: Any, lengths: Any) -> float:
        seen.append(os.getpid())
        return float((outputs.argmax(1) == y).mean())

    found = modelflex.search(
        folder,
        calibration=folder / "calibration.npz",
        validation=folder / "validation.npz",
        quality=right,
        space=[{"rules": [{"weights": "*", "format": {"method": "uniform", "bits": 8}}]}],
        workers=4,
    )
    assert set(seen) == {os.getpid()}
    assert any("evaluated in this process" in note for note in found.study.notes)
    assert found.folder is None
    assert found.summary()["paths"] == {}
    assert not list(folder.glob("**/study.sqlite"))


# --- the other commands --------------------------------------------------------------------------
@pytest.fixture
def study(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished study's folder, to be changed at will."""
    return Path(shutil.copytree(finished[1], tmp_path / "study"))


def test_retarget_answers_without_evaluating(study: Path, capsys: Any, tmp_path: Path) -> None:
    before = evaluations(study)
    changed = tmp_path / "other.toml"
    changed.write_text(
        '[limits.max]\ndivergence = 0.005\n[platform]\nname = "systolic"\nresidency = "fit"\n',
        encoding="utf-8",
    )
    first = json.loads(call(capsys, "retarget", study, "--json")[1])
    code, out, err = call(capsys, "retarget", study, "--config", changed, "--json")
    assert (code, err) == (0, "")
    second = json.loads(out)
    assert second["limits"] == [{"field": "divergence", "kind": "max", "value": 0.005}]
    assert second["best"]["recipe"] != first["best"]["recipe"]
    assert second["best"]["quality"]["divergence"]["value"] <= 0.005
    assert second["best"]["cost"]["residency"] == "fit"
    assert second["best"]["cost"]["dram_bytes_per_step"] == 0
    assert evaluations(study) == before
    changed.write_text("[limits.max]\ndivergence = 1e-9\n", encoding="utf-8")
    code, out, _ = call(capsys, "retarget", study, "--config", changed, "--json")
    assert code == 3
    assert json.loads(out)["best"] is None


def test_retarget_without_changes_gives_the_searchs_answer(finished: Any, capsys: Any) -> None:
    _, folder, found = finished
    code, out, _ = call(capsys, "retarget", folder, "--json")
    assert code == 0
    again = json.loads(out)
    for key in ("baseline", "best", "naive", "counts"):
        assert again[key] == found[key]


def test_explain(finished: Any, capsys: Any) -> None:
    _, folder, found = finished
    number = found["best"]["number"]
    code, out, _ = call(capsys, "explain", folder, number, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["picked"]
    assert told["reason"].startswith("Picked")
    assert told["recipe"] == found["best"]["recipe"]
    code, out, _ = call(capsys, "explain", folder, number)
    assert code == 0
    assert "Picked" in out


def test_analyze(project: Path, capsys: Any) -> None:
    data = project.parent / "calibration.npz"
    code, out, _ = call(capsys, "analyze", project.parent, "--data", data, "--json")
    assert code == 0
    found = json.loads(out)
    assert [layer["name"] for layer in found["layers"]] == ["lstm0", "head"]
    code, out, _ = call(capsys, "analyze", project.parent)
    assert code == 0
    assert "lstm0" in out


def test_help_of_every_command_holds_an_example(capsys: Any) -> None:
    for command in ("search", "retarget", "analyze", "explain"):
        code, out, _ = call(capsys, command, "--help")
        assert code == 0
        assert f"Example: modelflex {command}" in " ".join(out.split())
        assert "--json" in out
        assert command in call(capsys)[1]


def test_help_shows_the_brackets_of_tables(capsys: Any) -> None:
    _, out, _ = call(capsys, "advise", "--help")
    assert "configuration without [[space]]" in out
    assert "advised [[space]]" in out


def test_version(capsys: Any) -> None:
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out.strip() == modelflex.pipeline.versions()["modelflex"]
