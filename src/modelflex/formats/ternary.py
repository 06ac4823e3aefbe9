"""Ternary weights: −1, 0 and 1 times a scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.levels import TINY, Multiples, Sharing, as_scale, share_count
from modelflex.core.part import Part
from modelflex.core.rounding import Rounding, by_groups, encode
from modelflex.registry import FORMATS

RULE = 0.7
"""Threshold of the rule of thumb, in mean sizes (about the best for normal values)."""


@final
@FORMATS.register("ternary")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Ternary(Format):
    """value = scale · code with codes −1, 0 and 1, in two bits.

    Attributes:
        scales: rows that share a scale: the whole "tensor", a "gate", or one "row".
        threshold: which values become ±scale, the mean size of these: "mean", all above 0.7 of the mean
            size; "mse", those that give the least squared error, weighted by the inputs' second
            moments where they are known.
        rounding: "nearest", or "gptq": codes and scales in turn by the error of the products
            (core/rounding.py), from the scale that the threshold gives.
    """

    scales: Sharing = "row"
    threshold: Literal["mean", "mse"] = "mse"
    rounding: Rounding = "gptq"

    reference = "Li et al., Ternary Weight Networks, 2016 (arXiv 1605.04711), equations 3 to 6"
    search_range = {"scales": ("gate", "row")}

    @property
    def stored_bits(self) -> int:
        return 2

    @property
    def grid_kind(self) -> str:
        return "symmetric"

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return 2 * share_count(self.scales, rows, gates) + 1

    def naive(self) -> Ternary:
        return replace(self, scales="tensor", threshold="mean", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = share_count(self.scales, rows, gates)
        grouped, weights = by_groups(values, hessian, mask, groups)
        sizes = np.abs(grouped)
        above = _above_mean(sizes, weights) if self.threshold == "mean" else _best(sizes, weights)
        mass = np.where(above, weights, 0.0)
        scale = as_scale((sizes * mass).sum(axis=1) / np.maximum(mass.sum(axis=1), TINY))
        levels = Multiples("symmetric", 2, scale, rows // groups)
        if self.rounding == "gptq" and hessian is not None:
            return encode(values, hessian, mask, levels, self.rounding)
        chosen = above.reshape(values.shape) & (weights.reshape(values.shape) > 0)
        return levels.part(np.where(chosen, np.sign(values), 0.0))


def _above_mean(sizes: Array, weights: Array) -> Array:
    """Which sizes [groups, n] lie above the rule's threshold (equation 6)."""
    stored = weights > 0
    mean = np.where(stored, sizes, 0.0).sum(axis=1) / np.maximum(stored.sum(axis=1), 1)
    return sizes > RULE * mean[:, None]


def _best(sizes: Array, weights: Array) -> Array:
    """Which sizes [groups, n] to keep for the least Σ w·(size − scale·kept)².

    For the best scale of a set the error falls by (Σ w·size)² / Σ w over the set, and the best set is
    all that is larger than half the scale: one of the sets of the m largest.
    """
    order = np.argsort(-sizes, axis=1, kind="stable")
    mass = np.take_along_axis(weights, order, axis=1)
    total = np.cumsum(mass * np.take_along_axis(sizes, order, axis=1), axis=1)
    gain = total**2 / np.maximum(np.cumsum(mass, axis=1), TINY)
    last = np.argmax(gain, axis=1)[:, None]
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None, :], axis=1)
    return np.asarray(rank <= last)
