"""The constants of this machine: small products and layers are run, and their times fitted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array, Scale
from modelflex.core.model import Layer, Model
from modelflex.core.part import Grid, Part
from modelflex.core.platform import Executor
from modelflex.core.products import stage_row
from modelflex.core.program import build_program
from modelflex.core.tracer import Activity, Link
from modelflex.core.weight import Matrix, float_weight
from modelflex.platforms.cpu.constants import (
    PACKED_BITS,
    Constants,
    LayerTime,
    ProductTime,
)
from modelflex.platforms.cpu.timing import Stepper, in_turns, read_bytes_per_s
from modelflex.registry import ACTIVITIES

SHAPES: Final = ((32, 32), (32, 512), (512, 32), (128, 128), (256, 256), (512, 256))
"""(results, inputs) of products: all weights lie in a cache near the core."""
SHARES: Final = (0.1, 0.3)
"""Of the inputs that are active, where the time hangs on it."""
READ_BYTES: Final = tuple(1 << n for n in (14, 17, 19, 20, 22, 24, 26))
LAYERS: Final = tuple(itertools.product(("lstm", "gru"), (16, 64, 256)))
INPUTS: Final = 16
TINY: Final = (2, 2)
"""Results and inputs of the product whose step is hardly more than its call."""
ROUNDS: Final = 25
SPREAD: Final = 2.0**-3
"""Of changes, where inputs reach from -1 to 1: 16 steps of 8-bit codes, as in signals that move slowly."""
WALK: Final = 12
"""Changes of the inputs, which then run backwards."""
LEAST: Final = 2.0**-6
"""More than a step of 8-bit codes, so that every change is one."""
NUMERIC: Final = {"float": "float32", "integer": "8"}
"""Arithmetic → kind of the products of the layers that are timed for it."""


@dataclass(frozen=True)
class Case:
    """What is timed: a product of a kind, or a layer of such products, and the share that changes."""

    kind: str
    layer_kind: str
    inputs: int
    units: int
    share: float = 1.0

    @property
    def layer(self) -> Layer:
        return Layer("layer", self.layer_kind, self.inputs, self.units)

    def stepper(self, executor: Executor) -> Stepper:
        """It, ready to run."""
        weights = {
            name: _weight(self.kind, shape, max(1, shape[0] // self.units))
            for name, shape in self.layer.weight_shapes.items()
        }
        model = Model("calibration", (self.layer,), weights, output="values")
        return Stepper(executor(build_program(model)), _inputs(self.inputs, self.share))


def calibrate(executor: Executor, machine: Mapping[str, Any]) -> Constants:
    """Measure this machine, in a second or two where nothing else runs."""
    first = _product("float32", TINY)
    cases = [first, *itertools.chain(*map(_product_cases, PACKED_BITS))]
    cases += [c for numeric in NUMERIC for c in _layer_cases(numeric)]
    times = in_turns([case.stepper(executor) for case in cases], ROUNDS)
    seconds = dict(zip(cases, map(float, times), strict=True))
    call_s = seconds[first]
    products = {kind: _fit_product(kind, seconds, call_s) for kind in PACKED_BITS}
    layers = {
        numeric: _fit_layer(numeric, seconds, products[kind], call_s)
        for numeric, kind in NUMERIC.items()
    }
    read = tuple((size, read_bytes_per_s(size)) for size in READ_BYTES)
    return Constants(machine, call_s, products, layers, read)


def _product(kind: str, shape: tuple[int, int], share: float = 1.0) -> Case:
    return Case(kind, "dense", shape[1], shape[0], share)


def _product_cases(kind: str) -> list[Case]:
    shares = (*SHARES, 1.0) if kind.startswith("delta") else (1.0,)
    return [_product(kind, shape, share) for share in shares for shape in SHAPES]


def _layer_cases(numeric: str) -> list[Case]:
    return [Case(NUMERIC[numeric], cell, INPUTS, units) for cell, units in LAYERS]


def fit_seconds(features: Array, seconds: Array) -> Array:
    """Factors ≥ 0 [F] that explain times [n] by features [n, F], least squares of relative errors.

    Of all sets of factors that may be above zero, the best whose solution has none below it; that is
    the solution of non-negative least squares (Lawson and Hanson, 1974, chapter 23).
    """
    scaled = features / seconds[:, None]
    count = features.shape[1]
    best, least = np.zeros(count), float(len(seconds))
    for used in itertools.product((False, True), repeat=count):
        chosen = np.array(used)
        if not chosen.any():
            continue
        found = np.linalg.lstsq(scaled[:, chosen], np.ones(len(seconds)), rcond=None)[0]
        error = float(np.sum((scaled[:, chosen] @ found - 1) ** 2))
        if found.min() >= 0 and error < least:
            best, least = np.zeros(count), error
            best[chosen] = found
    return best


def _fit_product(kind: str, seconds: Mapping[Case, float], call_s: float) -> ProductTime:
    def above(shares: Sequence[float]) -> tuple[Array, Array]:
        """Features [n, 4] and times [n] beside the call."""
        cases = list(itertools.product(SHAPES, shares))
        times = [seconds[_product(kind, shape, share)] for shape, share in cases]
        features = [[1, k, m, share * m * k] for (m, k), share in cases]
        return np.array(features, np.float64), _beside(np.array(times), call_s)

    features, times = above(SHARES if kind.startswith("delta") else (1.0,))
    found = fit_seconds(features, times)
    features, times = above((1.0,))
    most = float(np.median((times - features[:, :3] @ found[:3]) / features[:, 3]))
    run_s, input_s, result_s, mac_s = map(float, found)
    return ProductTime(run_s, input_s, result_s, mac_s, max(most, mac_s * SHARES[0]))


def _fit_layer(
    numeric: str, seconds: Mapping[Case, float], product: ProductTime, call_s: float
) -> LayerTime:
    features, times = [], []
    for case in _layer_cases(numeric):
        row, shapes = stage_row((case.layer,), 1.0), case.layer.weight_shapes.values()
        known = call_s + sum(product.seconds(*shape) for shape in shapes)
        features.append([1.0, row.m, row.functions])
        times.append(float(_beside(np.array(seconds[case]), known)))
    return LayerTime(*map(float, fit_seconds(np.array(features), np.array(times))))


def _beside(seconds: Array, known: float) -> Array:
    """What is left of times; not nothing where noise says so."""
    return np.maximum(seconds - known, 0.01 * seconds)


def _inputs(size: int, share: float) -> Sequence[Array]:
    """Inputs of which each differs from the one before, also in a circle, in a share of the elements.

    They are several, so that the processor cannot learn which elements change.
    """
    rng = np.random.default_rng(size)
    walk = [rng.uniform(-0.5, 0.5, size)]
    for _ in range(WALK):
        changed = rng.permutation(size) < max(1, round(share * size))
        change = np.abs(rng.normal(0.0, SPREAD, size)) + LEAST
        # Towards zero, beyond it: the walk stays where codes reach.
        walk.append(np.where(changed, walk[-1] - np.copysign(change, walk[-1]), walk[-1]))
    return [x.astype(np.float32) for x in (*walk, *walk[-2:0:-1])]


def _weight(kind: str, shape: tuple[int, int], gates: int) -> Matrix:
    """A weight of random codes that the runtime multiplies as this kind."""
    rng = np.random.default_rng(shape)
    if kind == "float32":
        return float_weight(rng.uniform(-0.1, 0.1, shape), rng.uniform(-0.1, 0.1, shape[0]), gates)
    plain = kind.removeprefix("delta_")
    activity: Activity | None = None
    if kind != plain:
        activity = ACTIVITIES.get("delta")(threshold=0.0)
    input_bits = 16 if plain in ("wide", "16") else 8
    link = Link(input_bits, Scale.nearest(2.0 ** (1 - input_bits)), activity)
    layout, bits, grid = "dense", 8, Grid()
    sizes: tuple[int, ...] = shape
    if plain.startswith("circulant"):
        block = int(plain.rpartition("_")[2])
        layout, sizes = "circulant", (shape[0] // block, shape[1] // block, block)
    elif plain in ("wide", "4", "2", "1"):
        bits = 16 if plain == "wide" else int(plain)
        grid = Grid("odd") if bits <= 2 else grid
    largest = (1 << bits) - 1 if grid.kind == "odd" else (1 << (bits - 1)) - 1
    codes = rng.integers(-largest, largest + 1, sizes).astype(np.int64)
    if grid.kind == "odd":
        codes = 2 * rng.integers(0, 1 << bits, sizes) - largest
    scale = Scale.nearest(np.full(sizes[0], 0.1 / largest))
    return Matrix(Part(codes, bits, scale, 1, grid), None, link, gates, layout, shape[1])
