"""Layouts of a product's weights: how many codes are stored, and what is fetched at once.

The layout fixes the fetch unit: the smallest piece of a weight that an active input makes the device
read. `geometry` serves footprints (before compression) and programs (after it) alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError


@dataclass(frozen=True)
class Geometry:
    """Sizes of one product y[out] = A[out, in]·x[in] in a layout.

    Attributes:
        codes: stored codes.
        block: inputs that share a fetch unit (1: a column; b: a block column; in: the whole matrix).
        units: fetch units of the whole matrix.
        unit_codes: codes of one unit.
        macs: multiply-accumulates when every input is active.
        rows: rows of the stored array, which share or own scales.
        index_bits: bits of all indices of a sparse layout.
        shared_rows: rows that use an input together (blocks of a sparse layout).
    """

    out: int
    inputs: int
    codes: int
    block: int
    units: int
    unit_codes: int
    macs: int
    rows: int
    index_bits: int = 0
    shared_rows: int = 1


SPARSE = ("row_sparse", "block_sparse", "n_m")
LAYOUTS = ("dense", "circulant", *SPARSE)


def dense_geometry(out: int, inputs: int) -> Geometry:
    """Columns of `out` codes."""
    return Geometry(out, inputs, out * inputs, 1, inputs, out, out * inputs, out)


def circulant_geometry(out: int, inputs: int, block: int) -> Geometry:
    """For every b×b block its first column; a block column holds out/b of them, and one active
    input of it fetches all.

    Raises:
        UserError: the block does not divide both sizes.
    """
    if block < 1 or out % block or inputs % block:
        raise UserError(
            f"a circulant block of {block} does not divide a weight of {out}×{inputs}",
            "a block that divides both sizes",
            "choose another block or leave this weight dense",
        )
    columns = inputs // block
    return Geometry(out, inputs, out * columns, block, columns, out, out * inputs, out // block)


def sparse_geometry(
    out: int, inputs: int, kept: int, span: int, indices: int, shared_rows: int = 1
) -> Geometry:
    """`kept` codes in each row; every input is needed by some row, so the matrix is one fetch unit.

    Args:
        span: values that an index may take.
        indices: how many indices are stored.
    """
    codes = out * kept
    bits = indices * index_bits(span)
    return Geometry(out, inputs, codes, inputs, 1, codes, codes, out, bits, shared_rows)


def index_bits(span: int) -> int:
    """Bits of an index that takes `span` values."""
    return max(span - 1, 0).bit_length()


def part_geometry(layout: str, codes: Array, index: Array | None, inputs: int) -> Geometry:
    """The sizes of a stored array."""
    if layout == "dense":
        return dense_geometry(codes.shape[0], inputs)
    if layout == "circulant":
        return circulant_geometry(codes.shape[0] * codes.shape[2], inputs, codes.shape[2])
    if layout not in SPARSE or index is None:
        raise UserError(f"unknown layout '{layout}'", f"one of {', '.join(LAYOUTS)}")
    out, kept = codes.shape
    span = inputs // index.shape[1] if layout == "n_m" else inputs * index.shape[1] // kept
    return sparse_geometry(out, inputs, kept, span, index.size, out // index.shape[0])


def expand(layout: str, stored: Array, index: Array | None = None, inputs: int = 0) -> Array:
    """The matrix [out, in] that stored codes or values mean.

    Args:
        layout: `dense` for [out, in]; `circulant` for generators [out/b, in/b, b], where entry
            (i, k) of a block is generator[(i − k) mod b] (the generator is the block's first column);
            `row_sparse` for [out, kept] and `block_sparse` for [out, kept blocks · width], both with
            the block columns [block rows, kept blocks] as index (blocks of 1×1 for `row_sparse`);
            `n_m` for [out, groups · n] with the positions in their groups [out, groups, n] as index.
        inputs: columns of a sparse matrix.
    """
    if layout == "dense":
        return stored
    if layout == "circulant":
        p, q, b = stored.shape
        shift = (np.arange(b)[:, None] - np.arange(b)[None, :]) % b
        return np.ascontiguousarray(stored[:, :, shift].transpose(0, 2, 1, 3)).reshape(p * b, q * b)
    if layout not in SPARSE or index is None:
        raise UserError(f"unknown layout '{layout}'", f"one of {', '.join(LAYOUTS)}")
    matrix = np.zeros((stored.shape[0], inputs), stored.dtype)
    np.put_along_axis(matrix, stored_columns(layout, stored.shape, index, inputs), stored, axis=1)
    return matrix


def stored_columns(layout: str, shape: tuple[int, ...], index: Array, inputs: int) -> Array:
    """Which column each stored number of a sparse layout belongs to, int64 [out, stored]; see `expand`."""
    out = shape[0]
    if layout == "n_m":
        groups = index.shape[1]
        columns = (index + (inputs // groups) * np.arange(groups)[:, None]).reshape(out, -1)
    else:
        width = shape[1] // index.shape[1]
        wide = (index[:, :, None] * width + np.arange(width)).reshape(index.shape[0], -1)
        columns = np.repeat(wide, out // index.shape[0], axis=0)
    return np.asarray(columns, np.int64)
