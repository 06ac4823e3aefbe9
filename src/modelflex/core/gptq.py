"""Rounding one column after another, each error made up for by the columns that follow.

To the grids of `IntegerSteps`, compiled code rounds a chunk of columns where it was built; it gives the
same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array

try:
    from modelflex._native import descend_columns, round_columns, step_errors
except ImportError:  # installed without a C compiler, or built for another machine
    HAVE_NATIVE = False
else:
    HAVE_NATIVE = True

SUM_LANES, SUM_BLOCKS = 64, 64
"""Numbers that are added side by side, and one after another in each of these sums."""

Nearest = Callable[[Array, int], Array]
"""(a column of values [rows], its number) → the nearest storable values [rows], a new array."""


@dataclass(frozen=True, eq=False)
class IntegerSteps:
    """The nearest of −top … top (or the odd ones of them), times a step.

    Attributes:
        odd: whether only odd integers are on the grid; ties go up there, to even otherwise.
        steps: > 0, of every row, [1, rows], or of every row in every column, [n, rows].
    """

    top: int
    odd: bool
    steps: Array

    def __call__(self, x: Array, column: int) -> Array:
        """The nearest to x [rows], a new array."""
        size = self.steps[column if len(self.steps) > 1 else 0]
        near = nearest_whole(x / size, self.top, self.odd)
        near *= size
        return near

    def of(self, columns: Array | slice) -> IntegerSteps:
        """Those of some columns."""
        if len(self.steps) == 1:
            return self
        return IntegerSteps(self.top, self.odd, np.ascontiguousarray(self.steps[columns]))


def nearest_whole(x: Array, top: int, odd: bool) -> Array:
    """The nearest of the integers −top … top (ties to even), or of the odd ones of them (ties up)."""
    # In place: this runs for every column of every pass, and again for every range that is tried.
    if odd:
        near = x * 0.5
        np.floor(near, out=near)
        near += 0.5
        near *= 2.0
    else:
        near = np.rint(x)
    np.minimum(near, top, out=near)
    return np.asarray(np.maximum(near, -top, out=near))


def grid_errors(values: Array, weights: Array, sizes: Array, top: int, odd: bool) -> Array:
    """Σ weights·(y − x)² of every row for every size, [groups, sizes]: x = values / size [groups, n], y
    the nearest to it (see `nearest_whole`).
    """
    errors = np.empty((len(values), len(sizes)))
    if HAVE_NATIVE:
        x, w = (np.ascontiguousarray(a, np.float64) for a in (values, weights))
        step_errors(x, w, np.ascontiguousarray(sizes), top, odd, errors)
        return errors
    for number, size in enumerate(sizes):
        wanted = values / size
        lost = nearest_whole(wanted, top, odd)
        lost -= wanted
        lost *= lost
        lost *= weights
        errors[:, number] = _ordered_sum(lost)
    return errors


def _ordered_sum(x: Array) -> Array:
    """Sums of the rows [groups, n] in the order that compiled code has."""
    groups, n = x.shape
    blocks = min(SUM_BLOCKS, -(-n // SUM_LANES))
    pieces = np.zeros((groups, -(-n // (blocks * SUM_LANES)), blocks, SUM_LANES))
    pieces.reshape(groups, -1)[:, :n] = x
    sums = np.zeros_like(pieces[:, :, 0])
    for block in range(blocks):
        sums += pieces[:, :, block]
    while sums.shape[2] > 1:
        half = sums.shape[2] // 2
        sums = sums[:, :, :half] + sums[:, :, half:]
    total = np.zeros(groups)
    for piece in range(sums.shape[1]):
        total += sums[:, piece, 0]
    return total


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
    stored = None if mask is None else mask[:, order].T.astype(np.float64, order="C")
    w = np.ascontiguousarray(
        values[:, order].T, np.float64
    )  # one column of the matrix is contiguous
    n = w.shape[0]
    for start in range(0, n, chunk):
        some = slice(start, min(start + chunk, n))
        errors = _round_chunk(
            w[some],
            shares[some, some],
            _of_columns(nearest, order[some]),
            None if stored is None else stored[some],
        )
        if some.stop < n:
            w[some.stop :] -= shares[some.stop :, some] @ errors
    rounded = np.empty_like(w)
    rounded[order] = w
    return rounded.T


def _of_columns(nearest: Nearest, columns: Array) -> Nearest:
    """`nearest` with other numbers of columns."""
    if isinstance(nearest, IntegerSteps):
        return nearest.of(columns)
    return lambda x, j: nearest(x, int(columns[j]))


def _round_chunk(w: Array, shares: Array, nearest: Nearest, mask: Array | None) -> Array:
    """Round columns [columns, rows] in place; returns what they lost."""
    errors = np.empty_like(w)
    if HAVE_NATIVE and isinstance(nearest, IntegerSteps):
        near = (np.ascontiguousarray(shares), nearest.steps, nearest.top, nearest.odd, mask)
        round_columns(w, *near, errors)
        return errors
    for j in range(len(w)):
        q = nearest(w[j], j)
        if mask is not None:
            q *= mask[j]
        np.subtract(w[j], q, out=errors[j])
        w[j] = q
        w[j + 1 :] -= shares[j + 1 :, j, None] * errors[j]
    return errors


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
    stored = None if mask is None else mask.T.astype(np.float64, order="C")
    # Columns are contiguous.
    q, pulls = (np.array(a.T, np.float64, order="C") for a in (rounded, pulls))
    own = 1.0 / np.diag(hessian)
    for start in range(0, n, chunk):
        some = slice(start, min(start + chunk, n))
        changes = _descend_chunk(
            q[some],
            pulls[some],
            own[some],
            hessian[some, some],
            _of_columns(nearest, np.arange(n)[some]),
            None if stored is None else stored[some],
        )
        pulls -= hessian[:, some] @ changes
    return q.T, pulls.T


def _descend_chunk(
    q: Array, pulls: Array, own: Array, hessian: Array, nearest: Nearest, mask: Array | None
) -> Array:
    """Round columns [columns, rows] anew in place; returns how much more they are."""
    changes = np.empty_like(q)
    if HAVE_NATIVE and isinstance(nearest, IntegerSteps):
        near = (np.ascontiguousarray(hessian), nearest.steps, nearest.top, nearest.odd, mask)
        descend_columns(q, pulls, own, *near, changes)
        return changes
    pulls = pulls.copy()
    for j in range(len(q)):
        new = nearest(pulls[j] * own[j] + q[j], j)
        if mask is not None:
            new *= mask[j]
        np.subtract(new, q[j], out=changes[j])
        q[j] = new
        pulls[j + 1 :] -= hessian[j + 1 :, j, None] * changes[j]
    return changes
