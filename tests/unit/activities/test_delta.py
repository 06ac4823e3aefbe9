"""Delta networks: the rule input by input, its thresholds, and the accumulator that cannot drift."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.activities import delta
from modelflex.activities.delta import TRACE_STEPS, Delta
from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE, Array, Scale
from modelflex.core.part import bias_codes, pack_bias
from modelflex.core.tracer import InputSite, Link
from modelflex.core.weight import Matrix
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.formats.uniform import Uniform
from modelflex.structures.circulant import Circulant
from modelflex.testing.generators import (
    integer_matrix,
    make_fit,
    random_sequences,
    weight_program,
)


def make_weight(activity: Delta | None, bits: int, block: int) -> Matrix:
    rng = np.random.default_rng(0)
    link = Link(bits, Scale.nearest(4 / 2 ** (bits - 1)))
    matrix = rng.normal(size=(16, 8)) * np.repeat(2.0 ** -np.arange(8 // block), block)
    if activity is not None:
        norms = np.linalg.norm(matrix, axis=0)
        seen = make_site(np.zeros((2, 8), np.int16), np.array([2]), norms, block, bits, link.step)
        link = dataclasses.replace(link, activity=activity, thresholds=activity.thresholds(seen))
    weight: Any = Circulant(block, "mean").fit_weight(make_fit(matrix, None, Uniform(8), link))
    made: Matrix = weight.with_bias(pack_bias(rng.normal(size=16), weight.accumulator_scale(), 16))
    return made


def make_site(
    codes: Array,
    lengths: Array,
    norms: Array | None = None,
    block: int = 1,
    bits: int = 8,
    step: float = 2.0**-4,
) -> InputSite:
    columns = np.ones(codes.shape[1]) if norms is None else norms
    return InputSite(codes, lengths, step, 0.5, columns, block, bits)


def walks(seed: int, lengths: Array, columns: int = 8) -> Array:
    """8-bit codes that move slowly."""
    data = random_sequences(np.random.default_rng(seed), lengths.tolist(), columns)
    codes: Array = np.clip(np.rint(data.x * 30), -128, 127).astype(np.int16)
    return codes


VARIANTS = [{}, {"overshoot": 0.5}, {"scaled": "norm"}, {"scaled": "norm", "overshoot": 0.99}]


# --- the rule ------------------------------------------------------------------------------------
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("granularity", ["element", "block"])
@pytest.mark.parametrize(("bits", "block"), [(8, 1), (8, 4), (4, 2), (16, 8)])
def test_no_drift_in_300_steps(
    granularity: Any, bits: int, block: int, variant: dict[str, Any]
) -> None:
    """M == bias + A·x̂ exactly, at every one of 300 steps, with θ > 0 (Neil et al. drift in floats)."""
    weight = make_weight(Delta(0.8, granularity, **variant), bits, block)
    matrix = integer_matrix(weight)
    assert weight.bias is not None
    first = bias_codes(weight.bias)
    data = random_sequences(np.random.default_rng(1), (300,), 8)
    interpreter = Interpreter(weight_program(weight, 8))
    state, held = None, 0
    for x in data.x:
        run = interpreter.run(Sequences(x[None], np.array([1])), state=state)
        state = run.state
        sent = state["w"]["w/0.sent"][0].astype(np.int64)
        np.testing.assert_array_equal(state["w"]["w/0.m"][0], first + matrix @ sent)
        held += run.profile.sites["w/0"].active < 8
    assert held > 15, "the threshold held nothing: the test shows nothing"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("bits", "block"), [(2, 1), (8, 4), (16, 8), (5, 2)])
@pytest.mark.parametrize("granularity", ["element", "block"])
def test_threshold_zero_is_the_dense_product(
    granularity: Any, bits: int, block: int, variant: dict[str, Any]
) -> None:
    data = random_sequences(np.random.default_rng(2), (120, 30), 8)
    held = make_weight(Delta(0.0, granularity, **variant), bits, block)
    plain = make_weight(None, bits, block)
    one = Interpreter(weight_program(held, 8)).run(data)
    other = Interpreter(weight_program(plain, 8)).run(data)
    np.testing.assert_array_equal(one.outputs * FX_ONE, other.outputs * FX_ONE)
    assert one.profile.sites["w/0"].active <= other.profile.sites["w/0"].active == 150 * 8


@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 4]),
    st.lists(st.integers(0, 40), min_size=8, max_size=8),
    st.sampled_from(["element", "block"]),
    st.sampled_from([0, 1, 64, 128, 255]),
)
def test_replay_is_the_delta_rule(
    seed: int, block: int, thetas: list[int], granularity: Any, overshoot: int
) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 4)
    codes = np.cumsum(rng.integers(-20, 21, (lengths.sum(), 8)), axis=0).clip(-128, 127)
    activity = Delta(1.0, granularity, scaled="norm", overshoot=overshoot / 256)
    unit, row = block if granularity == "block" else 1, 0
    thetas = thetas[: 8 // unit]
    link = Link(8, Scale.nearest(2.0**-4), activity, np.array(thetas, np.int32))
    held, mask = activity.replay(codes.astype(np.int16), lengths, block, link)
    for length in lengths:
        sent = [0] * 8
        for _ in range(length):
            x = codes[row].tolist()
            expected = [False] * 8
            for k in range(0, 8, unit):
                theta = thetas[k // unit]
                change = [x[j] - sent[j] for j in range(k, k + unit)]
                if any(change) and max(map(abs, change)) >= theta:
                    for j, d in zip(range(k, k + unit), change, strict=True):
                        beyond = min(abs(d), theta) * overshoot // 256
                        sent[j] = max(-128, min(127, x[j] + (beyond if d > 0 else -beyond)))
                    expected[k : k + unit] = [True] * unit
            assert held[row].tolist() == sent
            assert mask[row].tolist() == expected
            row += 1


@given(
    st.lists(st.integers(-128, 127), min_size=4, max_size=4),
    st.integers(0, 256),
    st.floats(0, 0.999),
    st.sampled_from(["element", "block"]),
)
def test_an_input_that_stays_is_sent_once(
    values: list[int], theta: int, overshoot: float, granularity: Any
) -> None:
    """What was sent beyond an input lies less than θ from it, so it is not sent again."""
    activity = Delta(theta / 16, granularity, overshoot=overshoot)
    codes = np.tile(np.array(values, np.int16), (5, 1))
    link = Link(8, Scale.nearest(2.0**-4), activity)
    held, mask = activity.replay(codes, np.array([5]), 2, link)
    assert not mask[1:].any()
    assert np.abs(held.astype(int) - codes).max() < max(theta, 1)


def test_overshoot_leads_an_input_that_goes_on() -> None:
    """A ramp of slope 1, θ = 8, half: from the second time on it is sent 4 too far, every 12 steps."""
    ramp = np.arange(100, dtype=np.int16)[:, None]
    link = Link(8, Scale.nearest(2.0**-4))
    plain, plain_mask = Delta(0.5).replay(ramp, np.array([100]), 1, link)
    held, mask = Delta(0.5, overshoot=0.5).replay(ramp, np.array([100]), 1, link)
    assert np.flatnonzero(plain_mask).tolist() == list(range(8, 100, 8))
    assert np.flatnonzero(mask).tolist() == list(range(8, 100, 12))
    assert held[20, 0] == 24
    error, plain_error = held[8:, 0] - ramp[8:, 0], plain[8:, 0] - ramp[8:, 0]
    assert np.abs(error).mean() < np.abs(plain_error).mean()


def test_extreme_jumps_are_not_clipped() -> None:
    """A jump over the whole range of 16-bit codes is one bit wider than a code."""
    weight = make_weight(Delta(0.0), 16, 1)
    ends = np.where(np.arange(20)[:, None] % 2, 1e4, -1e4) * np.ones(8)
    data = Sequences(ends.astype(np.float32), np.array([20]))
    run = Interpreter(weight_program(weight, 8)).run(data)
    dense = dataclasses.replace(weight, link=Link(16, weight.links[0].scale))
    plain = Interpreter(weight_program(dense, 8)).run(data)
    np.testing.assert_array_equal(run.outputs, plain.outputs)


# --- thresholds ----------------------------------------------------------------------------------
def test_thresholds_in_standard_deviations() -> None:
    site = make_site(np.zeros((3, 4), np.int16), np.array([3]))
    assert Delta(0.5, unit="std").resolve(site) == Delta(0.25)
    assert Delta(0.5).resolve(site) == Delta(0.5)
    assert Delta(0.24).codes(0.1) == 2
    assert Delta(0.24).thresholds(site) is None


@given(st.lists(st.floats(0.5, 8), min_size=8, max_size=8), st.sampled_from([1, 2, 4]))
def test_thresholds_scaled_by_norms(norms: list[float], block: int) -> None:
    """θ_j·‖W_j‖ is the same for all but for rounding, and the geometric mean of θ_j is θ."""
    columns = np.array(norms)
    site = make_site(np.zeros((2, 8), np.int16), np.array([2]), columns, block, 16, 2.0**-8)
    activity = Delta(2.0, "block", scaled="norm")
    made = activity.thresholds(site)
    assert made is not None
    assert made.size == activity.threshold_count(8, block) == 8 // block
    means = np.sqrt((columns.reshape(-1, block) ** 2).mean(axis=1))
    wanted = 512 * np.exp(np.log(means).mean()) / means
    np.testing.assert_allclose(made, wanted, rtol=0, atol=0.5 + 1e-9)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("theta", [0.0, 1.0, 1e9])
def test_dead_columns_get_the_largest_threshold_that_is_stored(bits: int, theta: float) -> None:
    norms = np.array([0.0, 1.0, 1.0, 1e-30])
    site = make_site(np.zeros((2, 4), np.int16), np.array([2]), norms, bits=bits)
    made = Delta(theta, scaled="norm").thresholds(site)
    assert made is not None
    assert made.min() >= 0
    assert made.max() <= (255 if bits == 8 else 65535)
    assert made[0] >= made[1]
    assert made.any() == (theta > 0)
    nothing = dataclasses.replace(site, norms=np.zeros(4))
    equal = Delta(theta, scaled="norm").thresholds(nothing)
    assert equal is not None
    assert np.ptp(equal) == 0


def test_another_number_of_thresholds_is_refused() -> None:
    weight = make_weight(Delta(0.5, scaled="norm"), 8, 4)
    short = dataclasses.replace(weight.links[0], thresholds=np.ones(3, np.int32))
    with pytest.raises(UserError, match="3 thresholds; expected 8"):
        weight_program(dataclasses.replace(weight, link=short), 8)


def share_sent(activity: Delta, site: InputSite) -> float:
    link = Link(site.bits, Scale.nearest(site.step), activity, activity.thresholds(site))
    _, mask = activity.replay(site.codes, site.lengths, site.block, link)
    return float(mask.reshape(len(mask), -1, site.block).any(axis=2).mean())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("granularity", "block"), [("element", 1), ("element", 4), ("block", 4)])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.4])
def test_a_wanted_density_is_met_with_the_least_threshold(
    granularity: Any, block: int, density: float, variant: dict[str, Any]
) -> None:
    lengths = np.array([40, 1, 25, 60])
    norms = np.array([1.0, 2.0, 1.0, 0.5, 3.0, 1.0, 1.0, 1.0])
    site = make_site(walks(3, lengths), lengths, norms, block)
    made = Delta(None, granularity, density=density, **variant).resolve(site)
    assert made == Delta(made.threshold, granularity, **variant)
    assert made.resolve(site) == made
    assert share_sent(made, site) <= density
    assert made.threshold is not None
    below = dataclasses.replace(made, threshold=made.threshold - site.step)
    assert share_sent(below, site) > density


def test_a_wanted_density_is_met_where_one_column_is_much_wider_than_the_others() -> None:
    """Its threshold is a small share of the common one, which has to rise beyond all codes."""
    lengths = np.array([60, 40])
    norms = np.array([1.0] * 7 + [400.0])
    site = make_site(walks(6, lengths), lengths, norms)
    made = Delta(density=0.02, scaled="norm").resolve(site)
    assert share_sent(made, site) <= 0.02
    assert made.threshold is not None
    assert made.threshold > 2**site.bits * site.step


def test_density_one_sends_every_change_and_a_tiny_one_may_send_nothing() -> None:
    lengths = np.array([30, 30])
    site = make_site(walks(4, lengths), lengths)
    assert Delta(density=1.0).resolve(site) == Delta(0.0)
    assert share_sent(Delta(density=1e-6).resolve(site), site) == 0
    still = dataclasses.replace(site, codes=np.zeros_like(site.codes))
    assert Delta(density=0.1).resolve(still) == Delta(0.0)


def test_a_density_is_met_on_a_part_of_long_traces() -> None:
    """Of more steps than are looked at, evenly spaced sequences: those of another kind count too."""
    lengths = np.full(12, TRACE_STEPS // 4)
    codes = walks(5, lengths, 2)
    codes[: codes.shape[0] // 2] //= 8
    site = make_site(codes, lengths)
    assert share_sent(Delta(density=0.2).resolve(site), site) == pytest.approx(0.2, rel=0.15)
    one = make_site(codes, np.array([codes.shape[0]]))
    assert Delta(density=0.2).resolve(one).threshold is not None


def test_density_falls_as_the_threshold_rises() -> None:
    """Neil et al., figure 4: fewer changes reach a larger threshold, down to none."""
    lengths = np.array([200, 100])
    site = make_site(walks(6, lengths), lengths)
    shares = [share_sent(Delta(k / 4), site) for k in range(40)]
    assert all(b <= a for a, b in itertools.pairwise(shares))
    assert shares[0] > 0.8
    assert shares[-1] < 0.05


def test_nothing_overshoots_in_a_product_that_runs_once_a_sequence() -> None:
    codes = np.full((3, 2), 50, np.int16)
    site = make_site(codes, np.ones(3, np.int64))
    assert Delta(0.5, overshoot=0.5).resolve(site) == Delta(0.5)


def test_the_naive_variant_is_the_published_rule() -> None:
    assert Delta(0.5, "block", scaled="norm", overshoot=0.5).naive() == Delta(0.5, "block")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threshold": -0.1}, "threshold is -0.1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({}, "neither a threshold nor a density"),
        ({"threshold": 0.1, "density": 0.1}, "both a threshold and a density"),
        ({"density": 0.0}, "density is 0.0"),
        ({"density": 1.5}, "density is 1.5"),
        ({"density": float("nan")}, "density is nan"),
        ({"density": 0.5, "unit": "std"}, "a density and a unit"),
        ({"threshold": 0.1, "overshoot": 1.0}, "overshoot is 1.0"),
        ({"threshold": 0.1, "overshoot": -0.5}, "overshoot is -0.5"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Delta(**values)


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 4]), st.sampled_from([0, 100, 255]))
def test_compiled_replay_gives_the_bits_of_numpy(seed: int, block: int, overshoot: int) -> None:
    if not delta.HAVE_NATIVE:
        pytest.skip("built without a C compiler")
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, rng.integers(1, 6))
    thresholds = rng.integers(0, 40, 8 // block).astype(np.int32)
    case = (walks(seed, lengths), lengths, thresholds, block, overshoot, 8)
    held, mask = delta._encode(*case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "HAVE_NATIVE", False)
        plain_held, plain_mask = delta._encode(*case)
    np.testing.assert_array_equal(held, plain_held)
    np.testing.assert_array_equal(mask, plain_mask)
