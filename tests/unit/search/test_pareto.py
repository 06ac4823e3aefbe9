from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.search.pareto import pareto_front

# Few distinct values, so that ties and duplicates are common; infinities and NaN are allowed.
VALUES = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, float("inf"), float("-inf"), float("nan")])


def brute_force(points: list[tuple[float, float]]) -> set[int]:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a[0] <= b[0] and a[1] <= b[1] and a != b

    return {
        i
        for i, p in enumerate(points)
        if p[0] == p[0] and p[1] == p[1] and not any(dominates(q, p) for q in points)
    }


@given(st.lists(st.tuples(VALUES, VALUES), max_size=30))
def test_agrees_with_the_definition(points: list[tuple[float, float]]) -> None:
    x, y = [p[0] for p in points], [p[1] for p in points]
    front = pareto_front(x, y)
    assert len(front) == len(set(front.tolist()))
    assert set(front.tolist()) == brute_force(points)
    chosen = [x[i] for i in front]
    assert chosen == sorted(chosen)


def test_random_points_agree_with_the_definition() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 400))
    assert set(pareto_front(x, y).tolist()) == brute_force(list(zip(x, y, strict=True)))


def test_other_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="x has 2 points, y has 3"):
        pareto_front([1, 2], [1, 2, 3])
