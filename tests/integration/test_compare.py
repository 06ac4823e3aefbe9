"""`modelflex compare` end to end, on a network small enough to compare methods in seconds."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.data import Draw
from modelflex.errors import UserError
from modelflex.importers.data import load_sequences
from modelflex.pipeline.compare import compare, split
from modelflex.report.summary import strict_json

from .conftest import make_data, write_model, write_project
from .refusal import everything, one_line
from .test_cli import COMMAND, call, evaluations

FORMATS = "format: uniform"
SEARCH = ["--task", "classification", "--workers", "1", "--rounds", "1"]


def arguments(folder: Path, out: Path, *more: str) -> list[str]:
    data = [str(folder / name) for name in ("model.json", "calibration.npz")]
    held = ["--validation", str(folder / "validation.npz"), "--test", str(folder / "test.npz")]
    return ["compare", *data, *held, *SEARCH, "--out", str(out), *more]


def without_clock(found: dict[str, Any]) -> dict[str, Any]:
    provenance = {k: v for k, v in found["provenance"].items() if k != "seconds"}
    return {**found, "provenance": provenance}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("compare") / "project").parent


@pytest.fixture(scope="module")
def finished(folder: Path) -> tuple[Path, dict[str, Any]]:
    """(folder, printed object) of the formats compared in a process of its own."""
    out = folder / "out"
    command = [*COMMAND, *arguments(folder, out, "--only", FORMATS, "--json")]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert run.returncode == 0, run.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return out, json.loads(run.stdout, parse_constant=refuse)


def test_the_table_holds_what_was_printed(finished: tuple[Path, dict[str, Any]]) -> None:
    out, found = finished
    assert {p.name for p in out.iterdir()} == {
        "study.sqlite", "comparison.html", "comparison.json",
    }  # fmt: skip
    assert json.loads((out / "comparison.json").read_text(encoding="utf-8")) == found
    assert {row["family"] for row in found["rows"]} == {FORMATS}
    assert len(found["rows"]) == 20  # 5 widths, scales of 3 kinds, and 5 twins
    assert sum(not row["data_aware"] for row in found["rows"]) == 5


def test_figures_agree_with_each_other(finished: tuple[Path, dict[str, Any]]) -> None:
    _, found = finished
    cost, metric = found["cost"], found["baseline"]["metric"]["value"]
    weights = 4 * (64 * 4 + 64 + 64 * 16 + 3 * 16 + 3)
    assert cost["weight_bytes"] == weights
    for row in found["rows"]:
        assert row["memory_saving"] == pytest.approx(weights / row["weight_bytes"])
        assert row["relative_performance"] == pytest.approx(row["metric"] / metric)
        assert row["compute_saving"] == pytest.approx(1.0)
        twin = row["twin"]
        assert (twin is None) == (not row["data_aware"])
        if twin is not None:
            other = found["rows"][twin]
            assert other["number"] == twin
            assert other["label"].endswith("naive")
            assert other["label"].split(",")[0] == row["label"].split(",")[0]
    best = found["rows"][found["best"][FORMATS]]
    assert best["verdict"] != "degraded"
    assert set(found["test"]) == {"baseline", str(best["number"])}


def test_the_same_again_evaluates_nothing(
    folder: Path, finished: tuple[Path, dict[str, Any]], capsys: Any
) -> None:
    out, found = finished
    before = evaluations(out)
    code, text, _ = call(capsys, *arguments(folder, out, "--only", FORMATS, "--json"))
    assert code == 0
    assert without_clock(json.loads(text)) == without_clock(found)
    assert evaluations(out) == before


def test_more_families_reuse_what_is_evaluated(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: Any
) -> None:
    """Evaluations hang on recipes, not on the comparison they were made for."""
    out, found = finished
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in out.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    before = evaluations(copy)
    code, text, _ = call(capsys, *arguments(folder, copy, "--only", "format: *", "--json"))
    assert code == 0
    after = evaluations(copy)
    assert before.items() < after.items()
    rows = {row["label"]: row for row in json.loads(text)["rows"] if row["family"] == FORMATS}
    for row in found["rows"]:
        again = rows[row["label"]]
        assert {k: v for k, v in again.items() if k not in ("number", "twin")} == {
            k: v for k, v in row.items() if k not in ("number", "twin")
        }


def test_the_number_of_processes_changes_nothing(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given = arguments(folder, tmp_path / "two", "--only", FORMATS, "--json", "--workers", "2")
    run = subprocess.run(
        [*COMMAND, *given], capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert without_clock(json.loads(run.stdout)) == without_clock(finished[1])


def test_for_people_a_table_and_the_paths_are_printed(
    folder: Path, finished: tuple[Path, dict[str, Any]], capsys: Any
) -> None:
    out, _ = finished
    code, text, err = call(capsys, *arguments(folder, out, "--only", FORMATS))
    assert code == 0
    assert "Best of family" in text
    for name in ("comparison.html", "comparison.json"):
        assert str(out / name) in text
    assert "evaluating" in err
    assert "limits" not in err


def test_help_holds_an_example(capsys: Any) -> None:
    code, text, _ = call(capsys, "compare", "--help")
    assert code == 0
    assert "Example: modelflex compare" in " ".join(text.split())


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_stopped_comparison_continues_to_the_same_table(
    folder: Path, finished: tuple[Path, dict[str, Any]], tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "out"
    given = [*COMMAND, *arguments(folder, out, "--only", FORMATS, "--json")]
    process = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and _rows(out) < 2:
        time.sleep(0.002)
    process.send_signal(stop)
    text, err = process.communicate(timeout=60)
    kept = evaluations(out)
    assert 2 <= len(kept) < len(evaluations(finished[0]))
    assert text == ""
    assert not (out / "comparison.html").exists()
    assert not (out / "comparison.json").exists()
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines()[-1].startswith("modelflex: interrupted")
    again = subprocess.run(given, capture_output=True, text=True, timeout=120)
    assert without_clock(json.loads(again.stdout)) == without_clock(finished[1])
    assert kept.items() <= evaluations(out).items()


def _rows(out: Path) -> int:
    try:
        return len(evaluations(out))
    except sqlite3.OperationalError:  # no file or no table yet
        return 0


# --- tasks, networks, data -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("task", "network"),
    [
        ("none", {"kinds": ("gru",)}),
        ("next_symbol", {"reads": "every"}),
        ("regression", {"output": "values", "kinds": ("lstm", "gru")}),
    ],
)
def test_every_task(tmp_path: Path, task: str, network: dict[str, Any]) -> None:
    model = write_model(tmp_path, **network)
    data = make_data(model, 12, 0)
    if task == "none":
        del data["y"]
    found = compare(model, data, task=task, only="hybrid: dense", rounds=0, workers=1)
    assert found.task == task
    for row in found.rows:
        assert (row.metric is None) == (task == "none")
        assert np.isfinite(row.relative_performance)
    assert "12" not in found.notes[0]
    assert "4 of the sequences were held out, 8 calibrate" in found.notes[0]
    assert set(found.steps) == set(found.best)
    json.dumps(strict_json(found.to_json()), allow_nan=False)


def test_all_methods_at_once(tmp_path: Path) -> None:
    model = write_model(tmp_path, units=32)
    found = compare(model, make_data(model, 12, 0), rounds=0, workers=1, out=tmp_path / "out")
    kinds = {row.family.partition(":")[0] for row in found.rows}
    assert kinds == {"format", "structure", "activity", "removal", "nonlinearity", "hybrid"}
    assert {row.layout for row in found.break_even} == {"row_sparse", "block_sparse", "n_m"}
    assert all(np.isfinite(row.divergence) for row in found.rows)
    assert (tmp_path / "out" / "comparison.html").stat().st_size > 10_000


def test_a_third_is_held_out_at_random_and_nothing_is_lost() -> None:
    x = np.arange(30.0)[:, None]
    whole = load_sequences((x, np.full(10, 3)), "data")
    rest, held = split(whole, 0)
    assert (rest.count, held.count) == (7, 3)
    both = np.concatenate([rest.x, held.x]).ravel()
    assert sorted(both.tolist()) == x.ravel().tolist()
    assert split(whole, 0)[1].digest == held.digest
    assert split(whole, 1)[1].digest != held.digest


# --- wrong input ---------------------------------------------------------------------------------
def _label(folder: Path) -> None:
    values = dict(np.load(folder / "validation.npz"))
    values["y"] = values["y"] + 10
    np.savez(folder / "validation.npz", **values)


def _few(folder: Path) -> None:
    values = dict(np.load(folder / "calibration.npz"))
    n = int(values["lengths"][0])
    one = {"x": values["x"][:n], "lengths": values["lengths"][:1], "y": values["y"][:1]}
    np.savez(folder / "calibration.npz", **one)


def _nothing(folder: Path) -> None:
    pass


def _same(folder: Path) -> None:
    (folder / "test.npz").write_bytes((folder / "validation.npz").read_bytes())


def _foreign(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "comparison.html").write_text("mine", encoding="utf-8")


HELD = ("--validation", "validation.npz", "--test", "test.npz")


@pytest.mark.parametrize(
    ("spoil", "more", "message"),
    [
        (_nothing, ("--only", "delta"), "no family matches 'delta'"),
        (_nothing, ("--task", "guessing"), "the task is 'guessing'"),
        (_nothing, ("--task", "regression"), "expected output = 'values'"),
        (lambda f: (f / "validation.npz").unlink(), HELD, "validation.npz"),
        (lambda f: (f / "calibration.npz").unlink(), (), "calibration.npz"),
        (lambda f: (f / "model.json").unlink(), (), "model.json"),
        (_label, HELD, "validation"),
        (_few, (), "1 sequence can't be split"),
        (_same, HELD, "in the validation and in the test data"),
        (_foreign, ("--only", FORMATS), "there is no study beside it"),
        (_nothing, ("--only", FORMATS, "--rounds", "21"), "rounds"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    more: tuple[str, ...],
    message: str,
) -> None:
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path)
    before = everything()
    line = one_line(capsys, "compare", "model.json", "calibration.npz", "--out", "new", *more)
    assert message in line
    assert everything() == before


@pytest.mark.parametrize("count", [1, 2])
def test_few_sequences_are_enough_to_calibrate(folder: Path, count: int) -> None:
    found = compare(
        folder / "model.json", folder / "calibration.npz", only="hybrid: [cd]*", rounds=1,
        workers=1, draw=Draw(count), validation=folder / "validation.npz",
    )  # fmt: skip
    assert found.provenance["calibration_sequences"] == count
    assert all(np.isfinite(row.divergence) for row in found.rows)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("rounds", -1),
        ("rounds", 10**9),
        ("seed", -1),
        ("seed", 1.5),
        ("workers", -3),
        ("workers", 10**6),
        ("only", 3),
    ],
)
def test_arguments_are_checked_before_anything_is_loaded(
    folder: Path, tmp_path: Path, argument: str, value: Any
) -> None:
    given = {argument: value}
    named = {"rounds": "rounds are", "only": "families"}.get(argument, f"^compare.{argument} is")
    with pytest.raises(UserError, match=named):
        compare(folder / "model.json", folder / "none.npz", out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
