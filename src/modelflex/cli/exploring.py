"""The command explore-fpga: the design space of an engine for progressive LSTM inference."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from modelflex import pipeline
from modelflex.cli.app import Json, app
from modelflex.report.exploring import explored_text


@app.command(
    name="explore-fpga",
    epilog="Examples: modelflex explore-fpga --rows 64 --columns 8320 --nz 32,130,4160 --steps 3,5,62 "
    "--chip zc706 --word-bits 32 --bandwidth '8.2 GB/s' --json; modelflex explore-fpga --rows 64 "
    "--columns 8320 --nz 32,130,4160 --deadline '20 us' --chip kv260",
)
def explore_fpga(
    rows: Annotated[int, typer.Option(help="R: units of the LSTM, rows of a gate.")],
    columns: Annotated[int, typer.Option(help="C: its inputs and units, columns of a gate.")],
    nz: Annotated[
        str, typer.Option(help="NZ: inputs that a term keeps, numbers with commas between them.")
    ],
    steps: Annotated[
        str | None,
        typer.Option(help="Numbers of terms, with commas between them.", show_default=False),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            help="Such as '50 us' in place of --steps: as many terms as it allows.",
            show_default=False,
        ),
    ] = None,
    chip: Annotated[str, typer.Option(help="Name of a shipped FPGA, or a .toml file.")] = "zc706",
    word_bits: Annotated[int, typer.Option(help="16 (fixed point) or 32 (single precision).")] = 16,
    bandwidth: Annotated[
        str | None,
        typer.Option(help="Such as '8.2 GB/s' instead of the chip's.", show_default=False),
    ] = None,
    utilization: Annotated[
        float, typer.Option(help="Share of each resource that designs may take.")
    ] = 1.0,
    objective: Annotated[
        str,
        typer.Option(help="What is least: time (between two results) or latency (to the first)."),
    ] = "time",
    as_json: Json = False,
) -> None:
    """Find the fastest engine on an FPGA that refines an LSTM's gates term by term.

    Every number of rows and inputs a cycle is tried, for each NZ and number of terms, against the
    chip's DSP slices, LUTs, flip-flops, block RAMs and memory bandwidth; beside it the dense engine.
    """
    found = pipeline.explore_fpga(
        chip,
        rows,
        columns,
        nz,
        steps=steps,
        deadline=deadline,
        word_bits=word_bits,
        bandwidth=bandwidth,
        utilization=utilization,
        objective=objective,
    )
    if as_json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        Console().print(explored_text(found), soft_wrap=True)  # no digit is cut off
