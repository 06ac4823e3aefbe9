"""What terms learn from: some pilot sequences and mixtures of them, of any shape, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.calibrate import some_sequences
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.execute.interpret import Interpreter
from modelflex.progressive import refining
from modelflex.progressive.climbing import all_terms
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.testing.generators import (
    make_model,
    random_inputs,
    random_model,
    random_sequences,
)


def network(seed: int = 0) -> Model:
    return random_model(np.random.default_rng(seed), ["lstm"], inputs=4, units=6, outputs=3)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Sequences]:
    """What the last refiner ran the network over."""
    seen: list[Sequences] = []

    def observe(model: Model, pilot: Sequences) -> tuple[dict[str, Array], dict[str, Array]]:
        seen.append(pilot)
        return dict.fromkeys(model.weights, pilot.x[:, :1]), {}

    monkeypatch.setattr(refining, "_observe", observe)
    return seen


def means_what_it_meant(model: Model, data: Sequences, pilot: Sequences) -> None:
    """With all terms the network answers as the dense one does."""
    refined = Refiner(model, pilot).refined(Refinement())
    wanted = Interpreter(build_program(model)).run(data).outputs
    run = Interpreter(build_program(refined)).run(data, terms=all_terms(refined))
    np.testing.assert_allclose(run.outputs, wanted, atol=1e-3)


@pytest.mark.parametrize(
    "lengths",
    [(100_000,), (100_000, 7), (1, 1), (3, 5), (1,), (20_000,) * 4],
    ids=["long", "long and short", "single steps", "two", "one step", "some long"],
)
def test_recordings_of_any_length(lengths: tuple[int, ...], shown: list[Sequences]) -> None:
    """At most about as many steps as are to be shown, a fifth of them as they were recorded."""
    pilot = random_sequences(np.random.default_rng(1), lengths, 4)
    Refiner(network(), pilot)
    (seen,) = shown
    assert seen.steps <= 1.5 * refining.SHOWN_STEPS
    own = some_sequences(pilot, int((1 - refining.MIXED) * refining.SHOWN_STEPS))
    np.testing.assert_array_equal(seen.x[: own.steps], own.x)
    assert seen.steps > own.steps
    assert np.abs(seen.x).max() <= np.abs(pilot.x).max() + 1e-5


def test_wide_inputs_are_shown_for_fewer_steps(
    shown: list[Sequences], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refining, "SHOWN_NUMBERS", 4000)
    Refiner(network(), random_sequences(np.random.default_rng(2), (50,) * 200, 4))
    assert 500 < shown[0].steps <= 1500


def test_memory_does_not_grow_with_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refining, "SHOWN_STEPS", 500)
    model = network()
    peaks = []
    for steps in (5000, 50_000):
        x = np.random.default_rng(3).normal(size=(steps, 4)).astype(np.float32)
        pilot = Sequences(x, np.array([steps]))
        tracemalloc.start()
        try:
            Refiner(model, pilot)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6))
def test_networks_answer_as_before_whatever_the_pilot_was(lengths: list[int]) -> None:
    rng = np.random.default_rng(4)
    data = random_sequences(rng, (10, 20), 4)
    means_what_it_meant(network(), data, random_sequences(rng, lengths, 4))


def symbols() -> tuple[Model, Sequences]:
    rng = np.random.default_rng(5)
    layers = [
        Layer("first", "one_hot", 1, 6),
        Layer("layer0", "gru", 6, 8),
        Layer("head", "dense", 8, 3),
    ]
    model = make_model(rng, layers)
    return model, random_inputs(rng, (40,) * 10, model)


def test_symbols_are_not_mixed(shown: list[Sequences]) -> None:
    model, pilot = symbols()
    Refiner(model, pilot)
    assert shown[0] is pilot
    shown.clear()
    model, pilot = symbols()
    long = Sequences(np.tile(pilot.x, (100, 1)), np.array([100 * pilot.steps]))
    Refiner(model, long)
    np.testing.assert_array_equal(shown[0].x, long.x[: refining.SHOWN_STEPS])


def test_networks_of_symbols_answer_as_before() -> None:
    model, pilot = symbols()
    means_what_it_meant(model, pilot, pilot)
