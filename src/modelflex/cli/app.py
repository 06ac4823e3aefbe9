"""The application that commands register with, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

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


@contextmanager
def counting_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time remaining, on stderr, from the first (done, of how many) on."""
    # Where nobody watches, a stopped bar would leave an empty line.
    columns = Progress.get_default_columns()
    with ExitStack() as shown:
        bar = Progress(*columns, console=err, transient=True, disable=not err.is_interactive)
        task = bar.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            if not bar.live.is_started:
                shown.enter_context(bar)
            bar.update(task, completed=done, total=total)

        yield tell
