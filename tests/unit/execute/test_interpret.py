"""The interpreter: chunks, carried state, counters and refusals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Scale
from modelflex.core.graph import Op
from modelflex.core.part import Part
from modelflex.core.program import build_program
from modelflex.core.tracer import Link, Tracer
from modelflex.core.weight import Chain, Matrix, Sum
from modelflex.errors import UserError
from modelflex.execute import interpret
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import NUMPY_KERNELS
from modelflex.testing.generators import random_case, random_sequences, run_weight, weight_program


@pytest.mark.parametrize("limit", [1, 8, 13, 20])
@pytest.mark.parametrize("seed", range(4))
def test_chunks_change_nothing(seed: int, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case(seed)
    interpreter = Interpreter(case.program)
    whole = interpreter.run(case.data, capture=True)
    monkeypatch.setattr(interpret, "CHUNK_STEPS", limit)
    pieces = interpreter.run(case.data, capture=True)
    np.testing.assert_array_equal(whole.outputs, pieces.outputs)
    assert whole.profile == pieces.profile
    assert whole.inputs.keys() == pieces.inputs.keys() == set(case.program.products)
    for site, rows in whole.inputs.items():
        np.testing.assert_array_equal(rows, pieces.inputs[site])
    # The second run continues from the first, chunk by chunk.
    again = interpreter.run(case.data, state=pieces.state)
    monkeypatch.undo()
    np.testing.assert_array_equal(
        again.outputs, interpreter.run(case.data, state=whole.state).outputs
    )
    for stage, slots in whole.state.items():
        for slot, value in slots.items():
            np.testing.assert_array_equal(value, pieces.state[stage][slot])


@pytest.mark.parametrize("seed", range(10))
def test_two_halves_with_carried_state_are_the_whole(seed: int) -> None:
    """Also where the head, which runs once a sequence, is under an activity (seed 5)."""
    case = random_case(seed)
    data = random_sequences(np.random.default_rng(0), (10, 10), case.model.inputs)
    x = data.x.reshape(2, 10, -1)
    five = np.array([5, 5])
    interpreter = Interpreter(case.program)
    whole = interpreter.run(data)
    first = interpreter.run(Sequences(x[:, :5].reshape(10, -1), five))
    second = interpreter.run(Sequences(x[:, 5:].reshape(10, -1), five), state=first.state)
    width = whole.outputs.shape[1]
    if case.program.per_step:
        wanted = whole.outputs.reshape(2, 10, width)[:, 5:].reshape(10, width)
    else:
        wanted = whole.outputs
    np.testing.assert_array_equal(second.outputs, wanted)


def test_outputs_have_one_row_a_step_or_a_sequence() -> None:
    for seed in range(8):
        case = random_case(seed)
        run = Interpreter(case.program).run(case.data)
        rows = case.data.steps if case.model.per_step else case.data.count
        assert run.outputs.shape == (rows, case.model.outputs)
        assert (run.profile.steps, run.profile.sequences) == (case.data.steps, case.data.count)
        head = run.profile.sites["head.w/0"]
        assert head.runs == rows


def test_captured_inputs_are_what_was_multiplied() -> None:
    """A·input + bias, rescaled, is the result: checked on the head, whose result is the output. Of a
    chain the last product gives it, of a sum the last one of every term.
    """
    kinds = set()
    for seed in range(24):
        case = random_case(seed)
        run = Interpreter(case.program).run(case.data, capture=True)
        weight = case.made.model.weights["head.w"]
        kinds.add(type(weight))
        wanted, size, number = np.zeros(run.outputs.shape) + weight.bias_value(), 0.0, -1
        for term in weight.terms if isinstance(weight, Sum) else (weight,):
            number += len(term.products)
            matrix, seen = term.products[-1].dense(), run.inputs[f"head.w/{number}"]
            wanted += seen @ matrix.T
            size += np.abs(matrix).sum(axis=1).max() * np.abs(seen).max()
        np.testing.assert_allclose(run.outputs, wanted, rtol=2e-4, atol=2e-4 * size + 2e-5)
    assert kinds == {Matrix, Chain, Sum}


def test_data_of_another_width_are_refused() -> None:
    case = random_case(0)
    narrow = Sequences(np.zeros((3, 2), np.float32), np.array([3]))
    with pytest.raises(UserError, match="2 features"):
        Interpreter(case.program).run(narrow)


def wide(bits: int, columns: int) -> Matrix:
    codes = np.full((2, columns), 2 ** (bits - 1) - 1, np.int32)
    part = Part(codes, bits, Scale.nearest(1e-4), 2)
    return Matrix(part, None, Link(16, Scale.nearest(1e-3)), 1, "dense", columns)


def test_sums_that_could_overflow_are_refused() -> None:
    """2¹⁵ · 2¹⁶ · columns reaches 2⁴⁷ at 65,537 columns."""
    weight = wide(16, 70_000)
    with pytest.raises(UserError, match="use fewer bits or inputs") as caught:
        Interpreter(weight_program(weight, 70_000))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("columns", [1, 128, 300, 4096])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_sums_stay_exact_at_their_bounds(bits: int, columns: int) -> None:
    """The largest codes everywhere, around the widths where float32 gives way to float64."""
    weight = wide(bits, columns)
    interpreter = Interpreter(weight_program(weight, columns))
    x = np.full((3, columns), -(2**15), np.int16)
    x[1] = 2**15 - 1
    x[2, ::2] = 2**15 - 1
    exact = x.astype(object) @ weight.parts[0].codes.astype(object).T
    assert interpreter.linear("w/0", x).astype(np.int64).tolist() == exact.tolist()


def test_a_large_bias_widens_the_accumulator() -> None:
    """The bias counts in the bound that allows float32: 2²⁴ + odd is no float32."""
    weight = wide(2, 4)
    codes = Part(np.array([2**24 + 1, 2**24 - 1]), 32, Scale.power_of_two(0), 2)
    held = weight.with_bias(codes)
    data = Sequences(np.full((2, 4), 0.001, np.float32), np.array([2]))
    plain, biased = run_weight(weight, data), run_weight(held, data)
    assert Interpreter(weight_program(held, 4))._matrices["w/0"].dtype == np.float64
    assert np.all(biased.outputs > plain.outputs)


def test_unknown_primitives_raise() -> None:
    op = Op(0, "cosine", (0,), (1,))
    with pytest.raises(ValueError, match="cosine"):
        NUMPY_KERNELS.elementwise(op, [np.zeros((1, 1), np.int32)])
    case = random_case(0)
    stage = case.program.stages[0]
    ops = tuple(
        dataclasses.replace(op, kind="convolve") if op.kind in ("linear", "accumulate") else op
        for op in stage.graph.ops
    )
    graph = dataclasses.replace(stage.graph, ops=ops)
    program = dataclasses.replace(
        case.program, stages=(dataclasses.replace(stage, graph=graph), *case.program.stages[1:])
    )
    with pytest.raises(ValueError, match="convolve"):
        Interpreter(program).run(case.data)


def test_tracers_refuse_what_does_not_fit() -> None:
    tracer = Tracer("integer")
    a, b = tracer.input("a", 4), tracer.input("b", 6)
    with pytest.raises(ValueError, match="'add' of 4 fx and 6 fx"):
        tracer.add(a, b)
    with pytest.raises(ValueError, match="'add' takes 2"):
        tracer.record("add", (a,), ((4, "fx"),))
    slot = tracer.state("h", 4, "fx")
    with pytest.raises(ValueError, match="'h'"):
        tracer.state("h", 4, "fx")
    with pytest.raises(ValueError, match="never written: h"):
        tracer.finish({"y": a})
    tracer.set_state("h", tracer.add(a, slot))
    graph = tracer.finish({"y": a})
    assert slot.id in graph.state_dependent()
    assert a.id not in graph.state_dependent()


def test_what_depends_on_no_state_runs_once_for_all_steps() -> None:
    case = random_case(0)
    graph = build_program(case.model).stages[0].graph
    dirty = graph.state_dependent()
    free = [op.site for op in graph.ops if op.kind == "linear" and dirty.isdisjoint(op.inputs)]
    assert free == ["layer0.w_x/0"]


def test_compressed_networks_run_without_native_kernels() -> None:
    case = random_case(3)
    assert compress(case.model, case.recipe, case.stats).model.numeric == "integer"
    run = Interpreter(case.program, NUMPY_KERNELS).run(case.data)
    assert np.all(np.isfinite(run.outputs))
