"""Fingerprints tell functions apart by what they compute, and are equal in every process."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.fingerprint import fingerprint, module_fingerprint

SCRIPT = """
import functools
import math
import numpy as np
from modelflex.core.fingerprint import fingerprint

WORDS = {"b", "a", "c", "d"}
K = 1

def helper(x):
    return helper(x - 1) if x > K else np.mean(x)

def metric(outputs, y, lengths, *, power=2.0):
    import fractions
    low = {"north", "south", "east", "west"}
    return [helper(o) ** power for o in outputs if o in {"left", "right", "up"} or o in WORDS | low]

print(fingerprint(metric))
print(fingerprint(functools.partial(metric, y=np.arange(3))))
print(fingerprint(lambda *a: K * len(a)))
"""


def printed(script: str, seed: int) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
    )  # fmt: skip
    return done.stdout.split()


def test_every_process_finds_the_same() -> None:
    first = printed(SCRIPT, 1)
    assert len(set(first)) == 3
    assert "None" not in first
    assert printed(SCRIPT, 2) == first
    other = printed(SCRIPT.replace("K = 1", "K = 2"), 1)
    assert not set(other) & set(first)
    assert printed(SCRIPT.replace("x - 1", "x - 2"), 1)[:2] != first[:2]


def scaled(k: Any) -> Any:
    return lambda outputs, y, lengths: k * outputs


def defaulted(k: Any) -> Any:
    return lambda outputs, y, lengths, factor=k, *, other=1: factor * outputs


def powered(outputs: Any, y: Any, lengths: Any, power: Any = 1) -> Any:
    return outputs**power


VALUES = (
    1, 1.0, 2, True, "1", b"1", None, np.float32(1), np.arange(3), np.arange(3.0), np.arange(4),
    (1, 2), [1, 2], {"a": 1}, {1, 2}, np.mean, np.exp, len, abs, np.float32, np, os,
)  # fmt: skip


@pytest.mark.parametrize("make", [scaled, defaulted, lambda k: functools.partial(powered, power=k)])
def test_closures_defaults_and_partials_count(make: Any) -> None:
    found = [fingerprint(make(value)) for value in VALUES]
    assert None not in found
    assert len(set(found)) == len(VALUES)
    assert [fingerprint(make(value)) for value in VALUES] == found


class Stateful:
    def __call__(self, *_: Any) -> float:
        return 1.0

    def method(self, *_: Any) -> float:
        return 1.0


def unset() -> Any:
    def metric(*_: Any) -> Any:
        return later

    found = fingerprint(metric)
    later = 1
    return found, later


def test_what_cannot_be_told_has_no_fingerprint() -> None:
    for value in (Stateful(), Stateful().method, np.random.default_rng(0).normal):
        assert fingerprint(value) is None
        assert fingerprint(scaled(value)) is None
    assert fingerprint(scaled(np.array([{}]))) is None
    assert unset()[0] is None


def test_cycles_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    other: list[Any] = [2]
    other.append(other)
    assert fingerprint(scaled(loop)) not in (None, fingerprint(scaled(other)))


def test_modules_count_by_their_files_and_those_that_they_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    names = ("fp_judge", "fp_helper", "fp_deep")

    def found(**changes: str) -> str | None:
        texts = {
            "fp_judge": "from fp_helper import f\nK = 1\ndef metric(*a): return K * f(a)\n",
            "fp_helper": "import fp_deep\ndef f(a): return fp_deep.g(a)\n",
            "fp_deep": "import numpy as np\nTABLE = object()\ndef g(a): return np.mean(a)\n",
        }
        for name in names:
            (tmp_path / f"{name}.py").write_text(changes.get(name, texts[name]), encoding="utf-8")
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        module = importlib.import_module("fp_judge")
        assert fingerprint(module.metric) is not None
        return module_fingerprint("fp_judge", module.metric)

    first = found()
    assert first is not None
    assert found() == first
    changes = {
        "fp_judge": "from fp_helper import f\nK = 100\ndef metric(*a): return K * f(a)\n",
        "fp_helper": "import fp_deep\ndef f(a): return fp_deep.g(a) + 1\n",
        "fp_deep": "import numpy as np\nTABLE = object()\ndef g(a): return np.median(a)\n",
    }
    every = {first, *(found(**{name: text}) for name, text in changes.items())}
    assert len(every) == 4
    assert None not in every
    found()
    (tmp_path / "fp_judge.py").unlink()
    assert module_fingerprint("fp_judge", sys.modules["fp_judge"].metric) is None
    for name in names:
        sys.modules.pop(name, None)


def test_installed_modules() -> None:
    import math

    assert module_fingerprint("math", math.hypot) not in (
        None,
        module_fingerprint("math", math.dist),
    )
