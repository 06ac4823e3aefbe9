"""Steps of LSTM and GRU run as one call where nothing else needs what lies between; results never change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.plan import ITEM_BYTES, Buffer, Call, Plan, PlannedStage, Slot, View
from modelflex.core.program import Program, build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.loading import Shared, load_plan
from modelflex.execute.native import run_native

INPUTS, UNITS = 5, 19
X = np.linspace(-1.0, 1.0, INPUTS)
GATES = {"lstm": 4, "gru": 3}


SAVED = 11
"""Calls that a step saves: 12 become one."""


@cache
def random_program(cell: str, scale: float = 1.0) -> Program:
    """Two layers, the second with a delta."""
    rng = np.random.default_rng(1)
    layers = (Layer("a", cell, INPUTS, UNITS), Layer("b", cell, UNITS, UNITS))
    weights = {}
    for layer in layers:
        for name, inputs in (("w_x", layer.inputs), ("w_h", UNITS)):
            matrix = rng.normal(size=(GATES[cell] * UNITS, inputs)) * scale
            weights[f"{layer.name}.{name}"] = float_weight(matrix, matrix[:, 0], GATES[cell])
    model = Model("", layers, weights, output="values")
    data = random_sequences()
    every = {"format": {"method": "uniform", "bits": 8}}
    rules = [
        {"weights": "a.*", **every},
        {"weights": "b.*", **every, "activity": {"method": "delta", "threshold": 0.02}},
    ]
    recipe = {"schema": "modelflex.recipe/1", "label": "", "rules": rules}
    made = compress(model, recipe_from_json(recipe), calibrate(model, data)).model
    return build_program(made)


def random_sequences() -> Sequences:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(90, INPUTS)) * rng.choice([0.1, 1.0, 30.0], (90, 1))
    return Sequences(x.astype(np.float32), np.array([40, 1, 49]))


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize(("chunk", "lanes"), [(1, 1), (7, 1), (1, 3)])
def test_a_step_is_one_call(cell: str, chunk: int, lanes: int) -> None:
    plan, loaded = Shared(random_program(cell)).native_plan(chunk=chunk, lanes=lanes)
    assert loaded.calls == len(plan.calls) - 2 * SAVED


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_results_are_those_of_the_interpreter(cell: str, scale: float) -> None:
    program, sequences = random_program(cell, scale), random_sequences()
    expected = Interpreter(program).run(sequences).outputs
    shared = Shared(program)
    np.testing.assert_array_equal(run_native(shared, sequences).outputs, expected)
    for chunk in (1, 7):
        _, loaded = shared.native_plan(chunk=chunk)
        stream = native.Stream(shared.native_plan()[1], loaded)
        found = run_each(stream, sequences)
        np.testing.assert_array_equal(found, expected)


def run_each(stream: native.Stream, sequences: Sequences) -> Array:
    found = []
    for rows in np.split(sequences.x, np.cumsum(sequences.lengths)[:-1]):
        stream.reset()
        found.append(stream.run(rows.astype(np.float64)))
    return np.concatenate(found)


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("reader", ["copy", "output"])
def test_what_others_read_is_still_made(cell: str, reader: str) -> None:
    """The last tanh, which nothing overwrites, is read by a call that follows, or is the output."""
    shared = Shared(random_program(cell))
    plan = shared.native_plan()[0]
    stage = plan.stages[-1]
    tanh = next(c for c in reversed(stage.step) if c.kernel == "tanh")
    if reader == "output":
        changed = replace(stage, y=tanh.outputs[0])
    else:
        copy = Call("copy", tanh.outputs, (stage.state[0].view,))
        changed = replace(stage, step=(*stage.step, copy))
    others = replace(plan, stages=(plan.stages[0], changed))
    loaded = load_plan(others, shared.weights, shared.sites)
    assert loaded.calls == len(others.calls) - SAVED
    apart = load_plan(unjoined(others), shared.weights, shared.sites)
    expected = native.Stream(apart, apart).step(X)
    assert expected.any()
    np.testing.assert_array_equal(native.Stream(loaded, loaded).step(X), expected)


# --- changed plans -----------------------------------------------------------------------------------
JOINABLE = ("rescale_i32", "add", "sub", "mul", "sigmoid", "tanh")
BOUNDED = ("linear_i32", "delta_encode", "accumulate_i32")
"""Kernels that rely on numbers within a bound: what they read must be what was made for them."""
ROWS = 3
PLANS = {"step": (1, 1), "chunk": (ROWS, 1), "lanes": (1, ROWS)}
STEPS = 2 * ROWS


def changed_stage(plan: Plan, number: int, ahead: Sequence[Call], step: Sequence[Call]) -> Plan:
    stages = list(plan.stages)
    stages[number] = replace(stages[number], ahead=tuple(ahead), step=tuple(step))
    return replace(plan, stages=tuple(stages))


def unjoined(plan: Plan) -> Plan:
    """The same plan where a copy reads everything that is made between, so that no calls become one."""
    size = max(buffer.size for buffer in plan.buffers)
    copy = Buffer("int32", size, plan.rows, "scratch", plan.scratch_bytes, 0, 0)
    for number, stage in enumerate(plan.stages):
        ahead, step = (
            [
                made
                for call in calls
                for made in (
                    call,
                    *(
                        Call("copy", (view,), (View(len(plan.buffers), 0, view.size),))
                        for view in call.outputs
                        if call.kernel in JOINABLE
                    ),
                )
            ]
            for calls in (stage.ahead, stage.step)
        )
        plan = changed_stage(plan, number, ahead, step)
    return replace(plan, buffers=(*plan.buffers, copy))


def with_spare_state(plan: Plan) -> Plan:
    """With two carried values more: numbers that nothing changes, and room for what is read."""
    size = max(buffer.size for buffer in plan.buffers)
    noise = np.random.default_rng(3).integers(-(1 << 15), 1 << 15, size).astype(np.int32)
    for name, init in (("noise", noise), ("read", None)):
        rows = plan.rows if plan.lanes else 1
        made = Buffer("int32", size, rows, "state", plan.state_bytes, 0, 0)
        slot = Slot(name, View(len(plan.buffers), 0, size), init)
        last = plan.stages[-1]
        stages = (*plan.stages[:-1], replace(last, state=(*last.state, slot)))
        plan = replace(plan, buffers=(*plan.buffers, made), stages=stages)
    return plan


def pieces(stage: PlannedStage) -> list[View]:
    """What the calls that may become one read and make."""
    found = {v for c in stage.calls if c.kernel in JOINABLE for v in (*c.inputs, *c.outputs)}
    return sorted(found, key=lambda v: (v.buffer, v.start, v.size))


def inserted(plan: Plan) -> Iterator[Callable[[], Plan]]:
    """With one more call among those that may become one: it reads a piece, or writes it or some of it."""
    noise, sink, last_row = len(plan.buffers) - 2, len(plan.buffers) - 1, len(plan.buffers)
    for number, stage in enumerate(plan.stages):
        first = len(stage.ahead)
        begin = next(k for k, call in enumerate(stage.calls) if call.kernel in JOINABLE)
        for view in pieces(stage):
            buffer = plan.buffers[view.buffer]
            offset = buffer.offset + buffer.nbytes // buffer.rows * (buffer.rows - 1)
            with_row = replace(
                plan, buffers=(*plan.buffers, replace(buffer, rows=1, offset=offset))
            )
            written = [
                view,
                View(view.buffer, view.start + view.size // 2, 1),
                View(last_row, view.start, view.size),
            ]
            calls = [Call("copy", (View(noise, 0, v.size),), (v,)) for v in written]
            calls.append(Call("copy", (view,), (View(sink, 0, view.size),)))
            for call in calls:
                for at in range(begin, len(stage.calls) + 1):
                    made = [*stage.calls[:at], call, *stage.calls[at:]]
                    split = first + (at < first or first == len(stage.calls))
                    yield lambda p=with_row, n=number, c=made, k=split: changed_stage(
                        p, n, c[:k], c[k:]
                    )


def moved(plan: Plan) -> Iterator[Callable[[], Plan]]:
    """With one call elsewhere."""
    for number, stage in enumerate(plan.stages):
        first = len(stage.ahead)
        for at in range(len(stage.calls)):
            others = [*stage.calls[:at], *stage.calls[at + 1 :]]
            for to in range(len(others) + 1):
                calls = [*others[:to], stage.calls[at], *others[to:]]
                for split in {first, first - (at < first), first + (at >= first)} if first else {0}:
                    yield lambda n=number, c=calls, k=split: changed_stage(plan, n, c[:k], c[k:])


def divided(plan: Plan) -> Iterator[Callable[[], Plan]]:
    """With more or fewer of the calls made for all rows ahead of the others, which are made row after row."""
    for one in (plan, spread(plan)):
        for number, stage in enumerate(one.stages):
            for split in range(len(stage.calls) + 1):
                yield lambda p=one, n=number, c=stage.calls, k=split: changed_stage(
                    p, n, c[:k], c[k:]
                )


def spread(plan: Plan) -> Plan:
    """With a place of its own for each row of each buffer that is not carried."""
    end, buffers = 0, []
    for buffer in plan.buffers:
        if buffer.space == "scratch":
            buffer = replace(buffer, rows=plan.rows, offset=end)
            end += -(-buffer.nbytes // plan.alignment) * plan.alignment
        buffers.append(buffer)
    return replace(plan, buffers=tuple(buffers))


def shared(plan: Plan) -> Iterator[Callable[[], Plan]]:
    """With one buffer where another is, or partly there."""
    used = sorted({view.buffer for stage in plan.stages for view in pieces(stage)})
    for a in used:
        for b in used:
            for shift in (0, 4, -4, 19 * 4, 40):
                there = plan.buffers[b]
                if a != b and there.offset + shift >= 0:
                    here = replace(plan.buffers[a], space=there.space, offset=there.offset + shift)
                    buffers = (*plan.buffers[:a], here, *plan.buffers[a + 1 :])
                    yield lambda made=buffers: replace(plan, buffers=made)


def is_sound(plan: Plan) -> bool:
    """Whether all that is read was made before in the same step, and for those who rely on its bound."""
    empty, shift = -1, plan.state_bytes
    owner = np.full(shift + plan.scratch_bytes, empty)

    def bytes_of(view: View, row: int) -> slice:
        buffer = plan.buffers[view.buffer]
        item = ITEM_BYTES[buffer.dtype]
        at = buffer.offset + (shift if buffer.space == "scratch" else 0) + view.start * item
        at += row * buffer.size * item if buffer.rows > 1 else 0
        return slice(at, at + view.size * item)

    def passes(call: Call, row: int) -> bool:
        for view in call.inputs:
            found = owner[bytes_of(view, row)]
            if (found == empty).any() or (call.kernel in BOUNDED and (found != view.buffer).any()):
                return False
        for view in call.outputs:
            owner[bytes_of(view, row)] = view.buffer
        return True

    rows = range(plan.rows)
    for slot in (slot for stage in plan.stages for slot in stage.state):
        for row in rows:
            owner[bytes_of(slot.view, row)] = slot.view.buffer
    for _ in range(2):
        owner[shift:] = empty
        for row in rows:
            owner[bytes_of(plan.stages[0].x, row)] = plan.stages[0].x.buffer
        for stage in plan.stages:
            if not all(passes(call, row) for call in stage.ahead for row in rows):
                return False
            if not all(passes(call, row) for row in rows for call in stage.step):
                return False
        found = [owner[bytes_of(plan.stages[-1].y, row)] for row in rows]
        if np.any(np.array(found) == empty):
            return False
    return True


def outcome(plan: Plan, loaded: native.Plan, step: native.Plan) -> list[Array]:
    """Outputs and, after the last step, the state."""
    x = np.random.default_rng(4).normal(size=(STEPS * ROWS, INPUTS))
    if not plan.lanes:
        stream = native.Stream(step, loaded)
        return [stream.run(x), np.frombuffer(stream.get_state(), np.uint8)]
    outputs, lengths = np.empty((len(x), plan.outputs)), np.full(ROWS, STEPS)
    slots = [slot for stage in plan.stages for slot in stage.state]
    sizes = [s.view.size * ITEM_BYTES[plan.buffers[s.view.buffer].dtype] for s in slots]
    held = [np.empty((ROWS, size), np.uint8) for size in sizes]
    counts = np.zeros((len(plan.products), 3), np.uint64)
    native.run_batch(
        loaded, x, np.arange(ROWS), STEPS * np.arange(ROWS), lengths, 1, outputs, held, counts, []
    )
    return [outputs, *held]


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("kind", PLANS)
@pytest.mark.parametrize(
    ("change", "cases"), [(inserted, 40), (moved, 20), (divided, 80), (shared, 15)]
)
def test_changed_plans_give_the_same_with_and_without_joined_calls(
    cell: str, kind: str, change: Callable[[Plan], Iterator[Callable[[], Plan]]], cases: int
) -> None:
    """`cases` changed plans, drawn of all that there are."""
    weights = Shared(random_program(cell))
    chunk, lanes = PLANS[kind]
    plan = with_spare_state(weights.native_plan(chunk=chunk, lanes=lanes)[0])

    def load(changed: Plan) -> native.Plan:
        return load_plan(changed, weights.weights, weights.sites)

    step = load(with_spare_state(weights.plan))
    joined = compared = 0
    changes = list(change(plan))
    for at in np.random.default_rng(5).permutation(len(changes)):
        changed = changes[at]()
        if not is_sound(changed):
            continue
        apart = unjoined(changed)
        try:
            both = load(changed), load(apart)
            steps = both if plan.rows == 1 else (step, step)
            if not plan.lanes:
                for pair in zip(steps, both, strict=True):
                    native.Stream(*pair)
        except ValueError:  # operands of a call overlap, or steps rely on sums that this changes
            continue
        assert both[1].calls == len(apart.calls)
        found, expected = map(outcome, (changed, apart), both, steps)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
        compared += 1
        joined += both[0].calls < len(changed.calls)
        if compared == cases:
            break
    assert joined > 0
