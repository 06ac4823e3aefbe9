"""Row-balanced sparsity: every row keeps equally many numbers, wherever they lie (ESE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict, with_config

from modelflex.core.sparsity import Blocks, Sparse, check_density
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("row_sparse")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class RowSparse(Sparse):
    """A matrix of which every row keeps the same count, so that rows take equally long.

    Attributes:
        density: share of a row that stays, above 0; at least one number does.
    """

    density: float = 0.1

    reference = (
        "Han et al., ESE: Efficient Speech Recognition Engine with Sparse LSTM on FPGA, FPGA 2017 "
        "(arXiv 1612.00694; load balance); Sun et al., Wanda, ICLR 2024 (arXiv 2306.11695); Frantar "
        "and Alistarh, SparseGPT, ICML 2023 (arXiv 2301.00774)"
    )
    search_range = {
        "density": (0.1, 0.2, 0.5),
        "score": ("sparsegpt", "wanda", "magnitude"),
        "refit": ("least_squares", "none"),
    }

    def _check(self) -> None:
        check_density(self.density)

    @property
    def pattern(self) -> Blocks:
        return Blocks(self.density)
