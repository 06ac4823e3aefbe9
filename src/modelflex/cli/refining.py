"""The command refine: networks whose answers get better term by term."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app, counting_bar
from modelflex.errors import UserError
from modelflex.progressive.refining import Refinement
from modelflex.report.refining import refined_text
from modelflex.report.summary import strict_json


@app.command(
    epilog="Example: modelflex refine examples/japanese_vowels/weights/seed0 --data train.npz "
    "--quality 0.01 --out runs/progressive"
)
def refine(
    model: Annotated[
        Path,
        typer.Argument(help="A model: folder, model.json, .safetensors, .pt", show_default=False),
    ],
    data: Annotated[Path, typer.Option(help="Sequences it will see (.npz); labels are optional.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the progressive model.", show_default=False)
    ] = None,
    scheme: Annotated[
        str, typer.Option(help="whitened (fitted to the data), refit or published.")
    ] = "whitened",
    kept: Annotated[
        str,
        typer.Option(
            help="Shares of each v that are kept, with commas between them; each is tried."
        ),
    ] = "1",
    per_gate: Annotated[
        bool, typer.Option("--per-gate", help="A v for each gate, as the FPGA engine computes.")
    ] = False,
    block: Annotated[int, typer.Option(help="1, or 8 numbers kept together (for CPUs).")] = 1,
    importance: Annotated[
        str,
        typer.Option(
            help="What errors of results weigh: none, diagonal, full, outputs; all are tried in turn."
        ),
    ] = "diagonal,full",
    terms: Annotated[
        int | None,
        typer.Option(
            help="Terms of each weight.", show_default="its rank, or 1.5 × the dense cost"
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(
            help="Of the terms' codes, 4 to 8, in compressed models.", show_default="floats"
        ),
    ] = None,
    task: Annotated[
        str, typer.Option(help="Whose figure is shown too, where data have labels.")
    ] = "none",
    quality: Annotated[
        float | None, typer.Option(help="Divergence to reach, cheapest.", show_default="0.01")
    ] = None,
    operations: Annotated[
        float | None, typer.Option(help="Operations a step to use best.", show_default=False)
    ] = None,
    deadline_s: Annotated[
        float | None, typer.Option(help="Seconds a step to use best.", show_default=False)
    ] = None,
    on: Annotated[
        str, typer.Option(help="Where: cpu (this one), or an FPGA such as zc706.")
    ] = "cpu",
    word_bits: Annotated[int, typer.Option(help="Words of the FPGA: 16 or 32.")] = 32,
    tune: Annotated[
        int,
        typer.Option(
            help="Steps in which all terms are fitted together, without labels; 2000 take minutes.",
            min=0,
            max=100_000,
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Turn a network's recurrent weights into terms, the most informative first.

    A step may then stop after any term: `Runtime.step(x, budget=…)` or `deadline_s=…`, and exported C
    likewise. Shows what few and many terms cost and how far the answers are from the dense network's.
    """
    weighings = importance.split(",") if scheme == "whitened" else ["none"]
    settings = [
        Refinement(scheme, share, per_gate, block, weighing, terms, bits)
        for share in _shares(kept)
        for weighing in weighings
    ]
    with counting_bar("tuning") as tell:
        offers, found = pipeline.refine_model(
            model,
            data,
            out,
            settings=settings,
            task=task,
            quality=quality,
            operations=operations,
            deadline_s=deadline_s,
            on=on,
            word_bits=word_bits,
            tuning_steps=tune,
            tell=tell,
        )
    if as_json:
        print(json.dumps(strict_json(found), indent=1))
        return
    console = Console()
    console.print(refined_text(offers, found))
    if out is not None:
        console.print(f"folder: {out}", highlight=False, soft_wrap=True, markup=False)
        code = f"modelflex export {shlex.quote(str(out))} --format c99 --out DIR"
        console.print(f"as C: {code}", highlight=False, soft_wrap=True, markup=False)


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"kept is '{text}'", "numbers with commas between them") from None
