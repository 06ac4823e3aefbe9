"""Words and figures for people: the names of fields, quality figures, limits and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.quality import Quality
from modelflex.core.trial import Trial, Violation
from modelflex.search.study import Limit, Qualities, Study
from modelflex.units import show_quantity

DASH = "—"

COST_LABELS: Mapping[str, str] = {
    "weight_fetch_bytes_per_step": "Weights fetched a step",
    "weight_bytes": "Weights stored",
    "state_bytes": "State carried",
    "macs_per_step": "Multiply-accumulates a step",
    "dram_bytes_per_step": "DRAM traffic a step",
    "latency_per_step_s": "Latency a step",
    "latency_s": "Latency an inference",
    "throughput_steps_per_s": "Throughput (steps)",
    "energy_per_step_j": "Energy a step",
    "energy_j": "Energy an inference",
    "power_w": "Power at full speed",
    "bandwidth_bytes_per_s": "DRAM bandwidth, full speed",
    "gops": "Dense-equivalent Gop/s",
    "gops_per_w": "Dense-equivalent Gop/s per W",
    "coverage": "Operations priced",
}
"""Numeric fields of `Cost`, in the order in which people read them."""

MORE_IS_BETTER = frozenset({"throughput_steps_per_s", "gops", "gops_per_w", "coverage"})
_METRICS = {"kl": "KL", "relative_error": "relative error", "mse": "mean squared error"}


def metric_name(metric: str) -> str:
    """The name of a quality metric as it stands in a sentence."""
    return _METRICS.get(metric, metric.replace("_", " "))


def show_metric(metric: str, value: float | None) -> str:
    """One quality figure: accuracies in percent, others with four digits, None as an em dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.2f} %" if metric == "accuracy" else f"{value:.4g}"


def show_interval(quality: Quality | None) -> str:
    """The interval as in "96.1 – 98.2 %"; an em dash where it is not known."""
    if quality is None or not all(math.isfinite(v) for v in quality.interval):
        return DASH
    low, high = quality.interval
    if quality.metric == "accuracy":
        return f"{100 * low:.1f} – {100 * high:.1f} %"
    return f"{low:.3g} – {high:.3g}"


def show_cost(name: str, value: float | None) -> str:
    """One field of `Cost` with its unit; NaN counts as unknown."""
    if value is None or math.isnan(value):
        return DASH
    if name == "coverage":
        return f"{100 * value:.4g} %"
    return show_quantity(value, COST_UNITS[name])


def show_factor(factor: float | None) -> str:
    """A factor as in "222×", "3.4×", "0.82×"."""
    if factor is None or not math.isfinite(factor):
        return DASH
    return f"{factor:.0f}×" if factor >= 100 else f"{factor:.3g}×"


def show_step(factor: float | None) -> str:
    """What one step contributes: "÷ 4.7", "× 1.03" where it costs; empty where it changes nothing."""
    if factor is None or abs(factor - 1) < 0.005:
        return ""
    return f"÷ {factor:.3g}" if factor > 1 else f"× {1 / factor:.3g}"


def ratio(before: float | None, after: float | None) -> float | None:
    """Before over after, None where either is unknown or the quotient means nothing."""
    if before is None or after is None or not before > 0 or not after > 0:
        return None
    return before / after


def show_change(before: Quality | None, after: Quality | None) -> str:
    """The change of a metric: percentage points for accuracies, else a signed difference."""
    if before is None or after is None:
        return DASH
    change = after.value - before.value
    if not math.isfinite(change):
        return DASH
    sign = "−" if change < 0 else "+"
    if after.metric == "accuracy":
        return f"{sign}{abs(100 * change):.2f} points"
    return f"{sign}{abs(change):.3g}"


def cost_field(cost: Cost, name: str) -> float | None:
    """A numeric field of `Cost`, or a resource of the platform by its name."""
    value = getattr(cost, name) if name in COST_UNITS else cost.resources.get(name)
    return None if value is None or math.isnan(value) else float(value)


def qualities_of(trial: Trial | None) -> Qualities:
    """Qualities on validation data; empty where the trial was not evaluated."""
    return {} if trial is None or trial.evaluation is None else trial.evaluation.quality


def divergence_metric(study: Study) -> str:
    """What measures the divergence in this study, for example "kl"."""
    for trial in study.trials:
        if trial.evaluation is not None:
            return trial.evaluation.quality["divergence"].metric
    return "kl"


def task_metric(study: Study) -> str | None:
    """The task's metric, or None where the task has none."""
    quality = study.baseline.validation.get("metric")
    return None if quality is None else quality.metric


def label(trial: Trial) -> str:
    """The recipe's label, or the trial's number where it has none."""
    return trial.recipe.label or f"recipe {trial.number}"


def is_naive(trial: Trial) -> bool:
    """Whether the recipe is its own naive twin, that is data-free on every axis."""
    return trial.recipe.naive == trial.recipe


def subject(study: Study) -> tuple[str, Trial | None]:
    """What the report is about: the pick, else the nearest miss, else nothing."""
    if study.best is not None:
        return "Pick", study.best
    if study.nearest:
        return "Nearest miss", study.trials[study.nearest[0][0]]
    return "Pick", None


def naive_twin(study: Study) -> Trial | None:
    """The naive twin of the subject, if it is another recipe."""
    trial = subject(study)[1]
    if study.best is not None:
        return study.naive
    return None if trial is None or trial.twin is None else study.trials[trial.twin]


def field_label(study: Study, name: str) -> str:
    """The name of a limited field, a cost or a quality."""
    metric = metric_name(task_metric(study) or "metric")
    named = {
        "divergence": f"{metric_name(divergence_metric(study))} from the uncompressed network",
        "metric": f"validation {metric}",
        "metric_loss": f"loss of validation {metric}",
    }
    text = named.get(name) or COST_LABELS.get(name) or name.replace("_", " ")
    return text[0].upper() + text[1:]


def show_limited(study: Study, name: str, value: float | None) -> str:
    """The value of a limited field."""
    metric = task_metric(study) or ""
    if name == "metric_loss" and metric == "accuracy" and value is not None:
        return f"{100 * value:.2f} points"
    if name in ("metric", "metric_loss"):
        return show_metric(metric, value)
    if name in COST_UNITS:
        return show_cost(name, value)
    if name.endswith("_bytes"):
        return show_quantity(value, "B")
    return show_metric("", value)


def show_limit(study: Study, limit: Limit | Violation) -> str:
    """A limit as in "Energy a step ≤ 50 µJ"."""
    value = limit.value if isinstance(limit, Limit) else limit.limit
    sign = "≤" if limit.kind == "max" else "≥"
    return f"{field_label(study, limit.field)} {sign} {show_limited(study, limit.field, value)}"


def limited_value(study: Study, trial: Trial, name: str) -> float | None:
    """The value of a limited field for a trial; None where it is not known."""
    if name == "divergence":
        return trial.divergence
    if name == "metric":
        return trial.metric
    if name == "metric_loss":
        base = study.baseline.validation.get("metric")
        if base is None or trial.metric is None:
            return None
        loss = base.value - trial.metric
        return loss if base.direction == "max" else -loss
    return cost_field(trial.cost, name)


def _quality_clause(study: Study, trial: Trial) -> str:
    before, after = study.test.get("baseline", {}), study.test.get("best", {})
    where = "test"
    if "metric" not in before or "metric" not in after:
        before, after, where = study.baseline.validation, qualities_of(trial), "validation"
    if "metric" in before and "metric" in after:
        first, then = before["metric"], after["metric"]
        name = metric_name(then.metric)
        change = (
            f"{show_metric(first.metric, first.value)} → {show_metric(then.metric, then.value)}"
        )
        interval = show_interval(then)
        return f"{name} {change} on {where}" + (
            f" (95 % interval {interval})" if interval != DASH else ""
        )
    divergence = qualities_of(trial).get("divergence")
    if divergence is None:
        return ""
    name, value = metric_name(divergence.metric), show_metric(divergence.metric, divergence.value)
    return f"{name} {value} from the uncompressed network on validation"


def verdict(study: Study) -> str:
    """The outcome in one sentence."""
    if study.best is None:
        return "No recipe is within all limits."
    before, after = study.baseline.cost, study.best.cost
    parts = []
    fetched = ratio(before.weight_fetch_bytes_per_step, after.weight_fetch_bytes_per_step)
    if fetched is not None:
        first = show_quantity(before.weight_fetch_bytes_per_step, "B")
        then = show_quantity(after.weight_fetch_bytes_per_step, "B")
        parts.append(f"{first} → {then} of weights fetched a step ({show_factor(fetched)})")
    smaller = ratio(before.weight_bytes, after.weight_bytes)
    if smaller is not None:
        parts.append(f"weights {show_factor(smaller)} smaller")
    parts.append(_quality_clause(study, study.best))
    parts.append("no retraining")
    return ", ".join(part for part in parts if part) + "."


def binding(study: Study) -> str:
    """The limit that the nearest miss misses by most, in one sentence; empty if unknown."""
    if not study.nearest or not study.nearest[0][1]:
        return ""
    number, violations = study.nearest[0]
    worst = max(violations, key=lambda v: v.ratio)
    has = show_limited(study, worst.field, worst.value)
    return (
        f"The binding limit is {show_limit(study, worst)}: the nearest recipe, "
        f"{label(study.trials[number])}, has {has} ({show_miss(worst)})."
    )


def show_miss(violation: Violation) -> str:
    """How far off a missed limit is."""
    off = violation.ratio
    text = f"{show_factor(off)} off" if off < 1000 else "far off"
    return f"{text}, even optimistically" if violation.optimistic else text
