"""Weights of low rank: the factors A = U·V, and how they are stored as a chain."""

from __future__ import annotations

import numpy as np

from modelflex.core.extension import Fit, Planned
from modelflex.core.fixed import Array
from modelflex.core.held import with_activity
from modelflex.core.layout import dense_geometry
from modelflex.core.regression import Regression
from modelflex.core.stats import Trace
from modelflex.core.tracer import Activity
from modelflex.core.weight import Chain, Matrix
from modelflex.errors import UserError


def plan_chain(out: int, inputs: int, rank: int, inner: Activity | None) -> tuple[Planned, Planned]:
    """The products x → V·x → U·V·x.

    Raises:
        UserError: the rank is not 1 … min(out, inputs).
    """
    if not 1 <= rank <= min(out, inputs):
        raise UserError(
            f"a weight of {out}×{inputs} is to have the rank {rank}",
            f"1 … {min(out, inputs)}",
            "choose a smaller rank or leave this weight dense",
        )
    return (
        Planned("dense", dense_geometry(rank, inputs), gated=False),
        Planned("dense", dense_geometry(out, rank), outer=False, inner=inner),
    )


def check_share(share: float) -> None:
    """Refuse a share of a matrix's numbers that is none.

    Raises:
        UserError: not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UserError(f"low-rank share is {share}", "above 0, at most 1")


def rank_of(share: float, out: int, inputs: int) -> int:
    """The largest rank (at least 1) whose factors have no more than a share of a matrix's numbers."""
    return max(1, int(share * out * inputs / (out + inputs)))


def factors(problem: Regression, rank: int) -> tuple[Array, Array]:
    """The best U·V of a rank: the truncated SVD of T·L with G = L·Lᵀ (Eckart–Young in the metric of G).

    U [out, rank] and V·L [rank, in] share the singular values evenly: codes of both are then well
    used where one scale serves a whole factor, and so is a threshold between them.
    """
    lower = np.linalg.cholesky(problem.gram)
    whitened = np.linalg.solve(lower, problem.wanted.T).T
    u, sigma, q = np.linalg.svd(whitened, full_matrices=False)
    half = np.sqrt(sigma[:rank])
    return u[:, :rank] * half, np.linalg.solve(lower.T, (q[:rank] * half[:, None]).T).T


def product(problem: Regression, rank: int) -> Array:
    """The best matrix of a rank."""
    u, v = factors(problem, rank)
    return u @ v


def fit_chain(
    fit: Fit, rank: int, aware: bool, ridge: float, inner: Activity | None = None
) -> Chain:
    """The chain (without bias) of a rank that stands for `fit.matrix`.

    V is encoded first. U is then the least-squares solution for the intermediate results that the
    encoded V gives, with the noise that rounding them adds.

    Args:
        aware: fitted to the moments; else the SVD of the trained matrix.
        inner: of the intermediate result; its threshold may count standard deviations.
    """
    problem = Regression.of(fit, aware, ridge)
    u, v = factors(problem, rank)
    outer_part = fit.encode.encode(v, fit.hessian, 1)
    first = Matrix(outer_part, None, fit.link, 1, "dense", fit.matrix.shape[1])
    stored = first.dense()
    between = fit.sample.astype(np.float64) @ stored.T
    link = fit.inner_link(between)
    if inner is not None:
        link = with_activity(link, inner, Trace.of(between), np.linalg.norm(u, axis=0), 1)
    hessian = None
    if fit.moments is not None:
        noise = link.step**2 / 12 * np.eye(rank)
        hessian = stored @ fit.moments.cov_z @ stored.T + noise
        if aware:
            gram = stored @ problem.gram @ stored.T + noise
            u = np.linalg.solve(gram, stored @ problem.wanted.T).T
    part = fit.encode.encode(u, hessian, fit.gates)
    return Chain((first, Matrix(part, None, link, fit.gates, "dense", rank)))
