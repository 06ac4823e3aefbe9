"""The search loop on a small network: what is rejected, evaluated, skipped, picked and kept."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.core.cost import Cost
from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation, Trial, Violation
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.registry import PLATFORMS
from modelflex.search import driver as driver_module
from modelflex.search.config import read_objective
from modelflex.search.driver import Driver, Progress, nearest_misses, pick
from modelflex.search.limits import Objective, read_limits
from modelflex.search.pricing import Pricer
from modelflex.search.problem import Problem, evaluate_recipe, run_network, score_network
from modelflex.search.space import SpaceRecipe, read_space
from modelflex.search.store import Store, evaluation_from_json, evaluation_key, evaluation_to_json
from modelflex.search.workers import Workers
from modelflex.testing.generators import random_model, random_sequences

GRIDS = [
    {
        "name": name,
        "vary": {"bits": [2, 4, 8], "theta": [0.0, 0.3, 0.8], "block": [1, 4]},
        "rules": [
            {
                "weights": "*.w_?",
                "structure": {"method": "circulant", "block": "$block", "fit": fit},
                "format": {"method": "uniform", "bits": "$bits"} | form,
                "activity": {"method": "delta", "threshold": "$theta", "granularity": "block"},
            },
            {"weights": "*.w", "format": {"method": "uniform", "bits": 8}},
        ],
        "recalibrate": rounds,
    }
    for name, fit, form, rounds in (
        ("data-aware", "least_squares", {"scales": "gate"}, 1),
        ("naive", "mean", {"scales": "tensor", "clip": "max", "rounding": "nearest"}, 0),
    )
]


@cache
def problem() -> Problem:
    rng = np.random.default_rng(0)
    model = random_model(rng, ["lstm"])
    stats = calibrate(model, random_sequences(rng, [12] * 10, 8))
    data = random_sequences(rng, [5, 9, 14, 7, 11, 3, 8, 10], 8, classes=4)
    original, _ = run_network(model, data)
    labelled = dataclasses.replace(data, y=original.argmax(axis=1))
    return Problem(model, stats, labelled, original, make_task("classification"), 0)


@cache
def space() -> tuple[SpaceRecipe, ...]:
    return tuple(read_space(GRIDS))


_known: dict[str, Evaluation] = {}


class Counting(Workers):
    """Evaluates in this process, once for all tests, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(problem(), 1)
        self.asked: list[str] = []

    def evaluate(
        self, recipes: Sequence[Recipe], finished: Callable[[int, Evaluation], None]
    ) -> None:
        for i, recipe in enumerate(recipes):
            self.asked.append(recipe.key)
            if recipe.key not in _known:
                _known[recipe.key] = evaluate_recipe(problem(), recipe)
            finished(i, _known[recipe.key])


@pytest.fixture
def store() -> Iterator[Store]:
    opened = Store(Path(":memory:"))
    yield opened
    opened.close()


def make_driver(
    limits: Mapping[str, Any], recipes: Sequence[SpaceRecipe] | None = None, **objective: Any
) -> Driver:
    baseline, _ = score_network(problem(), problem().model, problem().validation, None)
    platform = PLATFORMS.get("systolic").from_config({})
    pricer = Pricer(problem().model, problem().stats, platform, problem().validation.mean_length)
    return Driver(
        problem(),
        pricer,
        space() if recipes is None else recipes,
        read_limits(limits),
        read_objective(objective),
        baseline,
    )


DIVERGENCE = 0.05


def test_what_cannot_fit_is_never_evaluated(store: Store) -> None:
    driver = make_driver({"max": {"weight_bytes": "700 B"}})
    workers = Counting()
    driver.run(store, workers, exhaustive=True)
    trials = driver.trials(0, {})
    fits = driver.expected["weight_bytes"] <= 700
    assert 0 < fits.sum() < len(space())
    for trial, fit in zip(trials, fits, strict=False):
        assert (trial.status == "rejected") == (not fit or trial.status == "skipped")
        if not fit:
            (violation,) = trial.violations
            assert violation.optimistic
            assert violation.value > 700
            assert trial.evaluation is None
            assert trial.recipe.key not in workers.asked
        else:
            assert trial.evaluation is not None
            assert trial.evaluation.weight_bytes == trial.cost.weight_bytes


def test_exhaustive_evaluates_all_that_fit_and_their_twins_once(store: Store) -> None:
    driver, workers = make_driver({"max": {"divergence": DIVERGENCE}}), Counting()
    told: list[Progress] = []
    driver.run(store, workers, exhaustive=True, tell=told.append)
    wanted = {s.recipe.key for s in space()} | {s.recipe.naive.key for s in space()}
    assert sorted(workers.asked) == sorted(wanted)
    assert [p.done for p in told[:-1]] == list(range(1, len(wanted) + 1))
    assert told[-1].done == told[-1].total == len(wanted)
    assert {t.status for t in driver.trials(0, {})} == {"feasible", "infeasible"}


@pytest.mark.parametrize(
    "minimize", ["weight_fetch_bytes_per_step", "energy_per_step_j", "weight_bytes"]
)
@pytest.mark.parametrize("divergence", [0.5, 0.05, 0.005])
def test_stopping_early_picks_what_exhaustion_picks(
    minimize: str, divergence: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "BATCH", 3)
    asked, picked = [], []
    for exhaustive in (True, False):
        driver, workers = (
            make_driver({"max": {"divergence": divergence}}, minimize=minimize),
            Counting(),
        )
        store = Store(Path(":memory:"))
        driver.run(store, workers, exhaustive=exhaustive)
        store.close()
        trials = driver.trials(0, {})
        measured = [t for t in trials if t.evaluation is not None and t.role == "candidate"]
        low = driver.lowest
        assert all(getattr(t.cost, minimize) >= low[t.number] * (1 - 1e-9) for t in measured)
        best = pick(trials, driver.objective)
        picked.append(None if best is None else (best.number, best.cost, best.evaluation))
        asked.append(len(workers.asked))
    assert picked[0] == picked[1]
    assert picked[0] is not None
    assert asked[1] < asked[0]


def test_what_is_not_asked_is_skipped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "BATCH", 2)
    driver, workers = make_driver({"max": {"divergence": 10.0}}), Counting()
    driver.run(store, workers)
    trials = driver.trials(3, {"v": "1"})
    statuses = {t.status for t in trials}
    assert statuses == {"feasible", "skipped"}
    for trial in trials:
        assert (trial.status == "skipped") == (trial.evaluation is None)
        assert (trial.seed, dict(trial.versions)) == (3, {"v": "1"})
        assert trial.number == trials.index(trial)


def test_twins_are_the_naive_variants(store: Store) -> None:
    only = [s for s in space() if s.space == "data-aware"]
    driver = make_driver({}, only)
    driver.run(store, Counting(), exhaustive=True)
    trials = driver.trials(0, {})
    assert {t.role for t in trials} == {"candidate", "twin"}
    for trial in trials[: len(only)]:
        assert trial.twin is not None
        twin = trials[trial.twin]
        assert twin.role == "twin"
        assert twin.recipe == trial.recipe.naive
        assert twin.recipe.recalibrate == 0
    best = pick(trials, driver.objective)
    assert best is not None
    assert best.role == "candidate"


def test_a_second_run_asks_for_nothing(store: Store) -> None:
    first, workers = make_driver({"max": {"divergence": DIVERGENCE}}), Counting()
    first.run(store, workers, exhaustive=True)
    again, idle = make_driver({"max": {"divergence": DIVERGENCE}}), Counting()
    again.run(store, idle, exhaustive=True)
    assert workers.asked
    assert idle.asked == []
    # Trials out of the store are equal to the fresh ones, floats included.
    assert again.trials(0, {}) == first.trials(0, {})
    other = make_driver({"max": {"weight_bytes": "700 B"}})
    other.reuse(store)
    trials = other.trials(0, {})
    assert not any(t.status == "missing" for t in trials)
    assert pick(trials, other.objective) is not None


def test_reuse_counts_what_is_missing(store: Store) -> None:
    some = make_driver({}, space()[:5])
    some.run(store, Counting(), exhaustive=True)
    every = make_driver({})
    twins = {s.recipe.naive.key for s in space()[:5]}
    known = {s.recipe.key for s in space()[:5]} | twins
    every.reuse(store)
    left = [t for t in every.trials(0, {}) if t.status in ("missing", "skipped")]
    assert len(left) == sum(s.recipe.key not in known for s in space())
    for trial in left:  # missing: it could still matter; skipped: it could not
        assert (trial.status == "missing") == (every.lowest[trial.number] <= every.bound)
    assert any(t.status == "missing" for t in left)


def test_measured_costs_replace_expected_ones(store: Store) -> None:
    driver = make_driver({})
    driver.run(store, Counting(), exhaustive=True)
    platform = driver.pricer.platform
    for trial in driver.trials(0, {})[:6]:
        assert trial.evaluation is not None
        alone = driver.pricer.cost(trial.recipe, trial.evaluation.profile)
        for name in ("energy_j", "latency_s", "weight_fetch_bytes_per_step", "weight_bytes"):
            assert getattr(trial.cost, name) == pytest.approx(getattr(alone, name), rel=1e-9)
    assert platform.reference


# --- the pick ------------------------------------------------------------------------------------
def trial(
    number: int, bytes_: float | None, divergence: float, accuracy: float = 0.9, **changes: Any
) -> Trial:
    quality = {
        "divergence": Quality("kl", "min", divergence, (0, 1), 9),
        "metric": Quality("accuracy", "max", accuracy, (0, 1), 9),
    }
    evaluation = Evaluation(quality, Profile(1, 1), 1, {})
    base = Trial(
        number, Recipe(()), "feasible", Cost(weight_fetch_bytes_per_step=bytes_),
        evaluation=evaluation,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


SLACK = Objective(pareto_slack=0.1)


@pytest.mark.parametrize(
    ("trials", "objective", "number"),
    [
        # Within the slack the divergence decides, beyond it the objective.
        ([trial(0, 100, 0.5), trial(1, 109, 0.1), trial(2, 111, 0.0)], SLACK, 1),
        ([trial(0, 100, 0.5), trial(1, 110.0, 0.1)], SLACK, 1),
        ([trial(0, 100, 0.5), trial(1, 101, 0.1)], Objective(pareto_slack=0.0), 0),
        # Equal divergence: the smaller objective, then the order of the space.
        ([trial(0, 109, 0.1), trial(1, 100, 0.1), trial(2, 100, 0.1)], SLACK, 1),
        # The metric as tie-break: more is better.
        (
            [trial(0, 100, 0.0, 0.8), trial(1, 105, 0.3, 0.95)],
            Objective(tie_break="metric", pareto_slack=0.1),
            1,
        ),
        # Twins and infeasible trials are never picked.
        (
            [trial(0, 1, 0, role="twin"), trial(1, 2, 0, status="infeasible"), trial(2, 3, 9)],
            SLACK,
            2,
        ),
        # A cost that does not apply is no small one.
        ([trial(0, None, 0.0), trial(1, 100, 0.4)], SLACK, 1),
    ],
)
def test_picks(trials: list[Trial], objective: Objective, number: int) -> None:
    for order in (trials, trials[::-1]):
        best = pick(order, objective)
        assert best is not None
        assert best.number == number


def test_no_pick_without_a_feasible_trial() -> None:
    assert pick([], SLACK) is None
    assert pick([trial(0, 1, 0, status="skipped")], SLACK) is None


def test_nearest_misses_come_first_worst_limit_first() -> None:
    def missing(number: int, *ratios: float, **changes: Any) -> Trial:
        found = tuple(Violation(f"f{i}", "max", 1.0, r) for i, r in enumerate(ratios))
        return trial(number, 1, 0, status="infeasible", violations=found, **changes)

    trials = [
        missing(0, 4.0), missing(1, 1.1, 1.5), missing(2, 1.2), trial(3, 1, 0),
        missing(4, 1.01, role="twin"), missing(5, float("nan")), missing(6, 1.2),
    ]  # fmt: skip
    found = nearest_misses(trials, 4)
    assert [number for number, _ in found] == [2, 6, 1, 0]
    assert [v.value for v in found[2][1]] == [1.5, 1.1]
    low = Violation("throughput_steps_per_s", "min", 10.0, 5.0)
    assert low.ratio == 2.0


# --- the store -----------------------------------------------------------------------------------
def test_evaluations_survive_json() -> None:
    found = evaluate_recipe(problem(), space()[0].recipe)
    again = evaluation_from_json(json.loads(json.dumps(evaluation_to_json(found))))
    assert again == found
    assert found.rounds
    assert len(found.rounds) == 2


def test_evaluating_twice_gives_the_same(store: Store) -> None:
    recipe = space()[3].recipe
    one, other = (evaluate_recipe(problem(), recipe) for _ in range(2))
    assert dataclasses.replace(one, seconds=0.0) == dataclasses.replace(other, seconds=0.0)


def test_keys_depend_on_everything_that_counts() -> None:
    base = problem()
    rng = np.random.default_rng(5)
    others = [
        dataclasses.replace(base, seed=1),
        dataclasses.replace(base, task=make_task("none")),
        dataclasses.replace(base, model=random_model(rng, ["lstm"])),
        dataclasses.replace(base, validation=base.validation.take(np.arange(3))),
        dataclasses.replace(base, stats=calibrate(base.model, random_sequences(rng, [12], 8))),
    ]
    keys = {p.key for p in (base, *others)}
    assert len(keys) == 6
    renamed = dataclasses.replace(base.model, name="other", meta={"a": 1})
    assert dataclasses.replace(base, model=renamed).key == base.key
    recipes = [s.recipe for s in space()]
    assert len({evaluation_key(base.key, r) for r in recipes}) == len(recipes)


def test_a_store_keeps_what_was_put(tmp_path: Path) -> None:
    path, recipe = tmp_path / "study.sqlite", space()[0].recipe
    evaluation = evaluate_recipe(problem(), recipe)
    first = Store(path)
    first.put("p", recipe, evaluation)
    second = Store(path)  # as another process would see it, before the first is closed
    assert second.evaluations("p") == {evaluation_key("p", recipe): evaluation}
    assert second.evaluations("q") == {}
    calls = []

    def score() -> dict[str, Quality]:
        calls.append(1)
        return {"metric": Quality("accuracy", "max", 0.5, (0.1, 0.9), 7)}

    for opened in (first, second, first):
        assert opened.test_score("p", "digest", recipe, score) == score()
    assert len(calls) == 4, "the score is worked out once (and three times by this test)"
    first.close()
    second.close()


def test_files_that_are_no_study_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, but long enough to be taken for one " * 50)
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE music (title TEXT)")
    db.close()
    newer = tmp_path / "newer.sqlite"
    opened = Store(newer)
    opened.set_note("schema", "modelflex.study/99")
    opened.close()
    for path, part in (
        (text, "not a readable study"),
        (foreign, "another program"),
        (newer, "study/99"),
    ):
        before = path.read_bytes()
        with pytest.raises(UserError, match=part) as caught:
            Store(path)
        assert "\n" not in str(caught.value)
        if path is not newer:
            assert path.read_bytes() == before
