"""The README's example of the runtime runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.execute.kernels import HAVE_NATIVE

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(not HAVE_NATIVE, reason="the native kernels were not built")
def test_the_example_of_the_runtime_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "modelflex.compile" in block]
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(code, names)
    whole, last, other = names["y"], names["out"], names["other"]
    np.testing.assert_allclose(last, whole[-1] if whole.ndim == 2 else whole, rtol=1e-5, atol=1e-5)
    x = names["x"][0]
    np.testing.assert_array_equal(other.step(x), names["runtime"].step(x))
