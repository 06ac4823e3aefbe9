"""The way of the data: load → calibrate → price → search → pick → test → export → report."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from modelflex.calibrate import calibrate, check_range
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.recipe import Recipe, read_config
from modelflex.core.trial import Trial
from modelflex.errors import UserError
from modelflex.evaluate import Metric, make_task
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.export.artefact import check_replaceable, save_artefact
from modelflex.importers.data import check_task, load_sequences
from modelflex.importers.models import load_model
from modelflex.registry import PLATFORMS
from modelflex.report import write_report
from modelflex.report.summary import summary
from modelflex.search.analysis import analyze
from modelflex.search.config import (
    Config,
    SearchConfig,
    parse_config,
    platform_options,
    read_objective,
    read_toml,
)
from modelflex.search.driver import Driver, Progress, nearest_misses, pick
from modelflex.search.limits import Objective, read_limits
from modelflex.search.pricing import Pricer, baseline_cost
from modelflex.search.problem import ARITHMETIC, Problem, model_digest, run_network, score_network
from modelflex.search.references import references
from modelflex.search.space import SpaceRecipe, default_grids, read_space
from modelflex.search.steps import make_steps, partial_recipes
from modelflex.search.store import Store
from modelflex.search.study import Baseline, Limit, Qualities, Step, Study
from modelflex.search.workers import Workers

Tell = Callable[[Progress], None]
BEST = "best"
"""The artefact's folder in an output folder."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a search gives.

    Attributes:
        study: all trials, figures and assumptions.
        model: the compressed network of the pick, or None when no recipe is within all limits.
        folder: where everything was written, or None.
        missing: candidates that fit the hardware limits but were never evaluated (after `retarget`).
    """

    study: Study
    model: Model | None
    folder: Path | None
    missing: int = 0

    @property
    def best(self) -> Trial | None:
        """The pick."""
        return self.study.best

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order of the space."""
        return self.study.trials

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report, one offline HTML page."""
        write_report(self.study, Path(path))
        return Path(path)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the compressed model with its recipe and provenance.

        Raises:
            UserError: there is none, because no recipe is within all limits.
        """
        if self.model is None or self.study.best is None:
            raise UserError("no recipe is within all limits", "a pick to save", "relax a limit")
        recipe, provenance = self.study.best.recipe, self.study.provenance
        save_artefact(self.model, Path(folder), recipe=recipe, provenance=provenance)
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """The JSON object that `modelflex search --json` prints."""
        return summary(self.study, {} if self.folder is None else paths(self.folder, self.study))


def paths(folder: Path, study: Study) -> dict[str, str]:
    """Name → what is written into an output folder."""
    names = {
        "study": "study.sqlite",
        "report": "report.html",
        "summary": "summary.json",
        "config": "config.json",
    }
    if study.best is not None:
        names["best"] = BEST
    return {name: str(folder / file) for name, file in names.items()}


@dataclass(frozen=True, eq=False)
class _Setting:
    """A search made ready: everything loaded, checked and priced."""

    problem: Problem
    driver: Driver
    pricer: Pricer
    platform: Platform
    baseline: Baseline
    test: Sequences | None
    limits: tuple[Limit, ...]
    objective: Objective
    notes: tuple[str, ...]


def _prepare(
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
    calibration_limit: int | None,
) -> _Setting:
    kind = make_task(*task)
    validation = check_task(validation, model, kind.kind, "validation")
    if test is not None:
        test = check_task(test, model, kind.kind, "test")
    if any(limit.field.startswith("metric") for limit in limits) and not kind.name:
        raise UserError(
            "a limit on the metric is set, but the task has none", "a limit on divergence"
        )
    if objective.tie_break == "metric" and not kind.name:
        raise UserError("objective.tie_break is 'metric', but the task has none", "'divergence'")
    for name, data in (("validation", validation), ("test", test)):
        if data is not None:
            check_range(data, name)
    recipes = _space(space, model)
    platform: Platform = PLATFORMS.get(target[0]).from_config(target[1])
    stats = calibrate(model, calibration, calibration_limit, seed)
    original, profile = run_network(model, validation)
    problem = Problem(model, stats, validation, original, kind, seed)
    found, _ = score_network(problem, model, validation, None)
    baseline = Baseline(found, baseline_cost(model, profile, platform))
    pricer = Pricer(model, stats, platform, validation.mean_length)
    driver = Driver(problem, pricer, recipes, limits, objective, found)
    notes = () if kind.metric is None else (f"quality is the user's own function '{kind.name}'",)
    return _Setting(problem, driver, pricer, platform, baseline, test, limits, objective, notes)


def _space(space: Any, model: Model) -> list[SpaceRecipe]:
    if isinstance(space, (list, tuple)) and space and all(isinstance(r, Recipe) for r in space):
        return [SpaceRecipe(r, "given") for r in {r.key: r for r in space}.values()]
    return read_space(
        default_grids({n: w.shape for n, w in model.weights.items()}) if space is None else space
    )


def search(
    model: Any,
    *,
    calibration: Any,
    validation: Any,
    test: Any = None,
    task: str = "classification",
    quality: str | Metric | None = None,
    direction: str | None = None,
    platform: str | Mapping[str, Any] = "systolic",
    limits: Mapping[str, Any] | None = None,
    objective: Mapping[str, Any] | None = None,
    space: Any = None,
    seed: int = 0,
    workers: int = 0,
    exhaustive: bool = False,
    calibration_limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
    tell: Tell = lambda _: None,
) -> Result:
    """Search compressions of a trained recurrent network for a target, without retraining.

    Args:
        model: a `Model`, or anything that `modelflex.load` reads.
        calibration, validation, test: anything that `load_sequences` reads: a path of an .npz file,
            arrays (x [ΣT, F], lengths, y), or an iterable of (x_i [T_i, F], y_i).
        task: "classification", "per_step", "next_symbol", "regression" or "none" (label-free).
        quality: the user's own metric (outputs, y, lengths) → float, as "module:function" or as a
            function; a function that cannot be imported is evaluated in this process.
        platform: a family's name, or a table {"name": …, options}.
        limits, objective, space: as in the configuration file; `space` may also be a list of recipes.
        workers: processes; 0 means one a core.
        out: folder for the study, artefact and report; the same call continues what it holds.
        tell: called with the progress.

    Raises:
        UserError: anything wrong with what was given.
    """
    values = {"seed": seed, "workers": workers, "exhaustive": exhaustive}
    read_config(SearchConfig, values, "search")
    table = {"name": platform} if isinstance(platform, str) else platform
    in_process = callable(quality) and getattr(quality, "__qualname__", "<").count("<") > 0
    if callable(quality) and getattr(quality, "__module__", "") == "__main__":
        in_process = True
    with threadpool_limits(1):
        setting = _prepare(
            model if isinstance(model, Model) else load_model(model),
            load_sequences(calibration, "calibration"),
            load_sequences(validation, "validation"),
            None if test is None else load_sequences(test, "test"),
            (task, quality, direction),
            platform_options(table, Path.cwd()),
            read_limits(limits or {}),
            read_objective(objective or {}),
            space,
            seed,
            calibration_limit,
        )
        if in_process:
            note = "quality is a function that worker processes cannot import: evaluated in this process"
            setting = replace(setting, notes=(*setting.notes, note))
        folder = None if out is None else Path(out)
        return _run(setting, folder, 1 if in_process else workers, exhaustive, None, tell)


def search_config(
    config: Config,
    out: Path,
    *,
    workers: int | None = None,
    exhaustive: bool = False,
    tell: Tell = lambda _: None,
) -> Result:
    """Run the search that a configuration describes; see `search`."""
    with threadpool_limits(1):
        setting = _from_config(config)
        chosen = config.search.workers if workers is None else workers
        return _run(setting, out, chosen, exhaustive or config.search.exhaustive, config, tell)


def _from_config(config: Config) -> _Setting:
    data = config.data
    return _prepare(
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
        data.calibration_limit,
    )


def _run(
    setting: _Setting,
    folder: Path | None,
    workers: int,
    exhaustive: bool,
    config: Config | None,
    tell: Tell,
) -> Result:
    started = time.perf_counter()
    if folder is not None:
        _make_folder(folder)
    store = Store(Path(":memory:") if folder is None else folder / "study.sqlite")
    try:
        with Workers(setting.problem, workers or os.cpu_count() or 1) as pool:
            setting.driver.run(store, pool, exhaustive=exhaustive, tell=tell)
            result = _conclude(setting, store, folder, pool)
        seconds = time.perf_counter() - started
        study = replace(
            result.study, provenance={**result.study.provenance, "seconds": round(seconds, 3)}
        )
        result = replace(result, study=study)
        if folder is not None:
            _write(result, folder, {} if config is None else config.raw)
            if config is not None:
                store.set_note("base", config.base)
                store.set_note("config", config.raw)
        return result
    finally:
        store.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder '{folder}' cannot be made ({error})", "a writable folder"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder '{folder}' may not be written", "a writable folder")
    check_replaceable(folder / BEST)  # before the search, not after it


def _conclude(setting: _Setting, store: Store, folder: Path | None, pool: Workers | None) -> Result:
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
        provenance=_provenance(setting),
        references=references(problem.model, best or trials[0], setting.platform),
        notes=setting.notes,
    )
    if best is None or best.evaluation is None:
        return Result(study, None, folder)
    model = compress(problem.model, best.recipe, problem.stats).model
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
    )
    return Result(study, model, folder)


def _steps(setting: _Setting, store: Store, best: Trial, pool: Workers) -> tuple[Step, ...]:
    partial = partial_recipes(best.recipe)
    found = setting.driver.complete(store, [recipe for _, recipe in partial], pool)
    return make_steps(setting.baseline.cost, partial, found, setting.pricer)


def _test(
    setting: _Setting, store: Store, best: Trial, model: Model, twin: Trial
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
        "naive": scored(
            twin.recipe, lambda: compress(problem.model, twin.recipe, problem.stats).model
        ),
    }


def _write(result: Result, folder: Path, raw: Mapping[str, Any]) -> None:
    """Everything but the study's file, each file whole or not at all."""
    best = folder / BEST
    if result.model is not None:
        result.save(best)
    elif (best / "model.json").exists():
        shutil.rmtree(best)  # the pick of earlier limits
    _write_json(folder / "config.json", resolved(result.study, raw))
    result.report(folder / "report.html")
    _write_json(folder / "summary.json", result.summary())


def _write_json(path: Path, values: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def resolved(study: Study, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it was understood: limits in SI units, defaults filled in."""
    return {
        **raw,
        "limits": [{"field": x.field, "kind": x.kind, "value": x.value} for x in study.limits],
        "objective": {"minimize": study.objective, "pareto_slack": study.pareto_slack},
        "platform_assumptions": study.platform,
        "seed": study.provenance["seed"],
    }


def retarget(study: Path, config: Path | None, tell: Tell = lambda _: None) -> Result:
    """Answer for other limits, another objective or another platform from what was evaluated.

    Args:
        study: the output folder of a search (or its study.sqlite).
        config: tables that replace those of the search ([limits], [objective], [platform]).

    Raises:
        UserError: no study there, or the new tables ask for another model, data, task or space.
    """
    file = study if study.suffix == ".sqlite" else study / "study.sqlite"
    if not file.is_file():
        raise UserError(f"there is no study at '{file}'", "the output folder of `modelflex search`")
    store = Store(file)
    try:
        raw = store.note("config")
        if not raw:
            raise UserError(
                f"'{file}' holds no finished search of a configuration file",
                "a study that `modelflex search FILE` finished",
                "from Python, call search again with the same out",
            )
        merged = _changed(parse_config(raw, Path(store.note("base"))), config)
        with threadpool_limits(1):
            setting = _from_config(merged)
            missing = setting.driver.reuse(store)
            result = _conclude(setting, store, None, None)
        tell(Progress(len(setting.driver.evaluations), len(setting.driver.evaluations), None))
        return replace(result, missing=missing)
    finally:
        store.close()


_FIXED = ("model", "data", "task", "search", "space")


def _changed(before: Config, path: Path | None) -> Config:
    """The configuration with the limits, objective and platform of another file."""
    if path is None:
        return before
    tables = read_toml(path)
    for name, value in tables.items():
        if name in _FIXED and value != before.raw.get(name):
            raise UserError(
                f"[{name}] of '{path}' differs from the search's",
                "other [limits], [objective] or [platform] only",
                "run `modelflex search` for another model, data, task or space",
            )
    after = parse_config({**before.raw, **tables}, path.resolve().parent)
    return replace(
        before,
        limits=after.limits,
        objective=after.objective,
        platform=after.platform if "platform" in tables else before.platform,
    )


def run(model: Any, sequences: Any) -> Array:
    """Run a network on new sequences: an uncompressed one in floats, a compressed one in exactly
    the integers that ship.

    Args:
        model: a `Model`, or anything that `modelflex.load` reads, such as the folder of an artefact.
        sequences: anything that `load_sequences` reads; targets are not used.

    Returns:
        float64 [N, K], an output a sequence, or [ΣT, K] where the model has one at every step.

    Raises:
        UserError: anything wrong with what was given.
    """
    with threadpool_limits(1):
        loaded = model if isinstance(model, Model) else load_model(model)
        return run_network(loaded, load_sequences(sequences, "sequences"))[0]


def analyze_model(path: Path, data: Path | None) -> dict[str, Any]:
    """What `modelflex analyze` shows; see `search.analysis.analyze`."""
    model = load_model(path)
    with threadpool_limits(1):
        stats = None if data is None else calibrate(model, load_sequences(data))
        return analyze(model, stats)


def say_if_slow(say: Callable[[str], None]) -> None:
    """Tell the user when the native kernels are missing."""
    if not HAVE_NATIVE:
        say("ModelFlex was installed without a C compiler: running in pure Python, slower.")


def versions() -> dict[str, str]:
    """Versions that results hang on."""
    return {
        "modelflex": version("modelflex"),
        "arithmetic": ARITHMETIC,
        "numpy": version("numpy"),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _provenance(setting: _Setting) -> dict[str, Any]:
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
