"""Codes as bytes: one little-endian bit stream, and the numbers under which codes are stored.

Bit i of the stream is bit i mod 8 of byte ⌊i/8⌋, and a number's lowest bit comes first; spare last
bits are 0. Symmetric grids store two's complement, others the number that `core.part.Grid` gives.
"""

from __future__ import annotations

import math

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.part import Grid, Part

_CHUNK = 1 << 16  # codes at once, which bounds memory; a multiple of 8, so chunks end on bytes


def pack_bits(values: Array, bits: int) -> Array:
    """Unsigned integers [n] of `bits` bits (1 … 32) → uint8 [⌈n·bits/8⌉]; spare last bits are 0."""
    out = np.empty((values.size * bits + 7) // 8, np.uint8)
    for start in range(0, values.size, _CHUNK):
        quads = values[start : start + _CHUNK].astype("<u4").view(np.uint8).reshape(-1, 4)
        ones = np.unpackbits(quads, axis=1, count=bits, bitorder="little")
        packed = np.packbits(ones, bitorder="little")
        out[start * bits // 8 :][: packed.size] = packed
    return out


def unpack_bits(packed: Array, count: int, bits: int) -> Array:
    """The inverse of `pack_bits`: uint32 [count]."""
    out = np.empty(count, np.uint32)
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        piece = packed[start * bits // 8 : ((start + n) * bits + 7) // 8]
        ones = np.unpackbits(piece, count=n * bits, bitorder="little").reshape(n, bits)
        quads = np.zeros((n, 4), np.uint8)
        quads[:, : (bits + 7) // 8] = np.packbits(ones, axis=1, bitorder="little")
        out[start : start + n] = quads.view("<u4")[:, 0]
    return out


def pack_codes(part: Part) -> Array:
    """The codes of an integer part as bytes, uint8 [code_bytes].

    Raises:
        ValueError: a code is not on the part's grid.
    """
    return pack_bits(code_numbers(part).ravel(), part.bits)


def code_numbers(part: Part) -> Array:
    """The number under which each code of an integer part is stored, int64 of the shape of the codes.

    Raises:
        ValueError: a code is not on the part's grid.
    """
    rows = part.codes.shape[0]
    codes, factors = (a.reshape(rows, -1) for a in (part.codes, part.group_factors()))
    levels = codes // factors
    if part.grid.kind == "symmetric":
        top = (1 << (part.bits - 1)) - 1
        back = np.clip(levels, -top, top)
        numbers = back & ((1 << part.bits) - 1)
    else:
        table = part.grid.levels(part.bits)
        numbers = np.empty(levels.shape, np.int64)
        for own, line in zip(_shares(rows, table), table, strict=True):
            rank = np.argsort(line, kind="stable")
            numbers[own] = rank[np.searchsorted(line[rank], levels[own]).clip(0, rank.size - 1)]
        back = _looked_up(numbers, table)
    if not np.array_equal(back * factors, codes):
        raise ValueError(f"a code is not on the {part.grid.kind} grid of {part.bits} bits")
    return np.asarray(numbers, np.int64).reshape(part.codes.shape)


def unpack_codes(packed: Array, shape: tuple[int, ...], bits: int, grid: Grid) -> Array:
    """The levels that `pack_codes` stored (codes without their multipliers): int32 of `shape`."""
    numbers = unpack_bits(packed, math.prod(shape), bits).astype(np.int64).reshape(shape[0], -1)
    symmetric = grid.kind == "symmetric"
    levels = _symmetric(numbers, bits) if symmetric else _looked_up(numbers, grid.levels(bits))
    return levels.astype(np.int32).reshape(shape)


def _symmetric(numbers: Array, bits: int) -> Array:
    return numbers - ((numbers >> (bits - 1)) << bits)


def _looked_up(numbers: Array, table: Array) -> Array:
    out = np.empty(numbers.shape, np.int64)
    for own, line in zip(_shares(numbers.shape[0], table), table, strict=True):
        out[own] = line[numbers[own]]
    return out


def _shares(rows: int, table: Array) -> list[slice]:
    """The rows that each table serves."""
    each = rows // table.shape[0]
    return [slice(i * each, (i + 1) * each) for i in range(table.shape[0])]
