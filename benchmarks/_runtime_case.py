"""What is measured by the benchmark of the runtime: recurrent cells of random weights, and contenders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

SEQUENCE_STEPS = 100
GATES = {"lstm": 4, "gru": 3}
LARGE = 1 << 20
"""Weights from which on a ring has few inputs: a step takes long."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A recurrent layer: row groups i, f, g, o (LSTM) or r, z, n (GRU, reset gate after the product)."""

    cell: str
    inputs: int
    units: int

    @property
    def name(self) -> str:
        return f"{self.cell} ({self.inputs},{self.units})"

    @property
    def weights(self) -> int:
        """Numbers of both matrices."""
        return GATES[self.cell] * self.units * (self.inputs + self.units)

    @cached_property
    def tensors(self) -> dict[str, Array]:
        """Matrices w_x [gates·units, inputs] and w_h [gates·units, units], biases b_x, b_h; binary32.

        The more inputs, the smaller their weights: gates that saturate would make much of the rounding
        of any int8 runtime.
        """
        rng = np.random.default_rng([self.inputs, self.units, GATES[self.cell]])
        rows, bound = GATES[self.cell] * self.units, 1 / np.sqrt(self.units)
        shapes = {
            "w_x": (rows, self.inputs),
            "w_h": (rows, self.units),
            "b_x": (rows,),
            "b_h": (rows,),
        }
        bounds = {
            n: min(bound, 1 / np.sqrt(s[-1])) if n == "w_x" else bound for n, s in shapes.items()
        }
        return {
            n: rng.uniform(-bounds[n], bounds[n], s).astype(np.float32) for n, s in shapes.items()
        }

    @cached_property
    def ring(self) -> Array:
        """Inputs that are fed again and again, float32 [even number, inputs]."""
        rng = np.random.default_rng(self.inputs)
        steps = 16 if self.weights >= LARGE else 64
        return rng.normal(size=(steps, self.inputs)).astype(np.float32)

    @cached_property
    def sequence(self) -> Array:
        """float32 [100, inputs]."""
        rng = np.random.default_rng(self.inputs + 1)
        return rng.normal(size=(SEQUENCE_STEPS, self.inputs)).astype(np.float32)

    @cached_property
    def of_ring(self) -> Array:
        """h after one turn of the ring."""
        return self.expected(self.ring)[-1]

    @cached_property
    def of_sequence(self) -> Array:
        """h after every step of the sequence."""
        return self.expected(self.sequence)

    def expected(self, x: Array) -> Array:
        """h after every step from a state of zeros, in binary64: [T, units]."""
        w = {name: value.astype(np.float64) for name, value in self.tensors.items()}
        h, c = np.zeros(self.units), np.zeros(self.units)
        out = []
        for step in x.astype(np.float64):
            in_x, in_h = w["w_x"] @ step + w["b_x"], w["w_h"] @ h + w["b_h"]
            if self.cell == "lstm":
                i, f, g, o = np.split(in_x + in_h, 4)
                c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
                h = _sigmoid(o) * np.tanh(c)
            else:
                (xr, xz, xn), (hr, hz, hn) = np.split(in_x, 3), np.split(in_h, 3)
                n = np.tanh(xn + _sigmoid(xr + hr) * hn)
                z = _sigmoid(xz + hz)
                h = n + z * (h - n)
            out.append(h)
        return np.stack(out)


def _sigmoid(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


@dataclass(frozen=True)
class Contender:
    """One implementation of a case in one mode ("step" or "sequence").

    Attributes:
        tokens: what `run` consumes, prepared beforehand: one for each input of the ring ("step"), or
            one for the whole sequence.
        run: does the work of some tokens one after another; state is carried from call to call. In
            "step" mode an even number of tokens, from the start of the ring, keeps its place.
        result: the last h [units], or all of the sequence [T, units], as the caller can read it.
        reset: back to a state of zeros.
        tolerance: of the largest difference to what is expected, checked before anything is timed.
        notes: further facts for the result file.
        expected: the result of one turn from zeros; None for that of `Case.expected`.
    """

    name: str
    kind: str
    precision: str
    mode: str
    tokens: Sequence[Any]
    run: Callable[[Sequence[Any]], None]
    result: Callable[[], Array]
    reset: Callable[[], None]
    tolerance: float
    notes: dict[str, Any]
    expected: Array | None = None


def largest_difference(contender: Contender, case: Case) -> float:
    """Run from zeros and compare the result with what is expected.

    Raises:
        RuntimeError: it is off by more than the tolerance: another computation, or a wrong one.
    """
    contender.reset()
    contender.run(contender.tokens)
    wanted = contender.expected
    if wanted is None:
        wanted = case.of_ring if contender.mode == "step" else case.of_sequence
    found = np.asarray(contender.result(), np.float64).reshape(wanted.shape)
    difference = float(np.abs(found - wanted).max(initial=0.0))
    if not difference <= contender.tolerance:
        raise RuntimeError(f"its result is off by {difference:.3g}")
    return difference
