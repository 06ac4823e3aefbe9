"""What tests of commands share: their exit codes, and how they refuse wrong input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelflex.cli import main

Spoil = Callable[[Path], object]


def exit_code(*arguments: object) -> int:
    """Of a command that is run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must refuse its input."""
    capsys.readouterr()
    assert exit_code(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("modelflex: ")
    return lines[0].removeprefix("modelflex: ")


def refused(capsys: pytest.CaptureFixture[str], message: str, out: str = "out") -> None:
    """`modelflex search` refuses what lies in the current folder, and writes nothing."""
    before = everything()
    line = one_line(capsys, "search", "modelflex.toml", "--out", out)
    assert message in line
    assert everything() == before


def everything() -> dict[str, bytes]:
    """Path → content of all files and folders here (of folders: nothing)."""
    found = {}
    for path in sorted(Path().rglob("*")):
        if "__pycache__" not in path.parts:
            found[str(path)] = path.read_bytes() if path.is_file() else b""
    return found


def edit(old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "modelflex.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return spoil
