"""Limits and clocks that are none: refused in one line, and nothing changes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from modelflex.core.model import Layer, Model
from modelflex.core.program import Program, build_program
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.terms import as_integers, make_terms

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from modelflex.execute.native import Runtime

INPUTS, UNITS = 8, 4
X = np.random.default_rng(9).normal(size=(3, INPUTS)).astype(np.float32)


@cache
def stack(integer: bool) -> Program:
    """Two layers with terms."""
    rng = np.random.default_rng(1)
    layers, weights = [], {}
    for name, inputs, count in (("a", INPUTS, 5), ("b", UNITS, 7)):
        layers.append(Layer(name, "augmented_lstm", inputs, UNITS))
        terms = make_terms(rng, 4 * UNITS, inputs + UNITS, count, 4)
        weights[f"{name}.w"] = as_integers(rng, terms) if integer else terms
    return build_program(Model("", tuple(layers), weights, output="values"))


class KeysAlone:
    """Has keys, but no length."""

    def keys(self) -> list[str]:
        return ["a.w"]


BAD_LIMITS: dict[str, dict[str, Any]] = {
    "negative terms": {"terms": -1},
    "half a term": {"terms": 1.5},
    "a truth": {"terms": True},
    "a text": {"terms": "3"},
    "an unknown weight": {"terms": {"c.w": 1}},
    "negative terms of a weight": {"terms": {"a.w": -2}},
    "NaN terms": {"terms": math.nan},
    "a list": {"terms": [1, 2]},
    "a table": {"terms": np.zeros((2, 2))},
    "keys alone": {"terms": KeysAlone()},
    "words that are cut": {"terms": "ä" * 100},
    "lines": {"budget": "a\nb"},
    "a negative budget": {"budget": -1e-9},
    "a NaN budget": {"budget": math.nan},
    "a budget of minus infinity": {"budget": -math.inf},
    "a budget in words": {"budget": "all"},
    "a true budget": {"budget": True},
    "a NaN deadline": {"deadline_s": math.nan},
    "a deadline in words": {"deadline_s": "soon"},
    "a complex deadline": {"deadline_s": 1j},
    "several limits": {"terms": 1, "deadline_s": 1.0},
}


@pytest.mark.parametrize("name", BAD_LIMITS)
@pytest.mark.parametrize("integer", [False, True])
def test_bad_limits_are_refused_in_one_line_and_change_nothing(name: str, integer: bool) -> None:
    runtime, other = Runtime(stack(integer)), Runtime(stack(integer))
    for one in (runtime, other):
        one.step(X[0])
    with pytest.raises(ValueError, match="expected") as caught:
        runtime.step(X[1], **BAD_LIMITS[name])
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(runtime.step(X[2]), other.step(X[2]))


def test_models_without_terms_take_no_limits() -> None:
    rng = np.random.default_rng(0)
    weight = float_weight(rng.normal(size=(16, 12)), np.zeros(16), 4)
    layers = (Layer("a", "augmented_lstm", INPUTS, UNITS),)
    runtime = Runtime(build_program(Model("", layers, {"a.w": weight}, output="values")))
    for limit in ({"terms": 1}, {"budget": 1}, {"deadline_s": 1}):
        with pytest.raises(ValueError, match="has no terms"):
            runtime.step(X[0], **limit)
    with pytest.raises(TypeError, match="step takes x"):
        runtime.step(X[0], ladder=1)
    assert runtime.step(X[0], terms=None, budget=None, deadline_s=None).shape == (UNITS,)


BAD_CLOCKS: dict[str, Callable[[], Any]] = {
    "negative": lambda: -1,
    "real": lambda: 1.5,
    "none": lambda: None,
    "true": lambda: True,
    "true of numpy": lambda: np.True_,
    "real of numpy": lambda: np.float64(2),
    "too large": lambda: 1 << 64,
    "failing": lambda: 1 // 0,
}


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("name", BAD_CLOCKS)
@pytest.mark.parametrize("good", [0, 1, 2, 4, 10])
def test_clocks_that_fail_anywhere_in_a_step_change_nothing(
    name: str, good: int, integer: bool
) -> None:
    runtime, other = Runtime(stack(integer)), Runtime(stack(integer))
    for one in (runtime, other):
        one.step(X[0])
    left = [good]

    def clock() -> int:
        left[0] -= 1
        return 0 if left[0] >= 0 else BAD_CLOCKS[name]()

    runtime.clock = clock
    with pytest.raises((ValueError, ZeroDivisionError)):
        runtime.step(X[1], deadline_s=1.0)
    runtime.clock = None
    np.testing.assert_array_equal(runtime.step(X[2]), other.step(X[2]))


def test_a_clock_that_uses_its_own_stream_is_refused() -> None:
    runtime = Runtime(stack(False))
    for use in (lambda: runtime.step(X[0]), runtime.reset, lambda: runtime.state):
        runtime.clock = use  # type: ignore[assignment]
        with pytest.raises(RuntimeError, match=r"by its clock .*; expected a clock"):
            runtime.step(X[0], deadline_s=1.0)
    with pytest.raises(UserError, match="the clock is a int"):
        runtime.clock = 3  # type: ignore[assignment]


def test_the_stream_of_another_thread_is_told_from_ones_own() -> None:
    runtime = Runtime(stack(False))
    found: list[str] = []

    def use() -> None:
        with pytest.raises(RuntimeError) as caught:
            runtime.step(X[0])
        found.append(str(caught.value))

    def clock() -> int:
        if not found:
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
        return 0

    runtime.clock = clock
    runtime.step(X[0], deadline_s=1.0)
    assert "running in another thread" in found[0]


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32])
def test_clocks_may_give_the_numbers_of_numpy(kind: Any) -> None:
    runtime = Runtime(stack(False))
    readings = iter(range(0, 10**6, 100))
    runtime.clock = lambda: kind(next(readings))
    assert 0 < sum(runtime.step(X[0], deadline_s=5e-7).terms.values()) < 12
