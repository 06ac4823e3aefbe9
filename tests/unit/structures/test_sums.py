"""Structured plus sparse: planted sums are found again, and the second term mends the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.circulant import expanded
from modelflex.core.extension import Moments
from modelflex.core.fixed import Scale
from modelflex.core.layout import expand
from modelflex.core.low_rank import product
from modelflex.core.regression import Regression
from modelflex.core.sparsity import Blocks, choose_kept, refit_kept
from modelflex.core.sums import alternate
from modelflex.core.tracer import Link
from modelflex.errors import UserError
from modelflex.formats.uniform import Uniform
from modelflex.registry import ACTIVITIES
from modelflex.structures.circulant import Circulant
from modelflex.structures.circulant_plus_sparse import CirculantPlusSparse
from modelflex.structures.low_rank import LowRank
from modelflex.structures.low_rank_plus_sparse import LowRankPlusSparse
from modelflex.testing.generators import make_fit, make_moments, random_sequences, run_weight

FINE = Uniform(16, "row", "max", "nearest")
LINK = Link(8, Scale.nearest(4 / 128))
SUMS: list[tuple[Any, Any]] = [
    (CirculantPlusSparse(8, 0.06), Circulant(8)),
    (LowRankPlusSparse(0.3, 0.06), LowRank(0.3)),
]


def outliers(rng: np.random.Generator, out: int, inputs: int, kept: int) -> np.ndarray:
    """Large numbers at random places, equally many in each row."""
    scores = rng.random((out, inputs))
    mask = scores >= np.sort(scores, axis=1)[:, -kept][:, None]
    return np.where(
        mask, rng.choice([-1.0, 1.0], (out, inputs)) * rng.uniform(5, 9, (out, inputs)), 0
    )


@pytest.mark.parametrize("fit", ["nearest", "least_squares"])
@pytest.mark.parametrize("kind", ["circulant", "low_rank"])
def test_planted_terms_are_found_again(kind: str, fit: Any) -> None:
    """Few large outliers on a structured matrix (GoDec's experiment): the sum fits both to rounding."""
    rng = np.random.default_rng(0)
    sparse = outliers(rng, 32, 32, 1)
    structure: Any
    if kind == "circulant":
        structure = CirculantPlusSparse(8, 1 / 32, fit)
        matrix = sparse + expand("circulant", rng.normal(size=(4, 4, 8)))
    else:
        structure = LowRankPlusSparse(0.25, 1 / 32, fit)
        matrix = sparse + 0.5 * rng.normal(size=(32, 4)) @ rng.normal(size=(4, 32))
    z = rng.normal(size=(300, 32))
    fit_problem = make_fit(matrix, make_moments(matrix, z, z), FINE, LINK, sample=z)
    made = structure.fit_weight(fit_problem)
    np.testing.assert_array_equal(made.terms[1].dense() != 0, sparse != 0)
    assert np.linalg.norm(made.dense() - matrix) < 0.02 * np.linalg.norm(matrix - sparse)


@pytest.mark.parametrize(("structure", "alone"), SUMS)
@pytest.mark.parametrize("bits", [2, 4])
def test_the_sparse_term_mends_the_encoded_one(structure: Any, alone: Any, bits: int) -> None:
    """The sum predicts the outputs better than its structured term by itself, at the same bits."""
    rng = np.random.default_rng(1)
    matrix, z = rng.normal(size=(48, 32)), rng.normal(size=(500, 32))
    fit = make_fit(matrix, make_moments(matrix, z, z), Uniform(bits), LINK, sample=z)
    lost = [np.linalg.norm(z @ (s.fit_weight(fit).dense() - matrix).T) for s in (structure, alone)]
    assert lost[0] < 0.95 * lost[1]


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_turns_are_never_worse_than_one_after_the_other(seed: int) -> None:
    """Against the greedy order, the structured term first and the sparse one for the rest."""
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(20, 12))
    problem = Regression(half.T @ half + np.eye(12), rng.normal(size=(12, 12)))

    def sparse(left: Regression) -> np.ndarray:
        mask, _ = choose_kept(left.target, left.gram, Blocks(0.15), "wanda")
        return refit_kept(left.gram, left.wanted, mask)

    for structured in (lambda p: expanded(p, 4), lambda p: product(p, 2)):
        a, b = alternate(problem, structured, sparse)
        error = problem.error(a + b)
        first = structured(problem)
        assert error <= problem.error(first + sparse(problem.less(first))) + 1e-9
        assert np.count_nonzero(b, axis=1).max() <= 2


@pytest.mark.parametrize(("structure", "alone"), SUMS)
@pytest.mark.parametrize("scaled", ["none", "norm"])
@pytest.mark.parametrize("granularity", ["element", "block"])
def test_each_term_has_thresholds_of_its_own_fetch_unit(
    structure: Any, alone: Any, granularity: str, scaled: str
) -> None:
    """Under delta every term stores as many thresholds as its encoder reads, and the sum runs."""
    rng = np.random.default_rng(2)
    matrix, data = rng.normal(size=(32, 32)), random_sequences(rng, (20, 9), 32)
    delta = ACTIVITIES.get("delta")(threshold=0.3, granularity=granularity, scaled=scaled)
    seen = make_moments(matrix, data.x, data.x)
    block = structure.plan(32, 32)[0].geometry.block
    count = delta.threshold_count(32, block)
    link = Link(8, LINK.scale, delta, np.full(count, 9, np.int32) if count else None)
    weight = structure.fit_weight(make_fit(matrix, seen, Uniform(4), link, sample=data.x))
    ends = [p for p in weight.products if p.link is not None and p.link.activity is not None]
    assert len(ends) == 2
    for product_, unit in zip(ends, (block, 32), strict=True):
        own: Any = product_.link
        stored = 0 if own.thresholds is None else own.thresholds.size
        assert stored == own.activity.threshold_count(32, unit)
    assert np.isfinite(run_weight(weight, data).outputs).all()


@given(
    out=st.integers(1, 3),
    inputs=st.integers(1, 3),
    steps=st.integers(0, 4),
    density=st.sampled_from([0.01, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_and_any_covariance(
    out: int, inputs: int, steps: int, density: float, seed: int
) -> None:
    """Too little data, dead inputs and dead rows: finite, and equally many numbers in each row."""
    rng = np.random.default_rng(seed)
    out, inputs = 4 * out, 4 * inputs
    matrix = rng.normal(size=(out, inputs)) * (rng.random((out, 1)) > 0.3)
    trace = rng.normal(size=(steps, inputs)) * (rng.random(inputs) > 0.3)
    cov = trace.T @ trace
    fit = make_fit(matrix, Moments(cov, matrix @ cov), Uniform(3), LINK)
    for structure in (CirculantPlusSparse(4, density), LowRankPlusSparse(0.3, density)):
        weight = structure.fit_weight(fit)
        assert weight.shape == (out, inputs)
        assert np.isfinite(weight.dense()).all()
        assert weight.parts[-1].codes.shape == (out, max(1, round(density * inputs)))


def test_what_does_not_fit_is_refused() -> None:
    fit = make_fit(np.ones((6, 8)), None, FINE, LINK)
    with pytest.raises(UserError, match="does not divide"):
        CirculantPlusSparse(4).fit_weight(fit)
    for kind in (CirculantPlusSparse, LowRankPlusSparse):
        with pytest.raises(UserError, match="density"):
            kind(density=0.0)
        with pytest.raises(UserError, match="ridge"):
            kind(ridge=float("inf"))
    with pytest.raises(UserError, match="at least 1"):
        CirculantPlusSparse(0)
    with pytest.raises(UserError, match="share"):
        LowRankPlusSparse(2.0)
