"""The largest errors of nonlinearities in docs/arithmetic.md, measured over all fx inputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.fixed import FX_ONE
from modelflex.core.graph import Op
from modelflex.core.recipe import method_from_json
from modelflex.execute.kernels import KERNELS, NUMPY_KERNELS
from modelflex.registry import NONLINEARITIES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "arithmetic.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(\w+)` ?([^|]*) \| (\d+) \| (\d\S*) \| (\d\S*) \|$", TEXT, re.MULTILINE)
V = np.arange(-(2**20), 2**20, dtype=np.int32)
FAR = np.array([-(2**31), -(2**24), 2**20, 2**24, 2**31 - 1], np.int64).astype(np.int32)
REAL = {"tanh": np.tanh(V / FX_ONE), "sigmoid": 1 / (1 + np.exp(-V / FX_ONE))}
ENDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}


def config(method: str, texts: str) -> Any:
    """A nonlinearity from a row such as "entries 64, range 4, interpolation linear"."""
    values: dict[str, Any] = {"method": method}
    for pair in filter(None, texts.split(", ")):
        key, text = pair.split(" ")
        values[key] = text if text.isalpha() else json.loads(text)
    return method_from_json(NONLINEARITIES, values, "row")


def test_every_method_has_a_row() -> None:
    assert {method for method, *_ in ROWS} == set(NONLINEARITIES.names())


@pytest.mark.parametrize("row", ROWS, ids=[f"{r[0]} {r[1]}" for r in ROWS])
def test_nonlinearity_errors(row: tuple[str, ...]) -> None:
    method, texts, nbytes, *largest = row
    made = config(method, texts)
    assert made.table_bytes == int(nbytes)
    for function, stated in zip(REAL, largest, strict=True):
        table = made.table(function)
        op = Op(0, function, (0,), (1,))
        if table is not None:
            op = Op(0, "piecewise", (0,), (1,), attrs={"table": table})
        codes = KERNELS.elementwise(op, [V])
        np.testing.assert_array_equal(codes, NUMPY_KERNELS.elementwise(op, [V]))
        assert np.diff(codes).min() >= 0
        far = KERNELS.elementwise(op, [FAR])
        assert far.tolist() == [codes[0]] * 2 + [codes[-1]] * 3  # constant beyond
        assert NUMPY_KERNELS.elementwise(op, [FAR]).tolist() == far.tolist()
        error = np.abs(codes / FX_ONE - REAL[function]).max()
        tails = np.abs(far[[0, -1]] / FX_ONE - ENDS[function])
        worst = max(error, tails.max())
        assert float(stated) == pytest.approx(worst, rel=1e-4)
        assert made.max_error(function) == pytest.approx(worst, rel=1e-9)
