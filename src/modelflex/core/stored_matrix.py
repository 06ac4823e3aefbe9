"""A product's matrix as kernels read it: the packed bits of an artefact, and sizes to find a code in them.

The fields are those of `mf_matrix` in csrc/matrix.h.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelflex.core.bits import code_numbers, pack_bits, pack_codes
from modelflex.core.fixed import Array
from modelflex.core.layout import SPARSE
from modelflex.core.part import FLOAT_BITS, MULTIPLIER_BITS, Part
from modelflex.core.tracer import Product
from modelflex.errors import UserError

MAX_CODES = 1 << 31
"""Codes of one matrix; they are counted in 32 bits."""
MAX_INDEX_BITS = 24
"""Bits of an index, which is read through a window of 32 bits."""


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """One stored matrix [out, inputs].

    Attributes:
        codes: uint8, the bit stream of the numbers of codes (core/bits.py): one row after another or,
            `by_columns`, one column (circulant: block column of generators) after another.
        table: int8 [tables, entries] of grids that have tables, else None.
        multipliers: uint8, the bit stream of the multipliers of every row's groups, or None.
        index: uint8, the bit stream of places of a sparse layout, else None.
        rows, row_codes: stored rows (circulant: block rows) and the codes of one.
        block: circulant: the size of a block; blocks: their width; n_m: m; else 1.
        kept: blocks: kept blocks of a row; n_m: n; else 0.
        block_rows: blocks: their height; else 1.
        rows_per_table: stored rows that a table serves; `rows` without tables.
        groups: multipliers of a row; 0 without.
        bits, grid: of the codes (core/part.py).
        layout: "dense", "circulant", "blocks" (row_sparse and block_sparse) or "n_m".
        index_bits: bits of an index.
        by_columns: see `codes`; only dense and circulant matrices.
    """

    codes: Array
    table: Array | None
    multipliers: Array | None
    index: Array | None
    out: int
    inputs: int
    rows: int
    row_codes: int
    block: int
    kept: int
    block_rows: int
    rows_per_table: int
    groups: int
    bits: int
    grid: str
    layout: str
    index_bits: int
    by_columns: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        arrays = (self.codes, self.table, self.multipliers, self.index)
        return sum(a.nbytes for a in arrays if a is not None)


def stored_matrix(product: Product, *, skip_zeros: bool = False) -> StoredMatrix:
    """The matrix of an integer product.

    Codes lie by columns where only some columns are read, under an activity; sparse layouts always by rows.

    Args:
        skip_zeros: whether only some columns are read for another reason (`linear`'s attribute).

    Raises:
        UserError: more codes, or more places of a sparse layout, than kernels can count.
    """
    part, geo, layout = product.part, product.geometry, product.layout
    if part.bits == FLOAT_BITS or product.link is None:
        raise ValueError(f"'{product.site}' multiplies float numbers")
    if part.codes.size >= MAX_CODES or part.index_bits > MAX_INDEX_BITS:
        raise UserError(
            f"'{product.site}' has {part.codes.size} codes, indices of {part.index_bits} bits",
            f"fewer than {MAX_CODES} codes, indices of at most {MAX_INDEX_BITS} bits",
        )
    by_columns = layout not in SPARSE and (skip_zeros or product.link.activity is not None)
    block, kept, block_rows = _places(part, layout, geo.inputs)
    table, multipliers, index = part.grid.table, part.multipliers, part.index
    return StoredMatrix(
        codes=_columns_first(part) if by_columns else pack_codes(part),
        table=None if table is None else np.ascontiguousarray(table, np.int8),
        multipliers=None
        if multipliers is None
        else pack_bits(multipliers.ravel(), MULTIPLIER_BITS),
        index=None if index is None else pack_bits(index.ravel(), part.index_bits),
        out=geo.out,
        inputs=geo.inputs,
        rows=geo.rows,
        row_codes=part.codes.size // geo.rows,
        block=block,
        kept=kept,
        block_rows=block_rows,
        rows_per_table=geo.rows // (1 if table is None else table.shape[0]),
        groups=0 if multipliers is None else multipliers.shape[1],
        bits=part.bits,
        grid=part.grid.kind,
        layout="blocks" if layout in ("row_sparse", "block_sparse") else layout,
        index_bits=part.index_bits,
        by_columns=by_columns,
    )


def _columns_first(part: Part) -> Array:
    """The packed codes of a dense or circulant part with its first two axes exchanged."""
    return pack_bits(code_numbers(part).swapaxes(0, 1).ravel(), part.bits)


def _places(part: Part, layout: str, inputs: int) -> tuple[int, int, int]:
    """(block, kept, block_rows) of `StoredMatrix`."""
    codes, index = part.codes, part.index
    if index is None:
        return (codes.shape[2] if layout == "circulant" else 1), 0, 1
    if layout == "n_m":
        return inputs // index.shape[1], index.shape[2], 1
    return codes.shape[1] // index.shape[1], index.shape[1], codes.shape[0] // index.shape[0]
