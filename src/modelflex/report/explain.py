"""Why a recipe was picked, not picked, rejected or skipped."""

from __future__ import annotations

from typing import Any

from modelflex.core.trial import Trial
from modelflex.errors import UserError
from modelflex.report.text import limited_value, show_cost, show_limited
from modelflex.search.study import Study


def find_trial(study: Study, number: int) -> Trial:
    """The trial `number`.

    Raises:
        UserError: there is none.
    """
    if not 0 <= number < len(study.trials):
        raise UserError(f"there is no trial {number}", f"0 … {len(study.trials) - 1}")
    return study.trials[number]


def _missed(study: Study, trial: Trial) -> str:
    return "; ".join(
        f"{v.field} is {show_limited(study, v.field, v.value)}, the limit "
        f"{'at most' if v.kind == 'max' else 'at least'} {show_limited(study, v.field, v.limit)}"
        for v in trial.violations
    )


def reason(study: Study, trial: Trial) -> str:
    """One sentence."""
    best, name = study.best, study.objective
    if best is not None and trial.number == best.number:
        return (
            f"Picked: within all limits, and the least divergence among the recipes whose {name} is "
            f"within {study.pareto_slack:.0%} of the lowest."
        )
    if trial.role == "twin":
        return (
            "A naive twin, evaluated for comparison; it is not in the space and cannot be picked."
        )
    if trial.status == "rejected":
        missed = _missed(study, trial)
        return f"Rejected without evaluation, at the lowest density it may have: {missed}."
    if trial.status == "infeasible":
        return f"Evaluated and found outside the limits: {_missed(study, trial)}."
    if trial.status == "missing":
        return (
            "Not evaluated: the search could skip it, but under these limits it could matter; "
            "`modelflex search` with this configuration evaluates it."
        )
    own = show_cost(name, getattr(trial.cost, name))
    theirs = "—" if best is None else show_cost(name, getattr(best.cost, name))
    if trial.status == "skipped":
        return (
            f"Not evaluated: even optimistically its {name} (about {own}) cannot come near the pick's "
            f"({theirs})."
        )
    return f"Within all limits, but the pick is better: {name} {own} against {theirs}" + (
        "." if best is None or trial.divergence is None or best.divergence is None
        else f", divergence {trial.divergence:.4g} against {best.divergence:.4g}."
    )  # fmt: skip


def explain_json(study: Study, number: int) -> dict[str, Any]:
    """The trial, its figures, and why it was treated as it was."""
    trial = find_trial(study, number)
    quality = {} if trial.evaluation is None else trial.evaluation.quality
    return {
        "number": number,
        "label": trial.recipe.label,
        "status": trial.status,
        "role": trial.role,
        "picked": study.best is not None and study.best.number == number,
        "reason": reason(study, trial),
        "violations": [
            {
                "field": v.field,
                "kind": v.kind,
                "limit": v.limit,
                "value": v.value,
                "optimistic": v.optimistic,
            }
            for v in trial.violations
        ],
        "cost": trial.cost.to_json(),
        "quality": {k: q.to_json() for k, q in quality.items()},
        "recalibration_rounds": [] if trial.evaluation is None else list(trial.evaluation.rounds),
        "coverage": {} if trial.evaluation is None else dict(trial.evaluation.coverage),
        "twin": trial.twin,
        "nonlinearities": _nonlinearities(trial),
        "recipe": trial.recipe.to_json(),
    }


def _nonlinearities(trial: Trial) -> list[dict[str, Any]]:
    """What each rule's nonlinearity holds in tables and how far it is from σ and tanh."""
    return [
        {
            "layers": rule.layers,
            "table_bytes": rule.nonlinearity.table_bytes,
            "max_error": {f: rule.nonlinearity.max_error(f) for f in ("tanh", "sigmoid")},
        }
        for rule in trial.recipe.layers
        if rule.nonlinearity is not None
    ]


def explain_text(study: Study, number: int) -> str:
    """What `modelflex explain` prints for people."""
    trial = find_trial(study, number)
    lines = [f"Trial {number} ({trial.status}): {trial.recipe.label}", reason(study, trial), ""]
    for limit in study.limits:
        value = limited_value(study, trial, limit.field)
        sign = "≤" if limit.kind == "max" else "≥"
        shown = "not known" if value is None else show_limited(study, limit.field, value)
        lines.append(
            f"  {limit.field} {sign} {show_limited(study, limit.field, limit.value)}: {shown}"
        )
    if trial.cost.unpriced:
        lines.append(f"  not priced: {trial.cost.unpriced}")
    if trial.evaluation is not None:
        if trial.evaluation.rounds:
            rounds = ", ".join(f"{r:.4g}" for r in trial.evaluation.rounds)
            lines.append(f"  divergence on calibration data, round by round: {rounds}")
        for name, why in trial.evaluation.coverage.items():
            if why:
                lines.append(f"  {name} was not compressed: {why}")
    for found in _nonlinearities(trial):
        tanh, sigmoid = (f"{found['max_error'][f]:.2g}" for f in ("tanh", "sigmoid"))
        lines.append(
            f"  tables of tanh and σ in the layers {found['layers']}: {found['table_bytes']} bytes, "
            f"off by at most {tanh} and {sigmoid}"
        )
    if trial.twin is not None:
        twin = study.trials[trial.twin]
        if twin.divergence is not None:
            lines.append(f"  naive twin: trial {twin.number}, divergence {twin.divergence:.4g}")
    return "\n".join(lines)
