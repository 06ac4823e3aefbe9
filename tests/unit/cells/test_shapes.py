"""Shapes and gates of the cells, and the order of their row groups (that of torch)."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import run
from modelflex.registry import CELLS


def with_bias(kind: str, gate_biases: list[float], steps: int) -> np.ndarray:
    """Hidden values of a cell of one unit whose matrices are zero and whose gates have these biases."""
    rows = len(gate_biases)
    weights = {
        "l.w_x": float_weight(np.zeros((rows, 1)), np.array(gate_biases), rows),
        "l.w_h": float_weight(np.zeros((rows, 1)), None, rows),
    }
    model = Model("one unit", (Layer("l", kind, 1, 1),), weights)
    data = Sequences(np.ones((steps, 1), np.float32), np.array([steps]))
    return run(build_program(model), data).outputs[:, 0]


def sigmoid(v: float) -> float:
    return float(1 / (1 + np.exp(-v)))


def test_lstm_gates_are_i_f_g_o() -> None:
    i, f, g, o = 0.3, -0.4, 0.7, 1.1
    c, wanted = 0.0, []
    for _ in range(3):
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        wanted.append(sigmoid(o) * np.tanh(c))
    np.testing.assert_allclose(with_bias("lstm", [i, f, g, o], 3), wanted, atol=1e-6)


def test_gru_gates_are_r_z_n() -> None:
    r, z, n = 0.3, -0.4, 0.7
    h, wanted = 0.0, []
    for _ in range(3):
        h = (1 - sigmoid(z)) * np.tanh(n) + sigmoid(z) * h
        wanted.append(h)
    np.testing.assert_allclose(with_bias("gru", [r, z, n], 3), wanted, atol=1e-6)


@pytest.mark.parametrize(("kind", "gates"), [("lstm", 4), ("gru", 3)])
def test_shapes(kind: str, gates: int) -> None:
    cell = CELLS.get(kind)
    assert cell.shapes(5, 7) == {"w_x": (gates * 7, 5), "w_h": (gates * 7, 7)}
    assert cell.gates == {"w_x": gates, "w_h": gates}
