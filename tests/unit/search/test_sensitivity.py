"""The belief about what choices cost in divergence: against worlds in which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import run
from modelflex.registry import FORMATS, STRUCTURES
from modelflex.search.sensitivity import Chosen, believe, predicted_divergences
from modelflex.testing.generators import random_model, random_sequences

FLOOR = 1e-4


def chosen(*options: int, crowding: float = 0.0) -> Chosen:
    return Chosen(np.array(options), np.full(len(options), crowding))


def test_measurements_alone_teach_weights_and_what_choices_share() -> None:
    """Truth: log d = log expected + a(weight) + b(weight, part): options that were never measured are
    predicted from others of their weight that share a part.
    """
    rng = np.random.default_rng(0)
    expected = {f"w{i}": rng.uniform(1e-3, 1e-1, 6) for i in range(3)}
    parts = {name: [(f"s{k // 3}", f"f{k % 3}") for k in range(6)] for name in expected}
    shift = {name: rng.normal(0, 1.5) + np.repeat(rng.normal(0, 0.6, 2), 3) for name in expected}
    truth = {name: expected[name] * np.exp(shift[name]) for name in expected}
    belief = believe(expected, parts, FLOOR)

    def worst(numbers: tuple[int, ...]) -> float:
        off = [np.log(belief.losses(n)[list(numbers)] / truth[n][list(numbers)]) for n in truth]
        return float(np.abs(np.concatenate(off)).max())

    before = worst((2, 5))
    for name in truth:
        for option in (0, 1, 3, 4):
            belief.observe(
                chosen(belief.position(name, option)), FLOOR + float(truth[name][option])
            )
    assert worst((0, 1, 3, 4)) < 0.15
    assert worst((2, 5)) < 0.5 < before


def test_sums_of_measured_parts_are_predicted_and_their_excess_is_learnt() -> None:
    expected = {name: np.array([0.01, 0.02]) for name in ("a", "b", "c")}
    parts = {name: [("x",), ("y",)] for name in expected}
    belief = believe(expected, parts, FLOOR)
    for name in expected:
        for option in range(2):
            belief.observe(chosen(belief.position(name, option)), 0.01 * (1 + option))
    first = chosen(*(belief.position(name, 0) for name in expected))
    second = chosen(*(belief.position(name, 1) for name in expected))
    assert belief.predict(first) == pytest.approx(0.03, rel=0.15)
    for _ in range(3):
        belief.observe(first, 0.06)  # the errors of the three weights do not add: twice the sum
    assert belief.predict(second) > 0.09
    assert belief.predict(chosen(belief.position("a", 0))) == pytest.approx(0.01, rel=0.25)


def test_losses_grow_where_units_are_gone() -> None:
    """By a power of units / kept units that measurements teach: 2 here, expected to be 1."""
    belief = believe({"a": np.array([0.01, 0.02])}, {"a": [("x",), ("y",)]}, 1e-7)
    belief.observe(chosen(0), 0.01)
    assert belief.predict(chosen(0, crowding=np.log(2))) == pytest.approx(0.02, rel=0.02)
    for _ in range(3):
        belief.observe(chosen(0, crowding=np.log(2)), 0.04)
    assert belief.predict(chosen(1, crowding=np.log(3))) == pytest.approx(0.18, rel=0.3)
    assert belief.losses("a", np.log(3))[1] == pytest.approx(
        belief.predict(chosen(1, crowding=np.log(3))), rel=1e-3
    )


def test_being_sure_follows_from_measuring() -> None:
    belief = believe({"a": np.array([0.01, 0.02])}, {"a": [("x",), ("y",)]}, FLOOR)
    before = belief.spread.copy()
    belief.observe(chosen(0), 0.05)
    assert belief.spread[0] < 0.2 < belief.spread[1] < before[1]


def test_prediction_is_half_the_importance_times_the_error_of_the_results() -> None:
    """Of a head in 2 bits, row by row, with the results recomputed from its trace."""
    rng = np.random.default_rng(1)
    model = random_model(rng, ("lstm",), reads="every")
    stats = calibrate(model, random_sequences(rng, (40,) * 10, model.inputs))
    uniform = FORMATS.get("uniform")
    coarse, fine = (
        Choice(STRUCTURES.get("dense")(), uniform(bits=b, scales="row"), Activation(16))
        for b in (2, 16)
    )
    found = predicted_divergences(model, stats, {"head.w": [coarse, fine], "layer0.w_x": [coarse]})
    assert found["head.w"].shape == (2,)
    assert found["layer0.w_x"].shape == (1,)
    assert found["head.w"][1] < 1e-6 < 1e-3 * found["head.w"][0]
    trace = run(build_program(model), stats.sequences, capture=True).inputs["head.w/0"]
    made = coarse.format.encode(  # as the compressor does, with the trace's covariance
        model.weights["head.w"].dense(), np.cov(trace.astype(np.float64).T, bias=True), 1
    ).value()
    error = trace @ (made - model.weights["head.w"].dense()).T
    wanted = 0.5 * np.sum(stats.sites["head.w"].importance * error.var(axis=0))
    assert found["head.w"][0] == pytest.approx(wanted, rel=0.3)


def test_kernels_are_predicted_from_their_patches() -> None:
    """A kernel in 16 bits changes next to nothing, in 2 bits much, at all positions together."""
    rng = np.random.default_rng(2)
    sizes = {
        "channels": 1, "height": 1, "width": 8, "filters": 3, "kernel_height": 1, "kernel_width": 3,
        "stride_height": 1, "stride_width": 1, "padding_height": 0, "padding_width": 1, "frames": 1,
    }  # fmt: skip
    layers = (
        Layer("conv0", "conv2d", 8, 24, options=sizes),
        Layer("gru0", "gru", 24, 8),
        Layer("head", "dense", 8, 4, "last"),
    )
    shapes = {n: s for layer in layers for n, s in layer.weight_shapes.items()}
    weights = {
        n: float_weight(rng.normal(size=s) / 2, rng.normal(size=s[0]), 3 if "gru" in n else 1)
        for n, s in shapes.items()
    }
    model = check_model(Model("convolution", layers, weights))
    stats = calibrate(model, random_sequences(rng, (20,) * 8, 8))
    uniform = FORMATS.get("uniform")
    coarse, fine = (
        Choice(STRUCTURES.get("dense")(), uniform(bits=b, scales="row"), Activation(16))
        for b in (2, 16)
    )
    found = predicted_divergences(model, stats, {"conv0.w": [coarse, fine]})["conv0.w"]
    assert 0 < found[1] < 1e-4 * found[0]
