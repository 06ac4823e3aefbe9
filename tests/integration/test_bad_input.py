"""Wrong input of every kind: exit code 2, one clear line, no traceback, nothing half-written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import modelflex
from modelflex.cli import main

from .conftest import HEAD, RULE
from .refusal import Spoil, edit, everything, one_line, refused


def space(text: str) -> Spoil:
    return lambda folder: (folder / "modelflex.toml").write_text(HEAD + text, encoding="utf-8")


def rule(text: str) -> Spoil:
    return space(f"[[space]]\n[[space.rules]]\n{text}\n")


DELTA = 'weights = "*"\nformat = { method = "uniform", bits = 4 }\nactivity = '
CONFIGURATIONS: dict[str, tuple[Spoil, str]] = {
    "no file": (lambda folder: (folder / "modelflex.toml").unlink(), "there is no file"),
    "no TOML": (edit("[model]", "[model"), "is not TOML"),
    "binary": (lambda f: (f / "modelflex.toml").write_bytes(b"\xff\xfe\x00"), "not text"),
    "deep TOML": (edit('path = "model.json"', f"path = {'[' * 9999}"), "is not TOML"),
    "huge integer": (edit('required_rate = "1 kHz"', f"required_rate = {'9' * 5000}"), "TOML"),
    "big integer": (edit("divergence = 0.5", f"divergence = {'9' * 400}"), "finite"),
    "unknown table": (edit("[objective]", "[objectives]"), "did you mean 'objective'?"),
    "unknown key": (edit("calibration =", "calibratoin ="), "did you mean 'calibration'?"),
    "no model": (edit('[model]\npath = "model.json"', ""), "no table [model]"),
    "table twice": (edit("[data]", "[task]"), "is not TOML"),
    "table is a value": (
        lambda folder: (
            edit("[search]\nworkers = 1\n", "")(folder),
            edit("[model]", "search = 1\n[model]")(folder),
        ),
        "search is 1",
    ),
    "path of another type": (edit('path = "model.json"', "path = 3"), "model.path is 3"),
    "path with NUL": (edit('path = "model.json"', 'path = "a\\u0000b"'), "model.path"),
    "path too long": (edit('path = "model.json"', f'path = "{"a" * 5000}"'), "a" * 50),
    "task": (edit('"classification"', '"clasification"'), "one of classification"),
    "task of another type": (edit('"classification"', "1"), "task.kind is 1"),
    "direction": (edit("[platform]", 'direction = "up"\n[platform]'), "'max' or 'min'"),
    "direction of the task": (edit("[platform]", 'direction = "min"\n[platform]'), "'max'"),
    "quality without a function": (edit("[platform]", 'quality = "os"\n[platform]'), "module:f"),
    "quality of no module": (edit("[platform]", 'quality = "nowhere:f"\n[platform]'), "nowhere"),
    "quality no function": (edit("[platform]", 'quality = "os:sep"\n[platform]'), "os:sep"),
    "platform": (edit('name = "systolic"', 'name = "sistolic"'), "did you mean 'systolic'?"),
    "platform name": (edit('name = "systolic"', "name = []"), "platform.name is []"),
    "platform option": (edit('"systolic"', '"systolic"\nresidence = "fit"'), "'residency'?"),
    "residency": (edit('"systolic"', '"systolic"\nresidency = "some"'), "platform.residency"),
    "spec": (edit('"systolic"', '"systolic"\nspec = "bitfusion_23x32"'), "bitfusion_32x32"),
    "spec of another type": (edit('"systolic"', '"systolic"\nspec = 1'), "platform.spec is 1"),
    "spec file": (edit('"systolic"', '"systolic"\nspec = "chip.toml"'), "cannot read the spec"),
    "bandwidth": (edit('"systolic"', '"systolic"\ndram_bandwidth = "6 GB"'), "unit 'GB'"),
    "energy a bit": (edit('"systolic"', '"systolic"\ndram_energy_per_bit = "0 pJ/bit"'), "above"),
    "limits key": (edit("required_rate", "required_rates"), "did you mean 'required_rate'?"),
    "limits table": (edit("[limits.max]", "[limits.maximum]"), "did you mean 'max'?"),
    "limit field": (edit("divergence = 0.5", "divergance = 0.5"), "did you mean 'divergence'?"),
    "limit unit": (edit('"3 kB"', '"3 kilobytes"'), "unknown unit 'kilobytes'"),
    "limit unit of another kind": (edit('"3 kB"', '"3 ms"'), "unknown unit 'ms'"),
    "limit without a number": (edit('"3 kB"', '"small"'), "limits.max.weight_bytes is 'small'"),
    "limit of another type": (edit('"3 kB"', "true"), "limits.max.weight_bytes is True"),
    "limit NaN": (edit('"3 kB"', "nan"), "a finite number"),
    "limit infinite": (edit('"3 kB"', "inf"), "a finite number"),
    "limit overflows": (edit('"3 kB"', '"1e400 B"'), "a finite number"),
    "limit negative": (edit('"3 kB"', '"-3 kB"'), "a number above zero"),
    "limit zero": (edit('"3 kB"', "0"), "a number above zero"),
    "rate negative": (edit('"1 kHz"', '"-1 Hz"'), "a number above zero"),
    "limits contradict": (
        edit("[limits.max]", 'min = { weight_bytes = "4 kB" }\n[limits.max]'),
        "limits contradict: weight_bytes",
    ),
    "rate and latency contradict": (
        edit("[limits.max]", 'min = { latency_per_step_s = "1 s" }\n[limits.max]'),
        "limits contradict: 1000 steps a second",
    ),
    "rate and throughput contradict": (
        edit("[limits.max]", '[limits.max]\nthroughput_steps_per_s = "10 Hz"'),
        "limits contradict: throughput_steps_per_s",
    ),
    "divergence at least": (edit("[limits.max]", "min.divergence = 1\n[limits.max]"), "bad model"),
    "metric without a task": (
        lambda folder: (
            edit('"classification"', '"none"')(folder),
            edit("divergence = 0.5", "metric_loss = 0.5")(folder),
        ),
        "the task has none",
    ),
    "objective": (edit('"weight_fetch_bytes_per_step"', '"weight_fetch_bytes"'), "did you mean"),
    "objective to maximise": (edit('"weight_fetch_bytes_per_step"', '"gops"'), "to minimise"),
    "tie-break": (edit("[search]", 'tie_break = "luck"\n[search]'), "'divergence' or 'metric'"),
    "slack": (edit("[search]", "pareto_slack = -1\n[search]"), "pareto_slack is -1"),
    "slack NaN": (edit("[search]", "pareto_slack = nan\n[search]"), "pareto_slack is nan"),
    "workers": (edit("workers = 1", "workers = -1"), "search.workers is -1"),
    "workers of another type": (edit("workers = 1", 'workers = "two"'), "search.workers is 'two'"),
    "seed": (edit("workers = 1", "seed = -1"), "search.seed is -1"),
    "calibration limit": (edit("[data]", "[data]\ncalibration_limit = 0"), "calibration_limit"),
    "calibration limit below": (edit("[data]", "[data]\ncalibration_limit = -3"), "_limit is -3"),
    "date": (edit("workers = 1", "seed = 2020-01-01"), "search.seed is '2020-01-01'"),
}

SPACES: dict[str, tuple[Spoil, str]] = {
    "no table": (lambda f: (f / "modelflex.toml").write_text(f"space = 3\n{HEAD}"), "[[space]]"),
    "empty list": (lambda f: (f / "modelflex.toml").write_text(f"space = []\n{HEAD}"), "[[space]]"),
    "no rules": (space("[[space]]\n"), "rules is None"),
    "empty rules": (space("[[space]]\nrules = []\n"), "at least one rule"),
    "unknown key": (space(f"[[space]]\nrecalibrat = 1\n{RULE}"), "did you mean 'recalibrate'?"),
    "recalibrate": (space(f"[[space]]\nrecalibrate = -1\n{RULE}"), "0 … 100"),
    "vary no table": (space(f"[[space]]\nvary = 3\n{RULE}"), "a table of lists"),
    "vary empty": (space(f"[[space]]\nvary.bits = []\n{RULE}"), "a list of at least one value"),
    "vary no list": (space(f"[[space]]\nvary.bits = 3\n{RULE}"), "a list of at least one value"),
    "vary unused": (space(f"[[space]]\nvary.bits = [3]\n{RULE}"), "vary.bits is never used"),
    "vary too much": (
        space(f"[[space]]\nvary = {{ a = {[0] * 1001}, b = {[0] * 1001} }}\n{RULE}"),
        "at most 1000000",
    ),
    "unknown name": (rule('weights = "*"\nformat = { method = "uniform", bits = "$bit" }'), "$bit"),
    "unknown key of a name": (
        space("[[space]]\nvary.a = [{ x = 1 }]\n" + RULE.replace("4", '"$a.y"')),
        "'y'",
    ),
    "rule no table": (space("[[space]]\nrules = [3]\n"), "rules[0] is 3"),
    "rule key": (rule(f'weight = "*"\n{DELTA}"delta"'), "'weight'"),
    "no weights": (rule('format = "uniform"'), "a pattern of weight names"),
    "no format": (rule('weights = "*"'), "has no format"),
    "format": (rule('weights = "*"\nformat = "unifrom"'), "did you mean 'uniform'?"),
    "format of another type": (rule('weights = "*"\nformat = 4'), "a table such as"),
    "no bits": (rule('weights = "*"\nformat = "uniform"'), "format has no bits"),
    "bits": (rule('weights = "*"\nformat = { method = "uniform", bits = 1 }'), "bits are 1"),
    "bits of another type": (
        rule('weights = "*"\nformat = { method = "uniform", bits = "4" }'),
        "format.bits is '4'",
    ),
    "scales": (
        rule('weights = "*"\nformat = { method = "uniform", bits = 4, scales = "column" }'),
        "format.scales is 'column'",
    ),
    "activation": (rule(f"{DELTA}'none'\nactivation = 8"), "a table such as { bits = 8 }"),
    "activation bits": (rule(f"{DELTA}'none'\nactivation.bits = 64"), "activation bits are 64"),
    "structure": (rule(f"{DELTA}'none'\nstructure = 'circular'"), "did you mean 'circulant'?"),
    "block": (
        rule(f"{DELTA}'none'\nstructure = {{ method = 'circulant', block = 0 }}"),
        "circulant block is 0",
    ),
    "block does not divide": (
        rule(f"{DELTA}'none'\nstructure = {{ method = 'circulant', block = 5 }}"),
        "5",
    ),
    "threshold": (rule(f"{DELTA}{{ method = 'delta', threshold = -1 }}"), "threshold is -1"),
    "threshold NaN": (rule(f"{DELTA}{{ method = 'delta', threshold = nan }}"), "threshold is nan"),
    "no threshold": (rule(f"{DELTA}'delta'"), "neither a threshold nor a density"),
    "matches no weight": (rule(DELTA.replace('"*"', '"lstm7.*"') + '"none"'), "lstm7.*"),
    "shadowed": (space(f"[[space]]\n{RULE}{RULE}"), "decides for no weight"),
}


@pytest.mark.parametrize(("spoil", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configurations(folder: Path, capsys: Any, spoil: Spoil, message: str) -> None:
    spoil(folder)
    refused(capsys, message)


@pytest.mark.parametrize(("spoil", "message"), SPACES.values(), ids=SPACES)
def test_spaces(folder: Path, capsys: Any, spoil: Spoil, message: str) -> None:
    spoil(folder)
    refused(capsys, message)


# --- the output folder and studies ---------------------------------------------------------------
def test_the_output_is_a_file(folder: Path, capsys: Any) -> None:
    refused(capsys, "a writable folder", out="model.json")


def test_the_output_lies_below_a_file(folder: Path, capsys: Any) -> None:
    refused(capsys, "a writable folder", out="model.json/out")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc of Linux")
def test_the_output_folder_cannot_be_made(folder: Path, capsys: Any) -> None:
    refused(capsys, "a writable folder", out="/proc/out")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_the_output_folder_may_not_be_written(folder: Path, capsys: Any) -> None:
    (folder / "out").mkdir(mode=0o500)
    refused(capsys, "out")


def test_best_is_something_else(folder: Path, capsys: Any) -> None:
    (folder / "out" / "best").mkdir(parents=True)
    (folder / "out" / "best" / "precious.txt").write_text("keep me")
    refused(capsys, "exists and is no saved model")


def other_database(path: Path) -> None:
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE photos (name TEXT)")
    database.commit()
    database.close()


def sql(text: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        database = sqlite3.connect(path)
        database.execute(text)
        database.commit()
        database.close()

    return spoil


STUDIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another database": (other_database, "a database of another program"),
    "no database": (lambda p: p.write_text("not a database at all, but a text" * 9), "readable"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:3000]), "not a readable study"),
    "another schema": (
        sql("""UPDATE study SET value = '"modelflex.study/9"' WHERE name = 'schema'"""),
        "modelflex.study/9",
    ),
    "no JSON": (sql("UPDATE study SET value = '{' WHERE name = 'schema'"), "not a readable study"),
    "spoilt evaluation": (sql("UPDATE evaluation SET result = '{'"), "not a readable study"),
    "evaluation without fields": (
        sql("UPDATE evaluation SET result = '{}'"),
        "not a readable study",
    ),
    "other columns": (sql("ALTER TABLE evaluation DROP COLUMN result"), "not a readable study"),
}


@pytest.mark.parametrize(("spoil", "message"), STUDIES.values(), ids=STUDIES)
def test_studies(folder: Path, capsys: Any, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder / "study" / "study.sqlite")
    before = everything()
    for command in (
        ("search", "modelflex.toml", "--out", "study"),
        ("retarget", "study"),
        ("explain", "study", "0"),
    ):
        assert message in one_line(capsys, *command)
    assert everything() == before


def test_an_unfinished_study(folder: Path, capsys: Any) -> None:
    sql("DELETE FROM study WHERE name = 'config'")(folder / "study" / "study.sqlite")
    for command in (("retarget", "study"), ("explain", "study", "0")):
        assert "no finished search" in one_line(capsys, *command)


def test_a_study_whose_data_have_moved(folder: Path, capsys: Any) -> None:
    # The study names its files by absolute paths, so spoil those of the copy it is told about.
    with pytest.raises(SystemExit):
        main(["search", "modelflex.toml", "--out", "moved"])
    (folder / "validation.npz").unlink()
    assert "no such file" in one_line(capsys, "retarget", "moved")


RETARGETS = {
    "[model]\npath = 'other'\n": "[model] of",
    "[task]\nkind = 'none'\n": "[task] of",
    "[limits]\nmost = 3\n": "unknown key 'most'",
    "[limits.max]\nweight_bytes = '-1 B'\n": "above zero",
    "[platform]\nname = 'tpu'\n": "unknown platform 'tpu'",
    "[objective]\nminimize = 'coverage'\n": "a cost to minimise",
    "[surprise]\n": "unknown table 'surprise'",
    "limits = 3\n": "limits is 3",
    "[limits": "is not TOML",
}


@pytest.mark.parametrize(("toml", "message"), RETARGETS.items(), ids=RETARGETS.values())
def test_retargets(folder: Path, capsys: Any, toml: str, message: str) -> None:
    (folder / "other.toml").write_text(toml, encoding="utf-8")
    assert message in one_line(capsys, "retarget", "study", "--config", "other.toml")


USAGE = {
    "": None,
    "serch": "Did you mean 'search'?",
    "search": "Missing argument 'config'; see modelflex search --help",
    "search a b": "unexpected extra argument",
    "search modelflex.toml --outt x": "No such option: --outt",
    "search modelflex.toml --workers -1": "Invalid value for '--workers'",
    "search modelflex.toml --workers two": "Invalid value for '--workers'",
    "search modelflex.toml --out": "requires an argument",
    "search .": "cannot read",
    "retarget nowhere": "there is no study at",
    "retarget .": "there is no study at",
    "retarget study --config nowhere.toml": "there is no file",
    "explain nowhere 0": "there is no study at",
    "explain study 99": "there is no trial 99",
    "explain study -- -1": "there is no trial -1",
    "explain study best": "Invalid value for 'trial'",
    "analyze nowhere": "there is no file",
    "analyze . --data nowhere.npz": "there is no such file",
    "analyze . --data model.json": "is no .npz file",
    "analyze modelflex.toml": "unknown type of file",
}


@pytest.mark.parametrize(("arguments", "message"), USAGE.items(), ids=list(USAGE))
def test_arguments(folder: Path, capsys: Any, arguments: str, message: str | None) -> None:
    before = everything()
    if message is None:
        with pytest.raises(SystemExit) as stop:
            main([])
        assert stop.value.code == 0
        assert "Commands" in capsys.readouterr().out
    else:
        assert message in one_line(capsys, *arguments.split())
    assert everything() == before


def test_artefacts_of_another_schema_version_do_not_load(folder: Path) -> None:
    path = folder / "study" / "best" / "model.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace("modelflex.model/1", "modelflex.model/2")
    )
    with pytest.raises(modelflex.UserError, match=r"modelflex\.model/2"):
        modelflex.load(folder / "study" / "best")


@pytest.mark.parametrize("arguments", [["search", "nowhere.toml"], ["search", "--bogus"]])
def test_the_process_itself(tmp_path: Path, arguments: list[str]) -> None:
    code = "from modelflex.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("modelflex: ")
    assert not list(tmp_path.iterdir())


# --- from Python ---------------------------------------------------------------------------------
PYTHON: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": 3}, "the model is a int"),
    "calibration": ({"calibration": 3}, "calibration is a int"),
    "space": ({"space": 3}, "space is 3"),
    "space of a string": ({"space": ["uniform"]}, "space[0] is 'uniform'"),
    "limits": ({"limits": [3]}, "limits is [3]"),
    "objective": ({"objective": "energy_j"}, "objective is 'energy_j'"),
    "platform": ({"platform": 3}, "platform is 3"),
    "quality": ({"quality": 3}, "quality"),
    "task": ({"task": None}, "the task is 'None'"),
    "seed": ({"seed": -1}, "seed"),
    "workers": ({"workers": -1}, "workers"),
    "rule of a given recipe": (
        {
            "space": [
                modelflex.recipe_from_json(
                    {
                        "schema": "modelflex.recipe/1",
                        "rules": [{"weights": "gru*", "format": {"method": "uniform", "bits": 4}}],
                    }
                )
            ]
        },
        "gru*",
    ),
}


@pytest.mark.parametrize(("changes", "message"), PYTHON.values(), ids=PYTHON)
def test_from_python(folder: Path, changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "model": folder,
        "calibration": folder / "calibration.npz",
        "validation": folder / "validation.npz",
        "out": folder / "out",
        **changes,
    }
    with pytest.raises(modelflex.UserError) as caught:
        modelflex.search(given.pop("model"), **given)
    assert message in str(caught.value)
    assert not (folder / "out").exists()
