"""What the command `modelflex` starts. It lies outside the package, whose import takes a second, so that
Ctrl-C within that second ends the command as it does later: one line, exit code 130.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


def _stop(number: int, frame: FrameType | None) -> None:
    # No exception: what is being imported might catch it. Nothing is open that would want closing.
    os.write(2, b"modelflex: interrupted\n")
    os._exit(128 + number)  # as shells do


def main() -> Any:
    """Run the command line; see `modelflex.cli.main`."""
    before = signal.getsignal(signal.SIGINT)
    watched = before is signal.default_int_handler  # not where a shell has it ignored
    if watched:
        signal.signal(signal.SIGINT, _stop)
    from modelflex.cli import main as run

    if watched:
        signal.signal(signal.SIGINT, before)
    return run()
