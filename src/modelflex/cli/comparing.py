"""Comparing all methods on one model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app, err
from modelflex.cli.fitting import progress_bar
from modelflex.core.data import Draw
from modelflex.report.compare import comparison_text
from modelflex.report.summary import strict_json
from modelflex.search.workers import MAX_WORKERS


@app.command(
    epilog="Example: modelflex compare examples/japanese_vowels/weights/seed0 "
    "examples/japanese_vowels/data/train.npz --validation "
    "examples/japanese_vowels/data/validation.npz --out runs/compare"
)
def compare(
    model: Annotated[Path, typer.Argument(help="The trained network.", show_default=False)],
    data: Annotated[Path, typer.Argument(help="Calibration sequences (.npz).", show_default=False)],
    validation: Annotated[
        Path | None, typer.Option(help="Held-out sequences; without it a third of DATA.")
    ] = None,
    test: Annotated[
        Path | None, typer.Option(help="Sequences that score the best of each family, once.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(help="classification, per_step, next_symbol, regression, none (no labels)."),
    ] = "classification",
    only: Annotated[str, typer.Option(help="Families to compare, such as 'hybrid*'.")] = "*",
    rounds: Annotated[int, typer.Option(help="Rounds of recalibration.", min=0, max=20)] = 2,
    limit: Annotated[
        int | None, typer.Option(help="Calibrate on at most so many sequences.", min=1)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the study, table and page.")] = Path(
        "runs/compare"
    ),
    seed: Annotated[int, typer.Option(help="Of the draw of sequences.", min=0)] = 0,
    workers: Annotated[
        int, typer.Option(help="Processes; 0 means one a core.", min=0, max=MAX_WORKERS)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Compress a network by every method, naive and data-aware, and put the results side by side.

    The same command continues a comparison that was interrupted.
    """
    pipeline.say_if_slow(err.print)
    with progress_bar(best=False) as tell:
        found = pipeline.compare(
            model,
            data,
            validation=validation,
            test=test,
            task=task,
            only=only,
            rounds=rounds,
            draw=Draw(limit),
            seed=seed,
            workers=workers,
            out=out,
            tell=tell,
        )
    if as_json:
        print(json.dumps(strict_json(found.to_json()), indent=1))
        return
    console = Console()
    console.print(comparison_text(found))
    for name, file in (("page", pipeline.REPORT), ("table", pipeline.TABLE)):
        console.print(f"{name:>6}: {out / file}", highlight=False, soft_wrap=True)
