"""Commands on studies and models: search, retarget, analyze, explain."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from modelflex import pipeline
from modelflex.cli.app import Json, app, err
from modelflex.report.explain import explain_json, explain_text
from modelflex.report.model import analysis_text
from modelflex.report.summary import strict_json
from modelflex.report.terminal import terminal_table
from modelflex.search.config import parse_config, read_toml
from modelflex.search.driver import Progress
from modelflex.search.workers import MAX_WORKERS

NOTHING_FEASIBLE = 3


@contextmanager
def progress_bar(best: bool = True) -> Iterator[Callable[[Progress], None]]:
    """A bar with ETA and perhaps the best so far, on stderr; it appears when the evaluation begins."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    bar = Bar(*columns, console=err, transient=False)
    task = bar.add_task("evaluating", total=None, best="")
    with ExitStack() as shown:

        def tell(progress: Progress) -> None:
            if not bar.live.is_started:
                shown.enter_context(bar)
            text = "no recipe within all limits yet" if best else ""
            if best and progress.best is not None:
                text = f"best {progress.best[0]:.5g}, divergence {progress.best[1]:.3g}"
            bar.update(task, completed=progress.done, total=progress.total, best=text)

        yield tell


def _finish(result: pipeline.Result, as_json: bool) -> None:
    """Print the outcome; exit code 3 when nothing is within all limits."""
    if as_json:
        print(json.dumps(result.summary(), indent=1))
    else:
        console = Console()
        console.print(terminal_table(result.study))
        if result.missing:
            console.print(
                f"{result.missing} recipes that fit the hardware limits were not evaluated; "
                "`modelflex search` with this configuration evaluates those that can matter."
            )
        for note in result.study.notes:
            console.print(f"Note: {escape(note)}")
        for name, path in result.summary()["paths"].items():
            console.print(f"{name:>9}: {path}", highlight=False, soft_wrap=True)
    if result.best is None:
        raise typer.Exit(NOTHING_FEASIBLE)


@app.command(
    epilog="Example: modelflex search examples/japanese_vowels/modelflex.toml --out runs/japanese_vowels"
)
def search(
    config: Annotated[Path, typer.Argument(help="The configuration (TOML).", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the study, artefact and report.")] = Path(
        "runs/study"
    ),
    workers: Annotated[
        int | None, typer.Option(help="Processes; 0 means one a core.", min=0, max=MAX_WORKERS)
    ] = None,
    exhaustive: Annotated[
        bool,
        typer.Option("--exhaustive", help="Evaluate all recipes that fit the hardware limits."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Search compressions of a trained network: price all, evaluate what can matter, pick, report.

    The same command continues a search that was interrupted. Exit code 0: a recipe is within all
    limits; 3: none is; 2: something given is wrong.
    """
    checked = parse_config(read_toml(config), config.resolve().parent)
    sys.path.insert(0, str(config.resolve().parent))  # where a user's quality function may lie
    pipeline.say_if_slow(err.print)
    with progress_bar() as tell:
        result = pipeline.search_config(
            checked, out, workers=workers, exhaustive=exhaustive, tell=tell
        )
    _finish(result, as_json)


@app.command(epilog="Example: modelflex retarget runs/japanese_vowels --config tighter.toml --json")
def retarget(
    study: Annotated[
        Path, typer.Argument(help="The output folder of a search.", show_default=False)
    ],
    config: Annotated[
        Path | None, typer.Option(help="TOML tables that replace those of the search.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Answer for other limits, another objective or platform from what was evaluated, in seconds.

    CONFIG may hold the tables limits, objective and platform; each replaces the search's whole table
    of that name. Nothing is evaluated anew and nothing is
    written but the test score of a new pick.
    """
    _finish(pipeline.retarget(study, config), as_json)


@app.command(epilog="Example: modelflex analyze examples/japanese_vowels/weights/seed0 --json")
def analyze(
    model: Annotated[
        Path,
        typer.Argument(help="A model: folder, model.json, .safetensors, .pt", show_default=False),
    ],
    data: Annotated[
        Path | None, typer.Option(help="Sequences (.npz) for the rank of the hidden states.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Layers, shapes, parameters, operations a step, bytes; with --data the hidden states' rank."""
    found = pipeline.analyze_model(model, data)
    if as_json:
        print(json.dumps(strict_json(found), indent=1))
    else:
        Console().print(analysis_text(found))


@app.command(epilog="Example: modelflex explain runs/japanese_vowels 17")
def explain(
    study: Annotated[
        Path, typer.Argument(help="The output folder of a search.", show_default=False)
    ],
    trial: Annotated[int, typer.Argument(help="Number of a trial.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Why a recipe was picked, not picked, rejected or skipped."""
    result = pipeline.retarget(study, None, scored=False)
    if as_json:
        print(json.dumps(strict_json(explain_json(result.study, trial)), indent=1))
    else:
        Console().print(explain_text(result.study, trial))
