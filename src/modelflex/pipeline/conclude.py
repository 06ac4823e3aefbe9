"""The end of a search: the pick, its test score, and the study for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from modelflex.core.model import Model
from modelflex.core.planner import make_plan
from modelflex.core.program import build_program
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Trial
from modelflex.errors import UserError
from modelflex.export.c99_text import ALIGNMENT
from modelflex.pipeline.measuring import add_measured
from modelflex.pipeline.result import Result
from modelflex.pipeline.setting import Setting, provenance, versions
from modelflex.search.analysis import analyze
from modelflex.search.driver import nearest_misses, pick
from modelflex.search.problem import Problem, compressed, run_network, score_network
from modelflex.search.references import references
from modelflex.search.steps import make_steps, partial_recipes
from modelflex.search.store import Store
from modelflex.search.study import Qualities, Step, Study
from modelflex.search.workers import Workers


def conclude(setting: Setting, store: Store, pool: Workers | None) -> Result:
    """Pick, score test data, and gather the study; `pool` evaluates the steps of the waterfall."""
    problem, driver = setting.problem, setting.driver
    trials = driver.trials(problem.seed, versions())
    best = pick(trials, setting.objective)
    study = Study(
        name=problem.model.name,
        task=problem.task.kind,
        baseline=setting.baseline,
        trials=trials,
        best=None,
        naive=None,
        test={},
        limits=setting.limits,
        objective=setting.objective.minimize,
        pareto_slack=setting.objective.pareto_slack,
        platform=setting.platform.description,
        analysis=analyze(problem.model, problem.stats),
        nearest=nearest_misses(trials) if best is None else (),
        provenance=provenance(setting),
        references=references(problem.model, best or trials[0], setting.platform),
        notes=setting.notes,
    )
    if best is None or best.evaluation is None:
        return Result(study, None, None)
    model = _rebuilt(problem, best)
    cost = setting.pricer.cost(best.recipe, best.evaluation.profile)
    best = replace(best, cost=cost)
    twin = trials[best.number if best.twin is None else best.twin]
    study = replace(
        study,
        trials=(*trials[: best.number], best, *trials[best.number + 1 :]),
        best=best,
        naive=twin,
        test=_test(setting, store, best, model, twin),
        steps=() if pool is None else _steps(setting, store, best, pool),
        exported_state_bytes=make_plan(build_program(model), alignment=ALIGNMENT).state_bytes,
    )
    return Result(add_measured(study, setting, store, model), model, None)


def _rebuilt(problem: Problem, best: Trial) -> Model:
    """The pick's network, compressed again and proven to be the one that was evaluated.

    Raises:
        UserError: its outputs on validation data differ from the stored evaluation's.
    """
    model = compressed(problem, best.recipe).model
    quality, profile = score_network(problem, model, problem.validation, problem.original)
    found = {name: q.to_json() for name, q in quality.items()}
    if best.evaluation is None or (found, profile) != (
        {name: q.to_json() for name, q in best.evaluation.quality.items()},
        best.evaluation.profile,
    ):
        raise UserError(
            f"trial {best.number}, rebuilt here, differs from its stored evaluation",
            "the machine and libraries that evaluated it",
            "search again into another folder",
        )
    return model


def _steps(setting: Setting, store: Store, best: Trial, pool: Workers) -> tuple[Step, ...]:
    partial = partial_recipes(best.recipe)
    found = setting.driver.complete(store, [recipe for _, recipe in partial], pool)
    return make_steps(setting.baseline.cost, partial, found, setting.pricer)


def _test(
    setting: Setting, store: Store, best: Trial, model: Model, twin: Trial
) -> dict[str, Qualities]:
    """Test qualities of baseline, pick and naive twin; each scored once and kept in the store."""
    test, problem = setting.test, setting.problem
    if test is None:
        return {}
    original, _ = run_network(problem.model, test)

    def scored(recipe: Recipe | None, make: Callable[[], Model]) -> Qualities:
        def fresh() -> Qualities:
            return score_network(problem, make(), test, None if recipe is None else original)[0]

        return store.test_score(problem.key, test.digest, recipe, fresh)

    return {
        "baseline": scored(None, lambda: problem.model),
        "best": scored(best.recipe, lambda: model),
        "naive": scored(twin.recipe, lambda: compressed(problem, twin.recipe).model),
    }
