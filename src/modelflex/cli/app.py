"""The application that commands register with, and what they share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    name="modelflex",
    help="Fit a trained recurrent network into an edge device's budget, without retraining.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts.")]
err = Console(stderr=True)
INTERRUPTED = 130
