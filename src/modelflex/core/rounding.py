"""Codes and levels of a matrix in turn: the part that all number formats share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping, descend, gptq
from modelflex.core.levels import Levels, largest_integer, nearest_integers
from modelflex.core.part import Part

Rounding = Literal["nearest", "gptq"]

ALTERNATIONS = 3
"""Times that levels are refitted and codes found anew; each lowers the error, more of them hardly."""
STARTS = (1.0, 1.2)
"""Levels that it starts from, times what fits the values best: making up for errors widens the spread of
what is rounded. Every group keeps the best it saw."""
FEATURE_NUMBERS = 1 << 22
"""Features held at once (32 MiB)."""
RIDGE = 1e-6
"""Pull of parameters towards what they were, as a share of their curvature: some may be unused."""


def error_weights(shape: tuple[int, int], hessian: Array | None, mask: Array | None) -> Array:
    """How much the squared error of every value counts, [rows, n]: the curvature of its column as a
    multiple of the mean one (1 where that is unknown), 0 where nothing is stored.
    """
    own = np.ones(shape[1]) if hessian is None else np.diag(hessian) + damping(hessian)
    weights = np.broadcast_to(own / own.mean(), shape)
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
    damped error tr(E·H·Eᵀ), from several starts.
    """
    if rounding == "nearest" or hessian is None:
        codes = levels.codes(levels.numbers(values))
        return levels.part(_masked(codes, mask))
    curvature = hessian + damping(hessian) * np.eye(hessian.shape[0])
    least = np.full(levels.parameters().shape[0], np.inf)
    best, chosen = levels, np.zeros_like(values)
    for start in STARTS:
        begun = levels.with_parameters(levels.parameters() * start)
        rounded = gptq(values, hessian, begun.nearest, mask)
        for tried, numbers in _alternation(values, rounded, curvature, mask, begun):
            lost = values - _masked(tried.values(numbers), mask)
            errors = np.sum((lost @ curvature) * lost, axis=1).reshape(least.size, -1).sum(axis=1)
            better = errors < least
            least, best = np.minimum(errors, least), best.merged(tried, better)
            chosen = np.where(np.repeat(better, levels.each)[:, None], numbers, chosen)
    return best.part(_masked(best.codes(chosen.astype(numbers.dtype)), mask))


def _alternation(
    values: Array, rounded: Array, curvature: Array, mask: Array | None, levels: Levels
) -> Iterator[tuple[Levels, Array]]:
    """Levels and numbers after every descent, the levels refitted in between."""
    numbers = levels.numbers(descend(values, rounded, curvature, levels.nearest, mask))
    yield levels, numbers
    for _ in range(ALTERNATIONS):
        levels = refitted(levels, numbers, values, curvature, mask)
        rounded = _masked(levels.values(numbers), mask)
        numbers = levels.numbers(descend(values, rounded, curvature, levels.nearest, mask))
        yield levels, numbers


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
