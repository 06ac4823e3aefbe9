"""What a search refuses or says so that its answer can be trusted."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex.cli import main
from modelflex.errors import UserError

from .refusal import one_line

if sys.platform != "win32":
    import fcntl


def spoil_validation(folder: Path) -> None:
    """Change one number of the validation data."""
    with np.load(folder / "validation.npz") as data:
        arrays = dict(data)
    arrays["x"][0, 0] += 1
    np.savez(folder / "validation.npz", **arrays)


@pytest.mark.parametrize("command", [("retarget",), ("explain",)])
def test_changed_data_are_no_answer(
    folder: Path, capsys: pytest.CaptureFixture[str], command: tuple[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["search", "modelflex.toml", "--out", "out", "--json"])
    spoil_validation(folder)
    extra = ("0",) if command == ("explain",) else ()
    assert "changed since the search" in one_line(capsys, *command, "out", *extra)


def test_explain_does_without_test_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test.npz").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["explain", "study", "0"])
    assert stop.value.code == 0
    assert "Picked" in capsys.readouterr().out


def test_a_pick_that_is_rebuilt_differently_is_no_answer(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stored figure that the rebuilt network does not reach means other libraries, or tampering."""
    db = sqlite3.connect(folder / "study" / "study.sqlite")
    with db:
        changed = db.execute(
            "UPDATE evaluation SET result = replace(result, '\"n\": 30', '\"n\": 31')"
        )
        assert changed.rowcount > 0
    db.close()
    assert "differs from its stored evaluation" in one_line(capsys, "retarget", "study")


@pytest.mark.skipif(os.name == "nt", reason="locks of POSIX")
def test_a_folder_holds_one_search_at_a_time(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = os.open("study", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        line = one_line(capsys, "search", "modelflex.toml", "--out", "study")
    finally:
        os.close(handle)
    assert "another search is running" in line
    with pytest.raises(SystemExit) as stop:
        main(["search", "modelflex.toml", "--out", "study", "--json"])
    assert stop.value.code == 0


@pytest.mark.parametrize("name", ["config.json", "summary.json", "report.html"])
def test_files_of_others_are_not_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path("out").mkdir()
    (Path("out") / name).write_text("mine", encoding="utf-8")
    assert "no study beside it" in one_line(capsys, "search", "modelflex.toml", "--out", "out")
    assert (Path("out") / name).read_text(encoding="utf-8") == "mine"
    assert os.listdir("out") == [name]


def test_validation_data_in_the_test_data_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="in the validation and in the test data"):
        modelflex.search(
            "model.json", calibration="calibration.npz", validation="validation.npz",
            test="validation.npz", workers=1,
        )  # fmt: skip


def test_calibration_data_among_the_held_out_are_told(folder: Path) -> None:
    result = modelflex.search(
        "model.json", calibration="validation.npz", validation="validation.npz",
        limits={"max": {"weight_bytes": "1 kB"}}, workers=1,
    )  # fmt: skip
    assert any("30 calibration sequences" in note for note in result.study.notes)


SEARCH = """
    from modelflex.core.recipe import Activation, Choice, Recipe, Rule
    from modelflex.formats.uniform import Uniform
    from modelflex.registry import STRUCTURES
    from modelflex.structures.dense import Dense

    @STRUCTURES.register("mine")
    @dataclass(frozen=True)
    class Mine(Dense):
        pass

    recipes = [
        Recipe((Rule("*", Choice(Mine(), Uniform(bits), Activation(8))),)) for bits in (4, 8)
    ]
    result = modelflex.search(
        "model.json", calibration="calibration.npz", validation="validation.npz",
        space=recipes, workers=2,
    )
    print(result.best.recipe.rules[0].choice.structure, *result.study.notes)
"""
COMPARE = """
    from modelflex.formats.uniform import Uniform
    from modelflex.pipeline import compare
    from modelflex.registry import FORMATS

    @FORMATS.register("mine")
    @dataclass(frozen=True)
    class Mine(Uniform):
        search_range = {"bits": (4, 8)}

    found = compare("model.json", "calibration.npz", only="format: mine", workers=2)
    print("Mine(" * (found.best.keys() == {"format: mine"}), *found.notes)
"""


@pytest.mark.parametrize("script", [SEARCH, COMPARE], ids=["search", "compare"])
def test_plugins_of_a_script_without_a_guard_run_in_its_process(folder: Path, script: str) -> None:
    text = "from dataclasses import dataclass\nimport modelflex\n" + textwrap.dedent(script)
    Path("script.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Mine(" in done.stdout
    assert "evaluated in this process" in done.stdout
