"""Damaged artefacts and random plans: refused, or run as the interpreter runs them; never a crash.

MODELFLEX_FUZZ=N makes N times as many.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelflex.execute.kernels import HAVE_NATIVE

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

TIMES = int(os.environ.get("MODELFLEX_FUZZ", "1"))
FUZZ = Path(__file__).with_name("fuzz_native.py")


@pytest.mark.parametrize(("what", "count"), [("artefacts", 150), ("plans", 400)])
def test_nothing_crashes(what: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZ), what, "0", str(count * TIMES)], capture_output=True, text=True
    )
    last = done.stdout.strip().rsplit("\n", 1)[-1]
    assert done.returncode == 0, f"{last}: exit code {done.returncode}\n{done.stderr[-3000:]}"
