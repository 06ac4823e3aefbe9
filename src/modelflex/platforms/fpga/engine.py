"""Cycles, traffic and roofline of the LSTM engines of Rizakis et al., with arrays for all arguments.

Four gate units work side by side. Each has a dot-product unit that takes T_c inputs a cycle, and
arrays of T_r multipliers and adders. A term σ·u·(vᵀx) takes the dot product of the NZ inputs that v
keeps, ⌈NZ/T_c⌉ cycles, and the update of all R sums, ⌈R/T_r⌉ cycles; the dot product of the next term
runs meanwhile. At the end T_r lanes compute nonlinearities and elementwise results, 37 operations a row.
u, v and σ come from DRAM at every run; the inputs are on the chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.refinement import operations
from modelflex.errors import UserError
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.operators import Word

GATES: Final = 4
TAIL_OPS: Final = 37
"""Operations of a row after the products: five nonlinearities and what is elementwise."""
STATE_WORDS: Final = 2
"""Words of a row that come and go besides: the cell's state."""
MAX_SIZE: Final = 2**20
"""Largest R, C and number of terms: designs are enumerated, and products of sizes stay exact."""

REFERENCE: Final = (
    "Rizakis et al., Approximate FPGA-based LSTMs under Computation Time Constraints, ARC 2018 "
    "(arXiv 1801.02190)"
)


@dataclass(frozen=True, eq=False)
class Timing:
    """One time step of an LSTM layer on an engine; arrays of the same shape.

    Attributes:
        ops, bytes: operations, and bytes over the DRAM bus.
        cycles: between two time steps if the tail runs beside the next one's terms, without DRAM.
        time_s: the same with DRAM, the roofline: max(cycles/clock, bytes/bandwidth).
        latency_s: from the first term to the result, the tail after the last one.
        compute_ops_per_s: the roof of arithmetic: ops over cycles.
    """

    ops: Array
    bytes: Array
    cycles: Array
    time_s: Array
    latency_s: Array
    compute_ops_per_s: Array

    @property
    def intensity(self) -> Array:
        """Operations a byte (CTC)."""
        return np.asarray(self.ops / self.bytes)

    @property
    def ops_per_s(self) -> Array:
        """The attainable rate: the lower of both roofs."""
        return np.asarray(self.ops / self.time_s)

    @property
    def memory_bound(self) -> Array:
        """Whether DRAM takes longer than arithmetic."""
        return np.asarray(self.ops_per_s < self.compute_ops_per_s * (1 - 1e-12))


def ceil_div(total: Array | int, size: Array | int) -> Array:
    """⌈total / size⌉ in whole numbers."""
    return np.asarray(-(-np.asarray(total) // np.asarray(size)))


def check_size(value: int, most: int, where: str, name: str) -> None:
    """Refuse a size that is no whole number from 1 to `most`, which is called `name`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UserError(f"{where} is {value!r}", f"a whole number from 1 to {most}{name}")


@dataclass(frozen=True)
class Engine:
    """The engines for gates of R = `rows` and C = `columns` inputs (features and old outputs).

    Attributes:
        shared: all gates have the same v: each gate unit takes the dot product of a quarter of the kept
            inputs, and the quarters are added. Not in the paper, where each gate has a v of its own.
    """

    chip: Chip
    word: Word
    rows: int
    columns: int
    shared: bool = False

    def __post_init__(self) -> None:
        check_size(self.rows, MAX_SIZE, "rows", "")
        check_size(self.columns, MAX_SIZE, "columns", "")
        if self.columns > 2**self.word.bits:
            raise UserError(
                f"columns is {self.columns}",
                f"at most {2**self.word.bits}, which an index of {self.word.bits} bits can name",
            )

    @property
    def dense_ops(self) -> int:
        """Operations of the four products without approximation, by which published rates count."""
        return GATES * 2 * self.rows * self.columns

    @property
    def vectors(self) -> int:
        """How many v a term has."""
        return 1 if self.shared else GATES

    def unit_inputs(self, nz: Array | int) -> Array:
        """Kept inputs of each gate unit's dot product."""
        return ceil_div(nz, GATES // self.vectors)

    def term_bytes(self, nz: Array | int) -> Array:
        """Bytes of one term of all gates: u, σ, and v with an index for each value where v is pruned."""
        kept = np.asarray(nz) * np.where(np.asarray(nz) < self.columns, 2, 1)
        words = self.vectors * (kept + 1) + GATES * self.rows
        return np.asarray(words * self.word.bits // 8)

    def refine(
        self, row_tile: Array | int, column_tile: Array | int, nz: Array | int, steps: Array | int
    ) -> Timing:
        """N = `steps` terms of NZ inputs, with T_r = `row_tile` and T_c = `column_tile`.

        Source: ARC 2018, section 5. The index of each value of a pruned v is our addition.
        """
        nz, steps = np.asarray(nz), np.asarray(steps)
        update = ceil_div(self.rows, row_tile)
        dot = ceil_div(self.unit_inputs(nz), column_tile)
        ops = steps * operations(GATES * self.rows, nz, self.vectors) + TAIL_OPS * self.rows
        first_s, second_s = self._stages(update, dot, nz)
        terms_s = (steps - 1) * np.maximum(first_s, second_s) + first_s + second_s
        terms_s = np.where(steps > 0, terms_s, 0.0)
        return self._timing(
            ops, steps * np.maximum(update, dot), update, steps * self.term_bytes(nz), terms_s
        )

    def terms_within(
        self, row_tile: Array | int, column_tile: Array | int, nz: Array | int, deadline_s: float
    ) -> Array:
        """The most terms, up to `MAX_SIZE`, whose latency keeps the deadline; 0 where one does not."""
        update = ceil_div(self.rows, row_tile)
        dot = ceil_div(self.unit_inputs(nz), column_tile)
        first_s, second_s = self._stages(update, dot, np.asarray(nz))
        left = deadline_s - self.refine(row_tile, column_tile, nz, 1).latency_s
        terms = np.floor(left / np.maximum(first_s, second_s)) + 1
        terms = np.clip(terms, 0, MAX_SIZE).astype(np.int64)
        # Rounding: a deadline that is exactly kept, or just missed.
        late = self.refine(row_tile, column_tile, nz, terms).latency_s > deadline_s
        terms = np.where(late & (terms > 0), terms - 1, terms)
        more = self.refine(row_tile, column_tile, nz, terms + 1).latency_s <= deadline_s
        return np.where(more & (terms < MAX_SIZE), terms + 1, terms)

    def _stages(self, update: Array, dot: Array, nz: Array) -> tuple[Array, Array]:
        """Seconds of a term in the dot-product stage, which waits for DRAM, and in the next."""
        clock, load_s = self.chip.clock, self.term_bytes(nz) / self.chip.bandwidth
        return np.maximum(dot / clock, load_s), np.asarray(update / clock)

    def dense(
        self,
        row_tile: Array | int,
        column_tile: Array | int,
        rows: Array | int | None = None,
        columns: Array | int | None = None,
    ) -> Timing:
        """The product itself in tiles of T_r × T_c weights a cycle and gate.

        Args:
            rows, columns: how many are computed, where it is cut short; None for all.
        """
        done_rows = np.asarray(self.rows if rows is None else rows)
        done_columns = np.asarray(self.columns if columns is None else columns)
        ops = GATES * 2 * done_rows * done_columns + TAIL_OPS * self.rows
        cycles = ceil_div(done_rows, row_tile) * ceil_div(done_columns, column_tile)
        weights = GATES * done_rows * done_columns * self.word.bits // 8
        terms_s = np.maximum(cycles / self.chip.clock, weights / self.chip.bandwidth)
        return self._timing(ops, cycles, ceil_div(self.rows, row_tile), weights, terms_s)

    def _timing(
        self, ops: Array, cycles: Array, row_tiles: Array, streamed: Array, terms_s: Array
    ) -> Timing:
        chip, tail = self.chip, TAIL_OPS * row_tiles
        state = STATE_WORDS * self.rows * self.word.bits // 8
        cycles, moved = np.maximum(cycles, tail), streamed + state
        arrays = np.broadcast_arrays(
            ops,
            moved,
            cycles,
            np.maximum(cycles / chip.clock, moved / chip.bandwidth),
            terms_s + tail / chip.clock + state / chip.bandwidth,
            ops / cycles * chip.clock,
        )
        return Timing(*arrays)
