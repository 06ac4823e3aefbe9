"""The platform `cpu` where the native kernels were not built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .refusal import one_line


def test_it_is_refused_in_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelflex._native", None)
    message = one_line(capsys, "simulate", str(project.parent), "--platform", "cpu")
    assert message.startswith("the native kernels cannot be loaded (they were not built)")
