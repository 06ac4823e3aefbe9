"""Limits and the objective."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.quality import Quality
from modelflex.errors import UserError
from modelflex.search.config import read_objective
from modelflex.search.limits import (
    Limit,
    check_metric_limits,
    cost_violations,
    metric_loss,
    quality_violations,
    read_limits,
    rejections,
)


def quality(value: float, metric: str = "accuracy", direction: str = "max") -> Quality:
    return Quality(metric, direction, value, (value, value), 10)


def test_limits_are_read_in_si_units() -> None:
    found = read_limits(
        {
            "max": {"latency_per_step_s": "0.5 ms", "weight_bytes": "8 KiB", "metric_loss": "1 points"},
            "min": {"metric": "95 %"},
            "required_rate": "2 kHz",
        }
    )  # fmt: skip
    assert {(x.field, x.kind): x.value for x in found} == {
        ("latency_per_step_s", "max"): 5e-4,
        ("weight_bytes", "max"): 8192.0,
        ("metric_loss", "max"): 0.01,
        ("metric", "min"): 0.95,
        ("throughput_steps_per_s", "min"): 2000.0,
    }
    assert read_limits({}) == ()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([], "limits is []"),
        ({"maximum": {}}, "unknown key 'maximum'; expected a key; did you mean 'max'"),
        ({"max": 3}, "limits.max is 3"),
        ({"max": {"latency": "1 s"}}, "unknown key 'latency'"),
        ({"max": {"latency_s": "1 J"}}, "unknown unit 'J'"),
        ({"max": {"latency_s": math.nan}}, "is nan"),
        ({"max": {"weight_bytes": "nan B"}}, "'nan B'"),
        ({"max": {"latency_s": 0}}, "a number above zero"),
        ({"max": {"latency_s": "-1 s"}}, "a number above zero"),
        ({"min": {"divergence": 0.1}}, "asks for a bad model"),
        ({"min": {"metric_loss": 0.1}}, "asks for a bad model"),
        ({"max": {"weight_bytes": 10}, "min": {"weight_bytes": 20}}, "limits contradict"),
        ({"required_rate": "1 kHz", "max": {"throughput_steps_per_s": 10}}, "limits contradict"),
        ({"required_rate": "1 kHz", "min": {"latency_per_step_s": "2 ms"}}, "limits contradict"),
        ({"required_rate": "0.2 s"}, "unknown unit 's'"),
        ({"max": {"bound": 1}}, "unknown key 'bound'"),
        ({"max": {"divergence": "5 %"}}, "limits.max.divergence has the unknown unit '%'"),
        ({"min": {"gops": "5 points"}}, "unknown unit 'points'"),
    ],
)
def test_limits_that_are_refused(values: Any, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read_limits(values)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_may_be_written_in_percent() -> None:
    table = {"max": {"metric_loss": "1 %"}, "min": {"coverage": "90 %", "metric": "95 points"}}
    found = {x.field: x.value for x in read_limits(table)}
    assert found == {"metric_loss": 0.01, "coverage": 0.9, "metric": 0.95}


@pytest.mark.parametrize(("bad", "good"), [("max", "min"), ("min", "max")])
def test_a_metric_is_limited_from_its_bad_side(bad: str, good: str) -> None:
    """More accuracy ("max") and less perplexity ("min") are better."""
    sound = read_limits({good: {"metric": 0.5}, "max": {"weight_bytes": 9, "metric_loss": 0.1}})
    check_metric_limits(sound, bad)
    wrong = read_limits({bad: {"metric": 0.5}})
    check_metric_limits(wrong, good)
    with pytest.raises(UserError, match=rf"limits\.{bad}\.metric asks for a bad model.*{good}"):
        check_metric_limits(wrong, bad)


def test_limits_at_their_edge_hold() -> None:
    for kind in ("max", "min"):
        limit = (Limit("latency_s", kind, 2.0),)
        totals = totals_of(latency_s=np.array([1.0, 2.0, 3.0, np.nan]))
        expected = [False, False, True, True] if kind == "max" else [True, False, False, True]
        found = rejections(limit, totals, totals)
        assert [i in found for i in range(4)] == expected
        assert all(v.optimistic and v.limit == 2.0 for vs in found.values() for v in vs)
        for value, missed in zip((1.0, 2.0, 3.0, None), expected, strict=True):
            assert bool(cost_violations(limit, Cost(latency_s=value))) == missed


def totals_of(**fields: np.ndarray) -> dict[str, np.ndarray]:
    """Totals as a platform gives them, ones where nothing is said."""
    ones = np.ones_like(next(iter(fields.values())))
    return dict.fromkeys(COST_UNITS, ones) | fields


def test_power_is_bounded_by_both_ends() -> None:
    """Energy and latency fall together with density, so that power may rise: neither end bounds it."""
    low = totals_of(
        energy_per_step_j=np.array([2.0]),
        latency_per_step_s=np.array([1.0]),
        power_w=np.array([2.0]),
    )
    high = totals_of(
        energy_per_step_j=np.array([4.0]),
        latency_per_step_s=np.array([4.0]),
        power_w=np.array([1.0]),
    )
    assert rejections((Limit("power_w", "max", 0.6),), low, high) == {}
    assert list(rejections((Limit("power_w", "max", 0.4),), low, high)) == [0]


def test_a_minimum_is_rejected_at_the_high_end_only() -> None:
    low, high = totals_of(gops=np.array([5.0])), totals_of(gops=np.array([2.0]))
    assert rejections((Limit("gops", "min", 4.0),), low, high) == {}
    assert list(rejections((Limit("gops", "min", 6.0),), low, high)) == [0]


def test_a_loss_of_exactly_the_limit_holds() -> None:
    """0.95 − 0.94 is 0.010000000000000009 in floats."""
    limits = read_limits({"max": {"metric_loss": "1 points"}, "min": {"metric": "94 %"}})
    found = {"divergence": quality(0.0, "kl", "min"), "metric": quality(0.94)}
    assert quality_violations(limits, found, {"metric": quality(0.95)}) == []
    worse = found | {"metric": quality(0.9399)}
    assert len(quality_violations(limits, worse, {"metric": quality(0.95)})) == 2


def test_quality_limits() -> None:
    limits = read_limits({"max": {"divergence": 0.1, "metric_loss": 0.02}, "min": {"metric": 0.9}})
    baseline = {"metric": quality(0.95)}

    def missed(divergence: float, metric: float) -> list[str]:
        found = {"divergence": quality(divergence, "kl", "min"), "metric": quality(metric)}
        return [v.field for v in quality_violations(limits, found, baseline)]

    assert missed(0.1, 0.93) == []
    assert missed(0.11, 0.93) == ["divergence"]
    assert missed(0.0, 0.92) == ["metric_loss"]
    assert missed(0.2, 0.5) == ["divergence", "metric_loss", "metric"]


def test_losses_have_a_direction() -> None:
    assert metric_loss(quality(0.9), quality(0.95)) == pytest.approx(0.05)
    perplexity = [quality(v, "perplexity", "min") for v in (5.0, 4.0)]
    assert metric_loss(*perplexity) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"minimize": "throughput_steps_per_s"}, "a cost to minimise"),
        ({"minimise": "latency_s"}, "did you mean 'minimize'"),
        ({"minimize": "latency"}, "did you mean"),
        ({"tie_break": "size"}, "'divergence' or 'metric'"),
        ({"pareto_slack": -1}, "pareto_slack"),
        ({"pareto_slack": "2 %"}, "pareto_slack"),
        ("latency_s", "a table"),
    ],
)
def test_objectives_that_are_refused(values: Any, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read_objective(values)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [2.0, -2.0])
def test_points_without_their_unit_are_refused(value: float) -> None:
    limits = (Limit("metric_loss", "max", value),)
    with pytest.raises(UserError, match="200 points"):
        check_metric_limits(limits, "max", fraction=True)
    check_metric_limits(limits, "max")
