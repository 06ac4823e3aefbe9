"""Sparse weights: which numbers stay, what they are refitted to, and when storing indices pays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.core.layout import Geometry, index_bits, sparse_geometry
from modelflex.core.regression import Regression, check_ridge
from modelflex.core.weight import Matrix
from modelflex.errors import UserError

Score = Literal["magnitude", "wanda", "sparsegpt"]
Refit = Literal["none", "least_squares"]

CHUNK = 64
"""Columns whose places SparseGPT decides at once."""
SOLVED_NUMBERS = 1 << 24
"""Numbers in the systems of equations that are solved at once (128 MiB)."""


def break_even_density(bits: int, index_bits: float) -> float:
    """The density below which codes of `bits` bits with an index each take less than all the codes."""
    return bits / (bits + index_bits)


# --- patterns: which sets of places may be kept --------------------------------------------------
class Pattern(ABC):
    """The sets of places that a sparse layout can keep; every row keeps equally many."""

    layout: ClassVar[str]
    rows: int
    """Consecutive rows that keep the same places."""
    width: int
    """Consecutive columns that are decided together."""

    @abstractmethod
    def geometry(self, out: int, inputs: int) -> Geometry:
        """Sizes of a weight [out, inputs].

        Raises:
            UserError: the pattern does not divide the weight.
        """

    @abstractmethod
    def choose(self, scores: Array, decided: Array) -> Array:
        """Keep the largest scores.

        Args:
            scores: [out, n], of the columns not yet decided (a multiple of `width`).
            decided: bool [out, inputs − n], what is kept of the others.

        Returns:
            bool [out, n].
        """

    @abstractmethod
    def index(self, columns: Array) -> Array:
        """The index (core/layout.py) of kept columns [out, kept], increasing in each row."""

    @abstractmethod
    def span(self, inputs: int) -> int:
        """How many values an index may take."""


@dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of rows × width numbers, `share` of those of each block row, at least one.

    Single numbers (1×1) are the layout row_sparse.
    """

    share: float
    rows: int = 1
    width: int = 1

    @property
    def layout(self) -> str:  # type: ignore[override]
        return "row_sparse" if self.rows == self.width == 1 else "block_sparse"

    def _kept(self, inputs: int) -> int:
        return max(1, round(self.share * (inputs // self.width)))

    def span(self, inputs: int) -> int:
        return inputs // self.width

    def geometry(self, out: int, inputs: int) -> Geometry:
        if out % self.rows or inputs % self.width:
            raise UserError(
                f"sparse blocks of {self.rows}×{self.width} do not divide a weight of {out}×{inputs}",
                "a block that divides both sizes",
                "choose other blocks or leave this weight dense",
            )
        kept = self._kept(inputs)
        indices = out // self.rows * kept
        return sparse_geometry(
            out, inputs, kept * self.width, self.span(inputs), indices, self.rows
        )

    def choose(self, scores: Array, decided: Array) -> Array:
        out, n = scores.shape
        shape = (out // self.rows, self.rows, n // self.width, self.width)
        best = np.argsort(-scores.reshape(shape).sum(axis=(1, 3)), axis=1, kind="stable")
        taken = decided[:: self.rows, :: self.width].sum(axis=1)
        left = self._kept(n + decided.shape[1]) - taken
        kept = np.zeros(best.shape, bool)
        np.put_along_axis(kept, best, np.arange(best.shape[1]) < left[:, None], axis=1)
        return kept.repeat(self.rows, axis=0).repeat(self.width, axis=1)

    def index(self, columns: Array) -> Array:
        return columns[:: self.rows, :: self.width] // self.width


@dataclass(frozen=True)
class NOfM(Pattern):
    """n of every m consecutive numbers of a row."""

    n: int
    width: int
    rows: int = 1

    layout = "n_m"

    def span(self, inputs: int) -> int:
        return self.width

    def geometry(self, out: int, inputs: int) -> Geometry:
        if inputs % self.width:
            raise UserError(
                f"{self.n} of {self.width} weights are kept in rows of {inputs}",
                f"groups of {self.width} that divide the rows",
                "choose another m or leave this weight dense",
            )
        kept = inputs // self.width * self.n
        return sparse_geometry(out, inputs, kept, self.width, out * kept)

    def choose(self, scores: Array, decided: Array) -> Array:
        groups = scores.reshape(scores.shape[0], -1, self.width)
        best = np.argsort(-groups, axis=2, kind="stable")[:, :, : self.n]
        kept = np.zeros(groups.shape, bool)
        np.put_along_axis(kept, best, True, axis=2)
        return kept.reshape(scores.shape)

    def index(self, columns: Array) -> Array:
        return (columns % self.width).reshape(columns.shape[0], -1, self.n)


# --- scores, refit -------------------------------------------------------------------------------
def choose_kept(
    matrix: Array, hessian: Array | None, pattern: Pattern, score: Score
) -> tuple[Array, Array]:
    """What is kept (bool mask [out, in]), and the values [out, in] to be stored there; those elsewhere
    are what the number format may make up for.

    Args:
        matrix: [out, in].
        hessian: curvature [in, in] of the error, such as cov(z, z); without it numbers are scored by
            magnitude.
        score: "magnitude" w²; "wanda" (w·‖x‖)², the error of removing w alone (Sun et al., ICLR 2024);
            "sparsegpt" (w/U_jj)², where other weights make up for it (Frantar and Alistarh, ICML
            2023), with values that do so.
    """
    if hessian is not None and score == "sparsegpt":
        return sparsegpt(matrix, hessian, pattern)
    costs = matrix**2
    if hessian is not None and score == "wanda":
        costs = costs * np.diag(hessian)
    return pattern.choose(costs, np.zeros((matrix.shape[0], 0), bool)), matrix


def sparsegpt(matrix: Array, hessian: Array, pattern: Pattern) -> tuple[Array, Array]:
    """Remove numbers column by column, each loss made up for by the columns that follow.

    With U the upper Cholesky factor of H⁻¹, removing w_j costs (w_j/U_jj)² and moves what follows by
    W_k −= w_j/U_jj · U_jk (Frantar and Alistarh, SparseGPT, ICML 2023). The columns of largest
    curvature come first. Places are decided for 64 columns at once; how many of them a row keeps
    is what is among the best of all its columns still to come.

    Returns:
        (bool mask [out, in], values [out, in], 0 where the mask is false).
    """
    n = hessian.shape[0]
    groups = np.argsort(-np.diag(hessian).reshape(-1, pattern.width).sum(axis=1), kind="stable")
    order = (groups[:, None] * pattern.width + np.arange(pattern.width)).ravel()
    h = hessian[np.ix_(order, order)] + damping(hessian) * np.eye(n)
    inverse = np.linalg.inv(h)
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    w = np.ascontiguousarray(matrix[:, order].T)  # one column of the matrix is contiguous
    kept = np.zeros(w.shape, bool)
    step = max(CHUNK // pattern.width, 1) * pattern.width
    for start in range(0, n, step):
        end = min(start + step, n)
        cost = (w[start:] / np.diag(upper)[start:, None]) ** 2
        kept[start:end] = pattern.choose(cost.T, kept[:start].T).T[: end - start]
        lost = np.empty((end - start, w.shape[1]))
        for j in range(start, end):
            lost[j - start] = np.where(kept[j], 0.0, w[j]) / upper[j, j]
            w[j + 1 : end] -= upper[j, j + 1 : end, None] * lost[j - start]
        w[end:] -= upper[start:end, end:].T @ lost
    back = np.argsort(order)
    return kept[back].T, np.where(kept, w, 0.0)[back].T


def kept_columns(mask: Array) -> Array:
    """The columns kept in every row of a mask [out, in] with equally many in each: [out, kept]."""
    return np.nonzero(mask)[1].reshape(mask.shape[0], -1)


def refit_kept(gram: Array, wanted: Array, mask: Array, rows: int = 1) -> Array:
    """The A on the places of a mask with the least tr(A·G·Aᵀ) − 2·tr(A·Rᵀ).

    Args:
        gram: G [in, in], positive definite.
        wanted: R [out, in].
        mask: bool [out, in], equally many in each row.
        rows: consecutive rows with the same places, which share one system of equations.

    Returns:
        [out, in], 0 where the mask is false.
    """
    places = kept_columns(mask)
    targets = np.take_along_axis(wanted, places, axis=1)
    values = np.empty(targets.shape)
    kept = places.shape[1]
    step = max(SOLVED_NUMBERS // kept**2, 1) * rows
    for start in range(0, mask.shape[0], step):
        some = np.s_[start : start + step]
        at = places[some][::rows]
        sides = targets[some].reshape(-1, rows, kept).transpose(0, 2, 1)
        solved = np.linalg.solve(gram[at[:, :, None], at[:, None, :]], sides)
        values[some] = solved.transpose(0, 2, 1).reshape(-1, kept)
    refitted = np.zeros(mask.shape)
    np.put_along_axis(refitted, places, values, axis=1)
    return refitted


def fit_sparse(fit: Fit, pattern: Pattern, score: Score, refit: Refit, ridge: float) -> Matrix:
    """The sparse weight (without bias) that stands for `fit.matrix`.

    With a refit, the matrix that is thinned out is the one that predicts the wanted products best.

    Args:
        ridge: pull towards the trained matrix, as a share of the input's variances; it damps what
            scores and refit make of correlated inputs.

    Raises:
        UserError: the pattern does not divide the weight, or the format scales groups of columns.
    """
    inputs = fit.matrix.shape[1]
    pattern.geometry(*fit.matrix.shape)
    fit.encode.side_bytes(fit.matrix.shape[0], 0, fit.gates)  # refuses groups of columns
    if fit.moments is None:
        mask, values = choose_kept(fit.matrix, None, pattern, score)
    else:
        problem = Regression.of(fit, True, ridge)
        solved = refit == "least_squares"
        matrix = problem.target if solved else fit.matrix
        mask, values = choose_kept(matrix, problem.gram, pattern, score)
        if solved:
            values = refit_kept(problem.gram, problem.wanted, mask, pattern.rows)
    part = fit.encode.encode(values, fit.hessian, fit.gates, mask)
    columns = kept_columns(mask)
    codes = np.take_along_axis(part.codes, columns, axis=1)
    bits = index_bits(pattern.span(inputs))
    stored = replace(part, codes=codes, index=pattern.index(columns), index_bits=bits)
    return Matrix(stored, None, fit.link, fit.gates, pattern.layout, inputs)


# --- structures ----------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Sparse(Structure):
    """What the sparse structures share.

    Attributes:
        score: what decides which numbers stay: "magnitude", "wanda" or "sparsegpt" (`choose_kept`).
        refit: "least_squares" finds the values that best predict the original products from the
            inputs that the compressed network really multiplies; "none" keeps the trained ones.
        ridge: pull towards the trained matrix, as a share of the input's variances; it damps what
            scores and refit make of correlated inputs.
    """

    score: Score = "sparsegpt"
    refit: Refit = "least_squares"
    ridge: float = 0.05

    def __post_init__(self) -> None:
        check_ridge(self.ridge)
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Refuse fields that describe no pattern."""

    @property
    @abstractmethod
    def pattern(self) -> Pattern:
        """The sets of places that may be kept."""

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        return (Planned(self.pattern.layout, self.pattern.geometry(out, inputs)),)

    def fit_weight(self, fit: Fit) -> Matrix:
        return fit_sparse(fit, self.pattern, self.score, self.refit, self.ridge)

    def naive(self) -> Self:
        return replace(self, score="magnitude", refit="none")

    @property
    def data_aware(self) -> bool:
        return self.score != "magnitude" or self.refit != "none"


def check_density(density: float) -> None:
    """Refuse a share that keeps nothing or is none.

    Raises:
        UserError: not above 0 and at most 1.
    """
    if not 0 < density <= 1:
        raise UserError(f"density is {density}", "above 0, at most 1")
