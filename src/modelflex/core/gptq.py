"""Rounding one column after another, each error made up for by the columns that follow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from modelflex.core.fixed import Array

Nearest = Callable[[Array, int], Array]
"""(a column of values [rows], its number) → the nearest storable values [rows], a new array."""


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
    With U the upper Cholesky factor of H⁻¹: q = nearest(w_j); W_k −= (w_j − q)·U_jk/U_jj for k > j.
    Columns are worked off in chunks so that most of the update is a matrix product.

    Args:
        hessian: [n, n]; damped here, so it may be singular.
        nearest: rounds a column.
        mask: bool [rows, n]; 0 is stored where it is false.
    """
    order = np.argsort(-np.diag(hessian), kind="stable")
    h = hessian[np.ix_(order, order)] + damping(hessian) * np.eye(order.size)
    inverse = np.linalg.inv(h)
    lower = np.linalg.cholesky((inverse + inverse.T) / 2)
    shares = lower / np.diag(lower)  # of the error of column j that column k makes up for, [k, j]
    stored = None if mask is None else np.ascontiguousarray(mask[:, order].T)
    w = np.ascontiguousarray(values[:, order].T)  # one column of the matrix is contiguous
    n = w.shape[0]
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        errors = np.empty((end - start, w.shape[1]))
        for j in range(start, end):
            w[j] -= shares[j, start:j] @ errors[: j - start]
            q = nearest(w[j], int(order[j]))
            if stored is not None:
                q *= stored[j]
            np.subtract(w[j], q, out=errors[j - start])
            w[j] = q
        if end < n:
            w[end:] -= shares[end:, start:end] @ errors
    rounded = np.empty_like(w)
    rounded[order] = w
    return rounded.T


def descend(
    rounded: Array,
    pulls: Array,
    hessian: Array,
    nearest: Nearest,
    mask: Array | None = None,
    chunk: int = 32,
) -> tuple[Array, Array]:
    """One pass of coordinate descent: each column is rounded anew, the others as they stand.

    With E = values − rounded the best q of column j before rounding is rounded_j + (E·H)_j / H_jj, so
    tr(E·H·Eᵀ) never rises.

    Args:
        rounded: [rows, n], on the grid (0 where the mask is false).
        pulls: E·H, [rows, n].
        hessian: [n, n] with a positive diagonal.
        nearest, mask: see `gptq`.

    Returns:
        What is rounded now and its pulls.
    """
    n = hessian.shape[0]
    stored = None if mask is None else np.ascontiguousarray(mask.T)
    q, pulls = (
        np.array(rounded.T, order="C"),
        np.array(pulls.T, order="C"),
    )  # columns are contiguous
    own = 1.0 / np.diag(hessian)
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        changes = np.empty((end - start, q.shape[1]))
        for j in range(start, end):
            wanted = pulls[j] - hessian[j, start:j] @ changes[: j - start]
            wanted *= own[j]
            wanted += q[j]
            new = nearest(wanted, j)
            if stored is not None:
                new *= stored[j]
            np.subtract(new, q[j], out=changes[j - start])
            q[j] = new
        pulls -= hessian[:, start:end] @ changes
    return q.T, pulls.T
