"""The multiple-choice knapsack against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.search.knapsack import RESOLUTION, front, join_fronts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_the_front_is_that_of_all_sums(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.uniform(1, 100, n) for n in sizes]
    losses = [rng.uniform(1e-3, 1, n) for n in sizes]
    made = front(costs, losses, 3.0, 0.5)
    slack = (1 + RESOLUTION) ** len(sizes)
    assert np.all(np.diff(made.cost) > 0)
    assert np.all(np.diff(made.loss) < 0)
    for cost, loss, picks in zip(made.cost, made.loss, made.picks, strict=True):
        assert cost == pytest.approx(3.0 + sum(c[p] for c, p in zip(costs, picks, strict=True)))
        assert loss == pytest.approx(0.5 + sum(v[p] for v, p in zip(losses, picks, strict=True)))
    for combination in itertools.product(*(range(n) for n in sizes)):
        cost = 3.0 + sum(c[p] for c, p in zip(costs, combination, strict=True))
        loss = 0.5 + sum(v[p] for v, p in zip(losses, combination, strict=True))
        assert np.any((made.cost <= cost * slack) & (made.loss <= loss * slack))


def test_fronts_are_joined_by_what_none_beats() -> None:
    one = front([np.array([1.0, 3.0])], [np.array([5.0, 1.0])], 0.0, 0.0)
    other = front([np.array([2.0, 4.0])], [np.array([2.0, 1.5])], 0.0, 0.0)
    joined = list(join_fronts([(one, (0,)), (other, (1,))]))
    assert joined == [(1.0, (0,), (0,)), (2.0, (0,), (1,)), (3.0, (1,), (0,))]


def test_no_slot_is_what_is_spent_already() -> None:
    made = front([], [], 7.0, 0.25)
    assert (made.cost.tolist(), made.loss.tolist(), made.picks.shape) == ([7.0], [0.25], (1, 0))
