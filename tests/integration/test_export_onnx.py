"""`modelflex export --format onnx`: the file, what is printed, refusals in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelflex.cli import main
from modelflex.export.artefact import save_artefact
from modelflex.testing.generators import random_case

from .refusal import one_line

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An artefact."""
    folder = tmp_path / "best"
    save_artefact(random_case(4).made.model, folder, recipe=None, provenance={})
    return folder


def export(source: Path, out: Path, *options: str) -> None:
    """The command, which must end well."""
    with pytest.raises(SystemExit) as stop:
        main(["export", str(source), "--format", "onnx", "--out", str(out), *options])
    assert stop.value.code == 0


def test_the_command(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved.parent / "new" / "step.onnx"
    export(saved, file)
    printed = capsys.readouterr().out
    assert f"file: {file}" in printed
    assert "is equal to the interpreter over 64 steps" in printed
    export(saved, saved.parent, "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["checked"]["largest_error"] == 0
    assert Path(report["file"]).read_bytes() == file.read_bytes()


def test_it_says_that_nothing_was_checked(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    export(saved, saved.parent / "a.onnx")
    assert "checked: no, onnxruntime is not installed" in capsys.readouterr().out


def test_refusals_are_one_line(
    saved: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = saved / "model.onnx"
    taken.write_bytes(b"something else")
    message = one_line(capsys, "export", str(saved), "--format", "onnx", "--out", str(taken))
    assert "exists and is no export" in message
    other = saved / "model.json"
    message = one_line(capsys, "export", str(saved), "--format", "onnx", "--out", str(other))
    assert "is a file; expected a name that ends in .onnx, or a folder" in message
    message = one_line(capsys, "export", str(saved), "--format", "onxn", "--out", str(taken))
    assert "did you mean 'onnx'" in message
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = one_line(capsys, "export", str(saved), "--format", "onnx", "--out", "out.onnx")
    assert "pip install 'modelflex[onnx]'" in message
    assert taken.read_bytes() == b"something else"


def test_a_whole_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, model in (("floats", random_case(4).model), ("codes", random_case(4).made.model)):
        save_artefact(model, tmp_path / name, recipe=None, provenance={})
    command = ["export", "--format", "onnx-sequence", "--out", str(tmp_path / "s.onnx")]
    with pytest.raises(SystemExit) as stop:
        main([*command, str(tmp_path / "floats"), "--name", "net"])
    assert stop.value.code == 0
    assert "of the interpreter over 64 steps" in capsys.readouterr().out
    message = one_line(capsys, *command, str(tmp_path / "codes"))
    assert "computes in integers" in message
    assert message.endswith("write the step form: --format onnx")
