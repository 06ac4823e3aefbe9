"""Limits and the objective: what is asked of a recipe, and which of them it misses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.quality import Quality
from modelflex.core.trial import Violation
from modelflex.errors import UserError, nearest
from modelflex.search.study import Limit
from modelflex.units import parse_quantity

QUALITY_FIELDS = ("divergence", "metric", "metric_loss")
SHARES = ("metric", "metric_loss", "coverage")
"""Fields that "%" and "points" measure."""
_KEYS = ("max", "min", "required_rate")


def read_limits(values: Any) -> tuple[Limit, ...]:
    """Read [limits]: tables `max` and `min` of cost fields and quality, and `required_rate`.

    `required_rate` (input steps a second) is a minimum of `throughput_steps_per_s`. `metric_loss`
    is the metric's loss against the baseline, in the metric's units ("1 points" is 0.01).

    Raises:
        UserError: an unknown key or unit, a number that is not finite, or limits that contradict.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"limits is {values!r}", "a table with max and min")
    for key in values:
        if key not in _KEYS:
            raise UserError(f"limits has the unknown key '{key}'", "a key", nearest(key, _KEYS))
    limits = []
    for kind in ("max", "min"):
        table = values.get(kind, {})
        if not isinstance(table, Mapping):
            raise UserError(
                f"limits.{kind} is {table!r}", "a table such as { weight_bytes = '8 kB' }"
            )
        for field, value in table.items():
            limits.append(_limit(field, kind, value))
    if "required_rate" in values:
        rate = parse_quantity(values["required_rate"], "1/s", "limits.required_rate")
        limits.append(_checked(Limit("throughput_steps_per_s", "min", rate)))
    _check_contradictions(limits)
    return tuple(limits)


def _limit(field: str, kind: str, value: object) -> Limit:
    known = (*COST_UNITS, *QUALITY_FIELDS)
    if field not in known:
        raise UserError(
            f"limits.{kind} has the unknown key '{field}'",
            "a field of cost or quality",
            nearest(field, known),
        )
    unit = "%" if field in SHARES else COST_UNITS.get(field, "")
    number = parse_quantity(value, unit, f"limits.{kind}.{field}")
    if field in ("divergence", "metric_loss") and kind == "min":
        raise UserError(f"limits.min.{field} asks for a bad model", f"limits.max.{field}")
    return _checked(Limit(field, kind, number))


def _checked(limit: Limit) -> Limit:
    free = limit.field in ("metric", "metric_loss")
    if not free and (
        limit.value < 0
        or (limit.kind == "max" and limit.value == 0 and limit.field != "divergence")
    ):
        raise UserError(
            f"the limit {limit.kind} {limit.field} is {limit.value:g}", "a number above zero"
        )
    return limit


def check_metric_limits(
    limits: tuple[Limit, ...], direction: str, *, fraction: bool = False
) -> None:
    """Check that limits on a metric bound it from its bad side, and can bind.

    Args:
        direction: of the metric: "max" if more is better, else "min".
        fraction: whether the metric lies from 0 to 1, as accuracy does.

    Raises:
        UserError: a limit that only worse models meet, or that none or all meet.
    """
    other = "min" if direction == "max" else "max"
    for limit in limits:
        if fraction and limit.field in ("metric", "metric_loss") and abs(limit.value) > 1:
            raise UserError(
                f"limits.{limit.kind}.{limit.field} is {limit.value:g}, {100 * limit.value:g} points",
                "a fraction from 0 to 1",
                f'write "{limit.value:g} points" for {limit.value / 100:g}',
            )
        if limit.field == "metric" and limit.kind == direction:
            better = "more" if direction == "max" else "less"
            raise UserError(
                f"limits.{limit.kind}.metric asks for a bad model: {better} is better",
                f"limits.{other}.metric",
            )


def _check_contradictions(limits: list[Limit]) -> None:
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for limit in limits:
        if limit.kind == "min":
            least[limit.field] = max(limit.value, least.get(limit.field, -math.inf))
        else:
            most[limit.field] = min(limit.value, most.get(limit.field, math.inf))
    for field, low in least.items():
        if low > most.get(field, math.inf):
            raise UserError(
                f"limits contradict: {field} is asked to be at least {low:g} and at most {most[field]:g}",
                "a range that is not empty",
                "raise the maximum or lower the minimum",
            )
    rate, slowest = least.get("throughput_steps_per_s", 0.0), least.get("latency_per_step_s", 0.0)
    if rate * slowest > 1:
        raise UserError(
            f"limits contradict: {rate:g} steps a second and at least {slowest:g} s a step",
            "a rate of at most 1 / latency",
        )


def optimistic_values(
    low: Mapping[str, Array], high: Mapping[str, Array], kind: str
) -> dict[str, Array]:
    """The best that recipes may reach under a limit of `kind`, from totals at both density ends.

    Power and bandwidth are ratios whose parts fall together, so that neither end bounds them: they
    are bounded by the least of one part over the most of the other.
    """
    if kind == "min":
        found = {name: np.fmax(low[name], high[name]) for name in low}
        fastest = np.fmin(low["latency_per_step_s"], high["latency_per_step_s"])
        with np.errstate(divide="ignore", invalid="ignore"):
            found["power_w"] = found["energy_per_step_j"] / fastest
        return found | {"bandwidth_bytes_per_s": np.full_like(low["latency_s"], np.inf)}
    found = {name: np.fmin(low[name], high[name]) for name in low}
    slowest = np.fmax(low["latency_per_step_s"], high["latency_per_step_s"])
    with np.errstate(divide="ignore", invalid="ignore"):
        found["power_w"] = found["energy_per_step_j"] / slowest
        found["bandwidth_bytes_per_s"] = found["dram_bytes_per_step"] / slowest
    return found


def rejections(
    limits: tuple[Limit, ...], low: Mapping[str, Array], high: Mapping[str, Array]
) -> dict[int, tuple[Violation, ...]]:
    """Recipe number → hardware limits that it misses at the best end of its densities.

    What cannot be priced (NaN) misses every limit on it.
    """
    found: dict[int, tuple[Violation, ...]] = {}
    best = {kind: optimistic_values(low, high, kind) for kind in ("max", "min")}
    for limit in limits:
        if limit.field in COST_UNITS:
            values = best[limit.kind][limit.field]
            for i in np.flatnonzero(~_met(limit, values)):
                missed = Violation(limit.field, limit.kind, limit.value, float(values[i]), True)
                found[int(i)] = (*found.get(int(i), ()), missed)
    return found


ROUNDING = 1e-9
"""Relative distance within which a value is at its limit: sums of floats are not exact."""


def _met(limit: Limit, value: Any) -> Any:
    edge = ROUNDING * abs(limit.value)
    return value <= limit.value + edge if limit.kind == "max" else value >= limit.value - edge


def cost_violations(limits: tuple[Limit, ...], cost: Cost) -> list[Violation]:
    """Hardware limits that a cost misses."""
    missed = []
    for limit in limits:
        if limit.field in COST_UNITS:
            found = getattr(cost, limit.field)
            value = math.nan if found is None else float(found)
            if not _met(limit, value):
                missed.append(Violation(limit.field, limit.kind, limit.value, value))
    return missed


def metric_loss(metric: Quality, baseline: Quality) -> float:
    """How much worse the metric is than the baseline's; negative if it is better."""
    loss = baseline.value - metric.value
    return loss if metric.direction == "max" else -loss


def quality_violations(
    limits: tuple[Limit, ...], quality: Mapping[str, Quality], baseline: Mapping[str, Quality]
) -> list[Violation]:
    """Quality limits that an evaluation misses."""
    missed = []
    for limit in limits:
        if limit.field not in QUALITY_FIELDS:
            continue
        if limit.field == "divergence":
            value = quality["divergence"].value
        elif limit.field == "metric":
            value = quality["metric"].value
        else:
            value = metric_loss(quality["metric"], baseline["metric"])
        if not _met(limit, value):
            missed.append(Violation(limit.field, limit.kind, limit.value, value))
    return missed


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Objective:
    """What the pick minimises.

    Attributes:
        minimize: a field of `Cost`.
        tie_break: "divergence" or "metric": decides among ties.
        pareto_slack: recipes within this relative distance of the best objective are ties, and are
            still evaluated.
    """

    minimize: str = "weight_fetch_bytes_per_step"
    tie_break: str = "divergence"
    pareto_slack: float = 0.02

    def __post_init__(self) -> None:
        smaller = [f for f in COST_UNITS if f not in LARGER_IS_BETTER]
        if self.minimize not in smaller:
            raise UserError(
                f"objective.minimize is '{self.minimize}'",
                "a cost to minimise",
                nearest(self.minimize, smaller),
            )
        if self.tie_break not in ("divergence", "metric"):
            raise UserError(
                f"objective.tie_break is '{self.tie_break}'", "'divergence' or 'metric'"
            )
        if not 0 <= self.pareto_slack <= 10:
            raise UserError(f"objective.pareto_slack is {self.pareto_slack}", "0 … 10")


LARGER_IS_BETTER = ("throughput_steps_per_s", "gops", "gops_per_w", "coverage")
