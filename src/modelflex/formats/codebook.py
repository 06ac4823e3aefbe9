"""k-means codebooks: 2^bits levels a tensor, gate or row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.levels import Sharing, Tables, share_count
from modelflex.core.part import Part
from modelflex.core.rounding import Rounding, by_groups, encode
from modelflex.errors import UserError
from modelflex.registry import FORMATS

CYCLES = 40
"""Most cycles of k-means; it nearly always stands still before."""


@final
@FORMATS.register("codebook")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Codebook(Format):
    """value = scale · level[code], levels in int8.

    Attributes:
        bits: 1 … 5.
        scales: rows that share the levels and their scale: the whole "tensor", a "gate", or one "row".
        levels: "linear" leaves them evenly spaced over the range; "kmeans" moves them to the means of
            what is rounded to them, weighted by the inputs' second moments where they are known.
        rounding: "nearest", or "gptq": codes and levels in turn by the error of the products
            (core/rounding.py).
    """

    bits: int
    scales: Sharing = "gate"
    levels: Literal["linear", "kmeans"] = "kmeans"
    rounding: Rounding = "gptq"

    reference = "Han et al., Deep Compression, ICLR 2016 (arXiv 1510.00149), section 3"
    search_range = {"bits": (2, 3, 4), "scales": ("gate", "row")}

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 5:
            raise UserError(f"codebook bits are {self.bits}", "1 … 5")

    @property
    def stored_bits(self) -> int:
        return self.bits

    @property
    def grid_kind(self) -> str:
        return "levels"

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return share_count(self.scales, rows, gates) * (2 + (1 << self.bits)) + 1

    def naive(self) -> Codebook:
        return replace(self, scales="tensor", levels="linear", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = share_count(self.scales, rows, gates)
        grouped, weights = by_groups(values, hessian, mask, groups)
        centres = spread_centres(grouped, weights, 1 << self.bits)
        if self.levels == "kmeans":
            centres = kmeans(grouped, weights, centres)
        levels = Tables.near("levels", self.bits, rows // groups, centres)
        return encode(values, hessian, mask, levels, self.rounding)


def spread_centres(values: Array, weights: Array, count: int) -> Array:
    """Evenly spaced levels [groups, count] over the values [groups, n] that have weight: the start that
    Han et al. found best, since few values are large and these matter.
    """
    stored = weights > 0
    low = np.where(stored, values, np.inf).min(axis=1)
    high = np.where(stored, values, -np.inf).max(axis=1)
    empty = ~stored.any(axis=1)
    low, high = np.where(empty, 0.0, low), np.where(empty, 0.0, high)
    share = (np.arange(count) + 0.5) / count
    return np.asarray(low[:, None] + (high - low)[:, None] * share)


def kmeans(values: Array, weights: Array, centres: Array) -> Array:
    """Lloyd's iteration in one dimension for every group: increasing centres [groups, k].

    Args:
        values, weights: [groups, n].
        centres: increasing, [groups, k]; one that nothing is near stays.
    """
    groups, count = centres.shape
    first = np.arange(groups)[:, None] * count
    before = None
    for _ in range(CYCLES):
        place = np.zeros(values.shape, np.int64)
        for middle in ((centres[:, 1:] + centres[:, :-1]) / 2).T:
            place += values > middle[:, None]
        if before is not None and np.array_equal(place, before):
            break
        before, at = place, (place + first).ravel()
        mass = np.bincount(at, weights.ravel(), centres.size).reshape(centres.shape)
        total = np.bincount(at, (weights * values).ravel(), centres.size).reshape(centres.shape)
        centres = np.where(mass > 0, total / np.where(mass > 0, mass, 1.0), centres)
    return centres
