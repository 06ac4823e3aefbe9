"""Metrics, divergences and intervals against closed forms and brute force."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.divergence import (
    divergences,
    kl_divergence,
    log_softmax,
    mean_divergence,
    squared_error,
)
from modelflex.core.quality import Quality
from modelflex.errors import UserError
from modelflex.evaluate import Z95, Metric, make_task, metric_value, score, wilson

LENGTHS = np.array([2, 3])


def own_quality(outputs: Any, y: Any, lengths: Any) -> float:
    return float(outputs.sum() + y.sum() + lengths.sum())


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Roots of the score equation, bisected with 40 decimals.
    [(0, 10, 0.0, 0.27753280), (10, 10, 0.72246720, 1.0), (95, 100, 0.88824953, 0.97845632),
     (370, 370, 0.98972436, 1.0), (1, 2, 0.09453121, 0.90546879)],
)  # fmt: skip
def test_wilson_known_values(successes: int, n: int, low: float, high: float) -> None:
    found = wilson(successes, n)
    np.testing.assert_allclose(found, (low, high), rtol=0, atol=1e-8)


@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_ends_solve_the_score_equation(n: int, share: float) -> None:
    """(p̂ − p)² = z²·p(1 − p)/n at both ends."""
    successes = round(share * n)
    p_hat = successes / n
    low, high = wilson(successes, n)
    assert 0 <= low <= p_hat <= high <= 1
    for p in (low, high):
        assert (p_hat - p) ** 2 == pytest.approx(Z95**2 * p * (1 - p) / n, abs=1e-9)


def test_divergences_against_loops() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(6, 4)) * 3, rng.normal(size=(6, 4)) * 3
    p = np.exp(one) / np.exp(one).sum(axis=1, keepdims=True)
    q = np.exp(other) / np.exp(other).sum(axis=1, keepdims=True)
    wanted = [
        sum(a * math.log(a / b) for a, b in zip(*rows, strict=True))
        for rows in zip(p, q, strict=True)
    ]
    np.testing.assert_allclose(kl_divergence(one, other), wanted, rtol=1e-9)
    assert np.all(kl_divergence(one, one + 5) < 1e-12)
    power = np.mean([row @ row for row in one])
    wanted = [float((a - b) @ (a - b) / power) for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(squared_error(one, other), wanted, rtol=1e-12)
    relative = np.linalg.norm(one - other) / np.linalg.norm(one)
    found = mean_divergence("values", divergences("values", one, other))
    assert found == pytest.approx(relative, rel=1e-12)
    assert squared_error(np.zeros((2, 2)), np.ones((2, 2))).tolist() == [2.0, 2.0]


def test_log_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(log_softmax(np.array([[1e4, 0.0]])), [[0.0, -1e4]])


def test_metrics() -> None:
    outputs = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 9.0], [1.0, 2.0]])
    y = np.array([0, 1, 1, 1, 0])
    assert metric_value(make_task("per_step"), "logits", outputs, y, LENGTHS) == 0.6
    assert metric_value(make_task("classification"), "logits", outputs[:2], y[:2], LENGTHS) == 1.0
    chosen = [log_softmax(o[None])[0, t] for o, t in zip(outputs, y, strict=True)]
    perplexity = metric_value(make_task("next_symbol"), "logits", outputs, y, LENGTHS)
    assert perplexity == pytest.approx(math.exp(-np.mean(chosen)))
    rmse = metric_value(make_task("regression"), "values", outputs[:, :1], np.zeros(5), LENGTHS)
    assert rmse == pytest.approx(math.sqrt(np.mean(outputs[:, 0] ** 2)))


@given(st.integers(2, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_what_follows_the_logits_is_neither_compared_nor_judged(
    classes: int, others: int, seed: int
) -> None:
    """As if the network had the logits alone, whatever the other outputs are."""
    rng = np.random.default_rng(seed)
    output, rows = f"logits:{classes}", int(LENGTHS.sum())
    original, outputs = rng.normal(size=(2, rows, classes + others))
    outputs[:, classes:] += 100.0
    data = Sequences(np.zeros((rows, 1), np.float32), LENGTHS, rng.integers(0, classes, rows))
    for kind in ("per_step", "next_symbol"):
        task = make_task(kind)
        alone = score(task, "logits", outputs[:, :classes], original[:, :classes], data)
        assert score(task, output, outputs, original, data) == alone
    whole = make_task("per_step", lambda y_hat, y, lengths: float(y_hat.shape[1]))
    assert score(whole, output, outputs, None, data)["metric"].value == classes + others


def test_scores_hold_metric_and_divergence() -> None:
    rng = np.random.default_rng(1)
    outputs, original = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    data = Sequences(np.zeros((5, 1), np.float32), LENGTHS, np.array([0, 1]))
    found = score(make_task("classification"), "logits", outputs, original, data)
    assert found["divergence"].value == pytest.approx(kl_divergence(original, outputs).mean())
    assert found["metric"].interval == wilson(round(found["metric"].value * 2), 2)
    assert (found["divergence"].n, found["divergence"].metric) == (2, "kl")
    assert set(score(make_task("classification"), "logits", outputs, None, data)) == {"metric"}
    unlabelled = Sequences(data.x, LENGTHS)
    assert set(score(make_task("none"), "logits", outputs, original, unlabelled)) == {"divergence"}
    values = score(make_task("none"), "values", outputs, original, unlabelled)
    assert values["divergence"].metric == "relative_error"


def test_intervals_of_divergences_cover_the_mean() -> None:
    """With one row a sequence the interval is the usual one of a mean."""
    rng = np.random.default_rng(2)
    original, outputs = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    data = Sequences(np.zeros((40, 1), np.float32), np.ones(40, np.int64))
    found = score(make_task("none"), "logits", outputs, original, data)["divergence"]
    rows = kl_divergence(original, outputs)
    half = Z95 * rows.std(ddof=1) / math.sqrt(40)
    np.testing.assert_allclose(found.interval, (rows.mean() - half, rows.mean() + half), rtol=1e-9)


def test_intervals_know_that_steps_of_a_sequence_depend() -> None:
    """Ten copies of every step add no information: the interval stays as wide."""
    rng = np.random.default_rng(3)
    original, outputs = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    widths = []
    for copies in (1, 10):
        data = Sequences(
            np.zeros((30 * copies, 1), np.float32), np.full(30, copies, np.int64),
            np.repeat(rng.integers(0, 3, 30), copies),
        )  # fmt: skip
        o, c = (np.repeat(a, copies, axis=0) for a in (original, outputs))
        found = score(make_task("per_step"), "logits", c, o, data)
        low, high = found["divergence"].interval
        widths.append(high - low)
        assert found["metric"].interval[0] <= found["metric"].value <= found["metric"].interval[1]
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)


def test_one_sequence_has_no_interval_of_its_metric() -> None:
    data = Sequences(np.zeros((3, 1), np.float32), np.array([3]), np.array([0, 0, 1]))
    found = score(make_task("per_step"), "logits", np.eye(3)[:, :2], None, data)
    assert all(map(math.isnan, found["metric"].interval))


@pytest.mark.parametrize("output", ["logits", "values"])
def test_one_sequence_has_no_interval_of_its_divergence(output: str) -> None:
    data = Sequences(np.zeros((3, 1), np.float32), np.array([3]))
    found = score(make_task("none"), output, np.eye(3), np.ones((3, 3)), data)["divergence"]
    assert found.value > 0
    assert all(map(math.isnan, found.interval))
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert stored["interval"] == [None, None]
    again = Quality.from_json(stored)
    assert all(map(math.isnan, again.interval))
    assert (again.value, again.n) == (found.value, 1)


def test_own_quality_functions() -> None:
    task = make_task("regression", own_quality, "min")
    assert (task.name, task.direction) == ("own_quality", "min")
    assert task.reusable
    assert task.source == make_task("regression", own_quality, "min").source
    assert metric_value(task, "values", np.ones((2, 1)), np.ones(2), LENGTHS) == 9.0
    named = make_task("regression", "math:hypot")
    assert (named.metric, named.name) == (math.hypot, "hypot")
    broken = make_task("regression", lambda *_: float("nan"))
    with pytest.raises(UserError, match="returned nan"):
        metric_value(broken, "values", np.ones((2, 1)), np.ones(2), LENGTHS)


def scaled(k: float) -> Metric:
    return lambda outputs, y, lengths: k * float(np.mean(outputs))


def test_the_source_tells_closed_over_values_apart() -> None:
    one, other = (make_task("regression", scaled(k)) for k in (1.0, 100.0))
    assert one.source != other.source
    assert one.source == make_task("regression", scaled(1.0)).source
    assert one.reusable
    assert other.reusable


def test_the_source_of_a_function_with_state_is_never_met_again() -> None:
    rng = np.random.default_rng(0)
    one, other = (
        make_task("regression", lambda outputs, y, lengths: rng.random()) for _ in range(2)
    )
    assert not one.reusable
    assert one.source
    assert one.source != other.source
    assert make_task("classification").reusable


def test_a_named_function_hangs_on_its_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    sources = []
    for scale in ("1", "100", "1"):
        text = f"SCALE = {scale}\ndef judge(outputs, y, lengths):\n    return SCALE\n"
        (tmp_path / "judging_of_a_test.py").write_text(text, encoding="utf-8")
        sys.modules.pop("judging_of_a_test", None)
        task = make_task("regression", "judging_of_a_test:judge")
        assert task.reusable
        sources.append(task.source)
    sys.modules.pop("judging_of_a_test", None)
    assert sources[0] == sources[2] != sources[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("ranking",), "the task is 'ranking'"),
        (("none", None, "up"), "'max' or 'min'"),
        (("classification", None, "min"), "direction of accuracy"),
        (("regression", "no_colon"), "module:function"),
        (("regression", "math:nothing"), "cannot be imported"),
        (("regression", "no_such_module_here:f"), "cannot be imported"),
        (("none", "math:hypot"), "label-free has no metric"),
        (("none", own_quality), "label-free has no metric"),
    ],
)
def test_tasks_that_are_refused(arguments: tuple[Any, ...], part: str) -> None:
    with pytest.raises(UserError) as caught:
        make_task(*arguments)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outputs_that_are_not_finite_are_refused() -> None:
    data = Sequences(np.zeros((5, 1), np.float32), LENGTHS)
    with pytest.raises(UserError, match="not finite"):
        score(make_task("none"), "logits", np.array([[np.nan], [0.0]]), None, data)
    with pytest.raises(UserError, match="no metric"):
        metric_value(make_task("none"), "values", np.ones((2, 1)), np.ones(2), LENGTHS)
