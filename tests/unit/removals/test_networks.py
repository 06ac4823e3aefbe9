"""Networks that lose units: sizes, what is left as it was, refits, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.compress.choices import reduced_layers
from modelflex.compress.reduction import reduce
from modelflex.core.data import Sequences
from modelflex.core.divergence import divergences, mean_divergence
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.stats import Stats
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.registry import FORMATS, REMOVALS, STRUCTURES
from modelflex.testing.generators import random_model, random_sequences

Obs, Norm, Random = (REMOVALS.get(name) for name in ("obs", "norm", "random"))
Dense, Uniform = STRUCTURES.get("dense"), FORMATS.get("uniform")
FINE = Choice(Dense("none"), Uniform(16).naive(), Activation(16))
REFITTED = Choice(Dense("least_squares"), Uniform(16), Activation(16))


def problem(cells: list[str], seed: int = 0) -> tuple[Model, Stats]:
    rng = np.random.default_rng(seed)
    model = random_model(rng, cells, reads="every")
    return model, calibrate(model, random_sequences(rng, (40, 30, 20), 8))


def recipe(choice: Choice, *layers: LayerRule, rounds: int = 0) -> Recipe:
    return Recipe((Rule("*", choice),), rounds, layers=layers)


def divergence(model: Model, small: Model, data: Sequences) -> float:
    outputs = [run(build_program(m), data).outputs for m in (model, small)]
    return mean_divergence("logits", divergences("logits", *outputs))


# --- sizes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("method", REMOVALS.names())
def test_every_weight_loses_the_rows_and_columns_of_the_units(kind: str, method: str) -> None:
    model, stats = problem([kind, kind])
    gates = {"lstm": 4, "gru": 3}[kind]
    kind_of = REMOVALS.get(method)
    rules = LayerRule("layer0", kind_of(5)), LayerRule("layer1", kind_of(11))
    made = compress(model, recipe(REFITTED, *rules), stats).model
    assert {name: weight.shape for name, weight in made.weights.items()} == {
        "layer0.w_x": (gates * 5, 8),
        "layer0.w_h": (gates * 5, 5),
        "layer1.w_x": (gates * 11, 5),
        "layer1.w_h": (gates * 11, 11),
        "head.w": (4, 11),
    }
    assert [(layer.inputs, layer.units) for layer in made.layers] == [(8, 5), (5, 11), (11, 4)]
    data = random_sequences(np.random.default_rng(1), (6, 3), 8)
    assert np.isfinite(run(build_program(made), data).outputs).all()


def test_only_the_layers_that_a_rule_names_lose_units() -> None:
    model, stats = problem(["lstm", "gru"])
    made = compress(model, recipe(FINE, LayerRule("*1", Norm(6))), stats).model
    assert [layer.units for layer in made.layers] == [16, 6, 4]


def test_what_stays_is_what_was_there() -> None:
    """Without a refit, the rows and columns of the kept units: gate by gate, by hand."""
    model, stats = problem(["lstm"])
    chosen = recipe(FINE, LayerRule("layer0", Random(7, 3)))
    made = compress(model, chosen, stats).model
    kept = reduce(model, chosen, stats).columns["layer0.w_h"]
    assert kept.size == 7
    rows = [gate * 16 + unit for gate in range(4) for unit in kept.tolist()]
    old = {name: weight.dense() for name, weight in model.weights.items()}
    wanted = {
        "layer0.w_x": old["layer0.w_x"][rows],
        "layer0.w_h": old["layer0.w_h"][rows][:, kept],
        "head.w": old["head.w"][:, kept],
    }
    for name, matrix in wanted.items():
        found = made.weights[name].dense()
        np.testing.assert_allclose(found, matrix, rtol=0, atol=np.abs(matrix).max() / 2**15)
    bias = sum(model.weights[f"layer0.{w}"].bias_value() for w in ("w_x", "w_h"))
    found = sum(made.weights[f"layer0.{w}"].bias_value() for w in ("w_x", "w_h"))
    np.testing.assert_allclose(found, bias[rows], atol=2e-4)


@pytest.mark.parametrize("method", REMOVALS.names())
def test_with_all_units_kept_nothing_changes(method: str) -> None:
    model, stats = problem(["gru", "lstm"])
    rule = LayerRule("layer*", REMOVALS.get(method)(16))
    one = compress(model, recipe(REFITTED, rule, rounds=1), stats)
    other = compress(model, recipe(REFITTED, rounds=1), stats)
    assert one.rounds == other.rounds
    for name, weight in one.model.weights.items():
        np.testing.assert_array_equal(weight.dense(), other.model.weights[name].dense())
        np.testing.assert_array_equal(weight.bias_value(), other.model.weights[name].bias_value())


# --- what is lost --------------------------------------------------------------------------------
def doubled(model: Model, share: float) -> Model:
    """The same function with every unit of its one recurrent layer twice: `share` of a unit's outgoing
    weights act from the first, the rest from the second.
    """
    units = model.layers[0].units
    layers = (
        replace(model.layers[0], units=2 * units),
        replace(model.layers[1], inputs=2 * units),
    )

    def rows(matrix: Array, gates: int) -> Array:
        pieces = np.split(matrix, gates)
        return np.concatenate([piece for p in pieces for piece in (p, p)])

    def columns(matrix: Array) -> Array:
        return np.hstack([share * matrix, (1 - share) * matrix])

    old, weights = model.weights, {}
    for name in ("layer0.w_x", "layer0.w_h"):
        weight = old[name]
        matrix = rows(weight.dense(), weight.gates)
        bias = rows(weight.bias_value(), weight.gates)
        weights[name] = float_weight(
            columns(matrix) if name.endswith("h") else matrix, bias, weight.gates
        )
    weights["head.w"] = float_weight(columns(old["head.w"].dense()), old["head.w"].bias_value(), 1)
    return check_model(Model("doubled", layers, weights))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_units_that_others_repeat_are_removed_without_loss(kind: str) -> None:
    """Half the units of a network in which each stands twice: the refit gives their weights to the
    twins; the controls, which do not look at what units do, lose much.
    """
    rng = np.random.default_rng(5)
    model = random_model(rng, [kind], units=8, reads="every")
    twice = doubled(model, 0.4)
    data = random_sequences(rng, (30, 30), 8)
    np.testing.assert_allclose(
        *(run(build_program(m), data).outputs for m in (model, twice)), atol=1e-5
    )
    stats = calibrate(twice, random_sequences(rng, (150, 150, 150), 8))
    kept = reduce(twice, recipe(REFITTED, LayerRule("layer0", Obs(8))), stats).columns["head.w"]
    assert sorted(unit % 8 for unit in kept.tolist()) == list(range(8)), "one of every pair"
    losses = {}
    for removal in (Obs(8), Norm(8), Random(8)):
        made = compress(twice, recipe(REFITTED, LayerRule("layer0", removal), rounds=3), stats)
        losses[removal] = divergence(twice, made.model, data)
    plain = compress(twice, recipe(FINE, LayerRule("layer0", Norm(8))), stats)
    assert losses[Obs(8)] < 1e-3
    assert losses[Obs(8)] < 0.1 * losses[Random(8)]
    assert losses[Obs(8)] < 0.1 * divergence(twice, plain.model, data)


@pytest.mark.parametrize("cells", [["lstm"], ["gru", "lstm"]])
def test_brain_surgeon_refitted_in_closed_loop_beats_the_controls(cells: list[str]) -> None:
    """On fresh data, the mean of three networks: removal by norm that leaves the other weights alone,
    and the same refit of the other units after a random removal.
    """
    found, plain, random = [], [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        model = random_model(rng, cells, reads="every")
        stats = calibrate(model, random_sequences(rng, (150, 150, 150), 8))
        data = random_sequences(rng, (100, 100), 8)
        best = recipe(REFITTED, LayerRule("layer*", Obs(10)), rounds=3)
        blind = recipe(REFITTED, LayerRule("layer*", Random(10)), rounds=3)
        for losses, chosen in ((found, best), (plain, best.naive), (random, blind)):
            losses.append(divergence(model, compress(model, chosen, stats).model, data))
    assert np.mean(found) < 0.8 * np.mean(random)
    assert np.mean(found) < 0.6 * np.mean(plain)


def test_the_naive_twin_keeps_as_many_units() -> None:
    naive = recipe(REFITTED, LayerRule("layer0", Obs(6)), LayerRule("layer1", Random(5, 2))).naive
    assert [rule.removal for rule in naive.layers] == [Norm(6), Random(5, 2)]


# --- refusals ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([LayerRule("head", Norm(2))], r"'head' \(dense\).*a recurrent layer that another"),
        ([LayerRule("*", Norm(4))], r"'head' \(dense\)"),
        ([LayerRule("layer0", Norm(17))], "17 of 16 units of 'layer0' are to stay; expected at most"),
        ([LayerRule("lstm*", Norm(4))], "the layers 'lstm.*decides for no layer.*layer0"),
        ([LayerRule("layer*", Norm(4)), LayerRule("layer0", Norm(2))], "'layer0' decides for no"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_met_are_refused(rules: list[LayerRule], message: str) -> None:
    model, stats = problem(["lstm", "lstm"])
    with pytest.raises(UserError, match=message) as caught:
        compress(model, recipe(FINE, *rules), stats)
    assert "\n" not in str(caught.value)


def with_layers(*layers: Layer) -> Model:
    rng = np.random.default_rng(0)
    weights = {
        name: float_weight(rng.normal(size=shape), None, 4 if layer.kind == "lstm" else 1)
        for layer in layers
        for name, shape in layer.weight_shapes.items()
    }
    return check_model(Model("m", layers, weights, "values"))


def test_layers_whose_units_nothing_names_are_refused() -> None:
    """The last layer, one that is not recurrent, and one whose reader has no column for each unit."""
    last = with_layers(Layer("lstm", "lstm", 4, 8, "every"))
    first = with_layers(
        Layer("embed", "embedding", 1, 8, "every", {"symbols": 5}),
        Layer("head", "dense", 8, 2, "every"),
    )
    read = with_layers(
        Layer("lstm", "lstm", 4, 8, "every"),
        Layer("conv", "conv1d", 8, 4, "every", {"kernel": 3}),
        Layer("head", "dense", 4, 2, "every"),
    )
    for model, name in ((last, "lstm"), (first, "embed"), (read, "lstm")):
        with pytest.raises(UserError, match=f"'{name}'"):
            reduced_layers(model, recipe(FINE, LayerRule(name, Norm(4))))
