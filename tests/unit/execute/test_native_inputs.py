"""How inputs come into the native runtime, beside the interpreter: piece by piece, quantised on the way."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from modelflex.execute.native import Runtime, execute

INT8 = {"weights": "*", "format": {"method": "uniform", "bits": 8}}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_long_inputs(cell: str) -> None:
    """They come in piece by piece, some far larger than the others."""
    rng = np.random.default_rng(4)
    layer, gates = Layer("layer", cell, 1100, 20), {"lstm": 4, "gru": 3}[cell]
    weights = {
        f"layer.w_{name}": float_weight(
            rng.normal(0, 0.03, (gates * 20, size)), np.zeros(gates * 20), gates
        )
        for name, size in (("x", 1100), ("h", 20))
    }
    model = Model("long", (layer,), weights, output="values")
    x = rng.normal(size=(41, 1100)).astype(np.float32)
    x[rng.random(x.shape) < 0.003] *= 10
    data = Sequences(x, np.array([len(x)]))
    recipe = recipe_from_json({"schema": "modelflex.recipe/1", "label": "int8", "rules": [INT8]})
    program = build_program(compress(model, recipe, calibrate(model, data)).model)
    wanted = Interpreter(program).run(data).outputs
    runtime = Runtime(program)
    np.testing.assert_array_equal(runtime.run(x.astype(float)), wanted)
    runtime.reset()
    narrow = wanted.astype(np.float32)
    np.testing.assert_array_equal(runtime.run(x), narrow)
    runtime.reset()
    np.testing.assert_array_equal([runtime.step(row) for row in x], narrow)
    np.testing.assert_array_equal(execute(program, data).outputs, wanted)
    before = runtime.state["layer"]
    for row, number in ((40, np.nan), (0, np.inf), (20, -np.inf)):
        for spoilt in (x.copy(), x.astype(float)):
            spoilt[row, 1099 if row else 7] = number
            with pytest.raises(ValueError, match="x holds NaN"):
                runtime.run(spoilt)
            with pytest.raises(ValueError, match="x holds NaN"):
                runtime.step(spoilt[row])
            for slot, value in runtime.state["layer"].items():
                np.testing.assert_array_equal(value, before[slot])
