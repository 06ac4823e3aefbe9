"""GPTQ, coordinate descent and refitted levels against brute force and closed forms."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping, descend, gptq
from modelflex.core.levels import Levels, Multiples, Tables, as_scale, nearest_integers
from modelflex.core.rounding import Problem, best_steps, encode


def descended(values: Array, rounded: Array, h: Array, *rest: Any) -> Array:
    return descend(rounded, (values - rounded) @ h, h, to_integers, *rest)[0]


def to_integers(column: Array, _: int) -> Array:
    return np.clip(np.rint(column), -3, 3)


def curved(seed: int, n: int, share: float = 0.05) -> Array:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n, n)) @ np.diag(np.geomspace(1, share, n))
    z = rng.normal(size=(400, n)) @ mixing.T
    return np.asarray(z.T @ z / 400)


def error(lost: Array, h: Array) -> float:
    return float(np.einsum("ri,ij,rj", lost, h, lost))


@pytest.mark.parametrize("seed", range(6))
def test_gptq_loses_less_than_nearest_rounding_and_descent_less_again(seed: int) -> None:
    """On correlated inputs (Frantar et al.; Behdin et al. for the descent)."""
    h = curved(seed, 48)
    h += damping(h) * np.eye(48)
    values = np.random.default_rng(seed).normal(size=(16, 48))
    nearest, one = to_integers(values, 0), gptq(values, h, to_integers)
    two = descended(values, one, h)
    assert error(two - values, h) < error(one - values, h) < error(nearest - values, h)


def test_gptq_with_independent_inputs_is_nearest_rounding() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 9)) * 3
    h = np.diag(rng.uniform(0.5, 2, 9))
    np.testing.assert_array_equal(gptq(values, h, to_integers), to_integers(values, 0))
    zeros = np.zeros_like(values)
    np.testing.assert_array_equal(descended(values, zeros, h), to_integers(values, 0))


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 3))
@settings(max_examples=30)
def test_results_do_not_depend_on_the_chunk(seed: int, n: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    h, values = curved(seed, n, 0.3), rng.normal(size=(rows, n)) * 2
    mask = rng.random((rows, n)) < 0.7
    one, two = (gptq(values, h, to_integers, mask, chunk) for chunk in (3, 64))
    np.testing.assert_array_equal(one, two)
    assert not one[~mask].any()
    h += damping(h) * np.eye(n)
    one, two = (descended(values, one, h, mask, chunk) for chunk in (3, 64))
    np.testing.assert_array_equal(one, two)
    assert not one[~mask].any()


def test_descent_ends_where_no_single_code_is_better() -> None:
    h = curved(3, 8) + np.eye(8) * 0.01
    values = np.random.default_rng(3).normal(size=(1, 8)) * 2
    q = np.zeros_like(values)
    losses = []
    for _ in range(30):
        q = descended(values, q, h)
        losses.append(error(q - values, h))
    assert losses == sorted(losses, reverse=True)
    for j, level in itertools.product(range(8), range(-3, 4)):
        other = q.copy()
        other[0, j] = level
        assert error(other - values, h) >= losses[-1] - 1e-12


def levels_of_each_kind() -> list[Levels]:
    rng = np.random.default_rng(1)
    factors = as_scale(np.array([0.4, 0.7]))
    multipliers = rng.integers(1, 9, (4, 3))
    return [
        Multiples("odd", 2, factors, 2),
        Multiples("symmetric", 3, as_scale(np.array([0.05, 0.1])), 2, multipliers, 12),
        Tables.near("levels", 2, 2, np.array([[-1.0, -0.2, 0.3, 1.5], [-2.0, -1.0, 1.0, 2.0]])),
        Tables.near("signs", 2, 2, np.array([[1.0, 0.4], [0.9, 0.3]])),
    ]


@pytest.mark.parametrize("levels", levels_of_each_kind(), ids=lambda v: f"{v.kind}-{v.bits}")
def test_refitted_levels_are_those_of_least_squares(levels: Levels) -> None:
    """Against numpy's lstsq on the features of both rows of a group, weighted by H's factor."""
    rng, h = np.random.default_rng(2), curved(2, 12, 0.3)
    values = rng.normal(size=(4, 12))
    numbers = levels.numbers(values)
    mask = rng.random((4, 12)) < 0.8
    problem = Problem.of(values, h, mask)
    before = problem.tried(levels, np.where(mask, levels.values(numbers), 0.0))
    after = problem.refitted(before)
    found = after.levels.parameters()
    root = np.linalg.cholesky(h).T
    for group in range(2):
        rows = slice(2 * group, 2 * group + 2)
        phi = levels.features(numbers[rows], rows) * mask[rows, None]
        system = np.concatenate([root @ p.T for p in phi])
        target = np.concatenate([root @ v for v in values[rows]])
        wanted = np.linalg.lstsq(system, target, rcond=None)
        # Stored parameters are rounded to int8 (tables) and 15 bits (scales).
        np.testing.assert_allclose(found[group], wanted[0], atol=np.abs(wanted[0]).max() / 100)
        lost = values[rows] - after.stored[rows]
        assert after.errors[group] == pytest.approx(error(lost, h))
    assert np.all(after.errors < before.errors)
    np.testing.assert_allclose(after.stored, after.levels.values(numbers) * mask)
    np.testing.assert_allclose(after.pulls, (values - after.stored) @ h, atol=1e-9)


@given(st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 50))
@settings(max_examples=30)
def test_pulls_after_a_descent_are_those_of_what_is_lost(seed: int, n: int, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    h, values = curved(seed, n) + np.eye(n) / 100, rng.normal(size=(3, n)) * 2
    mask = rng.random((3, n)) < 0.7
    q, pulls = descend(0 * values, values @ h, h, to_integers, mask, chunk)
    np.testing.assert_allclose(pulls, (values - q) @ h, atol=1e-8 * np.abs(h).max())


@pytest.mark.parametrize("levels", levels_of_each_kind(), ids=lambda v: f"{v.kind}-{v.bits}")
def test_numbers_are_those_of_the_nearest_levels(levels: Levels) -> None:
    values = np.random.default_rng(3).normal(size=(4, 12)) * 2
    part = levels.part(levels.codes(levels.numbers(values)))
    table = np.repeat(part.grid.levels(part.bits), 4 // len(part.grid.levels(part.bits)), axis=0)
    allowed = table[:, None] * part.group_factors()[:, :, None] * part.row_scales()[:, None, None]
    nearest = np.abs(allowed - values[:, :, None]).min(axis=2)
    np.testing.assert_allclose(np.abs(part.value() - values), nearest, atol=1e-12)
    for column in range(12):
        got = levels.nearest(values[:, column], column)
        np.testing.assert_allclose(got, part.value()[:, column])


@pytest.mark.parametrize("levels", levels_of_each_kind(), ids=lambda v: f"{v.kind}-{v.bits}")
def test_levels_of_groups_are_taken_with_their_rows(levels: Levels) -> None:
    values = np.random.default_rng(4).normal(size=(4, 12))
    rows = [2, 3, 0, 1, 2, 3]
    whole, taken = levels.values(levels.numbers(values)), levels.taken(np.array([1, 0, 1]))
    np.testing.assert_array_equal(taken.values(taken.numbers(values[rows])), whole[rows])


def test_merged_levels_take_whole_groups() -> None:
    for levels in levels_of_each_kind():
        other = levels.with_parameters(levels.parameters() * 1.3)
        merged = levels.merged(other, np.array([False, True]))
        np.testing.assert_allclose(merged.parameters()[0], levels.parameters()[0], rtol=1e-3)
        np.testing.assert_allclose(merged.parameters()[1], other.parameters()[1], rtol=1e-3)


def test_codes_and_scale_come_near_the_best_of_all() -> None:
    """All 4⁶ codes with the best scale of each: the alternation is within 15 % on average."""
    codes = np.array(list(itertools.product((-3.0, -1.0, 1.0, 3.0), repeat=6)))
    ratios = []
    for seed in range(20):
        h, values = curved(seed, 6, 0.3), np.random.default_rng(seed).normal(size=(1, 6))
        h += damping(h) * np.eye(6)
        against = codes @ h @ values[0]
        whole = float(values[0] @ h @ values[0])
        gain = np.maximum(against, 0) ** 2 / np.einsum("ci,ij,cj->c", codes, h, codes)
        best = whole - float(gain.max())
        step = best_steps(values, np.diag(h)[None], "odd", 2, np.linspace(1, 0.14, 44))
        part = encode(values, h, None, Multiples("odd", 2, as_scale(step), 1), "gptq")
        ratios.append(error(part.value() - values, h) / best)
    assert min(ratios) > 0.99
    assert np.exp(np.mean(np.log(ratios))) < 1.15


def test_powers_are_rounded_in_the_linear_domain() -> None:
    x = np.array([0.0, 0.49, 0.51, 1.49, 1.51, 2.9, 3.1, 99.0])
    np.testing.assert_array_equal(nearest_integers(x, "power", 3), [0, 0, 1, 1, 2, 2, 4, 4])
    np.testing.assert_array_equal(nearest_integers(-x, "power", 3), [0, 0, -1, -1, -2, -2, -4, -4])
