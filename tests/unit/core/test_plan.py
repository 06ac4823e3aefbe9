"""Plans: what lives together never overlaps, views stay in their buffers, figures add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.model import Layer, Model, check_model
from modelflex.core.plan import KERNELS, Plan, View
from modelflex.core.planner import make_plan
from modelflex.core.program import Program, Stage, build_program
from modelflex.core.tracer import Tracer
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import run
from modelflex.testing.generators import random_sequences
from modelflex.testing.native import check_native
from modelflex.testing.recipes import cached_case

SHAPES = ({}, {"chunk": 3}, {"lanes": 5}, {"alignment": 8})


def check_memory(plan: Plan) -> None:
    """Buffers with common bytes are scratch and never needed at the same call."""
    for i, one in enumerate(plan.buffers):
        assert one.offset % plan.alignment == 0
        assert one.offset + one.nbytes <= getattr(plan, f"{one.space}_bytes")
        for other in plan.buffers[:i]:
            apart = one.space != other.space or (
                one.offset >= other.offset + other.nbytes or other.offset >= one.offset + one.nbytes
            )
            assert apart or (
                one.space == "scratch" and (one.last < other.first or other.last < one.first)
            )


def check_calls(plan: Plan) -> None:
    """Operands lie in buffers that hold something at the call; results overlap no other operand."""
    number = 0
    for stage in plan.stages:
        for call in stage.calls:
            assert call.kernel in KERNELS
            for view in (*call.inputs, *call.outputs):
                buffer = plan.buffers[view.buffer]
                assert 0 <= view.start < view.start + view.size <= buffer.size
                assert buffer.space == "state" or buffer.first <= number <= buffer.last
            for out in call.outputs:
                for view in call.inputs:
                    assert out == view or not out.overlaps(view)
            number += 1


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=st.integers(0, 23))
def test_what_lives_together_never_overlaps(shape: dict[str, int], seed: int) -> None:
    plan = make_plan(cached_case(seed).program, **shape)
    check_memory(plan)
    check_calls(plan)


def test_carried_values_are_written_where_they_lie() -> None:
    """No step copies anything but what is joined, and each state slot is written in place."""
    for seed in range(20):
        program = cached_case(seed).program
        plan = make_plan(program)
        joined = sum(op.kind == "concat" for stage in program.stages for op in stage.graph.ops)
        first = program.stages[0].graph  # what is put behind its input does not copy it
        behind = any(op.kind == "concat" and op.inputs[0] == first.inputs["x"] for op in first.ops)
        assert sum(call.kernel == "copy" for call in plan.calls) == 2 * joined - behind
        for stage in plan.stages:
            written = {view for call in stage.calls for view in call.outputs}
            assert {slot.view for slot in stage.state} <= written


def traced(swap: bool) -> Program:
    """Two carried values that change places, or a value that is delayed by two steps."""
    tracer = Tracer("float")
    x = tracer.input("x", 3)
    one, other = (tracer.state(name, 3, "float32") for name in ("one", "other"))
    tracer.set_state("one", tracer.add(other, x) if swap else x)
    tracer.set_state("other", one)
    graph = tracer.finish({"y": other})
    return Program((Stage("delay", graph, "step"),), {}, "float")


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("swap", [False, True])
def test_a_carried_value_is_read_before_it_is_overwritten(
    swap: bool, shape: dict[str, int]
) -> None:
    """The calls, followed by hand, give what the graph says."""
    plan = make_plan(traced(swap), **shape)
    check_memory(plan)
    stage = plan.stages[0]
    memory: dict[View, float] = {slot.view: 0.0 for slot in stage.state}
    found, one, other, wanted = [], 0.0, 0.0, []
    for t in range(1, 7):
        memory[stage.x] = float(t)
        for call in stage.calls:
            made = sum(memory[view] for view in call.inputs)
            memory[call.outputs[0]] = made
        found.append(memory[stage.y])
        wanted.append(other)
        one, other = (other + t if swap else float(t)), one
    assert found == wanted


def test_figures_of_a_small_network() -> None:
    """Bytes of RAM and flash, counted by hand from the parts."""
    case = cached_case(8)
    plan = make_plan(case.program, alignment=8)
    assert plan.ram_bytes == plan.state_bytes + plan.scratch_bytes
    sizes = [b.nbytes for b in plan.buffers if b.space == "state"]
    assert plan.state_bytes == sum(-(-n // 8) * 8 for n in sizes)
    assert plan.scratch_bytes < sum(b.nbytes for b in plan.buffers if b.space == "scratch")
    weights = sum(w.nbytes for w in case.made.model.weights.values())
    scales = sum(p.scale_bytes for w in case.made.model.weights.values() for p in w.parts)
    assert plan.flash_bytes > weights - scales


def test_plans_of_both_steps_and_lanes_are_refused() -> None:
    program = build_program(cached_case(0).made.model)
    with pytest.raises(ValueError, match="a plan of 2 steps"):
        make_plan(program, chunk=2, lanes=2)


def test_what_is_put_behind_the_input_more_than_once_does_not_copy_it() -> None:
    """Fed-back outputs, then the old output of an augmented layer: both are written behind the input."""
    rng = np.random.default_rng(0)
    layers = (Layer("l", "augmented_lstm", 7, 8, carries=2), Layer("head", "dense", 8, 5))
    weights = {
        "l.w": float_weight(rng.normal(size=(32, 15)), None, 4),
        "head.w": float_weight(rng.normal(size=(5, 8)), None, 1),
    }
    program = build_program(check_model(Model("m", layers, weights)))
    for shape in SHAPES:
        plan = make_plan(program, **shape)
        copied = [call for call in plan.calls if call.kernel == "copy"]
        assert all(call.inputs[0].size <= 8 for call in copied)
        assert plan.buffers[plan.stages[0].x.buffer].size == 15
    data = random_sequences(rng, (20, 3, 30, 7), 5)
    check_native(program, data, run(program, data))
