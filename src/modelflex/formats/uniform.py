"""Uniform symmetric integers: 2 to 16 bits, with one scale a tensor, a gate or a row, or a group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.levels import Multiples, Sharing, as_scale, largest_integer, share_count
from modelflex.core.part import MULTIPLIER_BITS, Part
from modelflex.core.rounding import Rounding, best_steps, by_groups, encode
from modelflex.errors import UserError
from modelflex.registry import FORMATS

ODD_BITS = 3
"""Up to here the grid is the odd integers: few levels can't be spared for a zero."""
TOP_MULTIPLIER = (1 << MULTIPLIER_BITS) - 1
SHARES = tuple(np.linspace(1.0, 0.14, 44).tolist())
"""Ranges that are tried, as shares of the largest value."""


@final
@FORMATS.register("uniform")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Uniform(Format):
    """value = scale · code; codes are symmetric (see `core.part.Grid` for grids of 2 and 3 bits).

    Attributes:
        bits: 2 … 16.
        scales: rows that share a scale: the whole "tensor", a "gate", or one "row".
        clip: "max" covers the largest value; "percentile" that share of the sizes; "mse" is the range
            of least squared error, weighted by the inputs' second moments where they are known.
        rounding: "nearest", or "gptq": codes and scales in turn by the error of the products
            (core/rounding.py).
        group: columns that share a 6-bit multiplier of their row's scale; 0 for none.
        percentile: of the clip "percentile", above 0 and at most 100.
    """

    bits: int
    scales: Sharing = "row"
    clip: Literal["max", "percentile", "mse"] = "mse"
    rounding: Rounding = "gptq"
    group: int = 0
    percentile: float = 99.5

    reference = (
        "Frantar et al., GPTQ, ICLR 2023 (arXiv 2210.17323); min–max rounding for the naive variant"
    )
    search_range = {"bits": (2, 3, 4, 8, 16), "scales": ("tensor", "gate", "row")}

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"uniform bits are {self.bits}", "2 … 16")
        if self.group < 0:
            raise UserError(f"uniform group is {self.group}", "a number of columns, or 0 for none")
        if not 0 < self.percentile <= 100:
            raise UserError(f"uniform percentile is {self.percentile}", "above 0, at most 100")

    @property
    def stored_bits(self) -> int:
        return self.bits

    @property
    def grid_kind(self) -> str:
        return "odd" if self.bits <= ODD_BITS else "symmetric"

    def _column_groups(self, columns: int) -> int:
        """How many multipliers a row has."""
        if not self.group:
            return 0
        if not columns:
            raise UserError(
                "a sparse weight's format scales groups of columns",
                "scales of rows, gates or the tensor",
                "kept codes of different rows come from different columns",
            )
        if columns % self.group:
            raise UserError(
                f"{columns} columns in groups of {self.group}",
                "groups of equal size",
                "choose a divisor of the columns, or 0 for no groups",
            )
        return columns // self.group

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        multipliers = rows * self._column_groups(columns) * MULTIPLIER_BITS
        return 2 * share_count(self.scales, rows, gates) + 1 + (multipliers + 7) // 8

    def naive(self) -> Uniform:
        return replace(self, scales="tensor", clip="max", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows, columns = values.shape
        shares = share_count(self.scales, rows, gates)
        count = self._column_groups(columns)
        if not count:
            sizes = self._steps(*by_groups(values, hessian, mask, shares))
            levels = Multiples(self.grid_kind, self.bits, as_scale(sizes), rows // shares)
            return encode(values, hessian, mask, levels, self.rounding)
        pieces = by_groups(values, hessian, mask, rows * count)
        wanted = self._steps(*pieces).reshape(rows, count)
        scale = as_scale(wanted.reshape(shares, -1).max(axis=1) / TOP_MULTIPLIER)
        factors = np.repeat(scale.value(), rows // shares)[:, None]
        multipliers = np.clip(np.rint(wanted / factors), 1, TOP_MULTIPLIER).astype(np.int32)
        each = rows // shares
        levels = Multiples(self.grid_kind, self.bits, scale, each, multipliers, columns)
        return encode(values, hessian, mask, levels, self.rounding)

    def _steps(self, groups: Array, weights: Array) -> Array:
        """The code step of every group of values [groups, n]."""
        if self.clip == "mse":
            return best_steps(groups, weights, self.grid_kind, self.bits, SHARES)
        share = 100.0 if self.clip == "max" else self.percentile
        return percentile(np.abs(groups), weights > 0, share) / largest_integer(
            self.grid_kind, self.bits
        )


def percentile(sizes: Array, stored: Array, share: float) -> Array:
    """The least size that is at least as large as `share` percent of the stored ones of each row, by
    nearest rank; 0 where none is stored. Arrays are [groups, n].
    """
    rising = np.sort(np.where(stored, sizes, np.inf), axis=1)
    count = stored.sum(axis=1)
    rank = np.maximum(np.ceil(count * (share / 100)).astype(np.int64) - 1, 0)
    return np.where(count > 0, np.take_along_axis(rising, rank[:, None], axis=1)[:, 0], 0.0)
