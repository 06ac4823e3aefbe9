"""Block sparsity: whole blocks of the matrix are kept, equally many in each row of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict, with_config

from modelflex.core.sparsity import Blocks, Sparse, check_density
from modelflex.errors import UserError
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("block_sparse")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class BlockSparse(Sparse):
    """One index serves a block, and an input that is read serves all its rows; a block's score is
    the sum of its numbers' scores.

    Attributes:
        density: share of the blocks that stays, above 0; at least one in each row of blocks does.
        block_rows, block_columns: size of a block; must divide the weight.
    """

    density: float = 0.1
    block_rows: int = 4
    block_columns: int = 4

    reference = (
        "Narang et al., Block-Sparse Recurrent Neural Networks, arXiv 1711.02782 (sums of scores and "
        "a balanced count instead of the largest entry and a threshold)"
    )
    search_range = {
        "density": (0.1, 0.25, 0.5),
        "score": ("sparsegpt", "wanda", "magnitude"),
        "refit": ("least_squares", "none"),
    }

    def _check(self) -> None:
        check_density(self.density)
        if self.block_rows < 1 or self.block_columns < 1:
            raise UserError(
                f"sparse blocks are {self.block_rows}×{self.block_columns}", "at least 1×1"
            )
        if self.block_rows == self.block_columns == 1:
            raise UserError("sparse blocks are 1×1", "larger blocks", "row_sparse keeps numbers")

    @property
    def pattern(self) -> Blocks:
        return Blocks(self.density, self.block_rows, self.block_columns)
