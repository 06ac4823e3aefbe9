"""Weights that are a structured matrix plus a sparse one, each fitted to what the other leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from modelflex.core.extension import Fit
from modelflex.core.fixed import Array
from modelflex.core.regression import Regression, remainder
from modelflex.core.sparsity import Blocks, Refit, Score, choose_kept, fit_sparse, refit_kept
from modelflex.core.weight import Chain, Matrix, Sum

SWEEPS = 3


def fit_with_sparse(
    fit: Fit,
    density: float,
    aware: bool,
    ridge: float,
    solve: Callable[[Regression], Array],
    encode: Callable[[Fit], Matrix | Chain],
) -> Sum:
    """The sum (without bias) of a structured term and one that keeps a share of each row.

    Both are found in turns before anything is encoded. The structured term is then fitted and
    encoded beside the sparse one, and the sparse one fitted anew to what the encoded term leaves.

    Args:
        density: share of a row that the sparse term keeps.
        aware: fitted to the moments; else to the trained matrix.
        ridge: see `Regression.of`.
        solve: the best structured matrix for a regression.
        encode: the structured term for a weight, stored.
    """
    pattern = Blocks(density)
    score: Score = "sparsegpt" if aware else "magnitude"
    refit: Refit = "least_squares" if aware else "none"

    def sparse(problem: Regression) -> Array:
        mask, _ = choose_kept(problem.target, problem.gram if aware else None, pattern, score)
        return refit_kept(problem.gram, problem.wanted, mask)

    beside = alternate(Regression.of(fit, aware, ridge), solve, sparse)[1]
    first = encode(remainder(fit, beside))
    left = remainder(fit, first.dense())
    whole = fit.matrix.shape[1]  # inputs that share the sparse term's fetch unit
    left = replace(left, link=fit.outer_link(whole))
    return Sum((first, fit_sparse(left, pattern, score, refit, ridge)))


def alternate(
    problem: Regression, first: Callable[[Regression], Array], second: Callable[[Regression], Array]
) -> tuple[Array, Array]:
    """Two matrices of different kinds whose sum fits best, each fitted in turn to what the other leaves.

    The turns start once with each of the two, since what they end in hangs on it.

    Args:
        first, second: the best matrix [out, in] of a kind for a regression.
    """
    nothing = np.zeros_like(problem.wanted)
    best, least = (nothing, nothing), np.inf
    for start in (nothing, second(problem)):
        b = start
        for _ in range(SWEEPS):
            a = first(problem.less(b))
            b = second(problem.less(a))
            error = problem.error(a + b)
            if error < least:
                best, least = (a, b), error
    return best
