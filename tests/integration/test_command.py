"""The command as it starts: Ctrl-C before everything is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import modelflex

ROOT = Path(__file__).resolve().parents[2]

STOPPED_WHILE_LOADING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
signal.signal(signal.SIGINT, signal.{handler})
sys.path.append("{source}")  # behind what is installed
from modelflex_command import main
sys.argv[1:] = ["--version"]
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("module", ["modelflex", "numpy", "modelflex.cli"])
@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_IGN"])
def test_an_interrupt_while_the_command_loads_is_one_line(module: str, handler: str) -> None:
    """Unless who started it has the signal ignored: a job in a shell's background."""
    code = STOPPED_WHILE_LOADING.format(
        module=module, handler=handler, source=(ROOT / "src").as_posix()
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if handler == "SIG_IGN":
        version = modelflex.pipeline.versions()["modelflex"]
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{version}\n", "")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (130, "", "modelflex: interrupted\n")


def test_the_command_starts_where_interrupts_are_seen_to() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"modelflex": "modelflex_command:main"}
