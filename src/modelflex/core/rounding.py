"""Codes and levels of a matrix in turn: the part that all number formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping, descend, gptq, grid_errors
from modelflex.core.levels import Levels, group_rows, largest_integer, nearest_integers
from modelflex.core.part import Part

Rounding = Literal["nearest", "gptq"]

ALTERNATIONS = 3
"""Times that levels are refitted and codes found anew; each lowers the error, more of them hardly."""
STARTS = (1.0, 1.2)
"""Levels that it starts from, times what fits the values best: making up for errors widens the spread of
what is rounded. Every group keeps the best it saw."""
FEATURE_NUMBERS = 1 << 22
"""Features held at once (32 MiB)."""
CACHED_NUMBERS = 1 << 13
"""Values worked on at once (64 KiB), so that they stay in the processor's cache."""
RIDGE = 1e-6
"""Pull of parameters towards what they were, as a share of their curvature: some may be unused."""


def error_weights(shape: tuple[int, int], hessian: Array | None, mask: Array | None) -> Array:
    """How much the squared error of every value counts, [rows, n]: the curvature of its column as a
    multiple of the mean one (1 where that is unknown), 0 where nothing is stored.
    """
    own = np.ones(shape[1]) if hessian is None else np.diag(hessian) + damping(hessian)
    weights = np.broadcast_to(own / own.mean(), shape)
    return weights if mask is None else np.where(mask, weights, 0.0)


def by_groups(
    values: Array, hessian: Array | None, mask: Array | None, groups: int
) -> tuple[Array, Array]:
    """Values [rows, n] and their error weights, one row for each of `groups` equal runs of them:
    [groups, rows·n / groups] each.
    """
    weights = error_weights(values.shape, hessian, mask)
    return values.reshape(groups, -1), weights.reshape(groups, -1)


def best_steps(
    values: Array, weights: Array, kind: str, bits: int, shares: Sequence[float]
) -> Array:
    """The code step of the least weighted squared error for every row of values [groups, n].

    Args:
        weights: [groups, n]; 0 where nothing is stored.
        shares: steps that are tried, as shares of the one that just covers the largest value.
    """
    full = np.where(weights > 0, np.abs(values), 0.0).max(axis=1) / largest_integer(kind, bits)
    best = full.copy()
    groups = max(CACHED_NUMBERS // values.shape[1], 1)
    for start in range(0, full.size, groups):
        some = slice(start, start + groups)
        codes = values[some] / np.where(full[some] > 0, full[some], 1.0)[:, None]
        tried = np.array(shares)
        errors = _errors(codes, weights[some], kind, bits, tried) * tried**2
        best[some] = full[some] * tried[errors.argmin(axis=1)]
    return best


def _errors(codes: Array, weights: Array, kind: str, bits: int, shares: Array) -> Array:
    """Σ weights·(nearest − x)² of the rows of x = codes / share, [groups, shares]."""
    if kind != "power":
        return grid_errors(codes, weights, shares, largest_integer(kind, bits), kind == "odd")
    lost = (nearest_integers(codes / share, kind, bits) - codes / share for share in shares)
    return np.stack([np.einsum("gn,gn->g", x * x, weights) for x in lost], axis=1)


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
    groups = np.arange(levels.parameters().shape[0])
    every = np.tile(groups, len(STARTS))  # all starts at once, one below the other
    rows, best = group_rows(every, levels.each), levels.taken(every)
    best = best.with_parameters(best.parameters() * np.repeat(STARTS, groups.size)[:, None])
    mask_of_all = None if mask is None else mask[rows]
    curvature = hessian + damping(hessian) * np.eye(hessian.shape[0])
    problem = Problem.of(values[rows], curvature, mask_of_all)
    tried = problem.tried(best, gptq(problem.values, hessian, best.nearest, mask_of_all))
    numbers, least = best.numbers(tried.stored), tried.errors
    for again in range(1 + ALTERNATIONS):
        tried = problem.descended(problem.refitted(tried) if again else tried)
        better = tried.errors < least
        least, best = np.minimum(tried.errors, least), best.merged(tried.levels, better)
        found = tried.levels.numbers(tried.stored)
        numbers = np.where(np.repeat(better, levels.each)[:, None], found, numbers)
    first = least.reshape(len(STARTS), -1).argmin(axis=0) * groups.size + groups
    best, numbers = best.taken(first), numbers[group_rows(first, levels.each)]
    return best.part(_masked(best.codes(numbers), mask))


@dataclass(frozen=True, eq=False)
class Tried:
    """What could be stored.

    Attributes:
        levels: of the values.
        stored: the values Q, [rows, n].
        pulls: E·H of what is lost, [rows, n].
        errors: tr(E·H·Eᵀ) of every group.
    """

    levels: Levels
    stored: Array
    pulls: Array
    errors: Array


@dataclass(frozen=True, eq=False)
class Problem:
    """Values W to be stored so that what is lost, E = W − Q, has little tr(E·H·Eᵀ).

    Attributes:
        values: W, [rows, n].
        curved: W·H.
        curvature: H, [n, n], positive definite.
        mask: bool [rows, n]; 0 is stored where it is false.
    """

    values: Array
    curved: Array
    curvature: Array
    mask: Array | None

    @staticmethod
    def of(values: Array, curvature: Array, mask: Array | None) -> Problem:
        """Columns are made contiguous, as the descent goes through them."""
        columns = np.asfortranarray(values)
        return Problem(columns, (curvature @ columns.T).T, curvature, mask)

    def tried(self, levels: Levels, stored: Array, pulls: Array | None = None) -> Tried:
        """How good it is to store Q [rows, n]; `pulls` are worked out where they are not known."""
        lost = self.values - stored
        if pulls is None:
            pulls = (self.curvature @ lost.T).T
        return Tried(levels, stored, pulls, _products(levels, lost, pulls))

    def descended(self, tried: Tried) -> Tried:
        """After a descent on the codes."""
        stored, pulls = descend(
            tried.stored, tried.pulls, self.curvature, tried.levels.nearest, self.mask
        )
        return self.tried(tried.levels, stored, pulls)

    def refitted(self, tried: Tried) -> Tried:
        """The same codes of the levels that least squares gives for them."""
        levels, theta = tried.levels, tried.levels.parameters()
        if theta.shape[1] == 1:
            # Q·H is W·H − E·H, so nothing has to be multiplied.
            stored_curved = self.curved - tried.pulls
            normal = _products(levels, tried.stored, stored_curved)
            side = _products(levels, tried.stored, tried.pulls)
            ratio = 1 + side / np.where(normal > 0, normal * (1 + RIDGE), 1.0)
            new = levels.with_parameters(theta * ratio[:, None])
            by = np.repeat(new.parameters()[:, 0] / theta[:, 0], levels.each)[:, None]
            return self.tried(new, tried.stored * by, self.curved - by * stored_curved)
        numbers = levels.numbers(tried.stored)
        normal, side = self._normal_equations(levels, numbers, tried.pulls)
        pull = np.trace(normal, axis1=1, axis2=2) / theta.shape[1] * RIDGE
        normal += np.where(pull > 0, pull, 1.0)[:, None, None] * np.eye(theta.shape[1])
        new = levels.with_parameters(theta + np.linalg.solve(normal, side[:, :, None])[:, :, 0])
        return self.tried(new, _masked(new.values(numbers), self.mask))

    def _normal_equations(
        self, levels: Levels, numbers: Array, pulls: Array
    ) -> tuple[Array, Array]:
        """Σ φ·H·φᵀ [groups, parameters, parameters] and Σ φ·H·e [groups, parameters] over the rows."""
        count, (rows, n) = levels.parameters().shape[1], numbers.shape
        normal, side = np.empty((rows, count, count)), np.empty((rows, count))
        step = max(FEATURE_NUMBERS // (count * n), 1)
        for start in range(0, rows, step):
            some = slice(start, min(start + step, rows))
            phi = levels.features(numbers[some], some)
            if self.mask is not None:
                phi = phi * self.mask[some, None, :]
            curved = (phi.reshape(-1, n) @ self.curvature).reshape(phi.shape)
            normal[some] = curved @ phi.transpose(0, 2, 1)
            side[some] = (phi @ pulls[some, :, None])[:, :, 0]
        normal = normal.reshape(-1, levels.each, count, count).sum(axis=1)
        return normal, side.reshape(-1, levels.each, count).sum(axis=1)


def _products(levels: Levels, a: Array, b: Array) -> Array:
    """Σ a·b over the rows of every group, [groups]."""
    return np.asarray(np.einsum("rn,rn->r", a, b).reshape(-1, levels.each).sum(axis=1))


def _masked(x: Array, mask: Array | None) -> Array:
    return x if mask is None else np.where(mask, x, 0.0)
