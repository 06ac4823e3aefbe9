"""Steps of LSTM and GRU run as one call where the CPU has a kernel for it; results never change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.plan import Call, Plan
from modelflex.core.program import Program, build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.native import Shared, load_plan, run_native

INPUTS, UNITS = 5, 19
X = np.linspace(-1.0, 1.0, INPUTS)
GATES = {"lstm": 4, "gru": 3}


def saved() -> int:
    """Calls that a step saves: 12 become one."""
    return 11 if native.isa() in ("avx2", "avx512vnni") else 0


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
    assert loaded.calls == len(plan.calls) - 2 * saved()


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
    assert loaded.calls == len(others.calls) - saved()
    expected = native_step(others, shared)
    assert expected.any()
    np.testing.assert_array_equal(native.Stream(loaded, loaded).step(X), expected)


def native_step(plan: Plan, shared: Shared) -> Array:
    """The same step where each call is made by itself, in a stage of its own that the others cannot join."""
    apart = tuple(
        replace(plan.stages[-1], ahead=(), step=(call,), state=()) for call in plan.stages[-1].calls
    )
    first = replace(apart[0], state=plan.stages[-1].state)
    stages = (plan.stages[0], first, *apart[1:])
    loaded = load_plan(replace(plan, stages=stages), shared.weights, shared.sites)
    return np.asarray(native.Stream(loaded, loaded).step(X))
