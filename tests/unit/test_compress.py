"""Compression: which rule decides, who carries biases, moments, recalibration, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.compress.choices import UNNAMED, bias_carriers, choices, gates
from modelflex.compress.links import activation_scale, make_link, replayed_density
from modelflex.core.data import Draw, Sequences
from modelflex.core.extension import Planned
from modelflex.core.fixed import Array
from modelflex.core.layout import circulant_geometry, dense_geometry
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe, Rule
from modelflex.core.stats import SiteStats, Stats
from modelflex.core.weight import Chain, Matrix, float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.registry import ACTIVITIES, FORMATS, STRUCTURES
from modelflex.testing.generators import random_model, random_sequences

Dense, Circulant = STRUCTURES.get("dense"), STRUCTURES.get("circulant")
Uniform, Delta = FORMATS.get("uniform"), ACTIVITIES.get("delta")
PLAIN = Choice(Dense(), Uniform(8).naive(), Activation(8))
AWARE = Choice(
    Dense("least_squares"), Uniform(4, "gate"), Activation(8), Delta(0.2, "block", "std")
)


def problem(kind: str = "lstm", seed: int = 0) -> tuple[Model, Stats]:
    rng = np.random.default_rng(seed)
    model = random_model(rng, [kind, kind])
    return model, calibrate(model, random_sequences(rng, (40, 30, 20), 8))


def recipe(*rules: tuple[str, Choice], rounds: int = 0) -> Recipe:
    return Recipe(tuple(Rule(*rule) for rule in rules), rounds)


def test_the_first_matching_rule_decides() -> None:
    model, stats = problem()
    made = compress(model, recipe(("layer1.w_x", AWARE), ("*.w_x", PLAIN)), stats)
    parts = {n: w.parts[0].bits for n, w in made.model.weights.items()}
    assert parts == {
        "layer0.w_x": 8, "layer0.w_h": 16, "layer1.w_x": 4, "layer1.w_h": 16, "head.w": 16,
    }  # fmt: skip
    assert {n for n, reason in made.coverage.items() if reason == UNNAMED} == {
        "layer0.w_h", "layer1.w_h", "head.w",
    }  # fmt: skip
    assert made.model.numeric == "integer"


def test_a_mixture_of_floats_and_integers_is_refused() -> None:
    """A recipe's unnamed weights become 16-bit integers; a model put together by hand must be whole."""
    model, stats = problem()
    made = compress(model, recipe(("layer1.w_x", AWARE)), stats).model
    assert {w.is_float for w in made.weights.values()} == {False}
    one = {"layer1.w_x": made.weights["layer1.w_x"]}
    with pytest.raises(UserError, match=r"some floats: layer0\.w_x, .*head\.w; expected one kind"):
        model.with_weights(one)
    with pytest.raises(UserError, match=r"some floats: layer1\.w_x; expected one kind"):
        made.with_weights({"layer1.w_x": model.weights["layer1.w_x"]})
    assert model.with_weights(made.weights).numeric == "integer"


def test_a_weight_whose_products_are_floats_and_integers_is_refused() -> None:
    model, stats = problem()
    made = compress(model, recipe(("*", PLAIN)), stats).model
    first, out = made.weights["head.w"], np.eye(made.outputs)
    assert isinstance(first, Matrix)
    with pytest.raises(UserError, match=r"some floats: head\.w"):
        made.with_weights({"head.w": Chain((first, float_weight(out, None, 1)))})


def test_more_inputs_than_a_fit_can_weigh_together_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An LSTM's two weights are fitted together: 16 inputs and 16 units of the second layer."""
    model, stats = problem("lstm")
    monkeypatch.setattr("modelflex.core.regression.MAX_INPUTS", 32)
    compress(model, recipe(("layer1.w_h", AWARE)), stats)
    monkeypatch.setattr("modelflex.core.regression.MAX_INPUTS", 31)
    seen = r"layer1\.w_x, layer1\.w_h would see 32 inputs; expected at most 31"
    with pytest.raises(UserError, match=seen):
        compress(model, recipe(("layer1.w_h", AWARE)), stats)
    monkeypatch.setattr("modelflex.core.regression.MAX_INPUTS", 1)
    factors = Choice(STRUCTURES.get("low_rank")(fit="svd"), Uniform(8).naive(), Activation(8))
    with pytest.raises(UserError, match="a weight of 4 rows is fitted to 16 inputs; expected at"):
        compress(model, recipe(("head.w", factors)), stats)


@pytest.mark.parametrize(("structure", "size"), [("row_sparse", 0.5), ("circulant", 4)])
def test_what_is_not_fitted_takes_any_number_of_inputs(
    structure: str, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, stats = problem("lstm")
    naive = STRUCTURES.get(structure)(size).naive()
    rules = recipe(("*.w_x", Choice(naive, Uniform(8).naive(), Activation(8))), ("*.w_h", PLAIN))
    wanted = compress(model, rules, stats).model
    monkeypatch.setattr("modelflex.core.regression.MAX_INPUTS", 1)
    made = compress(model, rules, stats).model
    for name, weight in wanted.weights.items():
        np.testing.assert_array_equal(made.weights[name].dense(), weight.dense())


@pytest.mark.parametrize(
    "rules",
    [
        [("*.w_x", PLAIN), ("layer2.w_x", AWARE)],
        [("*", PLAIN), ("*.w_x", AWARE)],
        [("nothing", PLAIN)],
    ],
)
def test_rules_that_decide_for_nothing_are_refused(rules: list[tuple[str, Choice]]) -> None:
    model, stats = problem()
    with pytest.raises(UserError, match="decides for no weight") as caught:
        compress(model, recipe(*rules), stats)
    assert rules[-1][0] in str(caught.value)


def test_equal_choices_in_two_rules_are_two_rules() -> None:
    """Equal, even identical choices: a rule that is shadowed by another must still be refused."""
    model, _ = problem()
    with pytest.raises(UserError, match=r"layer0\.w_x"):
        choices(model, recipe(("*", PLAIN), ("layer0.w_x", PLAIN)))


def test_blocks_that_do_not_fit_are_refused() -> None:
    model, stats = problem()
    wide = Choice(Circulant(5), Uniform(8), Activation(8))
    with pytest.raises(UserError, match="does not divide"):
        compress(model, recipe(("*.w_h", wide)), stats)


def test_biases_of_an_lstm_merge_into_the_held_product() -> None:
    model, _ = problem("lstm")
    held = Choice(PLAIN.structure, PLAIN.format, PLAIN.activation, Delta(0.1))
    chosen = dict.fromkeys(model.weights, PLAIN)
    first = bias_carriers(model, chosen)
    assert first["layer0.w_x"] == ("layer0.w_x", "layer0.w_h")
    assert first["layer0.w_h"] == ()
    later = bias_carriers(model, chosen | {"layer0.w_h": held})
    assert later["layer0.w_h"] == ("layer0.w_x", "layer0.w_h")
    assert later["layer0.w_x"] == ()


def test_biases_of_a_gru_stay_apart() -> None:
    model, _ = problem("gru")
    carriers = bias_carriers(model, dict.fromkeys(model.weights, AWARE))
    assert all(group == (name,) for name, group in carriers.items())
    assert gates(model) == {
        "layer0.w_x": 3, "layer0.w_h": 3, "layer1.w_x": 3, "layer1.w_h": 3, "head.w": 1,
    }  # fmt: skip


def test_merged_biases_sum_and_nothing_is_lost() -> None:
    model, stats = problem("lstm")
    made = compress(
        model, recipe(("*", Choice(Dense(), Uniform(16).naive(), Activation(16)))), stats
    )
    for layer in ("layer0", "layer1"):
        total = [
            sum(m.weights[f"{layer}.{w}"].bias_value() for w in ("w_x", "w_h"))
            for m in (model, made.model)
        ]
        np.testing.assert_allclose(total[1], total[0], atol=2e-4)


def test_sixteen_bits_hardly_differ_from_floats() -> None:
    for kind in ("lstm", "gru"):
        model, stats = problem(kind)
        data = random_sequences(np.random.default_rng(9), (20, 10), 8)
        made = compress(model, recipe(("*", Choice(Dense(), Uniform(16), Activation(16)))), stats)
        exact = run(build_program(model), data).outputs
        np.testing.assert_allclose(run(build_program(made.model), data).outputs, exact, atol=5e-3)


def test_mean_error_of_data_aware_weights_is_corrected() -> None:
    """bias′ = bias + A·mean(z_o) − Â·mean(z_c): the mean result over calibration data stays."""
    model, stats = problem("gru")
    name = "head.w"
    aware = Choice(Dense("least_squares"), Uniform(2, "gate"), Activation(8))
    made = compress(model, recipe((name, aware)), stats)
    trace = stats.sites[name].trace.astype(float)
    weight, old = made.model.weights[name], model.weights[name]
    link = weight.links[0]
    seen = np.clip(np.rint(trace / np.float32(link.step)), -128, 127) * link.step
    wanted = (trace @ old.dense().T + old.bias_value()).mean(axis=0)
    found = (seen @ weight.dense().T + weight.bias_value()).mean(axis=0)
    unit = weight.accumulator_scale() * 2.0**-weight.bias.scale.exponent
    assert np.all(np.abs(found - wanted) <= unit / 2 + 1e-6)


def test_the_best_round_is_kept() -> None:
    model, stats = problem("lstm", 1)
    rounds = [compress(model, recipe(("*.w_?", AWARE), rounds=n), stats) for n in (0, 1, 3)]
    assert [len(m.rounds) for m in rounds] == [0, 2, 4]
    # Rounds are a prefix of longer runs, and the kept one is the best on the calibration data.
    assert rounds[2].rounds[:2] == rounds[1].rounds
    from modelflex.core.divergence import divergences, mean_divergence

    for made in rounds[1:]:
        outputs = run(build_program(made.model), stats.sequences).outputs
        found = mean_divergence("logits", divergences("logits", stats.outputs, outputs))
        assert found == pytest.approx(min(made.rounds), rel=1e-12)


def site_of(trace: Array) -> SiteStats:
    peak = float(np.abs(trace).max())
    return SiteStats(trace, np.array([len(trace)]), float(trace.std()), peak, np.ones(3))


def test_activation_scales() -> None:
    trace = np.linspace(-1, 1, 201, dtype=np.float32)[:, None] ** 5
    full = float(activation_scale(Activation(4, "max"), trace, 1.0).value()[0])
    assert full == pytest.approx(1 / 7, rel=2**-14)
    assert float(activation_scale(Activation(4, "mse"), trace, 1.0).value()[0]) < full


def test_links_hold_thresholds_in_units_of_the_input() -> None:
    site = site_of(np.linspace(-1, 1, 201, dtype=np.float32)[:, None] ** 5)
    held = make_link(AWARE, site, np.ones((3, 1)), 1)
    assert held.activity == Delta(0.2 * site.std, "block")
    assert (held.bits, held.thresholds) == (8, None)
    plain = make_link(PLAIN, site, np.ones((3, 1)), 1)
    assert (plain.activity, plain.step) == (None, held.step)


def test_links_scale_thresholds_by_the_columns() -> None:
    """θ_j ∝ 1/‖W_:j‖ with the geometric mean θ: by hand for norms 1, 2 and 4."""
    rng = np.random.default_rng(0)
    site = site_of(rng.uniform(-1, 1, (300, 3)).astype(np.float32))
    scaled = Choice(PLAIN.structure, PLAIN.format, PLAIN.activation, Delta(0.1, scaled="norm"))
    link = make_link(scaled, site, np.diag([1.0, 2.0, 4.0]), 1)
    assert link.thresholds is not None
    wanted = np.rint(0.1 / link.step * np.array([2.0, 1.0, 0.5]))
    assert link.thresholds.tolist() == wanted.tolist()
    assert link.nbytes == 3


def test_replayed_densities_bracket_the_expected_one() -> None:
    _, stats = problem()
    site, matrix = stats.sites["layer0.w_x"], np.ones((64, 8))
    plan = Planned("dense", dense_geometry(64, 8))
    everything = replayed_density(plan, make_link(PLAIN, site, matrix, 1), site)
    assert everything.units == everything.inputs == (1.0, 1.0, 1.0)
    found = replayed_density(plan, make_link(AWARE, site, matrix, 1), site)
    for expected, low, high in (found.units, found.inputs):
        assert 0 <= low <= expected <= high <= 1
        assert expected < 1


def test_expected_densities_count_what_moved() -> None:
    """A step function moves once in ten steps: the shares of inputs and of blocks of two, by hand."""
    trace = np.zeros((40, 4), np.float32)
    trace[:, 0] = np.arange(40) // 10 + 1  # sent at the steps 0, 10, 20, 30
    site = site_of(trace)
    held = Choice(PLAIN.structure, PLAIN.format, PLAIN.activation, Delta(0.5))
    plan = Planned("circulant", circulant_geometry(8, 4, 2))
    found = replayed_density(plan, make_link(held, site, np.ones((8, 4)), 2), site)
    assert found.inputs[0] == pytest.approx(4 / 160)
    assert found.units[0] == pytest.approx(4 / 80)


def test_nothing_is_known_of_what_follows_a_factor() -> None:
    _, stats = problem()
    site = stats.sites["layer0.w_x"]
    link = make_link(AWARE, site, np.ones((64, 8)), 1)
    inner = Planned("dense", dense_geometry(64, 2), outer=False)
    assert replayed_density(inner, link, site).units == (1.0, 1.0, 1.0)
    held = Planned("dense", dense_geometry(64, 2), outer=False, inner=Delta(0.1))
    assert replayed_density(held, link, site).units[1:] == (0.0, 1.0)


def test_calibration_refuses_what_it_cannot_use() -> None:
    model, stats = problem()
    small = compress(model, recipe(("*", PLAIN)), stats).model
    with pytest.raises(UserError, match="already compressed"):
        calibrate(small, stats.sequences)
    silent = Sequences(np.zeros((5, 8), np.float32), np.array([5]))
    with pytest.raises(UserError, match=r"'layer0\.w_x' is zero"):
        calibrate(model, silent)


def test_calibration_draws_sequences_with_the_seed() -> None:
    model, _ = problem()
    data = random_sequences(np.random.default_rng(3), [3] * 20, 8)
    drawn = [calibrate(model, data, Draw(5), seed).sequences for seed in (1, 1, 2)]
    assert drawn[0].digest == drawn[1].digest != drawn[2].digest
    assert drawn[0].count == 5
    assert calibrate(model, data, Draw(50)).sequences.count == 20


def test_calibration_traces_are_the_inputs_of_every_weight() -> None:
    _, stats = problem()
    np.testing.assert_array_equal(stats.sites["layer0.w_x"].trace, stats.sequences.x)
    assert stats.sites["head.w"].trace.shape == (3, 16)
    assert stats.sites["head.w"].lengths.tolist() == [1, 1, 1]
    hidden = stats.sites["layer0.w_h"]
    starts = np.concatenate([[0], np.cumsum(hidden.lengths)[:-1]])
    assert np.all(hidden.trace[starts] == 0), "the state before the first step is zero"
    later = np.delete(np.arange(90), starts)
    np.testing.assert_array_equal(
        hidden.trace[later],
        np.delete(stats.sites["layer1.w_x"].trace, starts + hidden.lengths - 1, 0),
    )
    assert hidden.peak == pytest.approx(np.abs(hidden.trace).max())
    assert hidden.std == pytest.approx(np.sqrt(hidden.trace.var(axis=0).mean()), rel=1e-5)
