"""Matrices as sums of rank-1 terms, the most informative first: every prefix of the sum is an answer.

y = A·x ≈ base + Σ_{n ≤ N} u_n·(v_nᵀx + c_n), with a v of its own for each of equal groups of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.input_metric import InputMetric
from modelflex.errors import UserError

Count = TypeVar("Count", int, Array)
SCHEMES = ("published", "refit", "whitened")
ALTERNATIONS = 3
EXHAUSTED = 1e-14
"""Share of a matrix's squared error below which nothing is left to decompose."""
RIDGE = 1e-10
"""Of the least squares for U, as a share of the mean of what is solved: dependent terms share a result."""


@final
@dataclass(frozen=True, eq=False)
class Factors:
    """Terms in the order in which they are computed.

    Attributes:
        u: float64 [R, N].
        v: float64 [N·G, C]; rows of group g (R/G consecutive ones) get u_n·(v_{n·G+g}ᵀx + c_{n·G+g}).
        offset: c, float64 [N·G].
        base: float64 [R], what is added to the bias: the mean of A·x, which is exact without any
            term; zeros where no mean of the inputs is known.
    """

    u: Array
    v: Array
    offset: Array
    base: Array

    @property
    def terms(self) -> int:
        """N."""
        return int(self.u.shape[1])

    @property
    def groups(self) -> int:
        """G."""
        return len(self.v) // max(1, self.terms)

    def matrix(self, terms: int | None = None) -> Array:
        """Ã of the first `terms` (None: all), float64 [R, C]."""
        n, groups = self.terms if terms is None else terms, self.groups
        rows = self.u.shape[0] // groups
        vectors = self.v.reshape(self.terms, groups, -1)[:n]
        return np.concatenate(
            [self.u[g * rows : (g + 1) * rows, :n] @ vectors[:, g] for g in range(groups)]
        )

    def bias(self, terms: int | None = None) -> Array:
        """What the first `terms` add to the bias, base + Σ u_n·c_n, float64 [R]."""
        n, groups = self.terms if terms is None else terms, self.groups
        rows = self.u.shape[0] // groups
        offsets = self.offset.reshape(self.terms, groups)[:n]
        shifts = [self.u[g * rows : (g + 1) * rows, :n] @ offsets[:, g] for g in range(groups)]
        return np.asarray(self.base + np.concatenate(shifts))


def operations(rows: int, kept: Count, groups: int = 1) -> Count:
    """Multiplications and additions of a term of `rows` results: for each group 2·NZ of the dot product,
    one for its offset (in the published scheme: its σ) and 2·R/G of the sum, 2R + 2NZ + 1 for each gate
    as in Kouris et al. (arXiv 1905.00689). The dense product has 2·R·C.
    """
    return 2 * rows + groups * (2 * kept + 1)


def decompose(
    matrix: Array,
    *,
    terms: int,
    kept: int | None = None,
    groups: int = 1,
    block: int = 1,
    scheme: str = "whitened",
    metric: InputMetric | None = None,
    importance: Array | None = None,
) -> Factors:
    """A sum of at most `terms` terms for a matrix [R, C]; fewer where nothing is left to decompose.

    "published" (Kouris et al., arXiv 1905.00689): the largest singular vectors of what is left, v cut to
    its `kept` largest numbers. "refit": the same v, and U by one closed-form least squares
    over all prefixes. "whitened": each term is the least-squares one for the inputs of `metric` and
    the `importance` of the results, and U is refitted likewise.

    Args:
        kept: NZ, numbers of each v; None for all.
        groups: equal groups of consecutive rows with a v of their own (4 for the gates of an LSTM).
        block: numbers of v that are kept or left together, consecutive and aligned.
        metric: of the inputs, for "whitened"; None weighs all entries alike.
        importance: [R] or [R, R], what squared errors of the results weigh (the Fisher information
            of the outputs in them); None for the same weight.

    Raises:
        UserError: sizes that do not fit, numbers that are not finite, or an unknown scheme.
    """
    w = np.asarray(matrix, np.float64)
    keep = _checked(w, terms, kept, groups, block, scheme)
    aware = scheme == "whitened"
    measure = metric if aware and metric is not None else InputMetric.plain(w.shape[1])
    if measure.inputs != w.shape[1]:
        raise UserError(f"the metric is of {measure.inputs} inputs", f"{w.shape[1]}, the columns")
    weighing = _weighing(importance if aware else None, len(w))
    if keep == w.shape[1] and (groups == 1 or weighing is None):
        u, v = _closed_form(w, terms, groups, measure, weighing)
    else:
        fit = ALTERNATIONS if aware else 0
        u, v = _greedy(w, terms, keep, groups, block, measure, weighing, fit)
        if scheme != "published":
            u = refit(w, v, groups, measure)
    if measure.mean is None:
        return Factors(u, v, np.zeros(len(v)), np.zeros(len(w)))
    return Factors(u, v, -v @ measure.mean, w @ measure.mean)


def completed(
    matrix: Array, head: Factors, terms: int, metric: InputMetric, importance: Array | None = None
) -> Factors:
    """Given terms, followed by those of the closed form for what they leave of A·x: all together are
    A·x again.

    Args:
        matrix: A [R, C].
        head: the first terms, one or more, however they were found, with one v for all rows.
        terms: how many may follow; C + 1, or R, are enough for all that is left.
        metric, importance: see `decompose`.
    """
    w = np.asarray(matrix, np.float64)
    mean = np.zeros(w.shape[1]) if metric.mean is None else metric.mean
    # What is left is affine: its constant is the factor of one more input.
    constant = w @ mean - head.base - head.u @ (head.v @ mean + head.offset)
    left = np.column_stack([w - head.matrix(), constant])
    weighing = _weighing(importance, len(w))
    u, v = _closed_form(left, terms, 1, metric.with_constant(), weighing)
    offset = v[:, -1] - v[:, :-1] @ mean
    return Factors(
        np.hstack([head.u, u]),
        np.vstack([head.v, v[:, :-1]]),
        np.concatenate([head.offset, offset]),
        head.base,
    )


def _checked(w: Array, terms: int, kept: int | None, groups: int, block: int, scheme: str) -> int:
    if w.ndim != 2 or not w.size or not np.all(np.isfinite(w)):
        raise UserError(
            f"the matrix to decompose is of the shape {w.shape}", "finite numbers [R, C]"
        )
    rows, columns = w.shape
    if scheme not in SCHEMES:
        raise UserError(f"the scheme is '{scheme}'", f"one of {', '.join(SCHEMES)}")
    if terms < 1:
        raise UserError(f"a sum of {terms} terms", "at least 1")
    if groups < 1 or rows % groups:
        raise UserError(f"{rows} rows in {groups} groups", "groups of equal size")
    if block < 1 or columns % block:
        raise UserError(f"{columns} columns in blocks of {block}", "blocks of equal size")
    keep = columns if kept is None else kept
    if not 1 <= keep <= columns or keep % block:
        raise UserError(
            f"each v keeps {keep} of {columns} numbers", f"1 … {columns}, whole blocks of {block}"
        )
    return keep


@dataclass(frozen=True, eq=False)
class _Weighing:
    """F = L·Lᵀ of the rows."""

    lower: Array
    importance: Array

    def root(self, rows: slice) -> Array:
        """L of some rows alone."""
        return np.linalg.cholesky(self.importance[rows, rows])


def _weighing(importance: Array | None, rows: int) -> _Weighing | None:
    if importance is None:
        return None
    f = np.asarray(importance, np.float64)
    f = np.diag(f) if f.ndim == 1 else f
    if f.shape != (rows, rows) or not np.all(np.isfinite(f)):
        raise UserError(f"the importance has the shape {f.shape}", f"finite numbers [{rows}]")
    mean = float(np.mean(np.diag(f)))
    if mean <= 0:
        return None
    f = f / mean + 0.01 * np.eye(rows)
    return _Weighing(np.linalg.cholesky(f), f)


def _closed_form(
    w: Array, terms: int, groups: int, metric: InputMetric, weighing: _Weighing | None
) -> tuple[Array, Array]:
    """The best sum of every length at once (Eckart–Young in both metrics): with the eigenvectors Q
    of Lᵀ·W·H·Wᵀ·L, U = L⁻ᵀ·Q and V = Qᵀ·Lᵀ·W. H is not inverted, and U·V is W at full rank.
    """
    size = len(w) // groups
    lower = np.eye(size) if weighing is None else weighing.lower
    found = []
    for g in range(groups):
        seen = lower.T @ w[_rows(g, size)]
        values, vectors = np.linalg.eigh(metric.times(seen) @ seen.T)
        rank = max(1, int(np.sum(values > EXHAUSTED * values[-1])))
        found.append((vectors[:, ::-1], seen, rank))
    count = min(terms, size, w.shape[1], max(rank for _, _, rank in found))
    u = np.concatenate([np.linalg.solve(lower.T, q[:, :count]) for q, _, _ in found])
    v = np.stack([q[:, :count].T @ seen for q, seen, _ in found], axis=1)
    return u, v.reshape(count * groups, w.shape[1])


def _greedy(
    w: Array,
    terms: int,
    kept: int,
    groups: int,
    block: int,
    metric: InputMetric,
    weighing: _Weighing | None,
    alternations: int,
) -> tuple[Array, Array]:
    """One term after another, each from what the cut ones before it leave."""
    rows, size = len(w), len(w) // groups
    left = w.copy()
    weighed = None if weighing is None else weighing.importance @ w
    roots = [None if weighing is None else weighing.root(_rows(g, size)) for g in range(groups)]
    us, vs = np.zeros((rows, terms)), np.zeros((terms, groups, w.shape[1]))
    start = metric.error(w)
    for n in range(terms):
        for g in range(groups):
            at = _rows(g, size)
            root = roots[g]
            seen = left[at]
            if weighed is not None and root is not None:
                seen = np.linalg.solve(root, weighed[at])
            p, v = _rank_one(seen, kept, block, metric, alternations)
            vs[n, g] = v
            if alternations:
                # The next v is to explain what the best U of these terms leaves.
                us[at, : n + 1] = _least_squares(w[at], vs[: n + 1, g], metric)
                step = w[at] - us[at, : n + 1] @ vs[: n + 1, g] - left[at]
            else:
                us[at, n] = p if root is None else np.linalg.solve(root.T, p)
                step = -np.outer(us[at, n], v)
            left[at] += step
            if weighed is not None and weighing is not None:
                weighed += weighing.importance[:, at] @ step
        if metric.error(left) <= EXHAUSTED * start:
            us, vs = us[:, : n + 1], vs[: n + 1]
            break
    return us, vs.reshape(-1, w.shape[1])


def _rows(group: int, size: int) -> slice:
    return slice(group * size, (group + 1) * size)


def _rank_one(
    seen: Array, kept: int, block: int, metric: InputMetric, alternations: int
) -> tuple[Array, Array]:
    """p and v of the best p·vᵀ for a matrix in a metric, v with `kept` numbers.

    Without `alternations` v is that of the dense solution, cut; else both are fitted in turns on v's
    support. p and v are zeros where the matrix is.
    """
    through = metric.times(seen)
    values, vectors = np.linalg.eigh(through @ seen.T)
    p = vectors[:, -1]
    v = seen.T @ p
    if not values[-1] > 0 or not v.any():
        return np.zeros(len(seen)), np.zeros(seen.shape[1])
    if kept == seen.shape[1]:
        return p, v
    columns = _largest(np.square(v) * metric.diagonal, kept, block)
    if not alternations:
        cut = np.zeros_like(v)
        cut[columns] = v[columns]
        return p, cut
    solve = metric.solver(columns)
    cut = np.zeros_like(v)
    for _ in range(alternations):
        cut[columns] = solve(p @ through[:, columns]) / (p @ p)
        p = through @ cut / (metric.times(cut) @ cut)
    return p, cut


def _largest(score: Array, kept: int, block: int) -> Array:
    """The columns of the blocks with the largest sums, ascending."""
    sums = score.reshape(-1, block).sum(axis=1)
    chosen = np.sort(np.argsort(-sums, kind="stable")[: kept // block])
    return (chosen[:, None] * block + np.arange(block)).reshape(-1)


def _least_squares(w: Array, v: Array, metric: InputMetric) -> Array:
    """The best U [R, N] of W ≈ U·V for given V in a metric."""
    gram, wanted = _normal(w, v, metric)
    return np.asarray(np.linalg.solve(gram, wanted.T).T)


def _normal(w: Array, v: Array, metric: InputMetric) -> tuple[Array, Array]:
    """V·H·Vᵀ, with a ridge for terms that depend on each other, and W·H·Vᵀ."""
    through = metric.times(v)
    gram = v @ through.T
    mean = float(np.mean(np.diag(gram)))
    gram[np.diag_indices_from(gram)] += RIDGE * mean if mean > 0 else 1.0
    return gram, w @ through.T


def refit(w: Array, v: Array, groups: int, metric: InputMetric) -> Array:
    """U [R, N] for given v [N·G, C], by least squares over all prefixes at once.

    One U serves every prefix n: it minimises Σ_n ‖W − U_n·V_n‖² in the metric. With
    K = V·H·Vᵀ and A_ij = N − max(i, j), the number of prefixes that hold both terms (i, j from 0), it is
    (W·H·Vᵀ·diag A)(K ∘ A)⁻¹.
    """
    size, count = len(w) // groups, len(v) // groups
    held = np.arange(count, 0, -1.0)
    both = np.minimum.outer(held, held)
    result = np.zeros((len(w), count))
    for g in range(groups):
        gram, wanted = _normal(w[_rows(g, size)], v[g::groups], metric)
        result[_rows(g, size)] = np.linalg.solve(gram * both, (wanted * held).T).T
    return result
