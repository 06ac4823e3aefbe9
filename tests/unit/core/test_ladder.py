"""Ladders: choosing rungs, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelflex.core.ladder import Ladder, Rung, read_ladder
from modelflex.errors import UserError

WANTED = {"a.w": 4, "b.w": 2}


def rung(a: int, b: int, divergence: float) -> Rung:
    """A rung that costs 10 operations a term."""
    return Rung({"a.w": a, "b.w": b}, 10 * (a + b), divergence, divergence / 2, 2 * divergence, 9.0)


LADDER = Ladder("kl", 100, 7, (rung(0, 0, 2.0), rung(1, 0, 0.5), rung(3, 0, 0.6), rung(3, 2, 0.01)))


@pytest.mark.parametrize(("budget", "index"), [(-1, 0), (9, 0), (10, 1), (39, 2), (1e9, 3)])
def test_the_best_rung_within_a_budget(budget: float, index: int) -> None:
    assert LADDER.within(budget) is LADDER.rungs[index]


@pytest.mark.parametrize(("divergence", "index"), [(2.0, 0), (0.6, 1), (0.55, 3), (0.01, 3)])
def test_the_cheapest_rung_from_which_on_the_quality_holds(divergence: float, index: int) -> None:
    assert LADDER.reaching(divergence) is LADDER.rungs[index]


def test_a_quality_that_no_rung_has() -> None:
    assert LADDER.reaching(0.001) is None


@pytest.mark.parametrize(("a", "b", "index"), [(0, 2, 0), (2, 2, 1), (3, 1, 2), (4, 2, 3)])
def test_what_was_used_is_judged_by_the_rung_below_it(a: int, b: int, index: int) -> None:
    assert LADDER.below({"a.w": a, "b.w": b}) is LADDER.rungs[index]


def test_a_ladder_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    path.write_text(json.dumps(LADDER.to_json()))
    assert read_ladder(path, WANTED) == LADDER


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("terms", {"a.w": 1}),
        ("terms", {"a.w": 5, "b.w": 0}),
        ("terms", {"a.w": True, "b.w": 0}),
        ("terms", {"a.w": 0, "b.w": 0}),
        ("operations", 1.5),
        ("operations", -1),
        ("operations", 9),
        ("operations", 10**400),
        ("divergence", None),
        ("divergence", True),
        ("divergence", 10**400),
        ("p90", float("nan")),
        ("metric", "good"),
    ],
)
def test_a_spoiled_ladder_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    values = LADDER.to_json()
    values["rungs"][2][key] = value
    path = tmp_path / "ladder.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"ladder\.json"):
        read_ladder(path, WANTED)
