"""A sweep from its file to a table, a page of plots and a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from modelflex.core.files import replacing
from modelflex.errors import UserError
from modelflex.importers.models import load_model
from modelflex.pipeline.table_files import has_parquet, table_file
from modelflex.platforms.systolic.sweep import SweepSummary, Tell, run_sweep, swept_chip
from modelflex.platforms.systolic.sweep_config import SweepConfig, WorkloadConfig, parse_sweep
from modelflex.platforms.systolic.topology import read_topology
from modelflex.platforms.systolic.workload import Gemm, Workload
from modelflex.report.summary import strict_json
from modelflex.report.sweep import render_sweep
from modelflex.report.sweep_text import records_of
from modelflex.search.config import read_toml

SCHEMA: Final = "modelflex.sweep/1"
PAGE: Final = "sweep.html"
SUMMARY: Final = "summary.json"


def simulate_sweep(
    path: Path, folder: Path, tell: Tell = lambda done, total: None
) -> dict[str, Any]:
    """Run the sweep of a file; the files in `folder` appear whole, together, or not at all.

    Writes the table (sweep.parquet with pyarrow, else sweep.csv, unless the file names one),
    sweep.html and summary.json.

    Args:
        path: the sweep (TOML); see `sweep_config`.
        folder: made if need be.
        tell: told points done and points in all, often.

    Returns:
        What summary.json holds: points, infeasible, best rows, front, notes and paths.

    Raises:
        UserError: the file, its workload or its chip is wrong, or the folder cannot be written.
    """
    config = parse_sweep(read_toml(path), path.resolve().parent)
    layers = read_workload(config.workload)
    if config.chip is not None:
        swept_chip(config.chip)  # a wrong one is refused before a folder is made
    table = config.output.table or ("sweep.parquet" if has_parquet() else "sweep.csv")
    paths = {"table": folder / table, "page": folder / PAGE, "summary": folder / SUMMARY}
    _prepare(folder, paths.values())
    # All are complete before the first one takes its place: an earlier sweep stays whole.
    with (
        replacing(paths["page"]) as page,
        replacing(paths["summary"]) as told,
        table_file(paths["table"]) as write,
    ):
        found = run_sweep(config, layers, write, tell)
        page.write_text(render_sweep(found, config, layers, path.stem), encoding="utf-8")
        summary = _summary(found, config, layers, paths)
        told.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def read_workload(config: WorkloadConfig) -> list[Workload]:
    """The layers, in the order in which they run.

    Raises:
        UserError: a model or topology that cannot be read, a product that is too large.
    """
    if config.model is not None:
        weights = load_model(config.model).weights
        return [Gemm(name, config.batch, *weight.shape) for name, weight in weights.items()]
    if config.topology is not None:
        return list(read_topology(Path(config.topology)))
    names = config.names or tuple(f"gemm_{i}" for i in range(1, len(config.gemm) + 1))
    return [Gemm(name, *sizes) for name, sizes in zip(names, config.gemm, strict=True)]


def _prepare(folder: Path, files: Iterable[Path]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{folder}' cannot be made ({error})", "a folder") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder '{folder}' may not be written", "a writable folder")
    for file in files:
        if file.is_dir():
            raise UserError(f"'{file}' is a folder", "a file, or nothing")


def _summary(
    found: SweepSummary, config: SweepConfig, layers: list[Workload], paths: Mapping[str, Path]
) -> dict[str, Any]:
    summary: dict[str, Any] = strict_json(
        {
            "schema": SCHEMA,
            "points": found.points,
            "infeasible": found.infeasible,
            "layers": [
                {"name": layer.name, **dict(zip("mnk", map(int, layer.shape[:3]), strict=True))}
                for layer in layers
            ],
            "axes": {axis.name: axis.labels() for axis in config.axes if axis.size <= 1000},
            "chip": None if config.chip is None else vars(config.chip),
            "best": found.best,
            "objectives": found.objectives,
            "front": records_of(found.front),
            "front_thinned": found.thinned,
            "notes": found.notes,
            "paths": {name: str(path) for name, path in paths.items()},
        }
    )
    return summary
