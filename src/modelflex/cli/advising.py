"""Commands that advise on methods and allot them to weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app, err
from modelflex.core.cost import COST_UNITS
from modelflex.core.files import replacing
from modelflex.report.advice import advice_text, allocation_text, space_toml
from modelflex.report.summary import strict_json
from modelflex.search.allocate import Budget, Measured
from modelflex.search.config import parse_config, read_toml
from modelflex.units import parse_quantity

NOT_WITHIN = 3


@app.command(
    epilog="Example: modelflex advise examples/japanese_vowels/weights/seed0 "
    "examples/japanese_vowels/data/train.npz --out space.toml"
)
def advise(
    model: Annotated[
        Path,
        typer.Argument(help="A model: folder, model.json, .safetensors, .pt", show_default=False),
    ],
    data: Annotated[
        Path | None,
        typer.Argument(help="Sequences (.npz); without them only sizes speak.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=r"Write the advised [\[space]] of a configuration here.")
    ] = None,
    as_json: Json = False,
) -> None:
    r"""Which methods to try first on a network and why, from its hidden states, sizes and inputs.

    A configuration without [\[space]] searches the same space.
    """
    found, grids = pipeline.advise_model(model, data)
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(space_toml(grids), encoding="utf-8")
    if as_json:
        print(json.dumps(strict_json({**found.to_json(), "space": grids}), indent=1))
        return
    Console().print(advice_text(found))
    if out is not None:
        print(f"space: {out}")


@app.command(
    epilog="Example: modelflex allocate examples/japanese_vowels/modelflex.toml "
    "--minimize weight_bytes --divergence 0.03 --out runs/japanese_vowels"
)
def allocate(
    config: Annotated[Path, typer.Argument(help="The configuration (TOML).", show_default=False)],
    minimize: Annotated[
        Literal["weight_bytes", "weight_fetch_bytes_per_step", "macs_per_step"],
        typer.Option(help="What is to be saved; with --limit, what is limited."),
    ] = "weight_fetch_bytes_per_step",
    divergence: Annotated[
        float | None, typer.Option(help="The most divergence from the uncompressed network.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(help="The most of it, such as '8 kB': then the divergence is least."),
    ] = None,
    evaluations: Annotated[int, typer.Option(help="The most full evaluations.", min=3)] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the study and the artefact.")] = Path(
        "runs/allocation"
    ),
    as_json: Json = False,
) -> None:
    """Give each weight a choice of its own, of those that the configuration's space makes for it.

    In the folder of a search it uses what was evaluated there, and shows the best of its recipes.
    A choice that does not fit a weight is not offered to it. Nonlinearities are not allotted: the
    recipe has those that all of the space agree on, else exact ones.
    Exit code 0: a recipe is within the budget; 3: none was found.
    """
    most = None if limit is None else parse_quantity(limit, COST_UNITS[minimize], "--limit")
    budget = Budget(minimize, limit=most, divergence=divergence)
    checked = parse_config(read_toml(config), config.resolve().parent)
    sys.path.insert(0, str(config.resolve().parent))  # where a user's quality function may lie
    pipeline.say_if_slow(err.print)

    def tell(made: Measured) -> None:
        err.print(
            f"{made.kind:>9}: divergence {made.divergence:.4g} (expected {made.predicted:.4g}), "
            f"{minimize} {made.cost:.4g}",
            highlight=False,
            soft_wrap=True,
        )

    made, before = pipeline.allocate_config(checked, out, budget, evaluations, tell)
    if as_json:
        print(json.dumps(strict_json({**made.to_json(), "best_of_space": before}), indent=1))
    else:
        console = Console()
        console.print(allocation_text(made, budget, before))
        console.print(f"artefact: {out / pipeline.ALLOCATED}", highlight=False, soft_wrap=True)
    if not made.within:
        raise typer.Exit(NOT_WITHIN)
