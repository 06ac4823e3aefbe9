"""The multiple-choice knapsack: one option of every slot, least loss for each total cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array

RESOLUTION = 1e-3
"""Totals closer than this, relatively, count as one: it bounds the work."""


@dataclass(frozen=True, eq=False)
class Front:
    """Sums that no other beats in cost and loss: `cost` rising, `loss` falling [points], and the
    options that make them, `picks` [points, slots].
    """

    cost: Array
    loss: Array
    picks: Array


def front(costs: Sequence[Array], losses: Sequence[Array], cost: float, loss: float) -> Front:
    """The front of all sums of one option of every slot.

    Slot after slot is added and what is beaten is dropped (Nemhauser & Ullmann, Discrete dynamic
    programming and capital allocation, Management Science 15(9), 1969).

    Args:
        costs, losses: of the options of every slot, [options] each.
        cost, loss: of what is spent already.
    """
    made = Front(np.array([cost]), np.array([loss]), np.zeros((1, 0), np.int64))
    for extra, lost in zip(costs, losses, strict=True):
        points, options = made.cost.size, extra.size
        before = np.repeat(np.arange(points), options)
        option = np.tile(np.arange(options), points)
        picks = np.column_stack([made.picks[before], option])
        made = _unbeaten(made.cost[before] + extra[option], made.loss[before] + lost[option], picks)
    return made


def _unbeaten(cost: Array, loss: Array, picks: Array) -> Front:
    order = np.lexsort((loss, cost))
    cost, loss, picks = cost[order], loss[order], picks[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(loss)[:-1]])
    keep = loss < before
    cost, loss, picks = cost[keep], loss[keep], picks[keep]
    if cost.size > 2:
        # Of totals that are as good as equal, the cheapest stays.
        level = np.floor(np.log(np.maximum(cost, 1e-300)) / RESOLUTION)
        worth = np.floor(np.log(np.maximum(loss, 1e-300)) / RESOLUTION)
        first = np.ones(cost.size, bool)
        first[1:] = (level[1:] != level[:-1]) | (worth[1:] != worth[:-1])
        cost, loss, picks = cost[first], loss[first], picks[first]
    return Front(cost, loss, picks)


def join_fronts(
    fronts: Sequence[tuple[Front, tuple[int, ...]]],
) -> Iterator[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """(cost, picks, name) of what no point of any of the named fronts beats, cheapest first."""
    points = [
        (float(c), float(loss), number, row)
        for number, (made, _) in enumerate(fronts)
        for row, (c, loss) in enumerate(zip(made.cost, made.loss, strict=True))
    ]
    least = np.inf
    for cost, loss, number, row in sorted(points):
        if loss < least:
            least = loss
            made, name = fronts[number]
            yield cost, tuple(int(p) for p in made.picks[row]), name
