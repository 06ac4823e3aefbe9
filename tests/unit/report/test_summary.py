from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelflex.core.cost import Cost
from modelflex.core.quality import Quality
from modelflex.core.recipe import recipe_from_json
from modelflex.report.summary import summary
from modelflex.search.study import Baseline, Study


def test_the_keys_that_scripts_read(study: Study) -> None:
    out = summary(study, {"report": Path("runs/x/report.html")})
    assert out == json.loads(json.dumps(out, allow_nan=False))
    assert out["baseline"]["validation_accuracy"] == 0.9762
    assert out["baseline"]["test_accuracy"] == 0.9730
    assert out["baseline"]["quality"]["divergence"] is None
    assert out["baseline"]["cost"]["weight_bytes"] == 288_804.0
    assert out["best"]["test_accuracy"] == 0.9703
    assert out["best"]["test"]["metric"]["n"] == 370
    assert out["naive"]["test_accuracy"] == 0.6135
    assert out["paths"] == {"report": "runs/x/report.html"}
    assert study.best is not None
    assert out["best"]["validation_accuracy"] == study.best.metric
    assert recipe_from_json(out["best"]["recipe"]) == study.best.recipe
    assert out["best"]["quality"]["divergence"]["value"] == study.best.divergence


def test_ratios_are_dense_over_pick(study: Study) -> None:
    assert study.best is not None
    pick = replace(study.best, cost=Cost(weight_fetch_bytes_per_step=1200.0, weight_bytes=6000.0))
    base = Baseline({}, Cost(weight_fetch_bytes_per_step=288_000.0, weight_bytes=240_000.0))
    out = summary(replace(study, best=pick, baseline=base), {})
    assert out["best"]["fetch_ratio"] == pytest.approx(240.0)
    assert out["best"]["size_ratio"] == pytest.approx(40.0)


def test_twins_outside_the_space_are_counted_apart(study: Study) -> None:
    counts = summary(study, {})["counts"]
    # 80 settings; every second of the 80 twins is part of the space; one more recipe is rejected.
    assert counts["recipes"] == 80 + 40 + 1
    assert counts["feasible_cost"] == 80 + 40
    assert counts["evaluated"] == 80 + 40
    assert counts["twins_evaluated"] == 40
    feasible = [t for t in study.trials if t.role == "candidate" and not t.violations]
    assert counts["feasible"] == len(feasible) > 0


def test_nothing_feasible(without_best: Study) -> None:
    out = summary(without_best, {})
    assert out["best"] is None
    assert out["naive"] is None
    assert out["counts"]["feasible"] == 0
    assert out["nearest"][0]["number"] == 20
    assert out["nearest"][0]["violations"][0]["field"] == "energy_per_step_j"


def test_other_metrics_are_not_accuracies(study: Study) -> None:
    metric = {"metric": Quality("perplexity", "min", 4.4, (4.2, float("inf")), 100)}
    cost = Cost(latency_s=float("nan"))
    out = summary(replace(study, baseline=Baseline(metric, cost), test={"baseline": metric}), {})
    assert out["baseline"]["validation_accuracy"] is None
    assert out["baseline"]["test_accuracy"] is None
    assert out["baseline"]["quality"]["metric"]["value"] == 4.4
    assert out["baseline"]["quality"]["metric"]["interval"] == [4.2, None]
    assert out["baseline"]["cost"]["latency_s"] is None
    json.dumps(out, allow_nan=False)
