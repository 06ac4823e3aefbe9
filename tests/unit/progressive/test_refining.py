"""Networks of terms against the same networks with the matrices that the terms mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe, Rule
from modelflex.core.weight import Terms, float_weight
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.execute.interpret import Interpreter
from modelflex.progressive.choosing import Target, choose, operations_price
from modelflex.progressive.climbing import all_terms, climb, operations
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.registry import FORMATS, STRUCTURES
from modelflex.testing.generators import random_recipe, random_sequences

SETTINGS = (
    Refinement(),
    Refinement("published", kept=0.3, per_gate=True),
    Refinement("refit", kept=0.5),
    Refinement("whitened", kept=0.5, block=8),
    Refinement("whitened", kept=0.25, per_gate=True, terms=3),
    Refinement("whitened", importance="outputs"),
)


def network(seed: int, *cells: str) -> tuple[Model, Sequences]:
    """A random network of 8 inputs and units a layer and a head of 3, and data."""
    rng = np.random.default_rng(seed)
    layers = [Layer(f"layer{n}", cell, 8, 8) for n, cell in enumerate(cells)]
    layers.append(Layer("head", "dense", 8, 3))
    weights = {
        name: float_weight(
            rng.normal(scale=1.5 / np.sqrt(shape[1]), size=shape),
            rng.normal(scale=0.1, size=shape[0]),
            1 if layer.kind == "dense" else shape[0] // 8,
        )
        for layer in layers
        for name, shape in layer.weight_shapes.items()
    }
    model = check_model(Model("network", tuple(layers), weights))
    return model, random_sequences(rng, (30, 20, 25), 8)


def outputs(model: Model, data: Sequences, **more: object) -> Array:
    """What the interpreter makes of it."""
    return Interpreter(build_program(model)).run(data, **more).outputs  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.label)
@pytest.mark.parametrize("cells", [("lstm",), ("gru", "lstm")], ids="+".join)
def test_a_refined_network_is_one_of_the_matrices_its_terms_mean(
    setting: Refinement, cells: tuple[str, ...]
) -> None:
    model, data = network(1, *cells)
    refined = check_model(Refiner(model, data).refined(setting))
    for terms in (0, 2, 10_000):
        chosen = {name: min(terms, most) for name, most in all_terms(refined).items()}
        dense = refined.with_weights(
            {
                name: float_weight(w.prefix(chosen[name]), w.prefix_bias(chosen[name]), w.gates)
                for name, w in refined.weights.items()
                if isinstance(w, Terms)
            }
        )
        found, wanted = outputs(refined, data, terms=chosen), outputs(dense, data)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_importance_of_outputs_spares_what_no_output_shows() -> None:
    """Of eight units that do not read each other, the head reads two."""
    model, data = network(7, "lstm")
    head = model.weights["head.w"]
    shown = head.dense() * (np.arange(8) < 2)
    model = model.with_weights(
        {
            "head.w": float_weight(shown, head.bias_value(), 1),
            "layer0.w_h": float_weight(np.zeros((32, 8)), np.zeros(32), 4),
        }
    )
    wanted, refiner = outputs(model, data), Refiner(model, data)
    lost = {}
    for importance in ("none", "outputs"):
        refined = refiner.refined(Refinement(importance=importance))
        found = outputs(refined, data, terms=dict.fromkeys(all_terms(refined), 4))
        lost[importance] = float(np.mean((found - wanted) ** 2))
    assert lost["outputs"] < 0.2 * lost["none"]


def test_layers_become_augmented_where_products_are_only_added() -> None:
    model, data = network(2, "lstm", "gru")
    refined = Refiner(model, data).refined(Refinement())
    kinds = [layer.kind for layer in refined.layers]
    assert kinds[:2] == ["augmented_lstm", "gru"]
    assert sorted(all_terms(refined)) == ["layer0.w", "layer1.w_h", "layer1.w_x"]
    np.testing.assert_allclose(outputs(refined, data), outputs(model, data), atol=1e-3)


def test_every_v_keeps_what_it_is_told_to() -> None:
    model, data = network(3, "lstm")
    weights = Refiner(model, data).refined(Refinement(kept=0.25)).weights.values()
    terms = next(w for w in weights if isinstance(w, Terms))
    assert terms.v.part.codes.shape[1] == 4  # of 8 inputs and 8 old outputs
    assert terms.v.layout == "row_sparse"


def test_a_compressed_network_is_taken_at_what_its_codes_mean() -> None:
    rng = np.random.default_rng(4)
    model, data = network(4, "lstm")
    stats = calibrate(model, data)
    small = compress(model, replace(random_recipe(rng, model), layers=()), stats).model
    refined = Refiner(small, data).refined(Refinement())
    assert refined.numeric == "float"
    whole = next(w for w in refined.weights.values() if isinstance(w, Terms))
    parts = [small.weights[f"layer0.{name}"].dense() for name in ("w_x", "w_h")]
    error = np.linalg.norm(whole.dense() - np.hstack(parts)) / np.linalg.norm(np.hstack(parts))
    assert error < 1e-5


def test_changed_terms_are_followed_by_those_that_lead_to_the_dense_network() -> None:
    model, data = network(4, "lstm", "gru")
    refiner = Refiner(model, data)
    settings = dict.fromkeys(refiner.weights, Refinement())
    settings["layer1.w_h"] = Refinement(kept=0.5)  # no terms that leave numbers out are exact
    refined = refiner.refined(settings)
    rng = np.random.default_rng(0)
    changed = {}
    for name in refiner.weights:
        weight = refined.weights[name]
        assert isinstance(weight, Terms)
        u = weight.u.part.codes * rng.uniform(0.9, 1.1, weight.u.part.codes.shape)
        changed[name] = replace(
            weight,
            u=replace(weight.u, part=replace(weight.u.part, codes=u.astype(np.float32))),
        )
    made = refiner.completed(
        refined.with_weights(changed), settings, dict.fromkeys(refiner.weights, 3)
    )
    for name in refiner.weights:
        weight, old = made.weights[name], changed[name]
        assert isinstance(weight, Terms)
        if name == "layer1.w_h":
            assert weight is old
            continue
        np.testing.assert_allclose(weight.prefix(3), old.prefix(3), rtol=1e-6)
        np.testing.assert_allclose(weight.prefix_bias(3), old.prefix_bias(3), atol=1e-6)
        want = refiner.refined(Refinement()).weights[name]
        np.testing.assert_allclose(weight.dense(), want.dense(), atol=1e-5)
        np.testing.assert_allclose(weight.bias_value(), want.bias_value(), atol=1e-5)


def test_a_ladder_rises_from_no_term_to_all() -> None:
    model, data = network(5, "lstm", "gru")
    refined = Refiner(model, data).refined(Refinement())
    original = outputs(model, data)
    ladder = climb(refined, original, data, make_task("none"))
    assert set(ladder.rungs[0].terms.values()) == {0}
    assert ladder.rungs[-1].terms == all_terms(refined)
    costs = [rung.operations for rung in ladder.rungs]
    assert costs == sorted(set(costs))
    assert ladder.rungs[-1].divergence < 1e-4 < ladder.rungs[0].divergence
    for rung in ladder.rungs[::3]:
        assert rung.operations == operations(refined, rung.terms)
        p = np.exp(original) / np.exp(original).sum(axis=1, keepdims=True)
        found = outputs(refined, data, terms=rung.terms)
        q = np.exp(found) / np.exp(found).sum(axis=1, keepdims=True)
        kl = (p * np.log(p / q)).sum(axis=1)
        assert rung.divergence == pytest.approx(kl.mean(), rel=1e-3, abs=1e-6)
        assert rung.worst == pytest.approx(kl.max(), rel=1e-3, abs=1e-6)


def test_the_best_offer_is_the_best_of_all_that_were_tried() -> None:
    model, data = network(6, "lstm", "lstm")
    refiner, original = Refiner(model, data), outputs(model, data)
    settings = [
        Refinement(kept=share, per_gate=gate) for share in (1.0, 0.4) for gate in (True, False)
    ]
    by_quality = choose(refiner, original, data, settings, Target(quality=0.02), operations_price)
    assert by_quality[0].met
    assert by_quality[0].rung.divergence <= 0.02
    assert by_quality[0].price == min(o.price for o in by_quality if o.met)
    limit = by_quality[0].price
    by_limit = choose(refiner, original, data, settings, Target(limit=limit), operations_price)
    assert by_limit[0].price <= limit
    assert by_limit[0].rung.divergence == min(o.rung.divergence for o in by_limit if o.met)


def test_an_offer_that_misses_the_target_says_so() -> None:
    model, data = network(7, "lstm")
    refiner, original = Refiner(model, data), outputs(model, data)
    one = [Refinement(terms=1)]
    assert not choose(refiner, original, data, one, Target(quality=1e-9), operations_price)[0].met
    cheap = choose(refiner, original, data, one, Target(limit=-1.0), operations_price)[0]
    assert not cheap.met
    assert set(cheap.rung.terms.values()) == {0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"scheme": "magic"},
        {"kept": 0.0},
        {"kept": 1.5},
        {"kept": float("nan")},
        {"block": 3},
        {"terms": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Refinement(**wrong)  # type: ignore[arg-type]


def test_what_has_no_recurrent_layer_or_terms_already_is_refused() -> None:
    model, data = network(8, "lstm")
    refined = Refiner(model, data).refined(Refinement())
    with pytest.raises(UserError, match="terms already"):
        Refiner(refined, data)
    head = Model("head", model.layers[-1:], {n: w for n, w in model.weights.items() if "head" in n})
    with pytest.raises(UserError, match="recurrent"):
        Refiner(head, data)


@pytest.mark.parametrize("kept", [1.0, 0.5])
@pytest.mark.parametrize("cells", [("lstm",), ("gru",)], ids="+".join)
def test_terms_in_codes_answer_as_those_in_floats_do(cells: tuple[str, ...], kept: float) -> None:
    model, data = network(9, *cells)
    eight = Choice(STRUCTURES.get("dense")(), FORMATS.get("uniform")(8), Activation(8))
    fine = Recipe((Rule("*", eight),))
    small = compress(model, fine, calibrate(model, data)).model
    refiner = Refiner(small, data)
    floats = refiner.refined(Refinement(kept=kept))
    codes = check_model(refiner.refined(Refinement(kept=kept, bits=8)))
    assert codes.numeric == "integer"
    for terms in (0, 3, 1000):
        chosen = dict.fromkeys(all_terms(codes), terms)
        wanted = outputs(floats, data, terms=chosen)
        found = outputs(codes, data, terms=chosen)
        assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)


def test_codes_in_an_uncompressed_network_are_refused() -> None:
    model, data = network(10, "lstm")
    with pytest.raises(UserError, match="compressed"):
        Refiner(model, data).refined(Refinement(bits=8))
