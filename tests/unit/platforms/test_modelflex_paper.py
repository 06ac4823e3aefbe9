"""The benchmark of the paper's 36 solutions, run as users run it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(
        "modelflex_paper", BENCHMARKS / "modelflex_paper.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "modelflex_paper", module)
    spec.loader.exec_module(module)
    return module


def test_the_counts_of_feasible_solutions(benchmark: ModuleType) -> None:
    found = {s.name: benchmark.counts(benchmark.priced(s)) for s in benchmark.SETTINGS}
    assert found == {
        "cited": {"feasible": 14, "quantisation_alone": 0},
        "fit": {"feasible": 18, "quantisation_alone": 1},
    }


def test_the_solution_by_quantisation_alone_has_two_bits(benchmark: ModuleType) -> None:
    rows = benchmark.priced(benchmark.SETTINGS[1])
    alone = [r["bits"] for r in rows if r["feasible"] and (r["block"], r["density"]) == (1, 1.0)]
    assert alone == [2]
