"""The command simulate: layers on a systolic array, sweeps over arrays, models on any platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app, counting_bar
from modelflex.errors import UserError
from modelflex.pipeline.simulate import ArrayOptions
from modelflex.report.simulate import layers_text, priced_text, sweep_text

SYSTOLIC = "systolic"
DEFAULT_OUT = Path("runs/sweep")

_ARRAY = "Array (with systolic)"
_LAYERS = "Layers (with systolic)"
_MODEL = "Model (with a model)"


def _option(text: str, panel: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=False)


@app.command(
    epilog="Examples: modelflex simulate systolic --rows 32 --cols 32 --dataflow os --gemm 1,4096,1056 "
    "--ifmap-kb 1024 --filter-kb 2048 --ofmap-kb 1024 --json; modelflex simulate "
    "examples/japanese_vowels/weights/seed0 --platform bitfusion_32x32"
)
def simulate(
    target: Annotated[
        str,
        typer.Argument(
            help="'systolic' for layers on an array, or a model: folder, model.json, .safetensors, .pt.",
            show_default=False,
        ),
    ],
    rows: Annotated[int | None, _option("Rows of the array (32).", _ARRAY, "--rows")] = None,
    cols: Annotated[int | None, _option("Columns of the array (32).", _ARRAY, "--cols")] = None,
    dataflow: Annotated[
        str | None, _option("os, ws or is: what stays in the array (os).", _ARRAY, "--dataflow")
    ] = None,
    ifmap_kb: Annotated[
        int | None, _option("Input buffer, 1024 words (1024).", _ARRAY, "--ifmap-kb")
    ] = None,
    filter_kb: Annotated[
        int | None, _option("Weight buffer, 1024 words (2048).", _ARRAY, "--filter-kb")
    ] = None,
    ofmap_kb: Annotated[
        int | None, _option("Output buffer, 1024 words (1024).", _ARRAY, "--ofmap-kb")
    ] = None,
    bandwidth: Annotated[
        float | None,
        _option("Words a cycle to DRAM for each operand (unlimited).", _ARRAY, "--bandwidth"),
    ] = None,
    config: Annotated[
        Path | None,
        _option("The array from a SCALE-Sim .cfg instead of options.", _ARRAY, "--config"),
    ] = None,
    compat: Annotated[
        str | None,
        _option("Numbers of a peer, quirks included: scalesim-3.0.0.", _ARRAY, "--compat"),
    ] = None,
    gemm: Annotated[
        str | None, _option("One product: M,N,K (ifmap M×K, filter K×N).", _LAYERS, "--gemm")
    ] = None,
    topology: Annotated[
        Path | None, _option("Layers of a SCALE-Sim topology .csv.", _LAYERS, "--topology")
    ] = None,
    batch: Annotated[int | None, _option("Inputs at once (1).", _LAYERS, "--batch")] = None,
    sweep: Annotated[
        Path | None, _option("Many arrays and layers: a sweep (TOML).", _LAYERS, "--sweep")
    ] = None,
    out: Annotated[
        Path | None, _option("Folder for a sweep's table and plots (runs/sweep).", _LAYERS, "--out")
    ] = None,
    platform: Annotated[
        str | None,
        _option("A platform's or spec's name, or a .toml file (systolic).", _MODEL, "--platform"),
    ] = None,
    recipe: Annotated[
        Path | None, _option("A recipe (JSON); 16 bits without one.", _MODEL, "--recipe")
    ] = None,
    data: Annotated[
        Path | None, _option("Sequences (.npz), which recipes with delta need.", _MODEL, "--data")
    ] = None,
    steps: Annotated[
        int | None, _option("Steps of a sequence (the data's mean, or 100).", _MODEL, "--steps")
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate layers on a systolic array, or price a model on a platform.

    With `systolic`: cycles, stalls, utilisation and memory accesses of a product, of a topology or of
    a whole sweep. With a model: its latency, energy and traffic, product by product.
    """
    options: dict[str, dict[str, Any]] = {
        _ARRAY: {
            "rows": rows, "cols": cols, "dataflow": dataflow, "ifmap-kb": ifmap_kb,
            "filter-kb": filter_kb, "ofmap-kb": ofmap_kb, "bandwidth": bandwidth,
            "config": config, "compat": compat,
        },
        _LAYERS: {
            "gemm": gemm, "topology": topology, "batch": batch, "sweep": sweep, "out": out,
        },
        _MODEL: {"platform": platform, "recipe": recipe, "data": data, "steps": steps},
    }  # fmt: skip
    given = {group: {k: v for k, v in of.items() if v is not None} for group, of in options.items()}
    if target == SYSTOLIC:
        _refuse(given[_MODEL], "belongs to a model", "a model in place of 'systolic'")
        _systolic(given[_ARRAY], given[_LAYERS], as_json)
        return
    _refuse(
        {**given[_ARRAY], **given[_LAYERS]},
        "belongs to 'systolic'",
        "'systolic' in place of a model",
    )
    priced = pipeline.price_model(
        target,
        pipeline.find_platform(SYSTOLIC if platform is None else platform),
        recipe=recipe,
        data=data,
        steps=steps,
    )
    _show(priced, priced_text(priced), as_json)


def _systolic(array: dict[str, Any], layers: dict[str, Any], as_json: bool) -> None:
    folder, batch = layers.pop("out", None), layers.pop("batch", None)
    if len(layers) != 1:
        found = " and ".join(f"--{name}" for name in layers) or "nothing to simulate"
        raise UserError(f"there is {found}", "one of --gemm, --topology and --sweep")
    if "sweep" in layers:
        _refuse(array, "stands beside --sweep", "axes in the sweep's file")
        if batch is not None:
            raise UserError("--batch stands beside --sweep", "workload.batch in the sweep's file")
        with counting_bar("simulating") as tell:
            swept = pipeline.simulate_sweep(layers["sweep"], folder or DEFAULT_OUT, tell)
        _show(swept, sweep_text(swept), as_json)
        return
    if folder is not None:
        raise UserError("--out is given without --sweep", "--out with --sweep")
    options, inputs = _array(array), 1 if batch is None else batch
    if "gemm" in layers:
        result = pipeline.simulate_gemm(layers["gemm"], options, inputs)
        _show(result, layers_text([result], None), as_json)
    else:
        result = pipeline.simulate_topology(layers["topology"], options, inputs)
        _show(result, layers_text(result["layers"], result["total_cycles"]), as_json)


_FIELDS = {"rows": "rows", "cols": "columns"} | {
    f"{operand}-kb": f"{operand}_kb" for operand in ("ifmap", "filter", "ofmap")
}
"""Option → size of the array."""


def _array(given: dict[str, Any]) -> ArrayOptions:
    config, compat = given.pop("config", None), given.pop("compat", None)
    if config is not None:
        _refuse(given, "stands beside --config", "one of both")
        return ArrayOptions.from_config(config, compat)
    sizes = {field: given.pop(name) for name, field in _FIELDS.items() if name in given}
    return ArrayOptions.from_sizes(sizes, **given, compat=compat)


def _refuse(given: dict[str, Any], reason: str, hint: str) -> None:
    if given:
        raise UserError(f"--{next(iter(given))} {reason}", hint)


def _show(result: dict[str, Any], text: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        Console().print(text, soft_wrap=True)  # no digit and no path is cut off
