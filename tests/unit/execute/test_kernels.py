"""Which kernels are taken, and why native ones are not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator

import pytest

import modelflex
from modelflex.execute import kernels


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = dict(vars(kernels))
    yield
    vars(kernels).update(before)


class Failing:
    """A finder under which the native module fails to load."""

    def __init__(self, error: ImportError) -> None:
        self.error = error

    def find_spec(self, name: str, *_: object) -> None:
        if name == "modelflex._native":
            raise self.error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'modelflex._native'"), None),
        (ImportError("undefined symbol: PyX"), "undefined symbol: PyX"),
    ],
)
def test_a_broken_native_module_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, told: str | None
) -> None:
    monkeypatch.delitem(sys.modules, "modelflex._native", raising=False)
    monkeypatch.delattr(modelflex, "_native", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Failing(error), *sys.meta_path])
    importlib.reload(kernels)
    assert not kernels.HAVE_NATIVE
    assert told == kernels.NATIVE_ERROR
    assert not kernels.KERNELS.native
