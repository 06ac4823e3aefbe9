"""Binary weights: a sign and one size a tensor, gate or row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.levels import TINY, Multiples, Sharing, as_scale, share_count
from modelflex.core.part import Part
from modelflex.core.rounding import Rounding, by_groups, encode
from modelflex.registry import FORMATS


@final
@FORMATS.register("binary")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Binary(Format):
    """value = ±scale; the scale starts as the mean size, the best one for rounding to the nearest.

    Attributes:
        scales: rows that share a scale: the whole "tensor", a "gate", or one "row".
        rounding: "nearest", or "gptq": codes and scales in turn by the error of the products
            (core/rounding.py).
    """

    scales: Sharing = "row"
    rounding: Rounding = "gptq"

    reference = "Rastegari et al., XNOR-Net, ECCV 2016 (arXiv 1603.05279), section 3.1"
    search_range = {"scales": ("gate", "row")}

    @property
    def stored_bits(self) -> int:
        return 1

    @property
    def grid_kind(self) -> str:
        return "odd"

    def side_bytes(self, rows: int, columns: int, gates: int) -> int:
        return 2 * share_count(self.scales, rows, gates) + 1

    def naive(self) -> Binary:
        return replace(self, scales="tensor", rounding="nearest")

    @property
    def data_aware(self) -> bool:
        return self.rounding == "gptq"

    def encode(
        self, values: Array, hessian: Array | None, gates: int, mask: Array | None = None
    ) -> Part:
        rows = values.shape[0]
        groups = share_count(self.scales, rows, gates)
        grouped, weights = by_groups(values, hessian, mask, groups)
        total = np.maximum(weights.sum(axis=1), TINY)
        sizes = (np.abs(grouped) * weights).sum(axis=1) / total
        levels = Multiples("odd", 1, as_scale(sizes), rows // groups)
        return encode(values, hessian, mask, levels, self.rounding)
