"""Low rank against Eckart and Young's theorem, normal equations and what integers compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.extension import Moments
from modelflex.core.fixed import Scale
from modelflex.core.low_rank import factors, rank_of
from modelflex.core.regression import Regression, remainder
from modelflex.core.tracer import Link
from modelflex.errors import UserError
from modelflex.formats.uniform import Uniform
from modelflex.structures.low_rank import LowRank
from modelflex.testing.generators import make_fit, make_moments, random_sequences, run_weight

FINE = Uniform(16, "row", "max", "nearest")
LINK = Link(8, Scale.nearest(4 / 128))


def anisotropic(rng: np.random.Generator, steps: int, n: int) -> np.ndarray:
    """Inputs most of whose energy lies in few directions, as hidden states' does."""
    turn, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return rng.normal(size=(steps, n)) * 2.0 ** -np.arange(n) @ turn


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_svd_leaves_the_smallest_singular_values(rank: int) -> None:
    """‖W − A‖² = Σ_{i>r} σ_i² (Eckart and Young 1936), and A has the rank."""
    matrix = np.random.default_rng(rank).normal(size=(12, 8))
    made = LowRank(rank=rank, fit="svd").fit_weight(make_fit(matrix, None, FINE, LINK)).dense()
    left = np.sum(np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2)
    np.testing.assert_allclose(np.sum((matrix - made) ** 2), left, rtol=1e-4, atol=1e-6)
    assert np.linalg.matrix_rank(made, tol=1e-9) == rank


def test_factors_are_best_in_the_metric_of_the_inputs() -> None:
    """tr((A − T)G(A − T)ᵀ) is the sum of the smallest σ² of T·√G, with √G from eigenvectors."""
    rng = np.random.default_rng(0)
    target, half = rng.normal(size=(9, 7)), rng.normal(size=(30, 7)) * 2.0 ** -np.arange(7)
    gram = half.T @ half
    size, turn = np.linalg.eigh(gram)
    sigma = np.linalg.svd(target @ (turn * np.sqrt(size)) @ turn.T, compute_uv=False)
    for rank in range(1, 8):
        u, v = factors(Regression(gram, target @ gram), rank)
        assert u.shape == (9, rank)
        assert v.shape == (rank, 7)
        gap = u @ v - target
        np.testing.assert_allclose(
            np.trace(gap @ gram @ gap.T), np.sum(sigma[rank:] ** 2), atol=1e-9
        )


def test_whitened_predicts_outputs_better_than_svd() -> None:
    """The property for which whitening was published (SVD-LLM, table 1): less output error."""
    rng = np.random.default_rng(1)
    matrix, z = rng.normal(size=(16, 16)), anisotropic(rng, 600, 16)
    problem = make_fit(matrix, make_moments(matrix, z, z), FINE, LINK, sample=z)
    lost = {
        fit: np.linalg.norm(z @ (LowRank(rank=4, fit=fit).fit_weight(problem).dense() - matrix).T)
        for fit in ("svd", "whitened")
    }
    assert lost["whitened"] < 0.5 * lost["svd"]


@pytest.mark.parametrize("bits", [2, 4, 16])
def test_u_is_the_least_squares_solution_behind_the_stored_v(bits: int) -> None:
    """A U in 16 bits solves the normal equations of the V that was rounded to few bits."""
    rng = np.random.default_rng(2)
    matrix, z = rng.normal(size=(12, 8)), rng.normal(size=(400, 8))
    held = z + 0.2 * rng.normal(size=z.shape)
    seen, ridge = make_moments(matrix, z, held), 0.05

    class Mixed:
        """`bits` for the first array, 16 for the second."""

        stored_bits, grid_kind, used = bits, "symmetric", 0

        def encode(self, *args: Any) -> Any:
            self.used += 1
            return (Uniform(bits) if self.used == 1 else FINE).encode(*args)

    encode: Any = Mixed()
    made = LowRank(rank=3, ridge=ridge).fit_weight(
        make_fit(matrix, seen, encode, LINK, sample=held)
    )
    v, u = (factor.dense() for factor in made.factors)
    pull = np.diag(ridge * np.diag(seen.cov_z) + 0.01 * np.mean(np.diag(seen.cov_z)))
    noise = made.links[1].step ** 2 / 12
    left = seen.cov_tz + matrix @ pull - u @ v @ (seen.cov_z + pull)
    np.testing.assert_allclose(left @ v.T, noise * u, atol=2e-3 * np.abs(seen.cov_tz).max())


def test_a_threshold_of_zero_between_the_factors_changes_nothing() -> None:
    """And a larger one, in standard deviations of the intermediate result, reads less of U."""
    rng = np.random.default_rng(3)
    matrix, data = rng.normal(size=(16, 8)), random_sequences(rng, (40, 25), 8)
    seen = make_moments(matrix, data.x, data.x)
    runs = {}
    for inner in (None, 0.0, 0.5):
        problem = make_fit(matrix, seen, Uniform(4), LINK, sample=data.x)
        weight = LowRank(rank=4, inner_threshold=inner).fit_weight(problem)
        runs[inner] = run_weight(weight, data)
        if inner:
            between = data.x @ weight.factors[0].dense().T
            wanted = inner * np.sqrt(np.mean(np.var(between, axis=0)))
            activity: Any = weight.links[1].activity
            np.testing.assert_allclose(activity.threshold, wanted, rtol=1e-6)
    np.testing.assert_array_equal(runs[None].outputs, runs[0.0].outputs)
    units = {inner: run.profile.sites["w/1"].units for inner, run in runs.items()}
    assert units[0.5] < 0.7 * units[0.0]
    assert units[0.0] <= units[None]


def test_what_is_left_beside_a_term_is_the_same_regression() -> None:
    """min over A of ‖(A + S) − T‖ in G is the problem of the remainder, its ridge included."""
    rng = np.random.default_rng(4)
    matrix, term = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    z = rng.normal(size=(50, 5))
    fit = make_fit(matrix, make_moments(matrix, z, z + 0.1), FINE, LINK)
    for aware in (True, False):
        before, after = (Regression.of(f, aware, 0.3) for f in (fit, remainder(fit, term)))
        np.testing.assert_allclose(after.gram, before.gram)
        np.testing.assert_allclose(after.wanted, before.less(term).wanted, atol=1e-12)
        np.testing.assert_allclose(after.target + term, before.target, atol=1e-9)


@given(
    out=st.integers(1, 20),
    inputs=st.integers(1, 20),
    rank=st.integers(1, 20),
    seen=st.integers(0, 5),
    bits=st.sampled_from([2, 4, 8]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_and_any_covariance(
    out: int, inputs: int, rank: int, seen: int, bits: int, seed: int
) -> None:
    """Too little data, dependent and dead inputs and dead rows: a finite matrix of at most the rank."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(out, inputs)) * (rng.random((out, 1)) > 0.3)
    trace = rng.normal(size=(seen, inputs)) * (rng.random(inputs) > 0.3)
    cov = trace.T @ trace
    fit = make_fit(matrix, Moments(cov, matrix @ cov), Uniform(bits), LINK)
    if rank > min(out, inputs):
        with pytest.raises(UserError, match="rank"):
            LowRank(rank=rank).fit_weight(fit)
        return
    weight = LowRank(rank=rank).fit_weight(fit)
    assert weight.shape == (out, inputs)
    assert [factor.shape for factor in weight.factors] == [(rank, inputs), (out, rank)]
    assert np.isfinite(weight.dense()).all()


@pytest.mark.parametrize("fit", ["svd", "whitened"])
def test_a_matrix_of_zeros_stays_near_zero(fit: Any) -> None:
    nothing = np.zeros((8, 8))
    seen = Moments(np.eye(8), nothing)
    made = LowRank(rank=2, fit=fit).fit_weight(make_fit(nothing, seen, Uniform(2), LINK)).dense()
    assert np.abs(made).max() < 1e-3


def test_the_share_counts_the_numbers_of_both_factors() -> None:
    for out, inputs, share in ((512, 128, 0.1), (1024, 512, 0.2), (6, 6, 1.0)):
        rank = rank_of(share, out, inputs)
        assert rank * (out + inputs) <= share * out * inputs < (rank + 1) * (out + inputs)
    assert rank_of(0.01, 4, 4) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"share": 0.0}, "share"),
        ({"share": 1.5}, "share"),
        ({"rank": 0}, "rank"),
        ({"ridge": -1.0}, "ridge"),
        ({"inner_threshold": -0.1}, "threshold"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        LowRank(**fields)
    assert "\n" not in str(caught.value)
