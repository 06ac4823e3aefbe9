"""What `explain` says of a trial's nonlinearity."""

from __future__ import annotations

from dataclasses import replace

from modelflex.core.recipe import LayerRule
from modelflex.nonlinearities.hard import Hard
from modelflex.report.explain import explain_json, explain_text
from modelflex.search.study import Study


def test_tables_and_their_errors_are_reported(study: Study) -> None:
    trial = study.trials[1]
    assert explain_json(study, 1)["nonlinearities"] == []
    recipe = replace(trial.recipe, layers=(LayerRule("lstm*", nonlinearity=Hard()),))
    trials = (study.trials[0], replace(trial, recipe=recipe), *study.trials[2:])
    changed = replace(study, trials=trials)
    (found,) = explain_json(changed, 1)["nonlinearities"]
    assert (found["layers"], found["table_bytes"]) == ("lstm*", 12)
    assert found["max_error"]["tanh"] == Hard().max_error("tanh")
    assert "in the layers lstm*: 12 bytes, off by at most 0.24 and 0.076" in explain_text(
        changed, 1
    )


def test_what_is_not_priced_says_why(study: Study) -> None:
    assert "not priced" not in explain_text(study, 1)
    trial = study.trials[1]
    narrow = replace(trial, cost=replace(trial.cost, unpriced="words are narrow"))
    changed = replace(study, trials=(study.trials[0], narrow, *study.trials[2:]))
    assert "  not priced: words are narrow\n" in explain_text(changed, 1) + "\n"
