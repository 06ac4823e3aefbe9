"""The axes of the Pareto plots: their values, ranges, and the limits that lie on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from modelflex.core.cost import COST_UNITS
from modelflex.core.trial import Trial
from modelflex.report.text import (
    COST_LABELS,
    cost_field,
    divergence_metric,
    metric_name,
    show_limited,
    task_metric,
)
from modelflex.search.study import Study

_PANELS = (
    ("weight_fetch_bytes_per_step",),
    ("latency_per_step_s", "latency_s"),
    ("energy_per_step_j", "energy_j"),
)
"""One panel each; the alternative with a limit is drawn, else the first that is known."""

_ERROR_TICKS = tuple(
    (error / 1000, f"{100 - error / 10:g} %")
    for error in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)

Figure = dict[str, Any]
_FLIP = {"min": "max", "max": "min"}


class Edge(NamedTuple):
    """A limit as an axis shows it: `kind` says which side of `value` is allowed."""

    value: float
    kind: str
    text: str
    field: str


@dataclass(frozen=True)
class Scale:
    """One axis of a panel: its values, whether they are logarithmic, its range and its limits."""

    title: str
    value: Callable[[Trial], float | None]
    log: bool
    low: float
    high: float
    limits: tuple[Edge, ...]
    floor: float
    sign: float = 1.0
    ticks: tuple[tuple[float, str], ...] = ()
    reverse: bool = False

    def place(self, trial: Trial) -> float | None:
        """Where the trial stands; values that a logarithm can't show stand at the lower edge."""
        value = self.value(trial)
        if value is None or not math.isfinite(value):
            return None
        return max(value, self.floor) if self.log else value

    @property
    def range(self) -> list[float]:
        """As plotly wants it: logarithms on logarithmic axes."""
        ends = [math.log10(self.low), math.log10(self.high)] if self.log else [self.low, self.high]
        return ends[::-1] if self.reverse else ends

    @property
    def layout(self) -> Figure:
        """What the axis itself adds to the figure's layout."""
        out: Figure = {"range": self.range}
        if self.ticks:
            values, texts = zip(*self.ticks, strict=True)
            out |= {"tickmode": "array", "tickvals": list(values), "ticktext": list(texts)}
        return out


def _scale(
    title: str,
    value: Callable[[Trial], float | None],
    trials: Sequence[Trial],
    limits: Sequence[Edge],
    log: bool,
    sign: float = 1.0,
) -> Scale:
    found = np.array([v for t in trials if (v := value(t)) is not None and math.isfinite(v)])
    positive = found[found > 0]
    log = log and positive.size > 0
    if log:
        floor = float(positive.min()) / (2.0 if positive.size < found.size else 1.0)
        high = float(positive.max())
        # A limit far from all recipes is named at the edge; drawing it would squeeze the points.
        near = [e.value for e in limits if floor / 8 <= e.value <= high * 8]
        low, high = min([floor, *near]) / 1.35, max([high, *near]) * 1.35
        return Scale(title, value, True, low, high, tuple(limits), floor, sign)
    low, high = float(found.min()), float(found.max())
    span = high - low
    near = [e.value for e in limits if low - 4 * span <= e.value <= high + 4 * span]
    low, high = min([low, *near]), max([high, *near])
    pad = 0.06 * (high - low) or 0.01
    return Scale(title, value, False, low - pad, high + pad, tuple(limits), 0.0, sign)


def _cost_scale(study: Study, trials: Sequence[Trial], names: Sequence[str]) -> Scale | None:
    known = [n for n in names if any(cost_field(t.cost, n) is not None for t in trials)]
    if not known:
        return None
    limits = {name: _cost_limits(study, trials, name) for name in known}
    name = next((n for n in known if limits[n]), known[0])
    title = f"{COST_LABELS[name]} [{COST_UNITS[name]}]"
    values = [v for t in trials if (v := cost_field(t.cost, name)) is not None and v > 0]
    wide = bool(values) and max(values) > 3 * min(values)
    return _scale(title, lambda t: cost_field(t.cost, name), trials, limits[name], log=wide)


def _edges(study: Study, name: str, prefix: str = "") -> list[Edge]:
    """The limits on a field; the axis names the field already, so the text is the bare figure."""
    return [
        Edge(x.value, x.kind, prefix + _sign(x.kind) + show_limited(study, name, x.value), name)
        for x in study.limits
        if x.field == name
    ]


def _sign(kind: str) -> str:
    return "≤ " if kind == "max" else "≥ "


def _cost_limits(study: Study, trials: Sequence[Trial], name: str) -> list[Edge]:
    found = _edges(study, name)
    if name == "latency_per_step_s" and _throughput_is_inverse(trials):
        steps = _edges(study, "throughput_steps_per_s", "throughput ")
        found += [e._replace(value=1 / e.value, kind=_FLIP[e.kind]) for e in steps if e.value > 0]
    return found


def _throughput_is_inverse(trials: Sequence[Trial]) -> bool:
    # Not so where steps overlap, as in a pipeline over several layers.
    both = [(t.cost.throughput_steps_per_s, t.cost.latency_per_step_s) for t in trials]
    return all(
        a is not None and b is not None and math.isclose(a * b, 1, rel_tol=1e-6) for a, b in both
    )


def quality_scales(study: Study, trials: Sequence[Trial]) -> list[Scale]:
    """Divergence first, then the task's metric where there is one."""
    name = metric_name(divergence_metric(study))
    limits = _edges(study, "divergence")
    scales = [_scale(f"{name} from uncompressed", lambda t: t.divergence, trials, limits, log=True)]
    metric, base = task_metric(study), study.baseline.validation.get("metric")
    if metric is None or base is None or not any(t.metric is not None for t in trials):
        return scales
    more, found = base.direction == "max", _edges(study, "metric")
    for edge in _edges(study, "metric_loss", "loss "):
        value = base.value - edge.value if more else base.value + edge.value
        found.append(edge._replace(value=value, kind="min" if more else "max"))
    title = f"Validation {metric_name(metric)}"
    if metric == "accuracy":
        return [*scales, _accuracy_scale(title, trials, found)]
    sign = -1.0 if more else 1.0
    return [*scales, _scale(title, lambda t: t.metric, trials, found, log=not more, sign=sign)]


def _accuracy_scale(title: str, trials: Sequence[Trial], limits: Sequence[Edge]) -> Scale:
    """Accuracies as errors on a logarithmic axis: 97 and 98 % stay apart beside 20 %."""
    edges = [e._replace(value=1 - e.value, kind=_FLIP[e.kind]) for e in limits]

    def error(trial: Trial) -> float | None:
        return None if trial.metric is None else max(1 - trial.metric, 0.0)

    scale = _scale(f"{title} (its error is logarithmic)", error, trials, edges, log=True)
    if not scale.log:  # Every recipe is without an error.
        return _scale(title, lambda t: t.metric, trials, limits, log=False, sign=-1.0)
    return replace(scale, ticks=_ERROR_TICKS, reverse=True)


def cost_scales(study: Study, trials: Sequence[Trial]) -> list[Scale]:
    """Fetched bytes, latency and energy, as far as they are known for some trial."""
    found = (_cost_scale(study, trials, names) for names in _PANELS)
    return [scale for scale in found if scale is not None]
