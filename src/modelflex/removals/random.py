"""Units drawn at random: the control that any way of choosing has to beat."""

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
@REMOVALS.register("random")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class RandomRemoval(Removal):
    """`units` of the units, each set of them as likely as any other.

    Attributes:
        seed: of the draw, together with the number of the layer.
    """

    units: int
    seed: int = 0

    reference = "the random control of pruning studies"
    search_range = {"units": (8, 16, 32, 64, 128), "seed": (0, 1)}

    def __post_init__(self) -> None:
        if self.units < 1 or self.seed < 0:
            raise UserError(
                f"{self.units} units are to stay, drawn by the seed {self.seed}",
                "at least 1, a seed of at least 0",
            )

    def kept(self, outgoing: Array, covariance: Array, seed: int) -> Array:
        drawn = np.random.default_rng([self.seed, seed]).permutation(covariance.shape[0])
        return np.sort(drawn[: self.units])

    def naive(self) -> RandomRemoval:
        return self
