"""A search made ready: everything loaded, checked and priced."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from modelflex.calibrate import calibrate, check_range
from modelflex.core.data import Draw, Sequences
from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.recipe import Recipe
from modelflex.errors import UserError
from modelflex.evaluate import Metric, Task, make_task
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.importers.data import check_task, load_sequences
from modelflex.importers.models import load_model
from modelflex.search.advised_space import default_grids
from modelflex.search.config import Config
from modelflex.search.driver import Driver
from modelflex.search.limits import Objective, check_metric_limits
from modelflex.search.pricing import Pricer, baseline_cost
from modelflex.search.problem import ARITHMETIC, Problem, model_digest, run_network, score_network
from modelflex.search.space import SpaceRecipe, read_space
from modelflex.search.study import Baseline, Limit
from modelflex.search.targets import ready_platform, stored_constants
from modelflex.search.workers import can_spawn


@dataclass(frozen=True, eq=False)
class Setting:
    """A search made ready: everything loaded, checked and priced.

    Attributes:
        recipes: the space as given; the driver's may hold those that fit only.
        constants: what the study keeps of the platform; see `stored_constants`.
    """

    problem: Problem
    driver: Driver
    pricer: Pricer
    platform: Platform
    baseline: Baseline
    recipes: tuple[SpaceRecipe, ...]
    test: Sequences | None
    limits: tuple[Limit, ...]
    objective: Objective
    notes: tuple[str, ...]
    constants: Mapping[str, Any]


def prepare(
    model: Model,
    calibration: Sequences,
    validation: Sequences,
    test: Sequences | None,
    task: tuple[str, str | Metric | None, str | None],
    target: tuple[str, Mapping[str, Any]],
    limits: tuple[Limit, ...],
    objective: Objective,
    space: Any,
    seed: int,
    draw: Draw,
    known: Mapping[str, Any] | None = None,
    only_fitting: bool = False,
    constants: Mapping[str, Any] | None = None,
) -> Setting:
    """Check that everything fits together, calibrate, run the baseline and price the space.

    Args:
        task: kind, quality and direction, for `make_task`.
        target: family and options of the platform.
        known: the key of the problem and the densities that an earlier search of it stored.
        only_fitting: whether the driver leaves out recipes that choose for a weight what cannot
            hold it, in place of refusing the space.
        constants: of a measured platform, that an earlier search stored.

    Raises:
        UserError: anything that does not fit.
    """
    kind = make_task(*task)
    _check_asked(kind, limits, objective)
    validation = _held_out(validation, model, kind, "validation")
    test = None if test is None else _held_out(test, model, kind, "test")
    recipes = None if space is None else _space(space)  # told of mistakes before the work begins
    platform = ready_platform(*target, constants)
    stats = calibrate(model, calibration, draw, seed)
    if recipes is None:
        recipes = read_space(default_grids(model, stats))
    original, profile = run_network(model, validation)
    problem = Problem(model, stats, validation, original, kind, seed)
    if known is not None and known["problem"] != problem.key:
        raise UserError(
            "the model, data, quality function or versions have changed since the search",
            "those that it evaluated",
            "run `modelflex search` again",
        )
    found, _ = score_network(problem, model, validation, None)
    baseline = Baseline(found, baseline_cost(model, profile, platform))
    densities = None if known is None else known["densities"]
    pricer = Pricer(model, stats, platform, validation.mean_length, densities)
    priced = [r for r in recipes if not only_fitting or pricer.fits(r.recipe)]
    driver = Driver(problem, pricer, priced, limits, objective, found)
    notes = _notes(kind, _shared(calibration, validation, test))
    return Setting(
        problem,
        driver,
        pricer,
        platform,
        baseline,
        tuple(recipes),
        test,
        limits,
        objective,
        notes,
        stored_constants(target[0], platform),
    )


def _held_out(data: Sequences, model: Model, kind: Task, name: str) -> Sequences:
    """Sequences to score on, checked against the task and the range of the arithmetic."""
    found = check_task(data, model, kind.kind, name)
    check_range(found, name)
    return found


def _check_asked(kind: Task, limits: tuple[Limit, ...], objective: Objective) -> None:
    """Refuse limits and a tie-break that the task's metric cannot tell.

    Raises:
        UserError: there is no metric, or a limit on it has the wrong side or size.
    """
    if kind.name:
        check_metric_limits(limits, kind.direction, fraction=kind.name == "accuracy")
        return
    if any(limit.field.startswith("metric") for limit in limits):
        raise UserError(
            "a limit on the metric is set, but the task has none", "a limit on divergence"
        )
    if objective.tie_break == "metric":
        raise UserError("objective.tie_break is 'metric', but the task has none", "'divergence'")


def _shared(calibration: Sequences, validation: Sequences, test: Sequences | None) -> int:
    """How many calibration sequences also are validation or test sequences.

    Raises:
        UserError: validation and test data share sequences: the choice would see the test.
    """
    held_out = set(validation.digests)
    if test is not None:
        both = len(held_out.intersection(test.digests))
        if both:
            raise UserError(
                f"{both} sequences are in the validation and in the test data",
                "test data that the choice does not see",
                "hold out other sequences",
            )
        held_out.update(test.digests)
    return len(held_out.intersection(calibration.digests))


def _notes(task: Task, shared: int) -> tuple[str, ...]:
    """What the user should know of how the search is run."""
    notes = []
    if task.metric is not None:
        notes.append(f"quality is the user's own function '{task.name}'")
    if not task.reusable:
        notes.append(
            "the quality function holds an object whose content cannot be told: its figures are not "
            "reused by later searches"
        )
    if shared:
        notes.append(
            f"{shared} calibration sequences are validation or test sequences too: quality is flattered"
        )
    if not HAVE_NATIVE:
        notes.append("installed without native kernels: run in pure Python, slower")
    return tuple(notes)


def _space(space: Any) -> list[SpaceRecipe]:
    if isinstance(space, (list, tuple)) and space:
        if all(isinstance(entry, SpaceRecipe) for entry in space):
            return list(space)
        if all(isinstance(entry, Recipe) for entry in space):
            return [SpaceRecipe(r, "given") for r in {r.key: r for r in space}.values()]
    return read_space(space)


def from_config(
    config: Config,
    known: Mapping[str, Any] | None = None,
    *,
    only_fitting: bool = False,
    constants: Mapping[str, Any] | None = None,
) -> Setting:
    """Load what a configuration names and make its search ready; see `prepare`."""
    data = config.data
    return prepare(
        load_model(config.model.path, reads=config.model.reads, output=config.model.output),
        load_sequences(data.calibration, "data.calibration"),
        load_sequences(data.validation, "data.validation"),
        None if data.test is None else load_sequences(data.test, "data.test"),
        (config.task.kind, config.task.quality, config.task.direction),
        config.platform,
        config.limits,
        config.objective,
        config.space,
        config.search.seed,
        data.draw,
        known,
        only_fitting,
        constants,
    )


def with_processes(setting: Setting, workers: int) -> tuple[Setting, int]:
    """How many processes evaluate: as many as asked for (0: one a core), but this one alone, and a
    note that says why, where others could not import what evaluating needs.
    """
    processes = workers or os.cpu_count() or 1
    if processes == 1 or can_spawn(setting.problem, [s.recipe for s in setting.driver.space]):
        return setting, processes
    note = (
        "the quality function or a plug-in cannot be imported by worker processes (it lives in the "
        "script that runs, or inside a function): evaluated in this process"
    )
    return replace(setting, notes=(*setting.notes, note)), 1


def versions() -> dict[str, str]:
    """Versions that results hang on."""
    return {
        "modelflex": version("modelflex"),
        "arithmetic": ARITHMETIC,
        "numpy": version("numpy"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def provenance(setting: Setting) -> dict[str, Any]:
    """What the result hangs on: versions, seed, digests of model and data."""
    problem, test = setting.problem, setting.test
    return {
        "versions": versions(),
        "seed": problem.seed,
        "model_sha256": model_digest(problem.model),
        "calibration_sha256": problem.stats.sequences.digest,
        "validation_sha256": problem.validation.digest,
        "test_sha256": None if test is None else test.digest,
        "calibration_sequences": problem.stats.sequences.count,
        "validation_sequences": problem.validation.count,
        "test_sequences": None if test is None else test.count,
    }
