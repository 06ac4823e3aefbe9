"""What users call: search, retarget, run and analyze, each a short way through the lower floors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from modelflex.calibrate import ALL, calibrate
from modelflex.core.data import Draw
from modelflex.core.fixed import Array
from modelflex.core.ladder import LADDER_JSON, read_ladder
from modelflex.core.model import Model
from modelflex.core.program import build_program, check_symbols_read
from modelflex.errors import UserError
from modelflex.evaluate import Metric
from modelflex.execute.kernels import HAVE_NATIVE, NATIVE_ERROR
from modelflex.execute.native import Runtime
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.pipeline.conclude import conclude
from modelflex.pipeline.result import STUDY, Result, locked, make_folder, write_all
from modelflex.pipeline.setting import Setting, from_config, prepare, with_processes
from modelflex.progressive.climbing import all_terms
from modelflex.search.analysis import analyze
from modelflex.search.config import (
    Config,
    parse_config,
    platform_options,
    read_objective,
    read_search,
    read_toml,
)
from modelflex.search.driver import Progress
from modelflex.search.limits import read_limits
from modelflex.search.problem import run_network
from modelflex.search.store import Store
from modelflex.search.workers import Workers

Tell = Callable[[Progress], None]


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
    draw: Draw = ALL,
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
        draw: which of the calibration sequences are used, and whether they are varied.
        out: folder for the study, artefact and report; the same call continues what it holds.
        tell: called with the progress.

    Raises:
        UserError: anything wrong with what was given.
    """
    read_search({"seed": seed, "workers": workers, "exhaustive": exhaustive}, "search")
    table = {"name": platform} if isinstance(platform, str) else platform
    with threadpool_limits(1):
        setting = prepare(
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
            draw,
            constants=None if out is None else _constants(Path(out)),
        )
        return _run(setting, None if out is None else Path(out), workers, exhaustive, None, tell)


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
        setting = from_config(config, constants=_constants(out))
        chosen = config.search.workers if workers is None else workers
        return _run(setting, out, chosen, exhaustive or config.search.exhaustive, config, tell)


def _run(
    setting: Setting,
    folder: Path | None,
    workers: int,
    exhaustive: bool,
    config: Config | None,
    tell: Tell,
) -> Result:
    setting, processes = with_processes(setting, workers)
    if folder is None:
        return _search(setting, Path(":memory:"), processes, exhaustive, tell, None)
    make_folder(folder)
    with locked(folder):
        result = _search(setting, folder / STUDY, processes, exhaustive, tell, config)
        result = replace(result, folder=folder)
        write_all(result, folder, {} if config is None else config.raw)
        return result


def _constants(folder: Path) -> Any:
    """Constants of measured platforms that a study in the folder keeps, or None."""
    if not (folder / STUDY).is_file():
        return None
    store = Store(folder / STUDY)
    try:
        return store.note("constants")
    finally:
        store.close()


def _search(
    setting: Setting,
    file: Path,
    processes: int,
    exhaustive: bool,
    tell: Tell,
    config: Config | None,
) -> Result:
    """Evaluate what can matter, conclude, and keep in the store what `retarget` needs."""
    started = time.perf_counter()
    store = Store(file)
    try:
        if setting.constants:
            store.set_note("constants", {**(store.note("constants") or {}), **setting.constants})
        with Workers(setting.problem, processes) as pool:
            setting.driver.run(store, pool, exhaustive=exhaustive, tell=tell)
            result = conclude(setting, store, pool)
        if config is not None:
            store.set_note("base", config.base)
            store.set_note("config", config.raw)
            known = {"problem": setting.problem.key, "densities": setting.pricer.densities}
            store.set_note("pricing", known)
    finally:
        store.close()
    seconds = round(time.perf_counter() - started, 3)
    provenance = {**result.study.provenance, "seconds": seconds}
    return replace(result, study=replace(result.study, provenance=provenance))


def retarget(study: Path, config: Path | None, *, scored: bool = True) -> Result:
    """Answer for other limits, another objective or another platform from what was evaluated.

    Args:
        study: the output folder of a search (or its study.sqlite).
        config: tables that replace those of the search ([limits], [objective], [platform]).
        scored: whether the pick's test score belongs to the answer.

    Raises:
        UserError: no study there, the model or data have changed since, or the new tables ask for
            another model, data, task or space.
    """
    file = study if study.suffix == ".sqlite" else study / STUDY
    if not file.is_file():
        raise UserError(f"there is no study at '{file}'", "the output folder of `modelflex search`")
    store = Store(file)
    try:
        raw, known = store.note("config"), store.note("pricing")
        if not raw or not known:
            raise UserError(
                f"'{file}' holds no finished search of a configuration file",
                "a study that `modelflex search FILE` finished",
                "continue it by the command, or the call of search, that began it",
            )
        merged = _changed(parse_config(raw, Path(store.note("base"))), config)
        if not scored:
            merged = replace(merged, data=replace(merged.data, test=None))
        with threadpool_limits(1):
            setting = from_config(merged, known, constants=store.note("constants"))
            gone = _no_longer_limited(parse_config(raw, Path(store.note("base"))), merged)
            setting = replace(setting, notes=(*setting.notes, *gone))
            setting.driver.reuse(store)
            return conclude(setting, store, None)
    finally:
        store.close()


def _no_longer_limited(before: Config, after: Config) -> tuple[str, ...]:
    """A note that names the search's limits that other tables have dropped."""
    kept = {(limit.field, limit.kind) for limit in after.limits}
    gone = [f"{x.kind} {x.field}" for x in before.limits if (x.field, x.kind) not in kept]
    return (f"no longer limited: {', '.join(gone)}",) if gone else ()


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
        data = load_sequences(sequences, "sequences")
        check_symbols_read(data.x, loaded, "sequences")
        return run_network(loaded, data)[0]


def compile_model(model: Any) -> Runtime:
    """A network ready to run step by step in compiled code; see `Runtime`.

    Args:
        model: a `Model`, or anything that `modelflex.load` reads, such as the folder of an artefact; a
            ladder beside it says how budgets are spent.

    Raises:
        UserError: anything wrong with the model or its ladder, or the native kernels were not built.
    """
    loaded = model if isinstance(model, Model) else load_model(model)
    runtime = Runtime(build_program(loaded))
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        ladder = (path if path.is_dir() else path.parent) / LADDER_JSON
        terms = all_terms(loaded)
        if terms and os.path.lexists(ladder):  # what is no file is refused
            runtime.ladder = read_ladder(ladder, terms)
    return runtime


def analyze_model(path: Path, data: Path | None) -> dict[str, Any]:
    """What `modelflex analyze` shows; see `search.analysis.analyze`."""
    model = load_model(path)
    with threadpool_limits(1):
        stats = None if data is None else calibrate(model, load_sequences(data))
        return analyze(model, stats)


def say_if_slow(say: Callable[[str], None]) -> None:
    """Tell the user when the native kernels are missing."""
    if NATIVE_ERROR is not None:
        say(
            f"The native kernels cannot be loaded ({NATIVE_ERROR}): running in pure Python, slower."
        )
    elif not HAVE_NATIVE:
        say("ModelFlex was installed without a C compiler: running in pure Python, slower.")
