"""Block-circulant weights: least squares over the generators of their blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelflex.core.extension import Fit
from modelflex.core.fixed import Array
from modelflex.core.layout import circulant_geometry, expand
from modelflex.core.regression import Regression
from modelflex.core.weight import Matrix


def generators(problem: Regression, b: int) -> Array:
    """The generators of every block row, side by side [out/b, in], that solve a regression best."""
    return np.asarray(
        np.linalg.solve(fold_hessian(problem.gram, b), fold_rows(problem.wanted, b).T).T
    )


def expanded(problem: Regression, b: int) -> Array:
    """The block-circulant matrix [out, in] that solves a regression best."""
    made = generators(problem, b)
    return expand("circulant", made.reshape(made.shape[0], -1, b))


def fit_circulant(fit: Fit, b: int, aware: bool, ridge: float) -> Matrix:
    """The weight (without bias) of b×b circulant blocks that stands for `fit.matrix`.

    Args:
        aware: fitted to the moments; else the nearest matrix (means of the wrapped diagonals).
        ridge: see `Regression.of`.

    Raises:
        UserError: the block does not divide both sizes.
    """
    out, inputs = fit.matrix.shape
    circulant_geometry(out, inputs, b)
    values = fold_rows(fit.matrix, b) / b  # of any width: the nearest needs no matrix of the inputs
    if aware:
        values = generators(Regression.of(fit, True, ridge), b)
    hessian = None if fit.moments is None else fold_hessian(fit.moments.cov_z, b)
    part = fit.encode.encode(values, hessian, fit.gates)
    stored = replace(part, codes=part.codes.reshape(out // b, inputs // b, b))
    return Matrix(stored, None, fit.link, fit.gates, "circulant", inputs)


def _columns(inputs: int, b: int, i: int) -> Array:
    """The input that generator entry (q, j) meets in row i of a block: q·b + (i − j) mod b, [in]."""
    return (np.arange(inputs // b)[:, None] * b + (i - np.arange(b)) % b).ravel()


def fold_rows(matrix: Array, b: int) -> Array:
    """Σ_i R_i P_iᵀ: sum a matrix [out, in] along the wrapped diagonals of its blocks → [out/b, in]."""
    out, inputs = matrix.shape
    rows = matrix.reshape(out // b, b, inputs)
    return sum((rows[:, i, _columns(inputs, b, i)] for i in range(b)), np.zeros((out // b, inputs)))


def fold_hessian(h: Array, b: int) -> Array:
    """Σ_i P_i H P_iᵀ [in, in]: the curvature of the squared error in the generators of a block row."""
    folded = np.zeros_like(h)
    for i in range(b):
        columns = _columns(h.shape[0], b, i)
        folded += h[np.ix_(columns, columns)]
    return folded
