"""All methods on one model: evaluate the catalogue, then tell what each saves and costs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from modelflex.calibrate import ALL
from modelflex.compress import compress
from modelflex.core.data import Draw, Sequences
from modelflex.core.divergence import divergence_name
from modelflex.core.files import replacing
from modelflex.core.model import Model
from modelflex.core.trial import Trial
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.importers.data import check_task, load_sequences
from modelflex.importers.models import load_model
from modelflex.pipeline.jobs import Tell
from modelflex.pipeline.result import STUDY, locked, make_folder
from modelflex.pipeline.setting import Setting, prepare, provenance, versions, with_processes
from modelflex.report.compare import write_comparison
from modelflex.report.summary import strict_json
from modelflex.search.catalogue import Catalogue
from modelflex.search.comparison import (
    EFFICIENT,
    Comparison,
    best_of_families,
    break_even,
    compared,
    fronts,
    is_coarse,
)
from modelflex.search.config import read_search
from modelflex.search.limits import Objective
from modelflex.search.problem import run_network, score_network
from modelflex.search.steps import make_steps, partial_recipes
from modelflex.search.store import Store
from modelflex.search.study import Qualities, Step
from modelflex.search.workers import Workers

VALIDATION_SHARE = 1 / 3
MAX_ROUNDS = 100
_FEW = (
    "one of {:,} validation items decides a verdict on accuracy: the best of every family also keep a "
    f"divergence of at most {1 - EFFICIENT:.2g}"
)
REPORT, TABLE = "comparison.html", "comparison.json"


def compare(
    model: Any,
    data: Any,
    *,
    validation: Any = None,
    test: Any = None,
    task: str = "classification",
    only: str = "*",
    rounds: int = 2,
    draw: Draw = ALL,
    seed: int = 0,
    workers: int = 0,
    out: str | os.PathLike[str] | None = None,
    tell: Tell = lambda _: None,
) -> Comparison:
    """Compress a network by every registered method and put the results side by side.

    Args:
        model: a `Model`, or anything that `modelflex.load` reads.
        data: calibration sequences (anything that `load_sequences` reads); without `validation`
            a third of them is held out for it.
        test: scored for the best of each family, after they were chosen on validation data.
        only: a pattern of families, such as "format*" or "hybrid*".
        rounds: of recalibration, for data-aware recipes.
        out: folder for the study, the table and the page; the same call continues what it holds.

    Raises:
        UserError: anything wrong with what was given.
    """
    read_search({"seed": seed, "workers": workers}, "compare")
    if type(rounds) is not int or not 0 <= rounds <= MAX_ROUNDS or not isinstance(only, str):
        raise UserError(
            f"rounds are {rounds!r}, families {only!r}", f"0 … {MAX_ROUNDS} rounds, a pattern"
        )
    loaded = model if isinstance(model, Model) else load_model(model)
    calibration, held, notes = _sequences(loaded, data, validation, task, seed)
    catalogue = Catalogue(loaded, rounds)
    chosen = catalogue.recipes(only)
    if not chosen:
        raise UserError(f"no family matches '{only}'", f"one of {', '.join(catalogue.families)}")
    with threadpool_limits(1):
        setting = prepare(
            loaded,
            calibration,
            held,
            None if test is None else load_sequences(test, "test"),
            (task, None, None),
            ("counts", {}),
            (),
            Objective(),
            chosen,
            seed,
            draw,
        )
        setting = replace(setting, notes=(*setting.notes, *notes))
        return _run(setting, workers, None if out is None else Path(out), tell)


def _sequences(
    model: Model, data: Any, validation: Any, task: str, seed: int
) -> tuple[Sequences, Sequences, tuple[str, ...]]:
    """Calibration and validation sequences, and a note where the second are a part of the first."""
    calibration = load_sequences(data, "data")
    if validation is not None:
        return calibration, load_sequences(validation, "validation"), ()
    rest, held = split(check_task(calibration, model, make_task(task).kind), seed)
    note = (
        f"no validation data were given: {held.count} of the sequences were held out, "
        f"{rest.count} calibrate"
    )
    return rest, held, (note,)


def _run(setting: Setting, workers: int, folder: Path | None, tell: Tell) -> Comparison:
    """Compare, and write the table and the page into the folder, if there is one."""
    setting, processes = with_processes(setting, workers)
    if folder is None:
        return _compare(setting, Path(":memory:"), processes, tell)
    make_folder(folder, (REPORT, TABLE))
    with locked(folder):
        found = _compare(setting, folder / STUDY, processes, tell)
        write_comparison(found, folder / REPORT)
        with replacing(folder / TABLE) as temporary:
            text = json.dumps(strict_json(found.to_json()), indent=1) + "\n"
            temporary.write_text(text, encoding="utf-8")
    return found


def split(sequences: Sequences, seed: int) -> tuple[Sequences, Sequences]:
    """A third of the sequences held out at random.

    Raises:
        UserError: fewer than three sequences.
    """
    if sequences.count < 3:
        raise UserError(
            f"{sequences.count} sequence{'s' * (sequences.count != 1)} can't be split into calibration "
            "and validation data",
            "at least 3",
            "give --validation",
        )
    order = np.random.default_rng(seed).permutation(sequences.count)
    held = max(1, round(VALIDATION_SHARE * sequences.count))
    return sequences.take(np.sort(order[held:])), sequences.take(np.sort(order[:held]))


def _compare(setting: Setting, file: Path, processes: int, tell: Tell) -> Comparison:
    started = time.perf_counter()
    store, problem = Store(file), setting.problem
    try:
        with Workers(problem, processes) as pool:
            setting.driver.run(store, pool, exhaustive=True, tell=tell)
            trials = setting.driver.trials(problem.seed, versions())
            baseline = setting.baseline
            rows = compared(trials, baseline.validation, baseline.cost)
            items = problem.original.shape[0]
            coarse = is_coarse(baseline.validation.get("metric"), items)
            best = best_of_families(rows, coarse)
            steps = {
                family: _steps(setting, store, trials[number], pool)
                for family, number in best.items()
                if family.startswith("hybrid")
            }
        scored = _test(setting, store, trials, best)
    finally:
        store.close()
    shapes = {name: weight.shape for name, weight in problem.model.weights.items()}
    seconds = round(time.perf_counter() - started, 3)
    return Comparison(
        name=problem.model.name,
        task=problem.task.kind,
        metric=problem.task.name,
        direction=problem.task.direction,
        divergence=divergence_name(problem.model.output),
        baseline=baseline.validation,
        cost=baseline.cost,
        rows=rows,
        fronts=fronts(rows),
        coarse=coarse,
        best=best,
        best_naive=best_of_families([row for row in rows if not row.data_aware], coarse),
        break_even=break_even(trials, shapes),
        steps=steps,
        test=scored,
        provenance={**provenance(setting), "seconds": seconds},
        notes=(*setting.notes, *([_FEW.format(items)] if coarse else [])),
    )


def _steps(setting: Setting, store: Store, trial: Trial, pool: Workers) -> tuple[Step, ...]:
    partial = partial_recipes(trial.recipe)
    found = setting.driver.complete(store, [recipe for _, recipe in partial], pool)
    return make_steps(setting.baseline.cost, partial, found, setting.pricer)


def _test(
    setting: Setting, store: Store, trials: tuple[Trial, ...], best: Mapping[str, int]
) -> dict[str, Qualities]:
    """Test qualities of the baseline and of the chosen rows; each scored once and kept."""
    test, problem = setting.test, setting.problem
    if test is None:
        return {}
    original, _ = run_network(problem.model, test)

    def scored(trial: Trial | None) -> Qualities:
        def fresh() -> Qualities:
            if trial is None:
                return score_network(problem, problem.model, test, None)[0]
            made = compress(problem.model, trial.recipe, problem.stats).model
            return score_network(problem, made, test, original)[0]

        recipe = None if trial is None else trial.recipe
        return store.test_score(problem.key, test.digest, recipe, fresh)

    return {"baseline": scored(None)} | {
        str(number): scored(trials[number]) for number in best.values()
    }
