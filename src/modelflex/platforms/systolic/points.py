"""The arrays that a layer is simulated on: one point, or many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

MAX_SIDE: Final = 2**14
"""Most rows or columns of an array."""
MAX_BUFFER_KB: Final = 2**30
"""Largest buffer, in units of 1024 words."""

MIN_BANDWIDTH: Final = 2.0**-8
"""Fewest words a cycle: all cycles then stay exact in 64 bits."""


class Bandwidth(NamedTuple):
    """Words a cycle between each operand's buffer and DRAM."""

    ifmap: Array
    filter: Array
    ofmap: Array


class Points(NamedTuple):
    """Arrays of R rows × C columns with a buffer for each operand; fields broadcast.

    Attributes:
        rows, columns: R and C.
        ifmap_kb, filter_kb, ofmap_kb: buffers, in units of 1024 words (a word is a byte).
        bandwidth: of each operand's channel to DRAM, or None for no limit.
    """

    rows: Array
    columns: Array
    ifmap_kb: Array
    filter_kb: Array
    ofmap_kb: Array
    bandwidth: Bandwidth | None = None


def one_point(sizes: Mapping[str, int], bandwidth: Sequence[float] | float | None) -> Points:
    """A single, checked point.

    Args:
        sizes: field of `Points` → size; all but the bandwidth.
        bandwidth: words a cycle of ifmap, filter and ofmap, or one number for all of them.

    Raises:
        UserError: a size below 1 or beyond what can be counted, a bandwidth that is not finite or
            below `MIN_BANDWIDTH`.
    """
    for name, size in sizes.items():
        limit = MAX_SIDE if name in ("rows", "columns") else MAX_BUFFER_KB
        if not 1 <= size <= limit:
            raise UserError(f"{name} is {size}", f"a whole number from 1 to {limit}")
    whole = {name: np.array([size], np.int64) for name, size in sizes.items()}
    if bandwidth is None:
        return Points(**whole, bandwidth=None)
    each = [bandwidth] * 3 if isinstance(bandwidth, (int, float)) else bandwidth
    for words in each:
        if not MIN_BANDWIDTH <= words < np.inf:
            raise UserError(f"bandwidth is {words}", f"words a cycle, at least {MIN_BANDWIDTH}")
    return Points(**whole, bandwidth=Bandwidth(*(np.array([words]) for words in each)))
