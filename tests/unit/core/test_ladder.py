"""Ladders: choosing rungs, and files of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.ladder import Ladder, Rung, read_ladder
from modelflex.errors import UserError

WANTED = {"a.w": 4, "b.w": 2}


def rung(a: int, b: int, divergence: float) -> Rung:
    """A rung that costs 10 operations a term."""
    return Rung({"a.w": a, "b.w": b}, 10 * (a + b), divergence, divergence / 2, 2 * divergence, 9.0)


LADDER = Ladder("kl", 100, 7, (rung(0, 0, 2.0), rung(1, 0, 0.5), rung(3, 0, 0.6), rung(3, 2, 0.01)))


@pytest.mark.parametrize(("divergence", "index"), [(2.0, 0), (0.6, 1), (0.55, 3), (0.01, 3)])
def test_the_cheapest_rung_from_which_on_the_quality_holds(divergence: float, index: int) -> None:
    assert LADDER.reaching(divergence) is LADDER.rungs[index]


def test_a_quality_that_no_rung_has() -> None:
    assert LADDER.reaching(0.001) is None


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


@pytest.mark.parametrize(
    "change",
    [
        {"terms": {"a.w": -1}},
        {"terms": {"a.w": 2**70}},
        {"terms": {"a.w": 1.0}},
        {"terms": {"a.w": True}},
        {"terms": [1]},
        {"operations": -1},
        {"operations": 1 << 60},
        {"operations": 1.5},
        {"divergence": None},
        {"divergence": np.float64("nan")},
        {"median": "low"},
        {"p90": float("inf")},
        {"worst": 10**400},
        {"metric": True},
    ],
)
def test_rungs_that_are_none_are_not_made(change: dict[str, Any]) -> None:
    fields = {"terms": {"a.w": 1}, "operations": 1}
    fields |= dict.fromkeys(("divergence", "median", "p90", "worst"), 1.0) | change
    with pytest.raises(UserError, match="rung") as caught:
        Rung(**fields)
    assert "; expected" in str(caught.value)


def test_rungs_may_have_the_numbers_of_numpy() -> None:
    half = np.float32(0.5)
    made = Rung({"a.w": np.int64(3)}, np.int64(9), half, half, half, half, np.float64(1))
    assert made.terms["a.w"] == 3


@pytest.mark.parametrize(
    ("rungs", "found"),
    [
        ((), "0 rungs"),
        ((rung(0, 1, 1.0), rung(3, 0, 0.5)), "fewer terms"),
        ((Rung({"a.w": 0}, 5, 1, 1, 1, 1), Rung({"a.w": 1}, 4, 1, 1, 1, 1)), "fewer operations"),
        ((rung(0, 0, 1.0), Rung({"a.w": 1}, 10, 1, 1, 1, 1)), "the weights a.w, b.w and a.w"),
    ],
)
def test_ladders_that_are_none_are_not_made(rungs: tuple[Rung, ...], found: str) -> None:
    with pytest.raises(UserError, match=found):
        Ladder("kl", 1, 1, rungs)
