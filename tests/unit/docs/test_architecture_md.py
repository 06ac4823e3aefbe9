"""The example plug-in of docs/architecture.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from modelflex.core.graph import PRIMITIVES
from modelflex.registry import CELLS
from modelflex.testing import CellSuite

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "architecture.md").read_text("utf-8")
CHECKS = [name for name in dir(CellSuite) if name.startswith("test_")]


@pytest.fixture
def example_cell(monkeypatch: pytest.MonkeyPatch) -> str:
    names = CELLS.names()
    monkeypatch.setattr(CELLS, "_entries", {name: CELLS.get(name) for name in names})
    block = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert block
    exec(compile(block[1], "docs/architecture.md", "exec"), {})
    (made,) = set(CELLS.names()) - set(names)
    return made


def test_there_are_checks() -> None:
    assert CHECKS


@pytest.mark.parametrize("check", CHECKS)
def test_the_example_cell_passes_the_contract(check: str, example_cell: str) -> None:
    getattr(CellSuite(), check)(example_cell)


def test_all_primitives_are_named() -> None:
    section = TEXT.partition("**Primitives**")[2].partition("\n\n")[0]
    listed, _, _ = section.partition(". A compressed product")
    assert set(re.findall(r"`(\w+)`", listed)) == set(PRIMITIVES)
