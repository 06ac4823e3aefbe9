"""Going back through a run: gradients of weights, and of what objectives say about results inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.packing import make_packing
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.program import build_program
from modelflex.core.weight import Chain, Matrix, Weight, float_weight
from modelflex.execute.gradients import Forward
from modelflex.testing.generators import (
    make_model,
    random_carrying_model,
    random_model,
    random_sequences,
)
from modelflex.testing.oracle import run_reals

LENGTHS = (6, 1, 4, 6)
STEP = 2.0**-7
"""Of weights, a number that float32 adds exactly; results are those of the float64 equations."""


def chained(model: Model, rng: np.random.Generator, rank: int = 3) -> Model:
    """Every recurrent weight as a product of two, with a bias between them."""
    made = {}
    for name, weight in model.weights.items():
        if name.startswith("layer"):
            rows, columns = weight.shape
            first = float_weight(
                rng.normal(0, columns**-0.5, (rank, columns)), rng.normal(size=rank), 1
            )
            second = float_weight(
                rng.normal(size=(rows, rank)), rng.normal(size=rows), weight.gates
            )
            made[name] = Chain((first, second))
    return model.with_weights(made)


def products_of(weight: Weight) -> list[tuple[Array, Array]]:
    """(matrix, bias) of every product of a weight of floats."""
    return [(p.dense(), p.bias_value()) for p in weight.products]


def meant(model: Model) -> Model:
    """The same network with one matrix for each chain."""
    made = {}
    for name, weight in model.weights.items():
        matrix, bias = products_of(weight)[0]
        for factor, more in products_of(weight)[1:]:
            matrix, bias = factor @ matrix, factor @ bias + more
        made[name] = float_weight(matrix, bias, weight.gates)
    return model.with_weights(made)


def moved(model: Model, name: str, number: int, place: tuple[int, ...], step: float) -> Model:
    """The network with one number of one product moved: `place` of its matrix, or of its bias."""
    weight = model.weights[name]
    matrix, bias = (value.copy() for value in products_of(weight)[number])
    (bias if len(place) == 1 else matrix)[place] += step
    factors = list(weight.products)
    factors[number] = replace(
        factors[number],
        part=Part(matrix.astype(np.float32), FLOAT_BITS),
        own_bias=Part(bias.astype(np.float32), FLOAT_BITS),
    )
    changed = Chain(tuple(factors)) if len(factors) > 1 else factors[0]
    return model.with_weights({name: changed})


def gradients(
    model: Model, data: Sequences, cotangent: Array, inside: Mapping[int, float]
) -> dict[tuple[str, int], tuple[Array, Array]]:
    """(weight, product) → gradients in matrix and bias of Σ cotangent⊙outputs + Σ_s inside_s·‖results_s‖²."""
    found: dict[tuple[str, int], tuple[Array, Array]] = {}

    def visit(site: str, gradient: Array, inputs: Array) -> None:
        name, number = site.rsplit("/", 1)
        known = found.get((name, int(number)), (0.0, 0.0))
        wide = gradient.astype(np.float64)
        found[name, int(number)] = known[0] + wide.T @ inputs, known[1] + wide.sum(axis=0)

    run = Forward(build_program(model), data)
    run.back(
        cotangent, visit, {s: np.float32(2 * size) * run.results[s] for s, size in inside.items()}
    )
    return found


def objective(
    model: Model, data: Sequences, cotangent: Array, inside: Mapping[int, float]
) -> float:
    """The same by the equations in float64; a stage's results are what a network that ends there puts out."""
    model = meant(model)
    total = float(np.sum(run_reals(model, data) * cotangent))
    for stage, size in inside.items():
        total += size * float(np.square(run_reals(ending(model, stage), data)).sum())
    return total


def ending(model: Model, stage: int) -> Model:
    """The network whose output are the results of that layer."""
    return replace(model, layers=model.layers[: stage + 1], output="values")


def check(model: Model, data: Sequences, inside: Mapping[int, float], seed: int = 0) -> None:
    """Some numbers of every product."""
    rng = np.random.default_rng(seed)
    rows = data.count if model.layers[-1].reads == "last" else data.steps
    cotangent = rng.normal(size=(rows, model.outputs))
    found = gradients(model, data, cotangent, inside)
    assert {name for name, _ in found} == set(model.weights)
    for (name, number), (matrix, bias) in found.items():
        scale = float(np.abs(matrix).max())
        for value in (matrix, bias):
            assert value.shape == products_of(model.weights[name])[number][value.ndim == 1].shape
            for _ in range(3):
                place = tuple(int(rng.integers(size)) for size in value.shape)
                ends = [
                    objective(moved(model, name, number, place, s), data, cotangent, inside)
                    for s in (STEP, -STEP)
                ]
                slope = (ends[0] - ends[1]) / (2 * STEP)
                assert value[place] == pytest.approx(slope, rel=5e-3, abs=2e-3 * scale + 1e-3)


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize(
    "cells", [("lstm",), ("gru",), ("augmented_lstm",), ("gru", "augmented_lstm")], ids="+".join
)
def test_gradients_of_weights_equal_finite_differences(cells: tuple[str, ...], reads: str) -> None:
    """Of both products of chains, and of their biases."""
    rng = np.random.default_rng(len(cells))
    model = chained(random_model(rng, cells, inputs=3, units=4, outputs=2, reads=reads), rng)
    check(model, random_sequences(rng, LENGTHS, 3), {})


@pytest.mark.parametrize("inside", [{0: 1.0}, {1: 0.5}, {0: 0.3, 1: 2.0}], ids=str)
def test_objectives_may_name_results_inside(inside: Mapping[int, float]) -> None:
    rng = np.random.default_rng(5)
    model = random_model(rng, ("lstm", "gru"), inputs=3, units=4, outputs=2)
    check(chained(model, rng), random_sequences(rng, LENGTHS, 3), inside)


@pytest.mark.parametrize("alone", [False, True])
def test_outputs_that_are_fed_back(alone: bool) -> None:
    """One stage of several layers; what it makes inside are the outputs."""
    rng = np.random.default_rng(6)
    model = random_carrying_model(rng, ("lstm", "gru"), 2, alone)
    stage = 0 if alone else 1
    data = random_sequences(rng, LENGTHS, model.inputs)
    assert len(Forward(build_program(model), data).results) == stage + 1
    check(chained(model, rng), data, {})
    cotangent = run_reals(model, data)
    for (name, number), (matrix, _) in gradients(model, data, 2 * cotangent, {}).items():
        other = gradients(model, data, 0 * cotangent, {stage: 1.0})[name, number][0]
        np.testing.assert_allclose(other, matrix, rtol=1e-3, atol=1e-3 * np.abs(matrix).max())


def test_results_are_those_of_the_stages_by_time_step() -> None:
    rng = np.random.default_rng(7)
    model = random_model(rng, ("lstm", "gru"), inputs=3, units=4, outputs=2)
    data = random_sequences(rng, LENGTHS, 3)
    run = Forward(build_program(model), data)
    packing = make_packing(data.lengths)
    for stage in (0, 1):
        wanted = packing.pack(run_reals(ending(model, stage), data))
        assert run.results[stage].dtype == np.float32
        np.testing.assert_allclose(run.results[stage], wanted, atol=1e-5)
    np.testing.assert_allclose(run.outputs, run_reals(model, data), atol=1e-5)


def test_going_back_twice_gives_the_same() -> None:
    """Nothing of the tape is written."""
    rng = np.random.default_rng(8)
    model = random_model(rng, ("gru",), inputs=3, units=4, outputs=2, reads="every")
    data = random_sequences(rng, LENGTHS, 3)
    run, seen = Forward(build_program(model), data), []
    for _ in range(2):
        visits: list[tuple[str, Array]] = []
        run.back(
            run.outputs, lambda s, g, _, v=visits: v.append((s, g.copy())), {0: run.results[0]}
        )
        seen.append(visits)
    for (site, gradient), (again, other) in zip(*seen, strict=True):
        assert site == again
        np.testing.assert_array_equal(gradient, other)


def test_a_single_step_by_hand() -> None:
    """y = A·x + b over one step: gradients are cotangent·xᵀ and the cotangent itself."""
    rng = np.random.default_rng(9)
    model = make_model(rng, [Layer("head", "dense", 3, 2)])
    assert isinstance(model.weights["head.w"], Matrix)
    data = random_sequences(rng, (1,), 3)
    cotangent = rng.normal(size=(1, 2))
    ((matrix, bias),) = gradients(model, data, cotangent, {}).values()
    np.testing.assert_allclose(matrix, cotangent.T @ data.x, rtol=1e-6)
    np.testing.assert_allclose(bias, cotangent[0], rtol=1e-6)
