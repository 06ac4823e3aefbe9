"""Cells that hand an old state on, as their output or as another state, in all executors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.extension import Cell, Namespace
from modelflex.core.fixed import FX_ONE
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe, Rule
from modelflex.execute.interpret import run
from modelflex.registry import CELLS, FORMATS, STRUCTURES
from modelflex.testing.generators import random_model, random_sequences
from modelflex.testing.native import check_native
from modelflex.testing.oracle import run_integers, run_reals

State = Mapping[str, Any]
Step = tuple[Any, dict[str, Any]]


class _Simple(Cell):
    reference = "a test"
    states = ("h", "old")
    gates: Mapping[str, int] = {"w_x": 1, "w_h": 1}
    additive = ("w_x", "w_h")

    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        return {"w_x": (units, inputs), "w_h": (units, units)}

    def new(self, F: Namespace, x: Any, seen: Any, params: State) -> Any:
        return F.tanh(F.add(params["w_x"](x), params["w_h"](seen)))


class Late(_Simple):
    """Gives the state before the step."""

    states = ("h",)

    def step(self, F: Namespace, x: Any, state: State, params: State) -> Step:
        return state["h"], {"h": self.new(F, x, state["h"], params)}


class Shift(_Simple):
    """Sees the state of two steps before."""

    def step(self, F: Namespace, x: Any, state: State, params: State) -> Step:
        h = self.new(F, x, state["old"], params)
        return h, {"h": h, "old": state["h"]}


class Swap(_Simple):
    """States change places."""

    def step(self, F: Namespace, x: Any, state: State, params: State) -> Step:
        h = self.new(F, x, state["h"], params)
        return state["old"], {"h": F.add(state["old"], h), "old": state["h"]}


class Halves(_Simple):
    """Gives pieces of the state before the step."""

    states = ("h",)

    def step(self, F: Namespace, x: Any, state: State, params: State) -> Step:
        first, second = F.split(state["h"], 2)
        return F.concat([second, first]), {"h": self.new(F, x, state["h"], params)}


@pytest.mark.parametrize(
    "cell", [Late(), Shift(), Swap(), Halves()], ids=lambda c: type(c).__name__
)
@pytest.mark.parametrize("numeric", ["float", "integer"])
def test_an_old_state_is_handed_on(
    cell: Cell, numeric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    CELLS.names()
    monkeypatch.setitem(CELLS._entries, "handing", cell)
    rng = np.random.default_rng(0)
    model = random_model(rng, ["handing"], inputs=3, units=4, reads="every")
    data = random_sequences(rng, (6, 4, 1), 3)
    if numeric == "integer":
        choice = Choice(
            STRUCTURES.get("dense")(), FORMATS.get("uniform")(bits=8), Activation(8, "max"), None
        )
        recipe = Recipe(tuple(Rule(name, choice) for name in model.weights), 0, label="all")
        model = compress(model, recipe, calibrate(model, data)).model
    program = build_program(model)
    found = run(program, data)
    if numeric == "integer":
        assert (found.outputs * FX_ONE).tolist() == run_integers(model, data).outputs
    else:
        np.testing.assert_allclose(found.outputs, run_reals(model, data), atol=1e-5)
    check_native(program, data, found)
