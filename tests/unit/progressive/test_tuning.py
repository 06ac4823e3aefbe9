"""Terms fitted together: the steps, the gradients, what they gain, and what stays as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.divergence import divergences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.program import build_program
from modelflex.core.weight import Matrix, float_weight
from modelflex.errors import UserError
from modelflex.execute.gradients import Forward
from modelflex.execute.interpret import Interpreter
from modelflex.progressive import tuning
from modelflex.progressive.choosing import (
    Target,
    choose,
    fit_together,
    operations_price,
    tuned,
)
from modelflex.progressive.climbing import climb, term_weights
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.progressive.tuning import Parameter, check_tunable, rungs_near, tune
from modelflex.testing.generators import (
    make_model,
    random_carrying_model,
    random_inputs,
    random_model,
    random_sequences,
)
from modelflex.testing.oracle import run_reals

WHOLE = Refinement()
SPARSE = (Refinement(kept=0.5), Refinement(kept=0.5, block=8))


class Case:
    """A random network in terms, with data: to fit to, to judge by, and that nothing has seen."""

    def __init__(
        self,
        seed: int,
        cell: str = "lstm",
        setting: Refinement = WHOLE,
        output: str = "logits",
        reads: str = "every",
        pilot: int = 20,
    ) -> None:
        rng = np.random.default_rng(seed)
        dense = random_model(rng, [cell], inputs=16, units=16, outputs=4, reads=reads)
        self.dense = replace(dense, output=output)
        self.pilot, self.judged, self.fresh = (
            random_sequences(rng, (20,) * count, 16) for count in (pilot, 20, 60)
        )
        self.refined = Refiner(self.dense, self.pilot).refined(setting)
        self.ladder = climb(self.refined, outputs(self.dense, self.judged), self.judged)

    def tuned(self, quality: float, steps: int, **more: Any) -> Model:
        return tune(self.refined, self.dense, self.pilot, self.ladder, quality, steps, **more)


def outputs(model: Model, data: Sequences, terms: Mapping[str, int] | None = None) -> Array:
    return Interpreter(build_program(model)).run(data, terms=terms).outputs


def numbers(model: Model) -> dict[str, list[Array]]:
    """Weight of terms → U, V, c and b′."""
    return {
        name: [w.u.dense(), w.v.dense(), w.v.bias_value(), w.u.bias_value()]
        for name, w in term_weights(model).items()
    }


def same(one: Model, other: Model) -> bool:
    pairs = zip(numbers(one).values(), numbers(other).values(), strict=True)
    return all(np.array_equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


# --- steps and gradients -------------------------------------------------------------------------
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1, None]), st.booleans())
def test_steps_are_those_of_adam_in_torch(
    rows: int, columns: int, axis: int | None, masked: bool
) -> None:
    """With slices as parameters of their own, each at the rate times the root mean square of its numbers."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(rows * 10 + columns)
    start = rng.normal(size=(rows, columns)).astype(np.float32)
    mask = rng.random(start.shape) < 0.7 if masked else np.ones(start.shape, bool)
    start *= mask
    slices = {0: [np.s_[:, n] for n in range(columns)], 1: [np.s_[n] for n in range(rows)]}
    places: list[Any] = [np.s_[:]] if axis is None else slices[axis]
    sizes = []
    for place in places:
        there = start[place][mask[place]].astype(np.float64)
        sizes.append(np.sqrt(np.mean(there**2)) if there.size else 0.0)
    params = [torch.tensor(start[place], requires_grad=True) for place in places]
    adam = torch.optim.Adam([{"params": [p]} for p in params], betas=tuning.DECAYS, eps=1e-12)
    found = Parameter(start.copy(), axis, mask if masked else None)
    for count in range(1, 6):
        gradient = rng.normal(scale=10.0 ** rng.integers(-4, 3), size=start.shape)
        gradient = gradient.astype(np.float32)
        rate = 0.1 / count
        found.step(gradient, rate, count)
        for group, param, place, size in zip(adam.param_groups, params, places, sizes, strict=True):
            group["lr"] = rate * size
            param.grad = torch.tensor((gradient * mask)[place])
        adam.step()
    for place, param in zip(places, params, strict=True):
        np.testing.assert_allclose(found.value[place], param.detach().numpy(), rtol=1e-4, atol=1e-6)
    assert not found.value[~mask].any()


def loss(case: Case, batch: Sequences, name: str, terms: int, values: list[Array]) -> float:
    """What a step lowers, by the equations in float64: log of the mean divergence and of the squared
    errors of the recurrent layer's results.
    """
    u, v, c, base = values
    weight = Matrix(
        Part(u[:, :terms] @ v[:terms], FLOAT_BITS),
        Part(base + u[:, :terms] @ c[:terms], FLOAT_BITS),
        None,
        case.refined.weights[name].gates,
        "dense",
        v.shape[1],
    )
    short = case.refined.with_weights({name: weight})
    wanted, found = (run_reals(model, batch) for model in (case.dense, short))
    total = np.log(divergences(case.dense.output, wanted, found).mean() + tuning.FLOOR)
    inner = [
        run_reals(replace(model, layers=model.layers[:1], output="values"), batch)
        for model in (case.dense, short)
    ]
    square = np.square(inner[0] - inner[1]).sum()
    return float(total + np.log(square + tuning.FLOOR * inner[0].size))


@pytest.mark.parametrize("output", ["logits", "logits:2", "values"])
@pytest.mark.parametrize("reads", ["every", "last"])
def test_gradients_equal_finite_differences(
    output: str, reads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one prefix of the terms, in u, v, c and b′."""
    monkeypatch.setattr(tuning, "BATCH_STEPS", 40)
    case = Case(1, output=output, reads=reads)
    (name,) = term_weights(case.refined)
    rung = case.ladder.rungs[3]
    terms = rung.terms[name]
    seen: list[Array] = []
    batches: list[Sequences] = []

    def spy(program: Any, batch: Sequences) -> Forward:
        batches.append(batch)
        return Forward(program, batch)

    monkeypatch.setattr(tuning, "Forward", spy)
    monkeypatch.setattr(Parameter, "step", lambda self, g, rate, count: seen.append(g.copy()))
    ladder = replace(case.ladder, rungs=(rung,))
    tune(case.refined, case.dense, case.pilot, ladder, rung.divergence, 1)
    assert batches[0] is batches[1]
    given, rng, step = numbers(case.refined)[name], np.random.default_rng(0), 2.0**-9
    assert not seen[0][:, terms:].any()
    assert not seen[1][terms:].any()
    assert not seen[2][terms:].any()
    for which, gradient in enumerate(seen):
        for _ in range(4):
            place = tuple(int(rng.integers(size)) for size in gradient.shape)
            if which == 0:
                place = place[0], place[1] % terms
            elif which < 3:
                place = place[0] % terms, *place[1:]
            ends = []
            for change in (step, -step):
                values = [value.copy() for value in given]
                values[which][place] += change
                ends.append(loss(case, batches[0], name, terms, values))
            slope = (ends[0] - ends[1]) / (2 * step)
            allowed = 1e-2 * float(np.abs(gradient).max())
            assert gradient[place] == pytest.approx(slope, rel=2e-2, abs=allowed)


# --- what it gains -------------------------------------------------------------------------------
def gain(case: Case, quality: float, steps: int) -> float:
    """By what the mean divergence of the rungs near the quality falls on data nothing has seen, a
    geometric mean."""
    after, wanted = case.tuned(quality, steps), outputs(case.dense, case.fresh)
    logs = []
    for rung in case.ladder.rungs:
        if quality / 10 < rung.divergence < quality * 10:
            both = (outputs(m, case.fresh, rung.terms) for m in (case.refined, after))
            means = [divergences(case.dense.output, wanted, found).mean() for found in both]
            logs.append(np.log(means[1] / means[0]))
    assert len(logs) > 3
    return float(np.exp(np.mean(logs)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_answers_to_unseen_data_get_better(cell: str, seed: int) -> None:
    setting = (WHOLE, *SPARSE)[seed]
    assert gain(Case(seed, cell, setting), 0.02, 80) < 0.97


@pytest.mark.parametrize("output", ["logits:2", "values"])
def test_other_outputs_too(output: str) -> None:
    assert gain(Case(1, "gru", SPARSE[1], output, pilot=120), 0.1, 80) < 0.9


def test_outputs_that_are_no_logits_do_not_matter() -> None:
    """Other rows of the head for them change nothing in the terms."""
    case = Case(2, output="logits:2")
    first = case.tuned(0.02, 3)
    head = case.dense.weights["head.w"]
    matrix = head.dense()
    matrix[2:] *= 1.5
    changed = {"head.w": float_weight(matrix, head.bias_value(), 1)}
    case.dense, case.refined = (m.with_weights(changed) for m in (case.dense, case.refined))
    assert same(case.tuned(0.02, 3), first)


# --- what stays ----------------------------------------------------------------------------------
@pytest.mark.parametrize("setting", SPARSE, ids=lambda s: s.label)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sparse_terms_keep_their_places(cell: str, setting: Refinement) -> None:
    case = Case(3, cell, setting)
    after = term_weights(case.tuned(0.02, 3))
    for name, before in term_weights(case.refined).items():
        assert after[name].v.layout == before.v.layout != "dense"
        np.testing.assert_array_equal(after[name].v.part.index, before.v.part.index)
        assert after[name].nbytes == before.nbytes
        moved = after[name].v.dense() != before.v.dense()
        assert moved.any()
        assert not (moved & (before.v.dense() == 0)).any()


def test_terms_beyond_the_rungs_near_the_quality_stay() -> None:
    case = Case(4)
    quality = 0.3
    used = max(
        next(iter(r.terms.values()))
        for r in case.ladder.rungs
        if quality / tuning.NEAR < r.divergence < quality * tuning.NEAR
    )
    ((u, v, c, base),) = numbers(case.refined).values()
    ((u2, v2, c2, base2),) = numbers(case.tuned(quality, 4)).values()
    assert 0 < used < u.shape[1]
    np.testing.assert_array_equal(u2[:, used:], u[:, used:])
    np.testing.assert_array_equal(v2[used:], v[used:])
    np.testing.assert_array_equal(c2[used:], c[used:])
    assert (u2[:, : used // 2] != u[:, : used // 2]).any(axis=0).all()
    assert (v2[: used // 2] != v[: used // 2]).any(axis=1).all()
    assert (base2 != base).any()


def test_means_that_are_not_taken_away_stay_unstored() -> None:
    case = Case(5, setting=Refinement("refit"))
    (after,) = term_weights(case.tuned(0.02, 2)).values()
    assert after.v.own_bias is None


def test_without_a_rung_near_the_quality_there_is_no_other_offer() -> None:
    case = Case(6)
    assert case.tuned(1e-9 * min(r.divergence for r in case.ladder.rungs if r.divergence), 3) is (
        case.refined
    )
    refiner, target = Refiner(case.dense, case.pilot), Target(quality=1e9)
    original = outputs(case.dense, case.judged)
    (offer,) = choose(refiner, original, case.judged, [WHOLE], target, operations_price)
    given = refiner, case.pilot, original, case.judged, target, operations_price, 3
    assert tuned(offer, *given) is offer


def test_a_tuned_offer_has_a_ladder_of_its_own() -> None:
    case = Case(7, "gru")
    refiner, target = Refiner(case.dense, case.pilot), Target(quality=0.05)
    original = outputs(case.dense, case.judged)
    (offer,) = choose(refiner, original, case.judged, [WHOLE], target, operations_price)
    found = tuned(offer, refiner, case.pilot, original, case.judged, target, operations_price, 4)
    assert (offer.tuning_steps, found.tuning_steps) == (0, 4)
    assert found.label == f"{offer.label}, tuned"
    assert found.ladder == climb(found.model, original, case.judged) != offer.ladder
    assert found.price == operations_price(found.model, found.rung.terms)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_all_terms_of_a_tuned_offer_are_the_dense_network(cell: str) -> None:
    """And its first ones are those that were tuned."""
    case = Case(8, cell)
    refiner, quality = Refiner(case.dense, case.pilot), 0.1
    whole = dict.fromkeys(refiner.weights, WHOLE)
    found = fit_together(refiner, whole, case.refined, case.pilot, case.ladder, quality, steps=20)
    want = outputs(case.dense, case.fresh)
    assert np.abs(outputs(found, case.fresh) - want).max() < 1e-4 * np.abs(want).max()
    rung = max(rungs_near(case.ladder, quality), key=lambda r: r.operations).terms
    alone = outputs(case.tuned(quality, 20), case.fresh, rung)
    assert np.abs(alone - want).max() > 1e-3 * np.abs(want).max()
    np.testing.assert_allclose(outputs(found, case.fresh, rung), alone, atol=1e-4)


def test_the_same_seed_gives_the_same_terms() -> None:
    case, told = Case(8), list[tuple[int, int]]()
    first = case.tuned(0.02, 5, seed=1, tell=lambda *now: told.append(now))
    assert told == [(n, 5) for n in range(1, 6)]
    assert same(first, case.tuned(0.02, 5, seed=1))
    assert not same(first, case.tuned(0.02, 5, seed=2))


# --- data ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("lengths", [(2000, 3), (1,) * 50, (801, 800, 799, 1)], ids=str)
def test_recordings_of_any_length(lengths: tuple[int, ...]) -> None:
    case = Case(9)
    case.pilot = random_sequences(np.random.default_rng(0), lengths, 16)
    assert not same(case.tuned(0.02, 2), case.refined)


def symbols() -> tuple[Model, Sequences]:
    rng = np.random.default_rng(10)
    model = make_model(
        rng,
        [
            Layer("first", "one_hot", 1, 6),
            Layer("layer0", "lstm", 6, 8),
            Layer("head", "dense", 8, 3),
        ],
    )
    return model, random_inputs(rng, (15,) * 20, model)


def test_symbols_are_not_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = symbols()
    refined = Refiner(model, data).refined(Refinement())
    ladder = climb(refined, outputs(model, data), data)
    seen: list[Array] = []

    def spy(program: Any, batch: Sequences) -> Forward:
        seen.append(batch.x)
        return Forward(program, batch)

    monkeypatch.setattr(tuning, "Forward", spy)
    assert not same(tune(refined, model, data, ladder, 0.02, 3), refined)
    assert set(np.unique(np.concatenate(seen))) <= set(range(6))


def test_outputs_that_are_fed_back() -> None:
    rng = np.random.default_rng(11)
    model = random_carrying_model(rng, ("lstm",), 2)
    data = random_inputs(rng, (15,) * 30, model)
    refined = Refiner(model, data).refined(Refinement())
    ladder = climb(refined, outputs(model, data), data)
    after = tune(refined, model, data, ladder, 0.05, 30)
    wanted = outputs(model, data)
    near = [r for r in ladder.rungs if 0.005 < r.divergence < 0.5]
    lost = [
        np.mean(
            [np.log(divergences("logits", wanted, outputs(m, data, r.terms)).mean()) for r in near]
        )
        for m in (refined, after)
    ]
    assert lost[1] < lost[0]


# --- mistakes ------------------------------------------------------------------------------------
def test_numbers_that_overflow_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "RATE", 1e39)
    with pytest.raises(UserError, match="not finite after"):
        Case(12).tuned(0.02, 3)


def test_what_tuning_spoils_is_not_the_best_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "RATE", 1e4)
    case = Case(13)
    refiner, target = Refiner(case.dense, case.pilot), Target(quality=0.02)
    original = outputs(case.dense, case.judged)
    (offer,) = choose(refiner, original, case.judged, [WHOLE], target, operations_price)
    found = tuned(offer, refiner, case.pilot, original, case.judged, target, operations_price, 3)
    assert not found.met
    assert target.better(offer) < target.better(found)


def test_what_cannot_be_tuned_is_refused() -> None:
    model = Case(14).dense
    check_tunable(model, [WHOLE, *SPARSE])
    with pytest.raises(UserError, match="v for each gate"):
        check_tunable(model, [Refinement(), Refinement(per_gate=True)])
