"""What a sweep keeps of rows that pass by in chunks: the best, the front, a map, a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array

MAX_FRONT: Final = 4096
"""Most rows of a front that are kept; a longer one is thinned to half of it."""

MAX_SIDE: Final = 128
"""Most places along a side of a map."""

Columns = Mapping[str, Array]


def _take(rows: Columns, index: Array) -> dict[str, Array]:
    return {name: values[index] for name, values in rows.items()}


def _join(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Best:
    """The row of the least value; among equals the next column decides, then the earliest row."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.row: dict[str, Any] = {}

    def add(self, rows: Columns) -> None:
        # Units and area are known of points that do not fit, too.
        known = np.all([~np.isnan(rows[name]) for name in self.columns], axis=0)
        alive = np.flatnonzero(known)
        for name in self.columns:
            if alive.size:
                values = rows[name][alive]
                alive = alive[values == values.min()]
        if alive.size:
            row = {name: values[alive[0]].item() for name, values in rows.items()}
            if not self.row or self._key(row) < self._key(self.row):
                self.row = row

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.columns)


class Front:
    """Rows that no other row beats in all objectives (less is better); of equals the earliest.

    Once it is thinned, rows that only a row left out would have beaten may come in.
    """

    def __init__(self, objectives: tuple[str, ...], limit: int = MAX_FRONT) -> None:
        self.objectives, self.limit = objectives, limit
        self.thinned = False
        self._points = np.empty((0, len(objectives)))
        self._rows: dict[str, Array] = {}

    def add(self, rows: Columns) -> None:
        points = np.stack([rows[name] for name in self.objectives], axis=1).astype(float)
        alive = np.flatnonzero(~np.isnan(points).any(axis=1))
        alive = alive[_survivors(points[alive], self._points)]
        new = alive[_undominated(points[alive])]
        if not new.size:
            return
        old = _survivors(self._points, points[new])
        chosen = _take(rows, new)
        self._rows = _join([_take(self._rows, old), chosen]) if self._rows else chosen
        self._points = np.concatenate([self._points[old], points[new]])
        self._order()

    def _order(self) -> None:
        # What is nearest to the origin beats most, so it is compared first.
        order = np.argsort(np.log(np.maximum(self._points, np.finfo(float).tiny)).sum(axis=1))
        if len(order) > self.limit:
            self.thinned = True
            along = np.lexsort(self._points.T[::-1])
            kept = along[np.linspace(0, len(along) - 1, self.limit // 2).astype(int)]
            order = order[np.isin(order, kept)]
        self._points, self._rows = self._points[order], _take(self._rows, order)

    def rows(self) -> dict[str, Array]:
        """By ascending first objective."""
        return _take(self._rows, np.lexsort(self._points.T[::-1]))


def _survivors(points: Array, front: Array) -> Array:
    """Indices of the points that are below every front point in at least one objective."""
    alive, start, width = np.arange(len(points)), 0, 1
    while alive.size and start < len(front):
        block = front[start : start + width]
        worse = np.ones((alive.size, len(block)), bool)
        for axis in range(points.shape[1]):
            worse &= points[alive, axis, None] >= block[:, axis]
        alive = alive[~worse.any(axis=1)]
        start, width = start + width, min(2 * width, 64)
    return alive


def _undominated(points: Array) -> Array:
    """Ascending indices of the points that no other beats; of equal ones the first."""
    # A point that beats another has a smaller sum of ranks, which, being whole, is exact.
    ranks = [np.unique(column, return_inverse=True)[1] for column in points.T]
    rest = np.argsort(np.sum(ranks, axis=0), kind="stable")
    found = []
    while rest.size:
        found.append(rest[0])
        rest = rest[(points[rest] < points[rest[0]]).any(axis=1)]
    return np.sort(np.array(found, np.int64))


def bins(size: int) -> Array:
    """The place on a map for every value of an axis, neighbours sharing one where it is long."""
    return np.arange(size) * min(size, MAX_SIDE) // size


class Least:
    """Least value for every pair of two axes of so many values: [y, x], see `bins`."""

    def __init__(self, y: int, x: int) -> None:
        self._bins = bins(y), bins(x)
        self._least = np.full((min(y, MAX_SIDE), min(x, MAX_SIDE)), np.inf)

    def add(self, y: Array, x: Array, values: Array) -> None:
        known = np.where(np.isnan(values), np.inf, values)
        np.minimum.at(self._least, (self._bins[0][y], self._bins[1][x]), known)

    def values(self) -> Array:
        """NaN where there was none."""
        return np.where(np.isinf(self._least), np.nan, self._least)


class Sample:
    """Every so-many-th row that has figures."""

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self._parts: list[dict[str, Array]] = []

    def add(self, start: int, rows: Columns) -> None:
        chosen = np.arange(-start % self.stride, len(rows["fits"]), self.stride)
        self._parts.append(_take(rows, chosen[rows["fits"][chosen]]))

    def rows(self) -> dict[str, Array]:
        return _join(self._parts)
