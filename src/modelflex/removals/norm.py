"""Removal by norm: the units whose outgoing weights are smallest go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Removal
from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.registry import REMOVALS


@final
@REMOVALS.register("norm")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class NormRemoval(Removal):
    """The units of the largest ‖A_:j‖ stay; A are the outgoing weights."""

    units: int

    reference = (
        "Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, with units for filters"
    )
    search_range = {"units": (8, 16, 32, 64, 128)}

    def __post_init__(self) -> None:
        if self.units < 1:
            raise UserError(f"{self.units} units are to stay", "at least 1")

    def kept(self, outgoing: Array, covariance: Array, seed: int) -> Array:
        norms = np.linalg.norm(outgoing, axis=0)
        return np.sort(np.argsort(-norms, kind="stable")[: self.units])

    def naive(self) -> NormRemoval:
        return self
