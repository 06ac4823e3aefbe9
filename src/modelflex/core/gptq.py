"""Rounding one column after another, each error made up for by the columns that follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelflex.core.fixed import Array

Nearest = Callable[[Array, int], Array]
"""(a column of values [rows], its number) → the nearest storable values [rows]."""


def damping(cov: Array, share: float = 0.01) -> float:
    """What is added to the diagonal of a covariance to make it positive definite: a share of its mean
    diagonal (1 where that is zero).
    """
    mean = float(np.mean(np.diag(cov)))
    return share * mean if mean > 0 else 1.0


def gptq(
    values: Array, hessian: Array, nearest: Nearest, mask: Array | None = None, chunk: int = 32
) -> Array:
    """Values [rows, n] rounded column by column, the largest curvature first.

    Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323), algorithm 1.
    With U the upper Cholesky factor of H⁻¹: q = nearest(w_j); W_k −= (w_j − q)/U_jj · U_jk for k > j.
    Columns are worked off in chunks so that most of the update is a matrix product.

    Args:
        hessian: [n, n]; damped here, so it may be singular.
        nearest: rounds a column.
        mask: bool [rows, n]; 0 is stored where it is false.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    h = hessian[np.ix_(order, order)] + damping(hessian) * np.eye(order.size)
    inverse = np.linalg.inv(h)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w = np.ascontiguousarray(values[:, order].T)  # one column of the matrix is contiguous
    n = w.shape[0]
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        errors = np.empty((end - start, w.shape[1]))
        for j in range(start, end):
            column = int(order[j])
            q = nearest(w[j], column)
            if mask is not None:
                q = np.where(mask[:, column], q, 0.0)
            errors[j - start] = (w[j] - q) / upper[j, j]
            w[j] = q
            if j + 1 < end:
                w[j + 1 : end] -= upper[j, j + 1 : end, None] * errors[j - start]
        if end < n:
            w[end:] -= upper[start:end, end:].T @ errors
    rounded = np.empty_like(w)
    rounded[order] = w
    return rounded.T


def descend(
    values: Array,
    rounded: Array,
    hessian: Array,
    nearest: Nearest,
    mask: Array | None = None,
    chunk: int = 32,
) -> Array:
    """One pass of coordinate descent: each column is rounded anew, the others as they stand.

    With E = values − rounded the best q of column j before rounding is rounded_j + (E·H)_j / H_jj, so
    tr(E·H·Eᵀ) never rises.

    Args:
        rounded: [rows, n], on the grid (0 where the mask is false).
        hessian: [n, n] with a positive diagonal.
        nearest, mask: see `gptq`.
    """
    n = hessian.shape[0]
    q = np.array(rounded.T, order="C")  # a copy, one column contiguous
    pulls = hessian @ (values.T - q)
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        changes = np.zeros((end - start, q.shape[1]))
        for j in range(start, end):
            new = nearest(q[j] + pulls[j] / hessian[j, j], j)
            if mask is not None:
                new = np.where(mask[:, j], new, 0.0)
            changes[j - start] = new - q[j]
            q[j] = new
            if j + 1 < end:
                pulls[j + 1 : end] -= hessian[j + 1 : end, j, None] * changes[j - start]
        if end < n:
            pulls[end:] -= hessian[end:, start:end] @ changes
    return q.T
