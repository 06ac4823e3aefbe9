"""N:M sparsity: n of every m consecutive numbers of a row are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict, with_config

from modelflex.core.sparsity import NOfM, Sparse
from modelflex.errors import UserError
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("n_m")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class NM(Sparse):
    """A code takes b bits and ⌈log₂ m⌉ more for its place in its group.

    Attributes:
        n: numbers that stay in each group, 1 … m.
        m: numbers of a group; must divide the rows.
    """

    n: int = 2
    m: int = 4

    reference = (
        "Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378 (2:4); Zhou et al., "
        "Learning N:M Fine-grained Structured Sparse Neural Networks, ICLR 2021 (arXiv 2102.04010)"
    )
    search_range = {
        "n": (1, 2),
        "m": (4,),
        "score": ("sparsegpt", "wanda", "magnitude"),
        "refit": ("least_squares", "none"),
    }

    def _check(self) -> None:
        if not 1 <= self.n <= self.m:
            raise UserError(f"{self.n} of {self.m} weights are kept", "1 ≤ n ≤ m")

    @property
    def pattern(self) -> NOfM:
        return NOfM(self.n, self.m)
