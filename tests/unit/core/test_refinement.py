"""Sums of rank-1 terms beside brute force: truncated SVDs, explicit square roots, least squares."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.core.input_metric import InputMetric
from modelflex.core.refinement import SCHEMES, Factors, completed, decompose, operations, refit
from modelflex.core.refinement_orders import bit_planes, column_tiles, largest_rows, row_tiles
from modelflex.errors import UserError

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 10))
"""Rows of a group, groups, columns."""


def case(seed: int, rows: int, columns: int, steps: int = 40) -> tuple[Array, Array, Array]:
    """A matrix, dependent inputs with a mean, and an importance."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(columns, columns)) / np.arange(1, columns + 1)
    inputs = rng.normal(size=(steps, columns)) @ mixed + rng.normal(size=columns)
    gradients = rng.normal(size=(3 * rows, rows)) * rng.uniform(0.1, 2, rows)
    return rng.normal(size=(rows, columns)), inputs, gradients.T @ gradients


def damped(inputs: Array, centred: bool) -> Array:
    z = inputs - inputs.mean(axis=0) if centred else inputs
    moment = z.T @ z / len(z)
    return moment + 0.01 * np.trace(moment) / len(moment) * np.eye(len(moment))


def error(left: Array, moment: Array) -> float:
    return float(np.trace(left @ moment @ left.T))


@given(SEEDS, st.integers(1, 12), st.integers(1, 10), st.integers(1, 30), st.booleans())
@settings(deadline=None)
def test_metric_is_the_damped_moment(
    seed: int, rows: int, columns: int, steps: int, centred: bool
) -> None:
    """Whether the moment is kept or the sample that has fewer rows than columns."""
    w, inputs, _ = case(seed, rows, columns, steps + 1)
    metric = InputMetric.of(inputs, centred=centred)
    moment = damped(inputs, centred)
    assert (metric.sample is not None) == (steps + 1 < columns)
    np.testing.assert_allclose(metric.times(w), w @ moment, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(metric.diagonal, np.diag(moment), rtol=1e-9)
    assert metric.error(w) == pytest.approx(error(w, moment), rel=1e-9)
    some = np.arange(0, columns, 2)
    want = np.linalg.solve(moment[np.ix_(some, some)], w[0, some])
    scale = float(np.abs(want).max())
    np.testing.assert_allclose(metric.solver(some)(w[0, some]), want, atol=1e-7 * scale)


@given(SEEDS, SIZES)
@settings(deadline=None)
def test_published_of_all_numbers_is_the_svd(seed: int, sizes: tuple[int, int, int]) -> None:
    size, groups, columns = sizes
    w, _, _ = case(seed, size * groups, columns)
    made = decompose(w, terms=min(size, columns), groups=groups, scheme="published")
    for n in range(1, made.terms + 1):
        for g in range(groups):
            own = w[g * size : (g + 1) * size]
            u, sigma, v = np.linalg.svd(own)
            want = (u[:, :n] * sigma[:n]) @ v[:n]
            found = made.matrix(n)[g * size : (g + 1) * size]
            np.testing.assert_allclose(found, want, atol=1e-6 * sigma[0])


@given(SEEDS, SIZES, st.booleans(), st.booleans())
@settings(deadline=None)
def test_dense_terms_are_the_best_of_every_rank(
    seed: int, sizes: tuple[int, int, int], centred: bool, weighed: bool
) -> None:
    """Eckart–Young after explicit square roots of both metrics."""
    size, groups, columns = sizes
    rows = size * groups
    w, inputs, importance = case(seed, rows, columns)
    made = decompose(
        w, terms=min(rows, columns), metric=InputMetric.of(inputs, centred=centred),
        importance=importance if weighed else None,
    )  # fmt: skip
    left = np.eye(rows)
    if weighed:
        scaled = importance / np.mean(np.diag(importance)) + 0.01 * np.eye(rows)
        left = np.linalg.cholesky(scaled)
    right = np.linalg.cholesky(damped(inputs, centred))
    u, sigma, v = np.linalg.svd(left.T @ w @ right)
    for n in range(1, made.terms + 1):
        best = np.linalg.solve(left.T, (u[:, :n] * sigma[:n]) @ v[:n]) @ np.linalg.inv(right)
        lost = np.linalg.norm(left.T @ (made.matrix(n) - best) @ right)
        assert lost <= 1e-5 * sigma[0]


@given(SEEDS, SIZES, st.integers(1, 12), st.integers(1, 3), st.sampled_from(SCHEMES))
@settings(deadline=None)
def test_vectors_keep_their_numbers_in_whole_blocks(
    seed: int, sizes: tuple[int, int, int], terms: int, block: int, scheme: str
) -> None:
    size, groups, blocks = sizes
    w, inputs, importance = case(seed, size * groups, blocks * block)
    kept = block * max(1, blocks // 2)
    made = decompose(
        w, terms=terms, kept=kept, groups=groups, block=block, scheme=scheme,
        metric=InputMetric.of(inputs), importance=importance,
    )  # fmt: skip
    whole = made.v.reshape(len(made.v), blocks, block).any(axis=2)
    assert made.groups == groups
    assert made.terms <= terms
    assert whole.sum(axis=1).max() * block <= kept
    assert all(np.all(np.isfinite(a)) for a in (made.u, made.v, made.offset, made.base))


@given(SEEDS, SIZES, st.integers(1, 12))
@settings(deadline=None)
def test_cut_terms_take_what_they_say_from_the_error(
    seed: int, sizes: tuple[int, int, int], terms: int
) -> None:
    """‖E − σu·vᵀ‖² = ‖E‖² − σ²‖v‖² for v cut out of the unit singular vector: it never rises."""
    size, groups, columns = sizes
    w, _, _ = case(seed, size * groups, columns)
    kept = max(1, columns // 2)
    made = decompose(w, terms=terms, kept=kept, groups=groups, scheme="published")
    errors = [float(np.sum((w - made.matrix(n)) ** 2)) for n in range(made.terms + 1)]
    for n in range(made.terms):
        # u is a unit vector and σ stands in v; the order of the two does not matter to the product
        taken = float(np.sum(made.v[n * groups : (n + 1) * groups] ** 2))
        assert errors[n] - errors[n + 1] == pytest.approx(taken, rel=1e-6, abs=1e-9 * errors[0])


@given(SEEDS, SIZES, st.integers(1, 6), st.booleans())
@settings(deadline=None)
def test_groups_are_decomposed_apart(
    seed: int, sizes: tuple[int, int, int], terms: int, cut: bool
) -> None:
    size, groups, columns = sizes
    w, inputs, _ = case(seed, size * groups, columns)
    metric = InputMetric.of(inputs)
    kept = max(1, columns // 2) if cut else columns
    terms = min(terms, size, columns)
    both = decompose(w, terms=terms, kept=kept, groups=groups, metric=metric)
    for g in range(groups):
        rows = slice(g * size, (g + 1) * size)
        alone = decompose(w[rows], terms=terms, kept=kept, metric=metric)
        apart, lost = alone.matrix(), both.matrix()[rows]
        scale = float(np.abs(w).max())
        if alone.terms == both.terms:
            np.testing.assert_allclose(lost, apart, atol=1e-5 * scale)


@given(SEEDS, SIZES, st.integers(1, 6))
@settings(deadline=None)
def test_refit_is_the_least_squares_over_all_prefixes(
    seed: int, sizes: tuple[int, int, int], terms: int
) -> None:
    """Brute force: one row after another, all prefixes stacked into one regression."""
    size, groups, columns = sizes
    w, inputs, _ = case(seed, size * groups, columns)
    terms = min(terms, columns)
    v = np.random.default_rng(seed + 1).normal(size=(terms * groups, columns))
    found = refit(w, v, groups, InputMetric.of(inputs))
    right = np.linalg.cholesky(damped(inputs, True))
    for row in range(len(w)):
        seen = v[row // size :: groups] @ right
        stacked = np.hstack([seen * (np.arange(terms) < n)[:, None] for n in range(1, terms + 1)])
        wanted = np.tile(w[row] @ right, terms)
        best, *_ = np.linalg.lstsq(stacked.T, wanted, rcond=None)
        lost = float(np.sum((found[row] @ stacked - wanted) ** 2))
        least = float(np.sum((best @ stacked - wanted) ** 2))
        assert lost <= least * (1 + 1e-6) + 1e-9 * float(wanted @ wanted)


@given(SEEDS, SIZES)
@settings(deadline=None)
def test_without_data_whitened_is_plain(seed: int, sizes: tuple[int, int, int]) -> None:
    size, groups, columns = sizes
    w, _, _ = case(seed, size * groups, columns)
    terms = min(size, columns)
    aware = decompose(w, terms=terms, groups=groups)
    plain = decompose(w, terms=terms, groups=groups, scheme="published")
    np.testing.assert_allclose(aware.matrix(), plain.matrix(), atol=1e-6 * np.abs(w).max())


@given(SEEDS, SIZES, st.integers(0, 12))
@settings(deadline=None)
def test_every_prefix_is_exact_at_the_mean(
    seed: int, sizes: tuple[int, int, int], terms: int
) -> None:
    size, groups, columns = sizes
    w, inputs, _ = case(seed, size * groups, columns)
    made = decompose(w, terms=12, kept=1, groups=groups, metric=InputMetric.of(inputs))
    n = min(terms, made.terms)
    mean = inputs.mean(axis=0)
    np.testing.assert_allclose(made.matrix(n) @ mean + made.bias(n), w @ mean, atol=1e-8)


def test_whitened_beats_published_for_the_inputs() -> None:
    w, inputs, _ = case(3, 64, 32, 400)
    metric = InputMetric.of(inputs)
    for kept in (8, 32):
        lost = {
            scheme: metric.error(
                w
                - decompose(w, terms=6, kept=kept, groups=4, scheme=scheme, metric=metric).matrix()
            )
            for scheme in ("published", "whitened")
        }
        assert lost["whitened"] < 0.5 * lost["published"]


@given(SEEDS, st.integers(1, 8), st.integers(1, 10), st.integers(1, 4), st.integers(2, 40))
@settings(deadline=None)
def test_given_terms_are_completed_to_the_map(
    seed: int, rows: int, columns: int, first: int, steps: int
) -> None:
    """Whatever the first terms and their base are; each prefix leaves no more than the one before."""
    w, inputs, importance = case(seed, rows, columns, steps)
    rng = np.random.default_rng(seed + 1)
    shapes = (rows, first), (first, columns), (first,), (rows,)
    head = Factors(*(rng.normal(size=shape) for shape in shapes))
    metric = InputMetric.of(inputs)
    made = completed(w, head, min(rows, columns + 1), metric, importance)
    np.testing.assert_array_equal(made.matrix(first), head.matrix())
    np.testing.assert_array_equal(made.bias(first), head.bias())
    scale = np.abs(w).max() + np.abs(head.matrix()).max() * (1 + np.abs(inputs).max())
    np.testing.assert_allclose(made.matrix(), w, atol=1e-7 * scale)
    np.testing.assert_allclose(made.bias(), 0, atol=1e-6 * scale)
    weighed = importance * rows / np.trace(importance) + 0.01 * np.eye(rows)
    lower = np.linalg.cholesky(weighed)
    moment = damped(inputs, centred=True)

    def left(n: int) -> float:
        """The error of the affine map over inputs of this mean and moment, written out."""
        wrong, mean = lower.T @ (w - made.matrix(n)), inputs.mean(axis=0)
        constant = lower.T @ ((w - made.matrix(n)) @ mean - made.bias(n))
        return error(wrong, moment) + float(constant @ constant) * (1 + metric.damped)

    errors = [left(n) for n in range(first, made.terms + 1)]
    assert all(b <= a + 1e-9 * errors[0] for a, b in pairwise(errors))
    # The first that follows is the best of rank 1 (Eckart–Young), the mean included.
    if len(errors) > 1:
        both = np.column_stack(
            [w - head.matrix(), w @ inputs.mean(0) - head.matrix() @ inputs.mean(0) - head.bias()]
        )
        square = np.zeros((columns + 1, columns + 1))
        square[:-1, :-1], square[-1, -1] = moment, 1.0 + metric.damped
        values = np.linalg.svd(lower.T @ both @ np.linalg.cholesky(square), compute_uv=False)
        assert errors[1] == pytest.approx(
            float(np.sum(values[1:] ** 2)), rel=1e-6, abs=1e-9 * errors[0]
        )


def test_terms_that_none_may_follow_stay_as_they_are() -> None:
    w, inputs, _ = case(0, 4, 5)
    shapes = (4, 3), (3, 5), (3,), (4,)
    head = Factors(*(np.random.default_rng(1).normal(size=shape) for shape in shapes))
    made = completed(w, head, 0, InputMetric.of(inputs))
    assert made.terms == 3
    np.testing.assert_array_equal(made.matrix(), head.matrix())
    np.testing.assert_array_equal(made.bias(), head.bias())


def test_sample_of_few_rows_gives_what_its_moment_gives() -> None:
    """C > n: the moment is never formed."""
    w, inputs, importance = case(5, 8, 60, 20)
    sample = InputMetric.of(inputs)
    formed = InputMetric(sample.mean, damped(inputs, True), None, sample.damped)
    for kept in (10, 40, 60):
        found, want = (
            decompose(w, terms=5, kept=kept, groups=2, metric=m, importance=importance)
            for m in (sample, formed)
        )
        np.testing.assert_allclose(found.matrix(), want.matrix(), atol=1e-7)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kept", [3, 9])
def test_exhausted_and_singular_are_no_trouble(scheme: str, kept: int) -> None:
    rng = np.random.default_rng(0)
    w = np.outer(rng.normal(size=8), rng.normal(size=9))
    inputs = np.zeros((50, 9))
    inputs[:, :3] = rng.normal(size=(50, 3))
    inputs[:, 3] = 7.0  # constant; the others are always zero
    for matrix in (w, np.zeros_like(w)):
        made = decompose(
            matrix, terms=40, kept=kept, groups=2, scheme=scheme, metric=InputMetric.of(inputs)
        )
        assert np.all(np.isfinite(made.u))
        assert np.all(np.isfinite(made.v))
        np.testing.assert_allclose(made.matrix(), matrix, atol=0.2)
    dead = InputMetric.of(np.zeros((5, 9)))
    again = decompose(w, terms=4, groups=2, metric=dead, importance=np.zeros(8))
    np.testing.assert_allclose(again.matrix(), w, atol=1e-6)


def test_repeats_bit_for_bit() -> None:
    w, inputs, importance = case(9, 12, 20)
    made = [
        decompose(
            w, terms=5, kept=6, groups=4, metric=InputMetric.of(inputs), importance=importance
        )
        for _ in range(2)
    ]
    assert np.array_equal(made[0].u, made[1].u)
    assert np.array_equal(made[0].v, made[1].v)


def test_operations_count_every_multiplication_and_addition() -> None:
    """As published: 2R + 2NZ + 1 for each gate."""
    assert operations(256, 130, 4) == 4 * (2 * 64 + 2 * 130 + 1)
    assert operations(256, 8320) == 2 * 256 + 2 * 8320 + 1


def test_matrix_of_groups_by_hand() -> None:
    made = Factors(
        np.array([[1.0, 10.0], [2.0, 20.0]]),
        np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 4.0]]),
        np.array([1.0, 2.0, 3.0, 4.0]),
        np.array([100.0, 200.0]),
    )
    assert made.matrix(1).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    assert made.matrix().tolist() == [[31.0, 0.0], [0.0, 82.0]]
    assert made.bias(0).tolist() == [100.0, 200.0]
    assert made.bias().tolist() == [100 + 1 + 30, 200 + 4 + 80]


BAD = (
    ({"terms": 0}, "0 terms"),
    ({"terms": 1, "kept": 0}, "keeps 0 of 6"),
    ({"terms": 1, "kept": 7}, "keeps 7 of 6"),
    ({"terms": 1, "kept": 3, "block": 2}, "keeps 3 of 6"),
    ({"terms": 1, "block": 4}, "blocks of 4"),
    ({"terms": 1, "groups": 3}, "4 rows in 3 groups"),
    ({"terms": 1, "scheme": "best"}, "scheme is 'best'"),
    ({"terms": 1, "metric": InputMetric.plain(5)}, "metric is of 5 inputs"),
    ({"terms": 1, "importance": np.ones(5)}, "importance has the shape"),
    ({"terms": 1, "importance": np.full(4, np.nan)}, "importance has the shape"),
)


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        decompose(np.ones((4, 6)), **options)  # type: ignore[arg-type]


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="matrix to decompose"):
        decompose(np.full((2, 2), np.nan), terms=1)
    with pytest.raises(UserError, match="sample of inputs"):
        InputMetric.of(np.array([[1.0, np.inf]]))
    with pytest.raises(UserError, match="sample of inputs"):
        InputMetric.of(np.zeros((0, 3)))
    with pytest.raises(UserError, match="damping"):
        InputMetric.of(np.ones((2, 3)), share=0.0)


@given(SEEDS, SIZES)
@settings(deadline=None)
def test_orders_end_at_the_matrix(seed: int, sizes: tuple[int, int, int]) -> None:
    size, groups, columns = sizes
    w, _, _ = case(seed, size * groups, columns)
    for order in (row_tiles(w, groups), column_tiles(w), largest_rows(w, columns)):
        assert not order.matrix(0).any()
        assert order.operations(0) == 0
        assert np.array_equal(order.matrix(order.count), w)
        assert order.operations(order.count) == 2 * w.size
    for bits in (2, 8, 16):
        planes = bit_planes(w, bits)
        peak = np.abs(w).max(axis=1, keepdims=True)
        assert np.all(
            np.abs(planes.matrix(planes.count) - w) <= peak / (2 ** (bits - 1) - 1) * 0.501
        )


def test_orders_by_hand() -> None:
    w = np.array([[1.0, -2.0, 3.0], [40.0, 50.0, -60.0], [0.0, 7.0, 0.0], [8.0, 0.0, 9.0]])
    assert row_tiles(w, 2).matrix(1).tolist() == [[1, -2, 3], [0, 0, 0], [0, 7, 0], [0, 0, 0]]
    assert column_tiles(w).matrix(1)[:, 0].tolist() == [1, 40, 0, 8]
    sparse = largest_rows(w, 2)
    assert sparse.matrix(2).tolist() == [[0, 0, 0], [0, 50, -60], [0, 0, 0], [8, 0, 9]]
    assert sparse.operations(2) == 8
    planes = bit_planes(np.array([[7.0, -5.0, 1.0, 0.0]]), 4)
    assert planes.matrix(1).tolist() == [[5.5, -5.5, 0, 0]]
    assert planes.matrix(2).tolist() == [[6.5, -4.5, 0, 0]]
    assert planes.matrix(3).tolist() == [[7, -5, 1, 0]]
    assert planes.operations(3) == 6 + 6
    with pytest.raises(UserError, match="4 rows in 3 groups"):
        row_tiles(w, 3)
    with pytest.raises(UserError, match="keeps 4 of 3"):
        largest_rows(w, 4)
    with pytest.raises(UserError, match="bit planes of 1"):
        bit_planes(w, 1)
