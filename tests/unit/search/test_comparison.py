"""The surveys' metrics against figures worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from modelflex.core.cost import Cost
from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import LayerRule, Recipe, rule_from_json
from modelflex.core.trial import Evaluation, Trial
from modelflex.registry import NONLINEARITIES, REMOVALS
from modelflex.search.comparison import (
    Compared,
    best_of_families,
    break_even,
    compared,
    fronts,
    is_coarse,
)
from modelflex.search.study import Qualities

BASE = Cost(weight_bytes=4000.0, weight_fetch_bytes_per_step=3000.0, macs_per_step=800.0)


def quality(kind: str, direction: str, value: float) -> Quality:
    return Quality(kind, direction, value, (math.nan, math.nan), 100)


def accuracy(value: float) -> Quality:
    return quality("accuracy", "max", value)


def recipe(structure: Any = "dense", bits: int = 4, rounding: str = "gptq", **more: Any) -> Recipe:
    form = {"method": "uniform", "bits": bits, "rounding": rounding}
    rule = rule_from_json({"weights": "*", "structure": structure, "format": form})
    return Recipe((rule,), label=f"{bits} bits", **more)


def trial(
    number: int,
    qualities: Qualities,
    made: Recipe | None = None,
    *,
    stored: float = 1000.0,
    fetched: float = 500.0,
    macs: float = 400.0,
    family: str = "format: uniform",
) -> Trial:
    cost = Cost(weight_bytes=stored, weight_fetch_bytes_per_step=fetched, macs_per_step=macs)
    evaluation = Evaluation(qualities, Profile(10, 2), int(stored), {})
    return Trial(number, made or recipe(), "feasible", cost, space=family, evaluation=evaluation)


def judged(
    divergence: float, metric: Quality | None, base: Quality | None, **sizes: Any
) -> Compared:
    given = {"divergence": quality("kl", "min", divergence)}
    before = {} if base is None else {"metric": base}
    found = given if metric is None else given | {"metric": metric}
    (row,) = compared([trial(0, found, **sizes)], before, BASE)
    return row


def test_savings_are_the_uncompressed_over_the_compressed() -> None:
    row = judged(0.1, accuracy(0.9), accuracy(0.9), stored=500.0, fetched=60.0, macs=1000.0)
    assert row.memory_saving == 8.0
    assert row.fetch_saving == 50.0
    assert row.compute_saving == 0.8
    assert (row.weight_bytes, row.weight_fetch_bytes_per_step, row.macs_per_step) == (500, 60, 1000)


@pytest.mark.parametrize(
    ("base", "metric", "relative", "verdict"),
    [
        (accuracy(0.8), accuracy(0.8), 1.0, "superior"),
        (accuracy(0.8), accuracy(0.84), 1.05, "superior"),
        (accuracy(0.8), accuracy(0.796), 0.995, "efficient"),
        (accuracy(0.8), accuracy(0.76), 0.95, "degraded"),
        (quality("perplexity", "min", 4.0), quality("perplexity", "min", 4.0), 1.0, "superior"),
        (quality("perplexity", "min", 4.0), quality("perplexity", "min", 3.2), 1.25, "superior"),
        (
            quality("perplexity", "min", 4.0),
            quality("perplexity", "min", 4.02),
            4 / 4.02,
            "efficient",
        ),
        (quality("perplexity", "min", 4.0), quality("perplexity", "min", 5.0), 0.8, "degraded"),
        (quality("rmse", "min", 0.0), quality("rmse", "min", 0.0), 1.0, "superior"),
        (quality("rmse", "min", 0.0), quality("rmse", "min", 0.1), 0.0, "degraded"),
        (quality("rmse", "min", 0.1), quality("rmse", "min", 0.0), math.inf, "superior"),
        (accuracy(0.0), accuracy(0.0), 1.0, "superior"),
    ],
)
def test_relative_performance_and_verdict(
    base: Quality, metric: Quality, relative: float, verdict: str
) -> None:
    row = judged(3.0, metric, base)
    assert row.relative_performance == pytest.approx(relative, rel=1e-12)
    assert row.verdict == verdict


@pytest.mark.parametrize("items", [100, 200, 300, 700, 1500])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.8, 1.0])
def test_the_hundredth_part_may_be_lost_whatever_it_rounds_to(items: int, share: float) -> None:
    right = round(share * items / 100) * 100 or 100
    lost = right // 100
    row = judged(0.0, accuracy((right - lost) / items), accuracy(right / items))
    assert row.verdict == "efficient"
    row = judged(0.0, accuracy((right - lost - 1) / items), accuracy(right / items))
    assert row.verdict == "degraded"


def test_as_good_but_not_smaller_is_efficient() -> None:
    assert judged(0.0, accuracy(0.9), accuracy(0.9), stored=4000.0).verdict == "efficient"


@pytest.mark.parametrize(
    ("divergence", "relative", "verdict"),
    [(0.0, 1.0, "superior"), (0.004, 0.996, "efficient"), (0.25, 0.75, "degraded"), (7.0, 0, "degraded")],
)  # fmt: skip
def test_without_a_task_divergence_judges(divergence: float, relative: float, verdict: str) -> None:
    row = judged(divergence, None, None)
    assert row.metric is None
    assert row.relative_performance == pytest.approx(relative, abs=1e-12)
    assert row.verdict == verdict


def test_rows_know_their_family_and_whether_data_were_used() -> None:
    known = {"divergence": quality("kl", "min", 0.1)}
    aware, naive = recipe(), recipe().naive
    unknown = Trial(2, aware, "skipped", BASE)
    rows = compared([trial(0, known, aware), trial(1, known, naive), unknown], {}, BASE)
    assert [row.number for row in rows] == [0, 1]
    assert [row.data_aware for row in rows] == [True, False]
    assert {row.family for row in rows} == {"format: uniform"}


def test_a_removal_that_looks_at_data_makes_a_recipe_data_aware() -> None:
    known = {"divergence": quality("kl", "min", 0.1)}
    removals = [
        LayerRule("lstm0", None if how is None else REMOVALS.get(how)(8))
        for how in ("obs", "norm", None)
    ]
    made = [recipe(rounding="nearest", layers=(rule,)) for rule in removals]
    rows = compared([trial(i, known, r) for i, r in enumerate(made)], {}, BASE)
    assert [row.data_aware for row in rows] == [True, False, False]


# --- choosing ------------------------------------------------------------------------------------
def row(number: int, fetched: float, divergence: float = 0.001, **more: Any) -> Compared:
    """A row of which only some figures matter."""
    values: dict[str, Any] = {
        "twin": None, "family": "a", "label": "", "data_aware": True, "metric": None,
        "weight_bytes": 1.0, "macs_per_step": 1.0, "relative_performance": 1.0, "memory_saving": 2.0,
        "fetch_saving": 2.0, "compute_saving": 2.0, "verdict": "efficient",
    }  # fmt: skip
    given = {"number": number, "weight_fetch_bytes_per_step": fetched, "divergence": divergence}
    return Compared(**(values | given | more))


def test_the_best_of_a_family_fetches_least_among_those_not_degraded() -> None:
    rows = [
        row(0, 300.0),
        row(1, 200.0, verdict="superior"),
        row(2, 100.0, verdict="degraded"),
        row(3, 50.0, family="b", verdict="degraded"),
        row(4, 400.0, family="c"),
    ]
    assert best_of_families(rows) == {"a": 1, "c": 4}


def test_recipes_near_the_least_are_told_apart_by_divergence() -> None:
    rows = [row(0, 100.0, 0.3), row(1, 101.9, 0.1), row(2, 102.1, 0.0), row(3, 101.0, 0.1)]
    assert best_of_families(rows) == {"a": 1}


def test_where_the_metric_is_coarse_the_divergence_has_to_be_small_too() -> None:
    rows = [row(0, 100.0, 0.02), row(1, 200.0, 0.01), row(2, 300.0, 0.0)]
    assert best_of_families(rows, coarse=False) == {"a": 0}
    assert best_of_families(rows, coarse=True) == {"a": 1}


@pytest.mark.parametrize(
    ("right", "items", "coarse"),
    [(62, 63, True), (99, 99, True), (100, 100, False), (99, 200, True), (200, 250, False), (0, 9, False)],
)  # fmt: skip
def test_coarse_means_that_one_more_wrong_is_degraded(right: int, items: int, coarse: bool) -> None:
    assert is_coarse(accuracy(right / items), items) == coarse


def test_other_metrics_are_not_coarse() -> None:
    assert not is_coarse(quality("perplexity", "min", 4.0), 3)
    assert not is_coarse(None, 3)


def test_fronts_hold_what_no_other_of_its_kind_beats() -> None:
    rows = [
        row(0, 100.0, 0.5),
        row(1, 200.0, 0.1),
        row(2, 300.0, 0.2),  # beaten by 1
        row(3, 50.0, 0.05, data_aware=False),
        row(4, 60.0, 0.06, data_aware=False, weight_bytes=0.5),
    ]
    found = fronts(rows)
    assert found["weight_fetch_bytes_per_step"] == {"data-aware": (0, 1), "naive": (3,)}
    assert found["weight_bytes"] == {"data-aware": (1,), "naive": (4, 3)}


# --- where sparse storage breaks even ------------------------------------------------------------
def sparse(
    structure: dict[str, Any], bits: int, shape: tuple[int, int]
) -> list[tuple[float, float]]:
    known = {"divergence": quality("kl", "min", 0.0)}
    found = break_even([trial(0, known, recipe(structure, bits))], {"w": shape})
    return [(row.density, row.break_even_density) for row in found]


def test_break_even_of_single_numbers() -> None:
    """Rows of 64: an index of 6 bits beside each code of 4: 10 bits a number kept, so 40 %."""
    found = sparse({"method": "row_sparse", "density": 0.25}, 4, (8, 64))
    assert found == [(0.25, pytest.approx(0.4))]


def test_break_even_of_n_of_m() -> None:
    """1 of 4: an index of 2 bits beside each code of 8: 10 bits, so 80 %."""
    found = sparse({"method": "n_m", "n": 1, "m": 4}, 8, (8, 64))
    assert found == [(0.25, pytest.approx(0.8))]


def test_break_even_of_blocks() -> None:
    """Blocks of 4×4 in rows of 64: 16 columns of blocks, 4 bits an index for 16 codes of 2 bits."""
    blocks = {"method": "block_sparse", "density": 0.5, "block_rows": 4, "block_columns": 4}
    assert sparse(blocks, 2, (8, 64)) == [(0.5, pytest.approx(32 / 36))]


def test_break_even_is_of_the_sparse_product_of_a_sum() -> None:
    both = {"method": "circulant_plus_sparse", "block": 4, "density": 0.125}
    found = sparse(both, 4, (8, 64))
    assert found == [(0.125, pytest.approx(0.4))]


def test_what_is_not_sparse_or_loses_units_has_no_break_even() -> None:
    known = {"divergence": quality("kl", "min", 0.0)}
    rules = (LayerRule("*", nonlinearity=NONLINEARITIES.get("hard")()),)
    changed = recipe({"method": "n_m", "n": 1, "m": 4}, layers=rules)
    trials = [trial(0, known, recipe()), trial(1, known, changed)]
    assert break_even(trials, {"w": (8, 64)}) == ()


def test_equal_break_evens_are_told_once() -> None:
    known = {"divergence": quality("kl", "min", 0.0)}
    structure = {"method": "n_m", "n": 2, "m": 4, "score": "wanda"}
    both = [trial(0, known, recipe(structure)), trial(1, known, recipe(structure).naive)]
    assert len(break_even(both, {"w": (8, 64), "v": (8, 32)})) == 2
