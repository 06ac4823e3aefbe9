"""The command line: reads arguments, calls the pipeline, prints what it returns."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from modelflex import pipeline
from modelflex.cli import advising, comparing, exploring, exporting, fitting, refining, simulate
from modelflex.cli.app import INTERRUPTED, app
from modelflex.errors import UserError

__all__ = [
    "advising",
    "app",
    "comparing",
    "exploring",
    "exporting",
    "fitting",
    "main",
    "refining",
    "simulate",
]

KEEPING = (["search"], ["compare"], ["allocate"])
"""Commands that continue what was interrupted."""
USAGE_ERROR: Any = typer.BadParameter.__base__
"""Wrong arguments of any kind: the parent of what typer exports lies in no public module."""


def _version(wanted: bool) -> None:
    if wanted:
        print(pipeline.versions()["modelflex"])
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; users' mistakes end it with one line and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=given or ["--help"], prog_name="modelflex", standalone_mode=False) or 0
    except UserError as error:
        print(f"modelflex: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except USAGE_ERROR as error:
        text = " ".join(error.format_message().split()).rstrip(".")
        path = error.ctx.command_path if error.ctx else "modelflex"
        print(f"modelflex: {text}; see {path} --help", file=sys.stderr)
        sys.exit(UserError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        kept = "; finished trials are kept, the same command continues"
        print(f"modelflex: interrupted{kept if given[:1] in KEEPING else ''}", file=sys.stderr)
    sys.exit(code)
