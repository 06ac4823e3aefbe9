"""The report of a search: one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelflex.core.files import replacing
from modelflex.report import fronts, plots, tables
from modelflex.report.cells import Table, assumptions
from modelflex.report.page import render_page
from modelflex.report.text import (
    binding,
    field_label,
    label,
    metric_name,
    ratio,
    show_change,
    show_factor,
    subject,
    verdict,
)
from modelflex.search.study import Study

_TASKS = {
    "classification": "classification of sequences",
    "per_step": "classification of every step",
    "next_symbol": "prediction of the next symbol",
    "regression": "regression",
    "none": "no labels: divergence only",
}


def write_report(study: Study, path: Path) -> None:
    """Write the report of a search; the file appears whole or not at all.

    Args:
        study: the outcome.
        path: the HTML file, about 5 MB: the plotting library is inside.
    """
    text = render(study)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(study: Study) -> str:
    """The page as text."""
    return render_page(
        "search.html.j2",
        _figures(study),
        name=study.name,
        kicker=f"ModelFlex report · {_TASKS.get(study.task, study.task)}",
        verdict=verdict(study),
        success=study.best is not None,
        advice=binding(study) if study.best is None else None,
        tiles=_tiles(study),
        notes=study.notes,
        study=study,
        tables=_tables(study),
        counts=_counts(study),
        objective=field_label(study, study.objective).lower(),
        covered=tables.covered(study),
        not_drawn=tables.limits_elsewhere(study, fronts.drawn_limits(study)),
        subject=subject(study),
        label=label,
    )


def _figures(study: Study) -> dict[str, Any]:
    made = {
        "pareto": fronts.pareto_figure(study),
        "waterfall": plots.waterfall_figure(study),
        "energy": plots.energy_figure(study),
        "rank": plots.rank_figure(study),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def _tables(study: Study) -> Mapping[str, Table]:
    return {
        "comparison": tables.comparison(study),
        "limits": tables.limits(study),
        "violations": tables.violations(study),
        "missed_limits": tables.missed_limits(study),
        "pairs": tables.pairs(study),
        "steps": tables.steps(study),
        "weights": tables.weights(study),
        "energy": tables.energy(study),
        "per_op": tables.per_op(study),
        "layers": tables.layers(study),
        "ranks": tables.ranks(study),
        "platform": assumptions(study.platform, "Assumption"),
        "provenance": assumptions(study.provenance, "Of this run"),
    }


def _tiles(study: Study) -> list[tuple[str, str]]:
    """The pick's gains in big figures."""
    if study.best is None:
        return []
    before, after = study.baseline.cost, study.best.cost
    found = []
    for name, less, more in (
        ("weight_fetch_bytes_per_step", "fewer weight bytes a step", "more weight bytes a step"),
        ("weight_bytes", "smaller weights", "larger weights"),
        ("energy_per_step_j", "less energy a step", "more energy a step"),
        ("latency_per_step_s", "less latency a step", "more latency a step"),
    ):
        gain = ratio(getattr(before, name), getattr(after, name))
        if gain is not None:
            found.append((show_factor(gain), less) if gain >= 1 else (show_factor(1 / gain), more))
    first, then = (study.test.get(r, {}).get("metric") for r in ("baseline", "best"))
    if first is not None and then is not None:
        found.append((show_change(first, then), f"test {metric_name(then.metric)}"))
    return found


def _counts(study: Study) -> dict[str, int]:
    space = [t for t in study.trials if t.role == "candidate"]
    twins = [t for t in study.trials if t.role == "twin" and t.evaluation is not None]
    out = {"recipes": len(space), "twins": len(twins)}
    for status in ("feasible", "infeasible", "rejected", "skipped", "missing"):
        out[status] = sum(t.status == status for t in space)
    return out
