"""Inputs that refinements read where the caller has them: as if they had been copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.program import Program, Stage, build_program
from modelflex.core.tracer import Tracer
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.terms import as_integers, make_terms

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.loading import Shared
from modelflex.execute.native import FLOAT_TOLERANCE, Runtime

TERMS, STEPS = 9, 6


def network(
    inputs: int, units: int, groups: int, layout: str, carries: int, layers: int
) -> Program:
    """LSTM layers of terms, and a head whose last outputs are fed back to the first layer."""
    rng = np.random.default_rng(inputs)
    made, weights = [], {}
    for n in range(layers):
        name, own = f"lstm{n}", carries if n == 0 else 0
        entering = inputs + carries if n == 0 else units
        made.append(Layer(name, "augmented_lstm", entering, units, carries=own))
        weight = make_terms(rng, 4 * units, entering + units, TERMS, groups, layout)
        weights[f"{name}.w"] = weight
    made.append(Layer("head", "dense", units, 3))
    weights["head.w"] = float_weight(rng.normal(size=(3, units)) / units**0.5, np.zeros(3), 1)
    return build_program(Model("", tuple(made), weights, output="values"))


def in_place(program: Program) -> int:
    """How many elements of an input are read where they are."""
    return int(Shared(program).native_plan()[1].in_place)


def agree(found: Any, wanted: Array) -> None:
    limit = FLOAT_TOLERANCE * np.maximum(1.0, np.abs(wanted))
    assert np.all(np.abs(np.asarray(found) - wanted) <= limit)


@given(
    st.integers(1, 60),
    st.sampled_from((4, 7)),
    st.sampled_from((1, 4)),
    st.sampled_from(("dense", "row_sparse", "block_sparse")),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(0, TERMS),
    st.integers(0, 16),
)
@settings(max_examples=60, deadline=None)
def test_steps_equal_the_interpreter(
    inputs: int,
    units: int,
    groups: int,
    layout: str,
    carries: int,
    layers: int,
    terms: int,
    shift: int,
) -> None:
    if layout == "block_sparse":  # blocks of two divide the columns
        inputs, units = 2 * inputs + carries % 2, 2 * units
    program = network(inputs, units, groups, layout, carries, layers)
    whole = inputs // 8 * 8
    assert in_place(program) == (whole if native.isa() in ("avx2", "avx512vnni") else 0)
    memory = np.zeros((STEPS, inputs + shift), np.float32)
    x = memory[:, shift:]  # rows that begin anywhere
    x[:] = np.random.default_rng(1).normal(size=x.shape)
    counts = {f"lstm{n}.w": terms for n in range(layers)}
    wanted = Interpreter(program).run(Sequences(x.copy(), np.array([STEPS])), terms=counts).outputs
    for rows in (x, x.astype(np.float64)):
        runtime = Runtime(program)
        agree([runtime.step(row, terms=terms).y for row in rows], wanted)
    if terms == TERMS:
        agree(Runtime(program).run(x.copy()), wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(bad: float) -> None:
    """Also where no term reads it."""
    program = network(43, 4, 1, "row_sparse", 0, 1)
    runtime, other = Runtime(program), Runtime(program)
    x = np.random.default_rng(2).normal(size=43).astype(np.float32)
    for one in (runtime, other):
        one.step(x)
    for place in range(43):
        spoiled = x.copy()
        spoiled[place] = bad
        for limits in ({}, {"terms": 0}, {"terms": 2}):
            with pytest.raises(ValueError, match="x holds NaN or infinity"):
                runtime.step(spoiled, **limits)
    np.testing.assert_array_equal(runtime.step(x), other.step(x))


def test_results_may_lie_where_the_input_is() -> None:
    program = network(3, 4, 1, "dense", 0, 1)
    x = np.array([0.5, -1.0, 2.0], np.float32)
    wanted = Runtime(program).step(x)
    assert Runtime(program).step(x, x) is x
    np.testing.assert_array_equal(x, wanted)


def test_an_input_may_change_between_the_steps() -> None:
    program = network(64, 4, 1, "dense", 0, 1)
    rows = np.random.default_rng(3).normal(size=(STEPS, 64)).astype(np.float32)
    runtime, other, x = Runtime(program), Runtime(program), np.empty(64, np.float32)
    for row in rows:
        x[:] = row
        np.testing.assert_array_equal(runtime.step(x), other.step(row))


@pytest.mark.parametrize("before", [False, True])
def test_an_input_that_others_read_too_is_copied(before: bool) -> None:
    weight = make_terms(np.random.default_rng(4), 16, 16, 3, 1)
    tracer = Tracer("float")
    x = tracer.input("x", 16)
    seen = tracer.tanh(x) if before else x
    y = tracer.add(weight.lower(tracer, "w", x), tracer.relu(seen))
    stage = Stage("s", tracer.finish({"y": y}), "step")
    program = Program((stage,), tracer.products, "float")
    assert in_place(program) == 0
    row = np.random.default_rng(5).normal(size=(1, 16)).astype(np.float32)
    wanted = Interpreter(program).run(Sequences(row, np.array([1]))).outputs
    agree(Runtime(program).step(row[0]), wanted[0])


def test_integers_are_quantised_as_they_come_in() -> None:
    rng = np.random.default_rng(6)
    weight = as_integers(rng, make_terms(rng, 16, 20, TERMS, 4))
    layers = (Layer("a", "augmented_lstm", 16, 4),)
    assert in_place(build_program(Model("", layers, {"a.w": weight}, output="values"))) == 0
