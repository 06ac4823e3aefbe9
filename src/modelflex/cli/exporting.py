"""Commands that write models as source code or ONNX, and validate code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app
from modelflex.report.summary import strict_json
from modelflex.report.validation import validation_text
from modelflex.units import show_quantity

DIFFERS = 3


@app.command(
    epilog="Example: modelflex export runs/japanese_vowels/best --format c99 --out runs/japanese_vowels/c99"
)
def export(
    model: Annotated[
        Path,
        typer.Argument(help="A model: folder, model.json, .safetensors, .pt", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for the code, or a file (.onnx); an earlier export is replaced.",
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", help="c99, onnx (a step) or onnx-sequence (floats).")
    ] = "c99",
    name: Annotated[
        str | None, typer.Option(help="What symbols and files begin with (the model's name).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model as self-contained C99, or as an ONNX graph.

    C99: no heap, no recursion, no library but libm for floats; the folder holds a self-test (`make
    test`), and the model for `modelflex validate`. ONNX: one step, or (uncompressed models) all
    steps by ONNX's LSTM and GRU; state in and out, checked with onnxruntime.
    """
    written = pipeline.export_model(model, out, form, name)
    if as_json:
        print(json.dumps(strict_json(written), indent=1))
        return
    sizes = ", ".join(f"{k} {show_quantity(v, 'B')}" for k, v in written["bytes"].items())
    lines = [f"{written['symbol']}: {sizes}"]
    if written["symbol"] != (written["name"] if name is None else name):
        lines.append(
            f"name: {written['symbol']}, as the model's is no prefix of C (or give --name)"
        )
    if "file" in written:
        lines += [f"file: {written['file']}", f"checked: {_checked(written['checked'])}"]
    else:
        lines += [f"folder: {out}", f"to check it: modelflex validate {shlex.quote(str(out))}"]
    for line in lines:
        Console().print(line, highlight=False, soft_wrap=True, markup=False)


def _checked(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "no, onnxruntime is not installed (pip install 'modelflex[onnx]')"
    error = found["largest_error"]
    result = f"within {error:.2g} of" if error else "equal to"
    return f"onnxruntime {found['onnxruntime']} is {result} the interpreter over {found['steps']} steps"


@app.command(epilog="Example: modelflex validate runs/japanese_vowels/c99 --data test.npz")
def validate(
    folder: Annotated[
        Path, typer.Argument(help="A folder that `export` wrote.", show_default=False)
    ],
    data: Annotated[
        Path | None, typer.Option(help="Sequences (.npz); without them the golden vectors.")
    ] = None,
    cc: Annotated[str | None, typer.Option(help="The C compiler ($CC, or cc).")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page (validation.html in the folder).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile exported code in a temporary folder and compare it with the interpreter, step by step.

    Exit code 0: every step is equal (floats: within the tolerance); 3: some are not; 2: the folder
    was altered, there is no compiler, or something given is wrong.
    """
    found, page = pipeline.validate_export(folder, data, cc, out)
    if as_json:
        print(json.dumps(strict_json({**found.to_json(), "page": str(page)}), indent=1))
    else:
        console = Console()
        console.print(validation_text(found))
        console.print(f"page: {page}", highlight=False, soft_wrap=True, markup=False)
    if not found.passed:
        raise typer.Exit(DIFFERS)
