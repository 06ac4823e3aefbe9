"""Codes and levels of a matrix in turn: the part that all number formats share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping, descend, gptq
from modelflex.core.levels import Levels, largest_integer, nearest_integers
from modelflex.core.part import Part

Rounding = Literal["nearest", "gptq"]

ALTERNATIONS = 4
"""Of codes and levels; each lowers the error, more of them hardly."""
FEATURE_NUMBERS = 1 << 22
"""Features held at once (32 MiB)."""
RIDGE = 1e-6
"""Pull of parameters towards what they were, as a share of their curvature: some may be unused."""


def error_weights(shape: tuple[int, int], hessian: Array | None, mask: Array | None) -> Array:
    """How much the squared error of every value counts, [rows, n]: the curvature of its column (1 where
    that is unknown), 0 where nothing is stored.
    """
    own = np.ones(shape[1]) if hessian is None else np.diag(hessian) + damping(hessian)
    weights = np.broadcast_to(own, shape)
    return weights if mask is None else np.where(mask, weights, 0.0)


def best_steps(
    values: Array, weights: Array, kind: str, bits: int, shares: Iterable[float]
) -> Array:
    """The code step of the least weighted squared error for every row of values [groups, n].

    Args:
        weights: [groups, n]; 0 where nothing is stored.
        shares: steps that are tried, as shares of the one that just covers the largest value.
    """
    full = np.where(weights > 0, np.abs(values), 0.0).max(axis=1) / largest_integer(kind, bits)
    best, least = full, np.full(full.shape, np.inf)
    for share in shares:
        step = np.where(full > 0, full * share, 1.0)[:, None]
        lost = nearest_integers(values / step, kind, bits) * step - values
        error = np.einsum("gn,gn,gn->g", lost, lost, weights)
        best = np.where(error < least, full * share, best)
        least = np.minimum(error, least)
    return best


def encode(
    values: Array,
    hessian: Array | None,
    mask: Array | None,
    levels: Levels,
    rounding: Rounding,
) -> Part:
    """Values [rows, n] as codes of `levels`; with "gptq" and a Hessian the levels are refitted too.

    Codes by GPTQ (Frantar et al., ICLR 2023), then in turn coordinate descent on the codes (as in
    Behdin et al., QuantEase, arXiv 2309.01885) and least squares on what the levels share, both of the
    damped error tr(E·H·Eᵀ).
    """
    if rounding == "nearest" or hessian is None:
        codes = levels.codes(levels.numbers(values))
        return levels.part(_masked(codes, mask))
    curvature = hessian + damping(hessian) * np.eye(hessian.shape[0])
    rounded = gptq(values, hessian, levels.nearest, mask)
    least, best = np.inf, levels.part(np.zeros_like(values))
    for _ in range(ALTERNATIONS):
        rounded = descend(values, rounded, curvature, levels.nearest, mask)
        lost = rounded - values
        error = float(np.sum((lost @ curvature) * lost))
        if error >= least:
            break
        numbers = levels.numbers(rounded)
        least, best = error, levels.part(_masked(levels.codes(numbers), mask))
        levels = refitted(levels, numbers, values, curvature, mask)
        rounded = _masked(levels.values(numbers), mask)
    return best


def _masked(x: Array, mask: Array | None) -> Array:
    return x if mask is None else np.where(mask, x, 0.0)


def refitted(
    levels: Levels, numbers: Array, values: Array, curvature: Array, mask: Array | None
) -> Levels:
    """The levels that least squares gives for fixed numbers [rows, n].

    Args:
        values: [rows, n].
        curvature: [n, n], positive definite.
    """
    theta = levels.parameters()
    groups, count = theta.shape
    rows, n = values.shape
    lost = values - _masked(levels.values(numbers), mask)
    normal, side = np.empty((rows, count, count)), np.empty((rows, count))
    step = max(FEATURE_NUMBERS // (count * n), 1)
    for start in range(0, rows, step):
        some = slice(start, min(start + step, rows))
        phi = levels.features(numbers[some], some)
        if mask is not None:
            phi = phi * mask[some, None, :]
        curved = (phi.reshape(-1, n) @ curvature).reshape(phi.shape)
        normal[some] = curved @ phi.transpose(0, 2, 1)
        side[some] = (curved @ lost[some, :, None])[:, :, 0]
    normal = normal.reshape(groups, levels.each, count, count).sum(axis=1)
    side = side.reshape(groups, levels.each, count).sum(axis=1)
    pull = np.trace(normal, axis1=1, axis2=2) / count * RIDGE
    pull = np.where(pull > 0, pull, 1.0)[:, None, None] * np.eye(count)
    return levels.with_parameters(theta + np.linalg.solve(normal + pull, side[:, :, None])[:, :, 0])
