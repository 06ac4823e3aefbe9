"""Pareto fronts: the points that no other point beats."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pareto_front(x: npt.ArrayLike, y: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Indices of the points that no other point dominates, both coordinates to be minimised.

    A point dominates another if it is nowhere worse and somewhere better, so equal points stay
    together. A point with a NaN neither dominates nor is on the front.

    Args:
        x: [n].
        y: [n].

    Returns:
        Indices into x and y, by ascending x (and ascending index where x is equal).

    Raises:
        ValueError: the lengths differ.
    """
    first, second = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    if first.size != second.size:
        raise ValueError(f"x has {first.size} points, y has {second.size}")
    known = np.flatnonzero(~(np.isnan(first) | np.isnan(second)))
    if known.size == 0:
        return known
    levels, group = np.unique(first[known], return_inverse=True)
    lowest = np.full(levels.size, np.inf)
    np.minimum.at(lowest, group, second[known])
    # A level of x counts where its lowest y is below those of all smaller x.
    counts = np.ones(levels.size, np.bool_)
    counts[1:] = lowest[1:] < np.minimum.accumulate(lowest)[:-1]
    keep = counts[group] & (second[known] == lowest[group])
    front: npt.NDArray[np.intp] = known[keep]
    order = np.argsort(first[front], kind="stable")
    return front[order]
