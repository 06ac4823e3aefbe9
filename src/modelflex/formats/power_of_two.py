"""Powers of two: products are shifts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.levels import Multiples, Sharing, as_scale, share_count
from modelflex.core.part import Part
from modelflex.core.rounding import Rounding, best_steps, by_groups, encode
from modelflex.errors import UserError
from modelflex.registry import FORMATS

SHARES = tuple(np.geomspace(1.33, 0.12, 40).tolist())
"""Ranges that are tried: the last power is nearest from 3/4 of it on."""


@final
@FORMATS.register("power_of_two")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class PowerOfTwo(Format):
    """value = scale · code with codes 0 and ±2^i, i = 0 … 2^(bits−1) − 2.

    Attributes:
        bits: 2 … 5.
        scales: rows that share a scale: the whole "tensor", a "gate", or one "row".
        clip: "max" lets the largest power be the largest value; "mse" is the scale of least squared
            error, weighted by the inputs' second moments where they are known.
        rounding: "nearest", or "gptq": codes and scales in turn by the error of the products
            (core/rounding.py).
    """

    bits: int
    scales: Sharing = "row"
    clip: Literal["max", "mse"] = "mse"
    rounding: Rounding = "gptq"

    reference = (
        "Zhou et al., Incremental Network Quantization, ICLR 2017 (arXiv 1702.03044), section 2"
    )
    search_range = {"bits": (3, 4), "scales": ("gate", "row")}

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 5:
            raise UserError(f"power_of_two bits are {self.bits}", "2 … 5")

    @property
    def stored_bits(self) -> int:
        return self.bits

    @property
    def grid_kind(self) -> str:
        return "power"

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return 2 * share_count(self.scales, rows, gates) + 1

    def naive(self) -> PowerOfTwo:
        return replace(self, scales="tensor", clip="max", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = share_count(self.scales, rows, gates)
        grouped, weights = by_groups(values, hessian, mask, groups)
        shares = SHARES if self.clip == "mse" else (1.0,)
        sizes = best_steps(grouped, weights, "power", self.bits, shares)
        levels = Multiples("power", self.bits, as_scale(sizes), rows // groups)
        return encode(values, hessian, mask, levels, self.rounding)
