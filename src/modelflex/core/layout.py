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
        block: inputs that share a fetch unit (1: a column; b: a block column).
        units: fetch units of the whole matrix.
        unit_codes: codes of one unit.
        macs: multiply-accumulates when every input is active.
        rows: rows of the stored array, which share or own scales.
    """

    out: int
    inputs: int
    codes: int
    block: int
    units: int
    unit_codes: int
    macs: int
    rows: int


LAYOUTS = ("dense", "circulant")


def geometry(layout: str, out: int, inputs: int, block: int = 1) -> Geometry:
    """Sizes of a product; see `Geometry`.

    `dense` stores columns of `out` codes. `circulant` stores, for every b×b block, its first column;
    a block column holds out/b such generators, and one active input of it fetches all of them.

    Raises:
        UserError: the block does not divide both sizes, or the layout is unknown.
    """
    if layout == "dense":
        return Geometry(out, inputs, out * inputs, 1, inputs, out, out * inputs, out)
    if layout == "circulant":
        if block < 1 or out % block or inputs % block:
            raise UserError(
                f"a circulant block of {block} does not divide a weight of {out}×{inputs}",
                "a block that divides both sizes",
                "choose another block or leave this weight dense",
            )
        columns = inputs // block
        return Geometry(out, inputs, out * columns, block, columns, out, out * inputs, out // block)
    raise UserError(f"unknown layout '{layout}'", f"one of {', '.join(LAYOUTS)}")


def expand(layout: str, stored: Array) -> Array:
    """The matrix [out, in] that stored codes or values mean.

    Args:
        layout: `dense` for [out, in]; `circulant` for generators [out/b, in/b, b], where entry
            (i, k) of a block is generator[(i − k) mod b] (the generator is the block's first column).
    """
    if layout == "dense":
        return stored
    if layout == "circulant":
        p, q, b = stored.shape
        shift = (np.arange(b)[:, None] - np.arange(b)[None, :]) % b
        return np.ascontiguousarray(stored[:, :, shift].transpose(0, 2, 1, 3)).reshape(p * b, q * b)
    raise UserError(f"unknown layout '{layout}'", f"one of {', '.join(LAYOUTS)}")
