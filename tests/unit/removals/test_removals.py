"""Which units stay: optimal brain surgeon against least squares from scratch; norm; random."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.errors import UserError
from modelflex.registry import REMOVALS
from modelflex.removals.norm import NormRemoval
from modelflex.removals.obs import OptimalBrainSurgeon
from modelflex.removals.random import RandomRemoval

SEEDS = st.integers(0, 2**31)


def problem(seed: int, n: int) -> tuple[Array, Array]:
    """Outgoing weights [2n, n] and the states of n correlated units [200, n] with mean zero."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(200, n)) @ (np.eye(n) + 0.7 * rng.normal(size=(n, n)))
    return rng.normal(size=(2 * n, n)), states - states.mean(axis=0)


def covariance_of(states: Array) -> Array:
    return states.T @ states / len(states)


def loss_without(outgoing: Array, states: Array, gone: list[int], damped: float) -> float:
    """min over A′ of E‖A·h − A′·h_rest‖², by least squares over the states themselves; the damping
    adds a little noise to every unit, as rows of their own.
    """
    n = states.shape[1]
    rest = [j for j in range(n) if j not in gone]
    rows = np.vstack([states, np.sqrt(len(states) * damped) * np.eye(n)])
    wanted = rows @ outgoing.T
    found = np.linalg.lstsq(rows[:, rest], wanted, rcond=None)[0] if rest else 0.0
    left = wanted - (rows[:, rest] @ found if rest else 0.0)
    return float(np.sum(left**2)) / len(states)


@given(SEEDS, st.integers(2, 7))
@settings(max_examples=40, deadline=None)
def test_the_loss_of_one_unit_is_the_closed_form(seed: int, n: int) -> None:
    """Refitting the others costs ‖A_:j‖² / (H⁻¹)_jj, and the unit of the least cost goes."""
    outgoing, states = problem(seed, n)
    covariance = covariance_of(states)
    damped = damping(covariance)
    brute = [loss_without(outgoing, states, [j], damped) for j in range(n)]
    inverse = np.linalg.inv(covariance + damped * np.eye(n))
    np.testing.assert_allclose(np.sum(outgoing**2, axis=0) / np.diag(inverse), brute, rtol=1e-6)
    gone = set(range(n)) - set(OptimalBrainSurgeon(n - 1).kept(outgoing, covariance, 0))
    assert gone == {int(np.argmin(brute))}


@given(SEEDS, st.integers(3, 8), st.data())
@settings(max_examples=40, deadline=None)
def test_one_after_another_equals_least_squares_from_scratch(
    seed: int, n: int, data: st.DataObject
) -> None:
    outgoing, states = problem(seed, n)
    covariance = covariance_of(states)
    damped = damping(covariance)
    gone: list[int] = []
    for _ in range(n - data.draw(st.integers(1, n - 1))):
        losses = {
            j: loss_without(outgoing, states, [*gone, j], damped) for j in range(n) if j not in gone
        }
        gone.append(min(losses, key=lambda j: losses[j]))
    kept = OptimalBrainSurgeon(n - len(gone)).kept(outgoing, covariance, 0)
    assert kept.tolist() == [j for j in range(n) if j not in gone]


def test_a_unit_that_others_stand_in_for_goes_first() -> None:
    """Unit 3 = (unit 0 − unit 1)/√2 costs next to nothing, though by norm it would stay the longest."""
    rng = np.random.default_rng(0)
    states = rng.normal(size=(5000, 5))
    states[:, 3] = (states[:, 0] - states[:, 1]) / np.sqrt(2)
    covariance = covariance_of(states - states.mean(axis=0))
    assert np.linalg.matrix_rank(covariance) == 4
    outgoing = np.eye(5) * [1.2, 1.2, 1.0, 1.3, 1.0]
    assert OptimalBrainSurgeon(4).kept(outgoing, covariance, 0).tolist() == [0, 1, 2, 4]
    assert NormRemoval(1).kept(outgoing, covariance, 0).tolist() == [3]


def test_units_that_never_move_or_act_on_nothing_go_first() -> None:
    outgoing, states = problem(1, 6)
    states[:, 1] = 0.0
    outgoing[:, 4] = 0.0
    kept = OptimalBrainSurgeon(4).kept(outgoing, covariance_of(states), 0)
    assert kept.tolist() == [0, 2, 3, 5]
    # No data at all: nothing can be told apart, yet as many stay as are wanted.
    assert OptimalBrainSurgeon(3).kept(outgoing, np.zeros((6, 6)), 0).size == 3


def test_the_arguments_stay_as_they_are() -> None:
    outgoing, states = problem(2, 6)
    covariance = covariance_of(states)
    before = outgoing.copy(), covariance.copy()
    OptimalBrainSurgeon(2).kept(outgoing, covariance, 0)
    np.testing.assert_array_equal(before[0], outgoing)
    np.testing.assert_array_equal(before[1], covariance)


def test_by_norm_the_largest_columns_stay() -> None:
    outgoing = np.array([[3.0, 0.0, -6.0, 1.0], [4.0, 2.0, 0.0, 1.0]])  # norms 5, 2, 6, √2
    for units, wanted in ((1, [2]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])):
        assert NormRemoval(units).kept(outgoing, np.eye(4), 0).tolist() == wanted
    assert NormRemoval(2).kept(np.ones((3, 4)), np.eye(4), 0).tolist() == [0, 1]


def test_at_random_every_set_is_as_likely_as_any_other() -> None:
    outgoing, covariance = np.ones((2, 4)), np.eye(4)
    draws = 3000
    seen = Counter(
        tuple(RandomRemoval(2, seed).kept(outgoing, covariance, 7).tolist())
        for seed in range(draws)
    )
    assert len(seen) == 6
    spread = np.sqrt(draws / 6 * 5 / 6)
    assert all(abs(count - draws / 6) < 5 * spread for count in seen.values())


def test_layers_are_drawn_apart() -> None:
    outgoing, covariance = np.ones((2, 64)), np.eye(64)
    one, other = (RandomRemoval(32).kept(outgoing, covariance, layer) for layer in (0, 1))
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize("name", REMOVALS.names())
@pytest.mark.parametrize("units", [0, -3])
def test_removing_everything_is_refused(name: str, units: int) -> None:
    with pytest.raises(UserError, match=f"{units} units are to stay"):
        REMOVALS.get(name)(units)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UserError, match="the seed -1"):
        RandomRemoval(4, -1)
