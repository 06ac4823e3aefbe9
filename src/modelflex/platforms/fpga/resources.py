"""What engines take of the fabric: DSP slices, LUTs, flip-flops, block RAMs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import GATES, Engine, ceil_div
from modelflex.platforms.fpga.operators import SUM_BITS, Word, memory

PORTS: Final = 2
"""Reads a cycle of one block RAM."""
PORT_COUNT: Final = 4
PORT_LUTS: Final = 1500
PORT_FLIP_FLOPS: Final = 2000
PORT_BLOCK_RAMS: Final = 4
"""Of each of the four DMA engines towards DRAM: an assumption, about what AXI DMA cores take."""


@dataclass(frozen=True, eq=False)
class Resources:
    """Arrays of one shape; `block_rams` counts halves of 18 Kb."""

    dsp_slices: Array
    luts: Array
    flip_flops: Array
    block_rams: Array

    def fits(self, chip: Chip) -> Array:
        """Which designs the chip holds."""
        return np.asarray(
            (self.dsp_slices <= chip.dsp_slices)
            & (self.luts <= chip.luts)
            & (self.flip_flops <= chip.flip_flops)
            & (self.block_rams <= chip.block_rams)
        )


def refine_resources(
    engine: Engine, row_tile: Array | int, column_tile: Array | int, nz: Array | int
) -> Resources:
    """Of the engine that adds terms.

    A gate unit multiplies T_c inputs, σ, and T_r rows, and adds as many; T_r lanes of the tail multiply
    and add. u and v are double-buffered in T_r and T_c banks. T_c inputs at places that v names are read
    at once, each from its own port: ⌈T_c/2⌉ copies of the inputs for each gate unit; where nothing is
    pruned they are neighbours, and one copy in T_c banks serves all gate units; where they share a v, each
    unit has its own quarter of that copy, and three more adders join the quarters.
    """
    row_tile, column_tile, nz = np.broadcast_arrays(row_tile, column_tile, nz)
    bits, pruned = engine.word.bits, nz < engine.columns
    streams = np.where(pruned, 2, 1)  # values, and where they are pruned an index for each
    copy, copies = memory(engine.columns, bits), GATES * ceil_div(column_tile, PORTS)
    quarters = GATES // engine.vectors
    bank = memory(ceil_div(engine.columns, quarters * column_tile), bits)
    v = memory(2 * ceil_div(engine.unit_inputs(nz), column_tile), bits)
    u = memory(2 * ceil_div(engine.rows, row_tile), bits)
    sums = memory(ceil_div(engine.rows, row_tile), SUM_BITS)
    block_rams, luts = (
        np.where(pruned, copies * of_copy, quarters * column_tile * of_bank)
        + GATES * (streams * column_tile * of_v + row_tile * (of_u + of_sums))
        for of_copy, of_bank, of_v, of_u, of_sums in zip(copy, bank, v, u, sums, strict=True)
    )
    multipliers = GATES * (column_tile + 1 + row_tile) + row_tile
    adders = GATES * (column_tile + row_tile) + row_tile + quarters - 1
    return _with_units(engine.word, multipliers, adders, luts, block_rams)


def dense_resources(engine: Engine, row_tile: Array | int, column_tile: Array | int) -> Resources:
    """Of the dense engine: T_r·T_c multipliers and adders for each gate, and the same tail.

    Tiles of weights are double-buffered in registers; inputs are neighbours.
    """
    row_tile, column_tile = np.broadcast_arrays(row_tile, column_tile)
    bits, tile = engine.word.bits, GATES * row_tile * column_tile
    bank = memory(ceil_div(engine.columns, column_tile), bits)
    sums = memory(ceil_div(engine.rows, row_tile), SUM_BITS)
    rams = column_tile * bank.block_rams + GATES * row_tile * sums.block_rams
    luts = column_tile * bank.luts + GATES * row_tile * sums.luts
    found = _with_units(engine.word, tile + row_tile, tile + row_tile, luts, rams)
    return replace(found, flip_flops=found.flip_flops + 2 * tile * bits)


def _with_units(
    word: Word, multipliers: Array, adders: Array, luts: Array, block_rams: Array
) -> Resources:
    multiplier, adder = word.multiplier, word.adder
    return Resources(
        multipliers * multiplier.dsp + adders * adder.dsp,
        multipliers * multiplier.luts + adders * adder.luts + luts + PORT_COUNT * PORT_LUTS,
        multipliers * multiplier.flip_flops
        + adders * adder.flip_flops
        + PORT_COUNT * PORT_FLIP_FLOPS,
        block_rams + PORT_COUNT * PORT_BLOCK_RAMS,
    )
