"""One-hot inputs, embeddings and ReLU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Draw, Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.products import program_table
from modelflex.core.program import build_program, input_symbols
from modelflex.core.recipe import recipe_from_json
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute import interpret
from modelflex.execute.interpret import run
from modelflex.export.artefact import save_artefact
from modelflex.importers.data import check_task
from modelflex.importers.models import load_model

SYMBOLS, UNITS = 7, 5


def character_model() -> Model:
    rng = np.random.default_rng(0)
    layers = (
        Layer("embed", "one_hot", 1, SYMBOLS),
        Layer("lstm0", "lstm", SYMBOLS, UNITS),
        Layer("head", "dense", UNITS, SYMBOLS),
    )
    shapes = {name: shape for layer in layers for name, shape in layer.weight_shapes.items()}
    weights = {
        name: float_weight(rng.normal(size=shape), rng.normal(size=shape[0]), 4 if "lstm" in name else 1)
        for name, shape in shapes.items()
    }  # fmt: skip
    return check_model(Model("characters", layers, weights))


def symbols(*values: int) -> Sequences:
    return Sequences(np.array(values, np.float32)[:, None], np.array([len(values)]))


def embedding() -> Model:
    rng = np.random.default_rng(1)
    layer = Layer("embed", "embedding", 1, UNITS, "every", {"symbols": SYMBOLS})
    weight = float_weight(rng.normal(size=(UNITS, SYMBOLS)), rng.normal(size=UNITS), 1)
    return check_model(Model("table", (layer,), {"embed.w": weight}, "values"))


def test_an_embedding_is_the_column_of_the_symbol() -> None:
    model = embedding()
    weight = model.weights["embed.w"]
    found = run(build_program(model), symbols(3, 0, 6)).outputs
    np.testing.assert_allclose(found, (weight.dense() + weight.bias_value()[:, None]).T[[3, 0, 6]])


def test_numbers_of_no_symbol_give_zeros_in_floats_and_integers() -> None:
    model = embedding()
    recipe = recipe_from_json({
        "schema": "modelflex.recipe/1",
        "rules": [{"weights": "*", "format": {"method": "uniform", "bits": 8}}],
    })  # fmt: skip
    small = compress(model, recipe, calibrate(model, symbols(*range(SYMBOLS)))).model
    wrong = Sequences(np.array([[-1], [SYMBOLS], [9000]], np.float32), np.array([3]))
    for network in (model, small):
        found = run(build_program(network), wrong)
        np.testing.assert_allclose(
            found.outputs, np.tile(network.weights["embed.w"].bias_value(), (3, 1)), atol=2e-4
        )
        assert found.profile.sites["embed.w/0"].units == 0  # fmt: skip


def test_a_symbol_fetches_one_column_whether_compressed_or_not() -> None:
    model = character_model()
    data = symbols(1, 4, 4, 2)
    recipe = recipe_from_json({
        "schema": "modelflex.recipe/1",
        "rules": [{"weights": "*", "format": {"method": "uniform", "bits": 4}}],
    })  # fmt: skip
    small = compress(model, recipe, calibrate(model, data)).model
    for network in (model, small):
        ran = run(build_program(network), data)
        counts = ran.profile.sites["lstm0.w_x/0"]
        assert (counts.runs, counts.units, counts.active) == (4, 4, 4)
        assert ran.profile.sites["lstm0.w_h/0"].units == 4 * UNITS
        table = program_table(build_program(network), ran.profile, network)
        row = list(table["site"]).index("lstm0.w_x/0")
        column = table["unit_bytes"][row]
        other = table["fixed_bytes"][row]
        np.testing.assert_allclose(table.fetch_bytes_per_step[row], column + other)
        assert column == 4 * UNITS * (4 if network is model else 0.5)


def test_a_block_circulant_table_fetches_one_block_column() -> None:
    rng = np.random.default_rng(1)
    layer = Layer("embed", "embedding", 1, 8, "every", {"symbols": 12})
    weight = float_weight(rng.normal(size=(8, 12)), None, 1)
    model = check_model(Model("table", (layer,), {"embed.w": weight}, "values"))
    recipe = recipe_from_json({
        "schema": "modelflex.recipe/1",
        "rules": [{"weights": "*", "structure": {"method": "circulant", "block": 4},
                   "format": {"method": "uniform", "bits": 8}}],
    })  # fmt: skip
    small = compress(model, recipe, calibrate(model, symbols(*range(12)))).model
    counts = run(build_program(small), symbols(0, 5, 11)).profile.sites["embed.w/0"]
    assert (counts.units, counts.active) == (3, 3)


def test_data_that_hold_no_symbols_are_refused() -> None:
    model = character_model()
    assert input_symbols(model) == SYMBOLS
    assert check_task(symbols(0, SYMBOLS - 1), model, "none").steps == 2
    for bad in (-1.0, float(SYMBOLS), 0.5):
        data = Sequences(np.array([[0.0], [bad]], np.float32), np.array([2]))
        with pytest.raises(UserError, match=r"takes the number of a symbol; expected whole"):
            check_task(data, model, "none", "data")


@pytest.mark.parametrize("bad", [-1.0, float(SYMBOLS), 0.25])
def test_no_symbol_is_calibrated_or_run_as_a_zero(bad: float) -> None:
    data = Sequences(np.array([[1.0], [bad]], np.float32), np.array([2]))
    with pytest.raises(UserError, match=r"calibration data: x holds .* number of a symbol"):
        calibrate(character_model(), data)
    with pytest.raises(UserError, match=r"sequences: x holds .* number of a symbol"):
        modelflex.run(character_model(), (data.x, data.lengths))


def test_symbols_are_not_varied_by_noise() -> None:
    with pytest.raises(UserError, match="calibration_copies is 2 for a model of symbols"):
        calibrate(character_model(), symbols(0, 1), Draw(copies=2, noise=0.1))


@pytest.mark.parametrize(
    "layer",
    [
        Layer("a", "one_hot", 2, 4),
        Layer("a", "one_hot", 1, 40_000),
        Layer("a", "embedding", 3, 4, "every", {"symbols": 5}),
        Layer("a", "embedding", 1, 4, "every", {"symbols": 0}),
        Layer("a", "relu", 3, 4),
    ],
)
def test_sizes_that_make_no_sense_are_refused(layer: Layer) -> None:
    with pytest.raises(UserError, match="expected"):
        _ = layer.weight_shapes


def test_relu_is_the_positive_part() -> None:
    model = check_model(Model("m", (Layer("r", "relu", 3, 3),), {}, "values"))
    data = Sequences(np.array([[-1.5, 0.0, 2.25]], np.float32), np.array([1]))
    assert run(build_program(model), data).outputs.tolist() == [[0.0, 0.0, 2.25]]


def test_options_survive_the_artefact(tmp_path: Path) -> None:
    model = embedding()
    folder = tmp_path / "model"
    save_artefact(model, folder, recipe=None, provenance={})
    again = load_model(folder)
    assert again.layers == model.layers
    found, wanted = (run(build_program(m), symbols(2, 5)).outputs for m in (again, model))
    np.testing.assert_array_equal(found, wanted)


def test_wide_values_are_run_in_smaller_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = character_model()
    data = Sequences(symbols(*[1, 2, 3] * 4).x, np.array([5, 4, 3]))
    whole = run(build_program(model), data)
    taken: list[int] = []
    take = Sequences.take

    def count(self: Sequences, indices: Array) -> Sequences:
        taken.append(indices.size)
        return take(self, indices)

    monkeypatch.setattr(Sequences, "take", count)
    monkeypatch.setattr(interpret, "CHUNK_NUMBERS", 4 * UNITS * 7)
    again = run(build_program(model), data)
    assert taken == [1, 2]
    assert again.profile == whole.profile
    np.testing.assert_allclose(again.outputs, whole.outputs, rtol=0, atol=1e-6)
