"""The integer arithmetic in plain Python integers: one sequence, one step, one element at a time.

Written from the definitions of docs/arithmetic.md, without the kernels, the tracer or the
interpreter; slow, and with no width to overflow. Cells run in it through their own equations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.extension import Cell, Nonlinearity
from modelflex.core.fixed import Array
from modelflex.core.layout import Geometry
from modelflex.core.model import Layer, Model
from modelflex.core.piecewise import Piecewise
from modelflex.core.program import build_program
from modelflex.core.tracer import Product
from modelflex.core.weight import Chain, Matrix, Sum, Weight
from modelflex.core.windows import Windows
from modelflex.testing.generators import integer_matrix

Vector = list[int]
Taps = list[list[int]]
"""The elements of a vector that a weight is multiplied with at every position; −1 for none."""
TABLE = [min(round(2**15 * math.tanh(i / 32)), 32767) for i in range(257)]
MAX_SHIFT = 62


def rsh(a: int, s: int) -> int:
    """⌊(a + 2^(s−1)) / 2^s⌋ for s ≥ 1, a·2^(−s) else."""
    return (a + 2 ** (s - 1)) // 2**s if s >= 1 else a * 2**-s


def clamp(a: int, bits: int) -> int:
    """The nearest signed integer of `bits` bits."""
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, a))


def fx(x: float) -> int:
    """A real input as fx: 16 fractional bits, ties to even, saturated."""
    return clamp(round(Fraction(x) * 2**16), 32)


def tanh(x: int) -> int:
    """fx tanh by table and linear interpolation."""
    i, f = divmod(min(abs(x), 2**19 - 1), 2048)
    y = 2 * TABLE[i] + rsh((TABLE[i + 1] - TABLE[i]) * f, 10)
    return -y if x < 0 else y


def sigmoid(x: int) -> int:
    """fx σ by tanh."""
    return 2**15 + rsh(tanh(rsh(x, 1)), 1)


def multiplier(factors: list[Fraction]) -> tuple[list[int], int]:
    """int16 mantissas and the largest shift (≤ 62) at which none is above 2¹⁵ − 1."""
    top, s = max(factors), 0
    while round(top * Fraction(2) ** s) > 2**15 - 1:
        s -= 1
    while round(top * Fraction(2) ** (s + 1)) <= 2**15 - 1:
        s += 1
    mantissas = [max(round(f * Fraction(2) ** s), 1) for f in factors]
    return [rsh(m, max(s - MAX_SHIFT, 0)) for m in mantissas], min(s, MAX_SHIFT)


class OneHot(Vector):
    """A vector of which products read what is not 0."""


def piecewise(x: int, table: Piecewise) -> int:
    """centre ± the line of the last segment that starts at or below |x|."""
    segments = zip(*(a.tolist() for a in (table.breaks, table.values, table.slopes)), strict=True)
    start, value, slope = [segment for segment in segments if segment[0] <= abs(x)][-1]
    y = value + rsh(slope * (abs(x) - start), 16)
    return table.centre + (-y if x < 0 else y)


class Integers:
    """The namespace of cells over lists of Python integers, perhaps with a nonlinearity's tables."""

    def __init__(self, nonlinearity: Nonlinearity | None = None) -> None:
        made = nonlinearity
        self.tables = {} if made is None else {n: made.table(n) for n in ("sigmoid", "tanh")}

    def _function(self, name: str, exact: Callable[[int], int], a: Vector) -> Vector:
        table = self.tables.get(name)
        return [exact(x) if table is None else piecewise(x, table) for x in a]

    def add(self, a: Vector, b: Vector) -> Vector:
        """Saturating sum."""
        return [clamp(x + y, 32) for x, y in zip(a, b, strict=True)]

    def sub(self, a: Vector, b: Vector) -> Vector:
        """Saturating difference."""
        return [clamp(x - y, 32) for x, y in zip(a, b, strict=True)]

    def mul(self, a: Vector, b: Vector) -> Vector:
        """Rounded, saturated product."""
        return [clamp(rsh(x * y, 16), 32) for x, y in zip(a, b, strict=True)]

    def sigmoid(self, a: Vector) -> Vector:
        """σ of every element."""
        return self._function("sigmoid", sigmoid, a)

    def tanh(self, a: Vector) -> Vector:
        """Tanh of every element."""
        return self._function("tanh", tanh, a)

    def relu(self, a: Vector) -> Vector:
        """max(x, 0) of every element."""
        return [max(x, 0) for x in a]

    def one_hot(self, a: Vector, size: int) -> Vector:
        """2¹⁶ at the nearest whole number, ties upwards."""
        return OneHot(2**16 if i == rsh(a[0], 16) else 0 for i in range(size))

    def concat(self, parts: Sequence[Vector]) -> Vector:
        """One after another."""
        return [x for part in parts for x in part]

    def split(self, a: Vector, parts: int) -> list[Vector]:
        """Equal consecutive pieces."""
        n = len(a) // parts
        return [a[i * n : (i + 1) * n] for i in range(parts)]

    def slice(self, a: Vector, start: int, stop: int) -> Vector:
        """The elements start … stop − 1."""
        return a[start:stop]


class Reals:
    """The namespace of cells over float64 arrays."""

    def add(self, a: Array, b: Array) -> Array:
        """Sum."""
        return a + b

    def sub(self, a: Array, b: Array) -> Array:
        """Difference."""
        return a - b

    def mul(self, a: Array, b: Array) -> Array:
        """Product."""
        return a * b

    def sigmoid(self, a: Array) -> Array:
        """σ by its definition."""
        return 1.0 / (1.0 + np.exp(-a))

    def tanh(self, a: Array) -> Array:
        """Hyperbolic tangent."""
        return np.tanh(a)

    def relu(self, a: Array) -> Array:
        """max(x, 0)."""
        return np.where(a > 0, a, 0.0)

    def one_hot(self, a: Array, size: int) -> Array:
        """1 at the nearest whole number."""
        return (np.arange(size) == round(float(a[0]))).astype(np.float64)

    def concat(self, parts: Sequence[Array]) -> Array:
        """One after another."""
        return np.concatenate(parts)

    def split(self, a: Array, parts: int) -> list[Array]:
        """Equal consecutive pieces."""
        return np.split(a, parts)

    def slice(self, a: Array, start: int, stop: int) -> Array:
        """The elements start … stop − 1."""
        return a[start:stop]


@dataclass
class Counts:
    """What one product did: see `modelflex.core.profile.SiteCounts`."""

    runs: int = 0
    units: int = 0
    active: int = 0


def affine(
    weight: Weight, products: Mapping[str, Product], counts: Mapping[str, Counts], name: str
) -> Callable[..., Vector]:
    """An integer weight as a function of fx numbers; its products have the sites name/0, name/1 and so on."""
    ready = [
        Affine(matrix, products[f"{name}/{i}"].geometry, counts[f"{name}/{i}"])
        for i, matrix in enumerate(weight.products)
    ]

    def apply(form: Weight, v: Vector, first: int, taps: Taps | None) -> Vector:
        if isinstance(form, Matrix):
            return ready[first](v, taps)
        if isinstance(form, Chain):
            for number, factor in enumerate(form.factors):
                v = ready[first + number](v, taps)
                if taps is not None:  # what follows reads all channels of a position
                    n = len(taps)
                    taps = [[c * n + p for c in range(factor.shape[0])] for p in range(n)]
            return v
        assert isinstance(form, Sum)
        total: Vector = []
        for term in form.terms:
            y = apply(term, v, first, taps)
            total = Integers().add(total, y) if total else y
            first += len(term.products)
        return total

    return lambda v, windows=None: apply(
        weight, v, 0, None if windows is None else windows.taps.tolist()
    )


class Affine:
    """One integer product, with what its activity remembers of this sequence.

    The activity's own `replay` says which codes the product sees; its result is always computed
    anew as bias + A·x̂, so it cannot drift.
    """

    def __init__(self, weight: Matrix, geometry: Geometry, counts: Counts) -> None:
        (self.link,) = weight.links
        self.geometry, self.counts = geometry, counts
        self.matrix: list[list[int]] = integer_matrix(weight).tolist()
        step = Fraction(self.link.step)
        rows = [Fraction(float(r)) for r in weight.accumulator_scale()]
        self.factors, self.shift = multiplier([r * 2**16 for r in rows])
        (self.gain,), self.gain_shift = multiplier([1 / (step * 2**16)])
        self.bias = [0] * len(rows)
        if weight.bias is not None:
            units = weight.bias.value()
            self.bias = [int(b) for b in units]
            assert np.array_equal(units, self.bias), (
                "a bias is no whole number of accumulator units"
            )
        self.history: list[Vector] = []

    def __call__(self, v: Vector, taps: Taps | None = None) -> Vector:
        """A·v + b of fx numbers; with taps [out, positions], A being applied at each of them."""
        codes = [clamp(rsh(x * self.gain, self.gain_shift), self.link.bits) for x in v]
        size = self.geometry.block
        seen, mask = self._seen(codes, size if taps is None else 1)
        if self.link.activity is None and isinstance(v, OneHot):
            mask = [x != 0 for x in codes]
        taps = [list(range(len(codes)))] if taps is None else taps
        sent = [[t >= 0 and mask[t] for t in at] for at in taps]
        if self.link.activity is None and not isinstance(v, OneHot):
            sent = [[True] * len(at) for at in taps]
        columns = [any(at[k] for at in sent) for k in range(len(taps[0]))]
        self.counts.runs += 1
        self.counts.active += sum(map(sum, sent))
        self.counts.units += sum(any(columns[k : k + size]) for k in range(0, len(columns), size))
        result = []
        for row, bias, factor in zip(self.matrix, self.bias, self.factors, strict=True):
            for at in taps:
                total = bias + sum(a * seen[t] for a, t in zip(row, at, strict=True) if t >= 0)
                result.append(clamp(rsh(total * factor, self.shift), 32))
        return result

    def _seen(self, codes: Vector, block: int) -> tuple[Vector, list[bool]]:
        if self.link.activity is None:
            return codes, [True] * len(codes)
        self.history.append(codes)
        held, mask = self.link.activity.replay(
            np.array(self.history, np.int16),
            np.array([len(self.history)]),
            block,
            self.link,
        )
        return held[-1].tolist(), mask[-1].tolist()


@dataclass
class OracleRun:
    """Outputs in fx [ΣT or N, K], and counters by site."""

    outputs: list[Vector] = field(default_factory=list)
    counts: dict[str, Counts] = field(default_factory=dict)


def run_integers(model: Model, data: Sequences) -> OracleRun:
    """Run a compressed model over sequences, one after another."""
    products = build_program(model).products
    result = OracleRun(counts={site: Counts() for site in products})
    start = 0
    for length in data.lengths.tolist():
        values = [[fx(x) for x in row] for row in data.x[start : start + length].tolist()]
        start += length
        steppers = []
        for layer in model.layers:
            params = {}
            for name in layer.weight_shapes:
                made = affine(model.weights[name], products, result.counts, name)
                params[name.removeprefix(layer.name + ".")] = made
            steppers.append(Stepper(Integers(layer.nonlinearity), layer, params, list))
        result.outputs += run_layers(steppers, values, [0] * model.outputs)
    return result


def run_reals(model: Model, data: Sequences) -> Array:
    """Run an uncompressed model over sequences in float64: outputs [ΣT or N, K]."""
    outputs: list[Array] = []
    start = 0
    for length in data.lengths.tolist():
        values = list(data.x[start : start + length].astype(np.float64))
        start += length
        steppers = []
        for layer in model.layers:
            params = {
                name.removeprefix(layer.name + "."): _real_affine(model.weights[name])
                for name in layer.weight_shapes
            }
            steppers.append(Stepper(Reals(), layer, params, np.array))
        outputs += run_layers(steppers, values, np.zeros(model.outputs))
    return np.array(outputs)


def _real_affine(weight: Weight) -> Callable[..., Array]:
    matrix, bias = weight.dense(), weight.bias_value()

    def apply(x: Array, windows: Windows | None = None) -> Array:
        if windows is None:
            return matrix @ x + bias
        seen = [[x[t] if t >= 0 else 0.0 for t in at] for at in windows.taps.tolist()]
        return np.array([matrix @ at + bias for at in seen]).T.ravel()

    return apply


class Stepper:
    """One layer of one sequence in a namespace, step after step.

    Attributes:
        F: the namespace.
        layer, params: the layer and its weights as functions.
        vector: makes a value of the namespace from a list.
    """

    def __init__(
        self, F: Any, layer: Layer, params: Mapping[str, Any], vector: Callable[[list[Any]], Any]
    ) -> None:
        self.F, self.layer, self.params = F, layer, params
        plugin = layer.plugin
        if isinstance(plugin, Cell):
            self.state = dict.fromkeys(plugin.states, vector([0] * layer.units))
        else:
            self.frames = [vector([0] * layer.inputs)] * layer.past

    def step(self, x: Any, before: Any) -> Any:
        """The layer's result of x, and of what it carries of the network's output `before`."""
        layer, F = self.layer, self.F
        if layer.carries:
            x = F.concat([x, before[len(before) - layer.carries :]])
        plugin = layer.plugin
        if isinstance(plugin, Cell):
            y, self.state = plugin.step(F, x, self.state, self.params)
            return y
        frames = [*self.frames, x]
        self.frames = frames[1:]
        return plugin.apply(F, F.concat(frames) if layer.past else x, self.params, layer.sizes)


def run_layers(steppers: Sequence[Stepper], values: Sequence[Any], y: Any) -> list[Any]:
    """The outputs of a sequence: of every step, or of the last where a layer reads that only.

    Args:
        y: the network's output before the first step.
    """
    outputs = []
    for number, x in enumerate(values):
        for stepper in steppers:
            if stepper.layer.reads == "last" and number < len(values) - 1:
                break
            x = stepper.step(x, y)
        else:
            y = x
            outputs.append(y)
    return outputs
