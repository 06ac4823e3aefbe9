"""Delta networks: the rule column by column, and the accumulator that cannot drift."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.activities.delta import Delta
from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE, Scale
from modelflex.core.part import bias_codes, pack_bias
from modelflex.core.tracer import Link
from modelflex.core.weight import Weight
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.formats.uniform import Uniform
from modelflex.structures.circulant import Circulant
from modelflex.testing.generators import integer_matrix, random_sequences, weight_program


def make_weight(activity: Delta | None, bits: int, block: int) -> Weight:
    rng = np.random.default_rng(0)
    link = Link(bits, Scale.nearest(4 / 2 ** (bits - 1)), activity)
    structure = Circulant(block, "mean")
    weight = structure.fit_weight(rng.normal(size=(16, 8)), None, Uniform(8), 1, (link,))
    return weight.with_bias(pack_bias(rng.normal(size=16), weight.accumulator_scale(), 16))


@pytest.mark.parametrize("granularity", ["element", "block"])
@pytest.mark.parametrize(("bits", "block"), [(8, 1), (8, 4), (4, 2), (16, 8)])
def test_no_drift_in_500_steps(granularity: str, bits: int, block: int) -> None:
    """M == bias + A·x̂ exactly, at every one of 500 steps, with θ > 0 (Neil et al. drift in floats)."""
    weight = make_weight(Delta(0.8, granularity), bits, block)
    matrix = integer_matrix(weight)
    assert weight.bias is not None
    first = bias_codes(weight.bias)
    data = random_sequences(np.random.default_rng(1), (500,), 8)
    interpreter = Interpreter(weight_program(weight, 8))
    state, held = None, 0
    for x in data.x:
        run = interpreter.run(Sequences(x[None], np.array([1])), state=state)
        state = run.state
        sent = state["w"]["w/0.sent"][0].astype(np.int64)
        np.testing.assert_array_equal(state["w"]["w/0.m"][0], first + matrix @ sent)
        held += run.profile.sites["w/0"].active < 8
    assert held > 100, "the threshold held nothing: the test shows nothing"


@pytest.mark.parametrize(("bits", "block"), [(2, 1), (8, 4), (16, 8), (5, 2)])
@pytest.mark.parametrize("granularity", ["element", "block"])
def test_threshold_zero_is_the_dense_product(granularity: str, bits: int, block: int) -> None:
    data = random_sequences(np.random.default_rng(2), (120, 30), 8)
    held = make_weight(Delta(0.0, granularity), bits, block)
    plain = make_weight(None, bits, block)
    one = Interpreter(weight_program(held, 8)).run(data)
    other = Interpreter(weight_program(plain, 8)).run(data)
    np.testing.assert_array_equal(one.outputs * FX_ONE, other.outputs * FX_ONE)
    assert one.profile.sites["w/0"].active <= other.profile.sites["w/0"].active == 150 * 8


@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 40),
    st.sampled_from(["element", "block"]),
)
def test_replay_is_the_delta_rule(seed: int, block: int, theta: int, granularity: str) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 4)
    codes = np.cumsum(rng.integers(-20, 21, (lengths.sum(), 8)), axis=0).astype(np.int16)
    step = 2.0**-4
    activity = Delta(theta * step, granularity)
    held, mask = activity.replay(codes, lengths, block, step)
    unit, row = block if granularity == "block" else 1, 0
    for length in lengths:
        sent = [0] * 8
        for _ in range(length):
            x = codes[row].tolist()
            expected = [False] * 8
            for k in range(0, 8, unit):
                moved = max(abs(x[j] - sent[j]) for j in range(k, k + unit))
                if moved != 0 and moved >= theta:
                    sent[k : k + unit] = x[k : k + unit]
                    expected[k : k + unit] = [True] * unit
            assert held[row].tolist() == sent
            assert mask[row].tolist() == expected
            row += 1


def test_thresholds_in_standard_deviations() -> None:
    assert Delta(0.5, unit="std").resolve(0.2) == Delta(0.1)
    assert Delta(0.5).resolve(0.2) == Delta(0.5)
    assert Delta(0.24).codes(0.1) == 2


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_thresholds_that_are_refused(threshold: float) -> None:
    with pytest.raises(UserError, match="threshold"):
        Delta(threshold)


def test_extreme_jumps_are_not_clipped() -> None:
    """A jump over the whole range of 16-bit codes is one bit wider than a code."""
    weight = make_weight(Delta(0.0), 16, 1)
    ends = np.where(np.arange(20)[:, None] % 2, 1e4, -1e4) * np.ones(8)
    data = Sequences(ends.astype(np.float32), np.array([20]))
    run = Interpreter(weight_program(weight, 8)).run(data)
    link = dataclasses.replace(weight.links[0], activity=None)
    dense = dataclasses.replace(weight, links=(link,))
    plain = Interpreter(weight_program(dense, 8)).run(data)
    np.testing.assert_array_equal(run.outputs, plain.outputs)
