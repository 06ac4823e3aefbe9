"""Multi-bit codes: sums of signs, each with a size of its own."""

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

CYCLES = 2
"""Alternations; Xu et al. find two enough."""


@final
@FORMATS.register("multibit")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Multibit(Format):
    """value = scale · Σ_i ±a_i with `bits` sizes a_i in int8.

    Attributes:
        bits: signs of a value, 1 … 4.
        scales: rows that share the sizes and their scale: the whole "tensor", a "gate", or one "row".
        fit: "greedy" fits one sign after another to what is left; "refined" refits all sizes by least
            squares after each; "alternating" starts greedily, then twice refits all sizes and chooses
            all signs anew. Errors are weighted by the inputs' second moments where they are known.
        rounding: "nearest" level of the final sizes, or "gptq": codes and sizes in turn by the error of
            the products (core/rounding.py).
    """

    bits: int
    scales: Sharing = "row"
    fit: Literal["greedy", "refined", "alternating"] = "alternating"
    rounding: Rounding = "gptq"

    reference = "Xu et al., Alternating Multi-bit Quantization, ICLR 2018 (arXiv 1802.00150)"
    search_range = {"bits": (2, 3), "scales": ("gate", "row")}

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 4:
            raise UserError(f"multibit bits are {self.bits}", "1 … 4")

    @property
    def stored_bits(self) -> int:
        return self.bits

    @property
    def grid_kind(self) -> str:
        return "signs"

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return share_count(self.scales, rows, gates) * (2 + self.bits) + 1

    def naive(self) -> Multibit:
        return replace(self, scales="tensor", fit="greedy", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = share_count(self.scales, rows, gates)
        sizes = self._sizes(*by_groups(values, hessian, mask, groups))
        levels = Tables.near("signs", self.bits, rows // groups, sizes)
        return encode(values, hessian, mask, levels, self.rounding)

    def _sizes(self, values: Array, weights: Array) -> Array:
        """The size of every sign [groups, bits] for values [groups, n]."""
        groups, n = values.shape
        signs, sizes = np.empty((groups, 0, n)), np.empty((groups, 0))
        for _ in range(self.bits):
            left = values - np.einsum("gk,gkn->gn", sizes, signs)
            signs = np.concatenate([signs, np.where(left >= 0, 1.0, -1.0)[:, None]], axis=1)
            if self.fit == "refined":
                sizes = least_squares_sizes(values, weights, signs)
            else:
                own = least_squares_sizes(left, weights, signs[:, -1:])
                sizes = np.concatenate([sizes, own], axis=1)
        if self.fit == "alternating":
            for _ in range(CYCLES):
                sizes = least_squares_sizes(values, weights, signs)
                signs = nearest_signs(values, sizes)
            sizes = least_squares_sizes(values, weights, signs)
        return sizes


def least_squares_sizes(values: Array, weights: Array, signs: Array) -> Array:
    """The sizes [groups, k] of the least Σ w·(value − Σ_i size_i·sign_i)² (equation 4).

    Args:
        values, weights: [groups, n].
        signs: [groups, k, n].
    """
    weighted = signs * weights[:, None]
    normal = weighted @ signs.transpose(0, 2, 1)
    side = (weighted @ values[:, :, None])[:, :, 0]
    # Equal or opposite signs leave the sizes undetermined: the least of them serve.
    return np.asarray((np.linalg.pinv(normal, hermitian=True) @ side[:, :, None])[:, :, 0])


def nearest_signs(values: Array, sizes: Array) -> Array:
    """The signs [groups, k, n] of the sum nearest to each value, out of all 2^k."""
    count = sizes.shape[1]
    choices = 2.0 * ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1) - 1.0
    sums = sizes @ choices.T
    order = np.argsort(sums, axis=1, kind="stable")
    rising = np.take_along_axis(sums, order, axis=1)
    place = np.zeros(values.shape, np.int64)
    for middle in ((rising[:, 1:] + rising[:, :-1]) / 2).T:
        place += values > middle[:, None]
    return np.asarray(choices[np.take_along_axis(order, place, axis=1)].transpose(0, 2, 1))
