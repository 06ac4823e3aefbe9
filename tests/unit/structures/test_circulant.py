"""Block-circulant matrices against least squares, the FFT and explicit permutations."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.core.circulant import fold_hessian, fold_rows
from modelflex.core.fixed import Scale
from modelflex.core.layout import circulant_geometry, expand, part_geometry
from modelflex.core.tracer import Link
from modelflex.errors import UserError
from modelflex.formats.uniform import Uniform
from modelflex.structures.circulant import Circulant
from modelflex.structures.dense import Dense
from modelflex.testing.generators import make_fit, make_moments

FINE = Uniform(16, "row", "max", "nearest")
LINK = Link(8, Scale.nearest(0.01))


def basis(b: int) -> np.ndarray:
    """[b, b, b]: the circulant matrix of every unit generator, by the definition of its entries."""
    made = np.zeros((b, b, b))
    for j in range(b):
        for i in range(b):
            for k in range(b):
                made[j, i, k] = (i - k) % b == j
    return made


@pytest.mark.parametrize("b", [1, 2, 4, 8])
def test_mean_of_the_diagonals_is_the_nearest_circulant(b: int) -> None:
    """Against brute-force least squares over the generators of each block (C-LSTM, section 3)."""
    matrix = np.random.default_rng(b).normal(size=(16, 8))
    made = Circulant(b, "mean").fit_weight(make_fit(matrix, None, FINE, LINK)).dense()
    columns = basis(b).reshape(b, -1).T
    for p in range(16 // b):
        for q in range(8 // b):
            block = np.s_[p * b : (p + 1) * b, q * b : (q + 1) * b]
            best, *_ = np.linalg.lstsq(columns, matrix[block].ravel(), rcond=None)
            np.testing.assert_allclose(made[block], np.tensordot(best, basis(b), 1), atol=2e-4)


@pytest.mark.parametrize("b", [1, 2, 3, 8])
def test_block_times_vector_is_a_circular_convolution(b: int) -> None:
    rng = np.random.default_rng(b)
    w, x = rng.normal(size=(3, 2, b)), rng.normal(size=(2, b))
    spectra = (np.fft.fft(w) * np.fft.fft(x)).sum(axis=1)
    wanted = np.fft.ifft(spectra).real.ravel()
    np.testing.assert_allclose(expand("circulant", w) @ x.ravel(), wanted, atol=1e-12)
    np.testing.assert_array_equal(expand("circulant", w)[:b, 0], w[0, 0])


def permutation(inputs: int, b: int, i: int) -> np.ndarray:
    """P_i [in, in] with (g·P_i)·x the result of row i of a block: generator entry (q, j) meets the
    input k of the block q with (i − k) mod b == j.
    """
    made = np.zeros((inputs, inputs))
    for q in range(inputs // b):
        for k in range(b):
            made[q * b + (i - k) % b, q * b + k] = 1
    return made


@pytest.mark.parametrize("b", [1, 2, 4])
def test_folding_against_explicit_permutations(b: int) -> None:
    rng = np.random.default_rng(b)
    matrix, h = rng.normal(size=(12, 8)), rng.normal(size=(8, 8))
    rows = matrix.reshape(12 // b, b, 8)
    wanted = sum(rows[:, i] @ permutation(8, b, i).T for i in range(b))
    np.testing.assert_allclose(fold_rows(matrix, b), wanted, atol=1e-12)
    folded = sum(permutation(8, b, i) @ h @ permutation(8, b, i).T for i in range(b))
    np.testing.assert_allclose(fold_hessian(h, b), folded, atol=1e-12)
    # The generators g of one block row make the rows g·P_i of the expanded matrix.
    g = rng.normal(size=8)
    expanded = expand("circulant", g.reshape(1, 8 // b, b))
    np.testing.assert_allclose(expanded, [g @ permutation(8, b, i) for i in range(b)], atol=1e-12)


@pytest.mark.parametrize(
    "structure", [Circulant(4), Circulant(1), Circulant(2), Dense("least_squares")]
)
def test_least_squares_finds_the_minimum(structure: Circulant | Dense) -> None:
    """No small change of the stored values predicts W·z_o from z_c better, with the ridge's pull."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(8, 8))
    original = rng.normal(size=(200, 8)) @ rng.normal(size=(8, 8))
    seen = make_moments(matrix, original, original + 0.5 * rng.normal(size=original.shape))
    weight = structure.fit_weight(make_fit(matrix, seen, FINE, LINK))
    block = getattr(structure, "block", 1)
    pull = structure.ridge * np.diag(seen.cov_z)

    def loss(a: np.ndarray) -> float:
        fit = np.trace(a @ seen.cov_z @ a.T) - 2 * np.trace(a @ seen.cov_tz.T)
        return float(fit + np.sum((a - matrix) ** 2 * pull))

    values = weight.dense()
    least = loss(values)
    for _ in range(50):
        shape = (8 // block, 8 // block, block)
        change = 0.05 * expand("circulant", rng.normal(size=shape))
        assert loss(values + change) > least
        assert loss(values - change) > least


def test_data_aware_predicts_better_than_the_mean() -> None:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(16, 16))
    z = rng.normal(size=(500, 16)) @ np.diag(np.linspace(0.1, 2, 16)) @ rng.normal(size=(16, 16))
    seen = make_moments(matrix, z, z)
    problem = make_fit(matrix, seen, FINE, LINK)
    errors = [
        np.linalg.norm(z @ (Circulant(4, fit).fit_weight(problem).dense() - matrix).T)
        for fit in ("least_squares", "mean")
    ]
    assert errors[0] < 0.9 * errors[1]


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="does not divide") as caught:
        circulant_geometry(12, 8, 8)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        Circulant(5).plan(8, 8)
    with pytest.raises(UserError, match="at least 1"):
        Circulant(0)
    for kind in (Circulant, Dense):
        with pytest.raises(UserError, match="ridge"):
            kind(ridge=float("nan"))
    with pytest.raises(UserError, match="unknown layout"):
        part_geometry("hashed", np.zeros((4, 4)), None, 4)
    with pytest.raises(UserError, match="unknown layout"):
        expand("hashed", np.zeros((4, 4)))
