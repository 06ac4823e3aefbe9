"""The outcome of a search as one JSON object for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.trial import Trial
from modelflex.report.text import ratio
from modelflex.search.study import Qualities, Study


def summary(study: Study, paths: Mapping[str, str | Path]) -> dict[str, Any]:
    """What `modelflex search --json` prints and `summary.json` holds.

    Accuracies are fractions from 0 to 1 and None where the task has none; what is unknown or not
    finite is None, so that the object is strict JSON. `best` and `naive` are None when no recipe is
    within all limits; `nearest` then lists the nearest misses.

    Args:
        study: the outcome.
        paths: name → path of what was written.
    """
    out = {
        "baseline": {
            "validation_accuracy": _accuracy(study.baseline.validation),
            "test_accuracy": _accuracy(study.test.get("baseline", {})),
            "quality": _qualities(study.baseline.validation),
            "test": _qualities(study.test.get("baseline", {})),
            "cost": study.baseline.cost.to_json(),
        },
        "best": None if study.best is None else _best(study, study.best),
        "naive": None
        if study.naive is None or study.best is None
        else _trial(study, study.naive, "naive"),
        "measured": {name: cost.to_json() for name, cost in study.measured.items()},
        "counts": _counts(study),
        "limits": [
            {"field": limit.field, "kind": limit.kind, "value": limit.value}
            for limit in study.limits
        ],
        "nearest": [
            {
                "number": number,
                "label": study.trials[number].recipe.label,
                "violations": [
                    {"field": v.field, "kind": v.kind, "limit": v.limit, "value": v.value}
                    for v in violations
                ],
            }
            for number, violations in study.nearest
        ],
        "paths": {name: str(path) for name, path in paths.items()},
    }
    result: dict[str, Any] = strict_json(out)
    return result


def _accuracy(qualities: Qualities) -> float | None:
    quality = qualities.get("metric")
    return quality.value if quality is not None and quality.metric == "accuracy" else None


def _qualities(qualities: Qualities) -> dict[str, Any]:
    return {
        name: qualities[name].to_json() if name in qualities else None
        for name in ("divergence", "metric")
    }


def _trial(study: Study, trial: Trial, role: str) -> dict[str, Any]:
    validation = {} if trial.evaluation is None else trial.evaluation.quality
    test = study.test.get(role, {})
    return {
        "number": trial.number,
        "recipe": trial.recipe.to_json(),
        "validation_accuracy": _accuracy(validation),
        "test_accuracy": _accuracy(test),
        "quality": _qualities(validation),
        "test": _qualities(test),
        "cost": trial.cost.to_json(),
    }


def _best(study: Study, best: Trial) -> dict[str, Any]:
    base = study.baseline.cost
    return {
        **_trial(study, best, "best"),
        "fetch_ratio": ratio(
            base.weight_fetch_bytes_per_step, best.cost.weight_fetch_bytes_per_step
        ),
        "size_ratio": ratio(base.weight_bytes, best.cost.weight_bytes),
        "exported_state_bytes": study.exported_state_bytes,
    }


def _counts(study: Study) -> dict[str, int]:
    space = [trial for trial in study.trials if trial.role == "candidate"]
    return {
        "recipes": len(space),
        "feasible_cost": sum(trial.status != "rejected" for trial in space),
        "evaluated": sum(trial.evaluation is not None for trial in space),
        "feasible": sum(trial.status == "feasible" for trial in space),
        "missing": sum(trial.status == "missing" for trial in space),
        "twins_evaluated": sum(
            trial.role == "twin" and trial.evaluation is not None for trial in study.trials
        ),
    }


def strict_json(value: Any) -> Any:
    """The value with plain Python types only; what is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(k): strict_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(v) for v in value]
    if isinstance(value, np.generic):
        return strict_json(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
