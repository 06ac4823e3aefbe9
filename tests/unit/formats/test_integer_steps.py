"""Columns rounded by compiled code: the bits of NumPy, and a refusal of arrays that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core import gptq
from modelflex.core.fixed import Array
from modelflex.core.gptq import IntegerSteps

native: Any = pytest.importorskip("modelflex._native", reason="built without a C compiler")


def problem(seed: int, n: int, rows: int, odd: bool, each: bool, masked: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n, n))
    steps = 2.0 ** rng.uniform(-8, 1, (n if each else 1, rows))
    steps[:, ::3] = 0.25  # a number of quarters: many values lie half way between two integers
    return {
        "values": np.round(rng.normal(size=(rows, n)) * 16) / 8,
        "hessian": np.round(mixing @ mixing.T * 8) / 8 + np.eye(n),
        "nearest": IntegerSteps(int(rng.integers(1, 9)) * 2 - odd, odd, steps),
        "mask": rng.random((rows, n)) < 0.8 if masked else None,
        "chunk": int(rng.integers(1, 40)),
    }


def both(of: dict[str, Any]) -> tuple[Array, Array, Array]:
    rounded = gptq.gptq(**of)
    pulls = (of["values"] - rounded) @ of["hessian"]
    return rounded, *gptq.descend(rounded, pulls, **{k: of[k] for k in of if k != "values"})


@given(
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.integers(1, 100),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_compiled_code_gives_the_bits_of_numpy(
    seed: int, n: int, rows: int, odd: bool, each: bool, masked: bool
) -> None:
    of = problem(seed, n, rows, odd, each, masked)
    fast = both(of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptq, "HAVE_NATIVE", False)
        plain = both(of)
    for a, b in zip(fast, plain, strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.one_of(st.integers(1, 200), st.integers(4000, 9000)),
    st.booleans(),
)
def test_errors_of_grids_are_sums_with_the_bits_of_numpy(
    seed: int, groups: int, n: int, odd: bool
) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(groups, n)) * 3, rng.random((groups, n))
    sizes, top = np.array([1.0, 0.73, 0.25]), int(rng.integers(1, 9)) * 2 - odd
    fast = gptq.grid_errors(values, weights, sizes, top, odd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gptq, "HAVE_NATIVE", False)
        np.testing.assert_array_equal(fast, gptq.grid_errors(values, weights, sizes, top, odd))
    grid = np.arange(-top, top + 1, 1 + odd)
    for number, size in enumerate(sizes):
        lost = np.abs(values[:, :, None] / size - grid).min(axis=2)
        wanted = (weights * lost**2).sum(axis=1)
        np.testing.assert_allclose(fast[:, number], wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pulls", (3, 4)),
        ("pulls", (2, 5)),
        ("own", (2,)),
        ("shares", (3, 2)),
        ("steps", (2, 5)),
        ("steps", (4,)),
        ("mask", (5, 3)),
        ("changes", (2, 5)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    fitting = {"values": (3, 5), "pulls": (3, 5), "own": (3,), "shares": (3, 3), "steps": (1, 5)}
    arrays: dict[str, Any] = {k: np.ones(v) for k, v in fitting.items()}
    arrays |= {"mask": None, "changes": np.ones((3, 5)), "top": 3, "odd": False}
    native.descend_columns(**arrays)
    with pytest.raises(ValueError, match=name):
        native.descend_columns(**{**arrays, name: np.ones(shape)})


def test_other_types_and_empty_grids_are_refused() -> None:
    values, own = np.ones((3, 5)), (np.ones((3, 3)), np.ones((1, 5)))
    native.round_columns(values, *own, 3, False, None, np.ones((3, 5)))
    with pytest.raises(ValueError, match="top"):
        native.round_columns(values, *own, 0, False, None, np.ones((3, 5)))
    with pytest.raises(TypeError):
        native.round_columns(values.astype(np.float32), *own, 3, False, None, np.ones((3, 5)))
