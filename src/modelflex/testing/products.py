"""Random stored matrices of every layout on every grid, for tests of kernels."""

from __future__ import annotations

import numpy as np

from modelflex.core.bits import pack_bits, unpack_codes
from modelflex.core.fixed import Array, Scale
from modelflex.core.layout import LAYOUTS, index_bits, part_geometry
from modelflex.core.part import Grid, Part
from modelflex.core.stored_parts import CODE_BITS, MOST_BITS
from modelflex.core.tracer import Activity, Link, Product
from modelflex.core.windows import Windows

FEWEST_BITS = {"symmetric": 2, "power": 2}
"""Fewest bits on grids that have a sign and a size."""
WIDE = (60, 140)
"""Sizes that take several tiles of a kernel."""


def grid_bits(kind: str) -> range:
    """The bits that codes on a grid may have."""
    return range(FEWEST_BITS.get(kind, 1), MOST_BITS.get(kind, max(CODE_BITS)) + 1)


def random_stored_product(
    rng: np.random.Generator,
    layout: str,
    kind: str,
    bits: int,
    *,
    largest: int = 9,
    activation_bits: int = 8,
    activity: Activity | None = None,
    grouped: bool = False,
    windows: bool = False,
) -> Product:
    """A product of random codes in a layout of `core.layout.LAYOUTS`, with tables that some rows share.

    Args:
        kind: grid of the codes.
        largest: sizes are products of two numbers of at most this (a block's size and how many), but
            some blocks are wide.
        grouped: whether groups of codes have multipliers.
        windows: whether it is applied at several positions of a map.
    """
    shape, index, span, inputs = _random_places(rng, layout, largest)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    part = Part(
        np.zeros(shape, np.int32),
        bits,
        Scale.nearest(np.ones(1)),
        rows,
        Grid(kind, _random_table(rng, kind, bits, rows)),
        rng.integers(1, 64, (rows, _divisor(rng, columns))).astype(np.int32) if grouped else None,
        index,
        0 if index is None else index_bits(span),
    )
    numbers = rng.integers(0, 1 << bits, (*shape[:1], columns))
    if rng.random() < 0.2:  # the ends of the grid, all at once
        numbers[:] = (1 << (bits - 1)) - 1
    if kind == "symmetric":  # two's complement without its least number
        numbers[numbers == 1 << (bits - 1)] = 0
    levels = unpack_codes(pack_bits(numbers.ravel(), bits), shape, bits, part.grid)
    part.codes[:] = levels * part.group_factors()
    geometry = part_geometry(layout, part.codes, index, inputs)
    link = Link(activation_bits, Scale.nearest(1.0), activity)
    where = _random_windows(rng, inputs) if windows else None
    positions = 1 if where is None else where.positions
    bias = np.repeat(rng.integers(-9999, 9999, geometry.out), positions)
    return Product("w/0", "w", part, layout, geometry, link, bias, 0, None, None, where)


def _random_places(
    rng: np.random.Generator, layout: str, largest: int
) -> tuple[tuple[int, ...], Array | None, int, int]:
    """(shape of the codes, index, how many values it may take, inputs)."""
    p, q, h, w = (int(n) for n in rng.integers(1, largest + 1, 4))
    if rng.random() < 0.15:
        w = int(rng.integers(*WIDE))
    if layout == "dense":
        return (p * h, q * w), None, 0, q * w
    if layout == "circulant":
        return (p, q, w), None, 0, q * w
    if layout == "row_sparse":
        h = w = 1
    if layout == "n_m":  # groups of w places, some of them kept
        kept = int(rng.integers(1, w + 1))
        index = np.argsort(rng.random((p * h, q, w)), axis=2)[:, :, :kept]
        return (p * h, q * kept), index, w, q * w
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout '{layout}'")
    kept = int(rng.integers(1, q + 1))
    index = np.argsort(rng.random((p, q)), axis=1)[:, :kept]
    return (p * h, kept * w), index, q, q * w


def _random_table(rng: np.random.Generator, kind: str, bits: int, rows: int) -> Array | None:
    if kind not in ("levels", "signs"):
        return None
    tables, entries = _divisor(rng, rows), 1 << bits if kind == "levels" else bits
    return rng.integers(-127, 128, (tables, entries)).astype(np.int8)


def _random_windows(rng: np.random.Generator, inputs: int) -> Windows:
    size = int(rng.integers(1, 2 * inputs + 1))
    return Windows(rng.integers(-1, size, (int(rng.integers(1, 6)), inputs)), size)


def _divisor(rng: np.random.Generator, n: int) -> int:
    return int(rng.choice([d for d in range(1, n + 1) if n % d == 0]))
