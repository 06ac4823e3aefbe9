"""Advice on a model, and allocation of what a search space offers to its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation
from modelflex.export.artefact import check_replaceable, save_artefact
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.pipeline.result import STUDY, locked, make_folder
from modelflex.pipeline.setting import Setting, from_config, provenance
from modelflex.search.advise import Advice, advise
from modelflex.search.advised_space import advised_grids
from modelflex.search.allocate import Allocation, Budget, Measured, allocate
from modelflex.search.config import Config
from modelflex.search.options import nonlinearities_of, options_of
from modelflex.search.problem import Problem
from modelflex.search.space import is_data_aware
from modelflex.search.store import Store
from modelflex.search.workers import Workers

ALLOCATED = "allocated"
"""The artefact of an allocation, beside the study."""
Told = Callable[[Measured], None]


def advise_model(path: Path, data: Path | None) -> tuple[Advice, Sequence[Mapping[str, Any]]]:
    """What to try first on a model, and the tables [[space]] of a configuration that try it.

    Args:
        data: sequences from which the hidden states' rank and the pace of the inputs are told.

    Raises:
        UserError: the model or the data cannot be used.
    """
    model = load_model(path)
    with threadpool_limits(1):
        stats = None if data is None else calibrate(model, load_sequences(data))
        found = advise(model, stats)
    return found, advised_grids(model, found)


def allocate_config(
    config: Config, folder: Path, budget: Budget, evaluations: int, tell: Told = lambda _: None
) -> tuple[Allocation, Mapping[str, Any] | None]:
    """Allot to each weight one of the choices that the configuration's space makes for it.

    A choice that does not fit a weight is not offered to it; where all recipes of the space compute
    a layer's nonlinearities in one way, the allocation's do too. Its notes tell what else the space holds.

    Evaluations are kept in the folder's study, a search's own or a new one; the artefact of the
    recipe is written beside it.

    Returns the allocation and, where the folder's search has evaluated the space, the best of its
    recipes within the budget: label, divergence and cost.

    Raises:
        UserError: anything wrong with the configuration, the budget or the folder.
    """
    make_folder(folder, (ALLOCATED,))
    check_replaceable(folder / ALLOCATED)
    with threadpool_limits(1), locked(folder):
        setting = from_config(config, only_fitting=True)
        store = Store(folder / STUDY)
        try:
            setting.driver.reuse(store)
            before = _best_of_space(setting, budget)
            made = _allocated(setting, store, budget, evaluations, tell)
        finally:
            store.close()
        model = compress(setting.problem.model, made.recipe, setting.problem.stats).model
        notes = {**provenance(setting), "budget": asdict(budget)}
        save_artefact(model, folder / ALLOCATED, recipe=made.recipe, provenance=notes)
    return made, before


def _allocated(
    setting: Setting, store: Store, budget: Budget, evaluations: int, tell: Told
) -> Allocation:
    recipes = [entry.recipe for entry in setting.recipes]
    aware = [r for r in recipes if is_data_aware(r)] or recipes
    candidates, removals = options_of(setting.problem.model, aware)
    nonlinearities, notes = nonlinearities_of(setting.problem.model, aware)
    with Workers(setting.problem, 1) as here:

        def evaluate(problem: Problem, recipe: Recipe) -> Evaluation:
            return setting.driver.complete(store, [recipe], here)[recipe.key]

        made = allocate(
            setting.problem,
            setting.pricer,
            candidates,
            budget,
            removals=removals,
            nonlinearities=nonlinearities,
            recalibrate=max(r.recalibrate for r in aware),
            evaluations=evaluations,
            evaluate=evaluate,
            tell=tell,
        )
    return replace(made, notes=(*notes, *made.notes))


def _best_of_space(setting: Setting, budget: Budget) -> Mapping[str, Any] | None:
    """The best evaluated recipe of the space within the budget."""
    found = []
    for entry in setting.driver.space:
        evaluation = setting.driver.evaluations.get(entry.recipe.key)
        if evaluation is not None:
            totals = setting.pricer.price_measured([entry.recipe], [evaluation.profile])
            cost = float(totals[budget.field][0])
            divergence = evaluation.quality["divergence"].value
            if budget.miss(cost, divergence) <= 1.0:
                found.append(
                    (budget.objective(cost, divergence), entry.recipe.label, divergence, cost)
                )
    if not found:
        return None
    _, label, divergence, cost = min(found)
    return {"label": label, "divergence": divergence, "cost": cost}
