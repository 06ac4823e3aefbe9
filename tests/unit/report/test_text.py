from __future__ import annotations

from dataclasses import replace

import pytest

from modelflex.core.cost import Cost
from modelflex.core.quality import Quality
from modelflex.report.text import (
    binding,
    limited_value,
    ratio,
    show_change,
    show_factor,
    show_interval,
    show_limit,
    show_metric,
    verdict,
)
from modelflex.search.study import Baseline, Limit, Study


def test_the_verdict_states_traffic_size_accuracy_and_interval(study: Study) -> None:
    assert study.best is not None
    best = replace(study.best, cost=Cost(weight_fetch_bytes_per_step=1300.0, weight_bytes=6600.0))
    base = Baseline(
        study.baseline.validation,
        Cost(weight_fetch_bytes_per_step=289_000.0, weight_bytes=289_000.0),
    )
    assert verdict(replace(study, best=best, baseline=base)) == (
        "289 kB → 1.3 kB of weights fetched a step (222×), weights 43.8× smaller, "
        "accuracy 97.30 % → 97.03 % on test (95 % interval 95.3 – 98.8 %), no retraining."
    )


def test_without_test_data_the_verdict_falls_back_to_validation(study: Study) -> None:
    assert "on validation (95 % interval" in verdict(replace(study, test={}))


def test_without_a_metric_the_verdict_states_the_divergence(study: Study) -> None:
    assert study.best is not None
    assert study.best.evaluation is not None
    only = {"divergence": Quality("kl", "min", 0.0125, (0.01, 0.02), 60)}
    best = replace(study.best, evaluation=replace(study.best.evaluation, quality=only))
    text = verdict(replace(study, test={}, best=best, baseline=Baseline({}, study.baseline.cost)))
    assert "KL 0.0125 from the uncompressed network on validation" in text
    assert "accuracy" not in text


def test_an_interval_that_is_not_known_is_no_claim(study: Study) -> None:
    assert study.best is not None
    nan = float("nan")
    one = {"metric": Quality("accuracy", "max", 0.9, (nan, nan), 1)}
    text = verdict(replace(study, test={"baseline": one, "best": one}))
    assert "accuracy 90.00 % → 90.00 % on test, no retraining." in text
    assert show_interval(one["metric"]) == "—"
    assert show_interval(None) == "—"
    assert show_interval(replace(one["metric"], interval=(0.8, 0.95))) == "80.0 – 95.0 %"


def test_without_a_pick_the_binding_limit_is_named(without_best: Study) -> None:
    assert verdict(without_best) == "No recipe is within all limits."
    text = binding(without_best)
    assert "Energy a step ≤ 1 nJ" in text
    assert "has 85 nJ (85× off)" in text


def test_the_loss_of_a_metric_has_its_direction(study: Study) -> None:
    assert study.best is not None
    trial = study.best
    assert trial.metric is not None
    loss = limited_value(study, trial, "metric_loss")
    assert loss == pytest.approx(0.9762 - trial.metric)
    perplexity = Baseline({"metric": Quality("perplexity", "min", 0.5, (0, 1), 3)}, Cost())
    assert limited_value(
        replace(study, baseline=perplexity), trial, "metric_loss"
    ) == pytest.approx(trial.metric - 0.5)


def test_figures_for_people(study: Study) -> None:
    assert show_metric("accuracy", 0.97301) == "97.30 %"
    assert show_metric("perplexity", 4.39912) == "4.399"
    assert show_metric("kl", None) == "—"
    assert show_factor(222.3) == "222×"
    assert show_factor(1.804) == "1.8×"
    assert ratio(4.0, None) is None
    assert ratio(4.0, 0.0) is None
    assert ratio(4.0, float("nan")) is None
    first = Quality("accuracy", "max", 0.973, (0, 1), 370)
    assert show_change(first, replace(first, value=0.9703)) == "−0.27 points"
    assert show_limit(study, Limit("metric_loss", "max", 0.01)).endswith("accuracy ≤ 1.00 points")
    assert show_limit(study, Limit("sram_bytes", "max", 4e6)) == "Sram bytes ≤ 4 MB"
