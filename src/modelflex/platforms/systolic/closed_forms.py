"""Cycles and SRAM accesses of a product on a systolic array, in closed form.

A GEMM with an ifmap M×K, a filter K×N and an ofmap M×N runs on an array of R rows and C columns
under one of three dataflows: output, weight or input stationary (os, ws, is). The terms are those
of SCALE-Sim (Samajdar et al., ISPASS 2020); all functions are vectorised over arrays of M, N, K.

Where these forms differ from what SCALE-Sim 3.0.0 reports, it is on purpose:

- cycles: SCALE-Sim reports one cycle fewer than the folds take (its issue 125, off by one);
- ofmap writes, os: SCALE-Sim adds (R + C) for each fold (its issue 166);
- ofmap reads, ws and is: K is cut into row folds, so the partial sums of one fold are read back by
  the next; SCALE-Sim counts no read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

import numpy as np

from modelflex.core.fixed import Array

Dataflow = Literal["os", "ws", "is"]

_MAPPED: Final[Mapping[Dataflow, tuple[str, str, str]]] = {
    "os": ("m", "n", "k"),
    "ws": ("k", "n", "m"),
    "is": ("k", "m", "n"),
}
"""Which dimension lies along the array's rows, along its columns, and in time."""


class Folds(NamedTuple):
    """Folds along rows and columns, and the cycles of one fold (edge folds cost as much)."""

    rows: Array
    columns: Array
    length: Array


class Sweeps(NamedTuple):
    """How often each operand passes between SRAM and the array: accesses = words · sweeps."""

    ifmap: Array
    filter: Array
    ofmap_writes: Array
    ofmap_reads: Array


def ceil_div(a: Array, b: Array | int) -> Array:
    """⌈a / b⌉ of non-negative integers."""
    return np.asarray(-(-a // b))


def mapped(dataflow: Dataflow, m: Array, n: Array, k: Array) -> tuple[Array, Array, Array]:
    """(Sr, Sc, T): what lies along the array's rows, along its columns, and in time."""
    size = {"m": m, "n": n, "k": k}
    rows, columns, time = (size[name] for name in _MAPPED[dataflow])
    return rows, columns, time


def folds(
    dataflow: Dataflow, m: Array, n: Array, k: Array, rows: Array | int, columns: Array | int
) -> Folds:
    """How the GEMM is cut into folds that fill the array once.

    A fold takes T + R + C − 2 cycles under os. Under ws and is the stationary operand is first
    loaded, which takes R cycles more.
    """
    along_rows, along_columns, time = mapped(dataflow, m, n, k)
    loading = 0 if dataflow == "os" else rows
    return Folds(
        ceil_div(along_rows, rows),
        ceil_div(along_columns, columns),
        np.asarray(time + loading + rows + columns - 2),
    )


def array_cycles(f: Folds) -> Array:
    """Compute cycles without stalls."""
    return np.asarray(f.rows * f.columns * f.length)


def cycles(
    dataflow: Dataflow, m: Array, n: Array, k: Array, rows: Array | int, columns: Array | int
) -> Array:
    """Compute cycles without stalls; nothing is started for a product without terms (K = 0)."""
    f = folds(dataflow, m, n, k, rows, columns)
    return np.where(np.asarray(k) > 0, array_cycles(f), 0)


def sweeps(dataflow: Dataflow, f: Folds) -> Sweeps:
    """SRAM accesses of every word of an operand, given the folds of the GEMM."""
    once = np.ones_like(f.rows)
    partial_sums = once if dataflow == "os" else f.rows
    return Sweeps(
        ifmap=once if dataflow == "is" else f.columns,
        filter={"os": f.rows, "ws": once, "is": f.columns}[dataflow],
        ofmap_writes=partial_sums,
        ofmap_reads=np.maximum(partial_sums - 1, 0),
    )
