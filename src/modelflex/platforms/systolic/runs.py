"""What one run of every product row costs on a chip: cycles, results, bytes and register moves."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.products import ProductTable
from modelflex.errors import UserError
from modelflex.platforms.systolic.chip import Chip
from modelflex.platforms.systolic.closed_forms import array_cycles, folds, mapped, sweeps
from modelflex.platforms.systolic.config import SystolicConfig
from modelflex.platforms.systolic.units import packed_terms
from modelflex.platforms.systolic.workload import MAX_MACS

DENSE: Final = ("dense", "circulant")
SPARSE: Final = ("row_sparse", "block_sparse", "n_m")
LAYOUTS: Final = ("", *DENSE, *SPARSE)
"""Layouts that can be priced; "" is elementwise work. Chains (low rank, …) are a row a product.

Under the sparse ones a column of the array works on its own terms, macs ÷ m of them, and gathers its
inputs one by one (`block_sparse`: once for a block); indices are part of what is stored and fetched.
"""

SPECTRUM_BITS: Final = 16
"""Width of the inputs' spectra: a sum of b values needs log₂ b bits more than one."""
BUTTERFLY_RESULTS: Final = 10
"""Real operations of a radix-2 butterfly: a complex product (4 products, 2 sums), two complex sums."""


class Runs(NamedTuple):
    """[rows], for one run of each row, which serves the whole batch.

    Attributes:
        cycles: of the array; terms: cycles that its units would take if all had work at once.
        results: of the vector unit.
        read_bytes, write_bytes: SRAM; fetch_bytes: of the weight, from wherever it is.
        moved_bits: bits that move on by one register, at the array's edges or to expand circulants.
        buffer_bytes: results of later steps that wait for theirs.
        per_step, once: runs in a steady-state step; runs once an inference.
    """

    cycles: Array
    terms: Array
    results: Array
    read_bytes: Array
    write_bytes: Array
    fetch_bytes: Array
    moved_bits: Array
    buffer_bytes: Array
    per_step: Array
    once: Array


class _Bits(NamedTuple):
    """What enters the array in one sweep, and the sums that leave it."""

    inputs: Array
    weights: Array
    sums: Array


class _Products(NamedTuple):
    """What products take on the array: [rows].

    Attributes:
        input_bits: read from SRAM.
        filter, ofmap_reads, ofmap_writes: SRAM accesses of every weight and of every sum.
    """

    cycles: Array
    terms: Array
    moved_bits: Array
    input_bits: Array
    filter: Array
    ofmap_reads: Array
    ofmap_writes: Array


def runs(table: ProductTable, chip: Chip, config: SystolicConfig) -> Runs:
    """Count what every row does.

    Raises:
        UserError: a layout that cannot be priced.
    """
    _check(table, config)
    product = table["layout"] != ""
    held = product & (table["state_bytes"] > 0)
    hoisted = table["hoistable"].astype(bool) & (config.workload == "sequence")
    # Input vectors of a run; T is a mean, so only folds are whole.
    times = np.where(hoisted, table.steps, 1.0) * config.batch
    vectors = times * table["positions"]
    # Sequences of a batch send on their own: an input is active if it is for one of them.
    active, density = (1 - (1 - table[name]) ** config.batch for name in ("active", "density"))
    fft = (table["layout"] == "circulant") & (config.circulant == "fft")
    direct = _direct(table, chip, config, vectors, active)
    spectral = _spectral(table, chip, config, vectors, density)
    array = _Products(*(np.where(fft, s, d) for s, d in zip(spectral, direct, strict=True)))

    weights = table["units"] * table["unit_bytes"] * density
    sums = vectors * table["m"] * chip.accumulator_bits / 8
    state = table["state_bytes"] * config.batch
    encoded = table.vector_results
    results = times * encoded + np.where(held, config.batch * encoded, 0)
    results = results + config.batch * table["functions"] * chip.function_results
    results = results + np.where(fft, _butterflies(table, density) * vectors, 0)
    reads = array.input_bits / 8 + sums * array.ofmap_reads + weights * array.filter
    step = table["runs_per_step"] >= 1
    # A hoisted product runs once for all the steps of a sequence.
    per_step = np.where(hoisted, 1 / table.steps, table["runs_per_step"])
    return Runs(
        cycles=array.cycles * product,
        terms=array.terms * product,
        results=results,
        read_bytes=(reads + table["fixed_bytes"] + state) * product
        + results * chip.vector_read_bytes,
        write_bytes=(sums * array.ofmap_writes + state) * product
        + results * chip.vector_write_bytes,
        fetch_bytes=weights + table["fixed_bytes"],
        moved_bits=array.moved_bits * product,
        buffer_bytes=np.where(hoisted, sums * (1 - 1 / table.steps), 0.0),
        per_step=np.where(step, per_step, 0.0),
        once=np.where(step, 0.0, table["runs_per_step"] * table.steps),
    )


def _check(table: ProductTable, config: SystolicConfig) -> None:
    for layout in np.unique(table["layout"]):
        if layout not in LAYOUTS:
            raise UserError(
                f"the systolic platform cannot price the layout '{layout}'",
                f"one of {', '.join(filter(None, LAYOUTS))}",
            )
    blocks = np.unique(table["block"][table["layout"] == "circulant"])
    uneven = [int(b) for b in blocks if b & (b - 1)]
    if config.circulant == "fft" and uneven:
        raise UserError(
            f"platform.circulant is 'fft' and there are blocks of {uneven[0]}",
            "blocks that are powers of two",
            "choose circulant = 'expanded' or other blocks",
        )


def _direct(
    table: ProductTable, chip: Chip, config: SystolicConfig, vectors: Array, active: Array
) -> _Products:
    """Products with the matrix itself, or with the terms that its pattern keeps."""
    m, k, macs = table["m"], table["k"], table["macs"] // table["positions"]
    sparse = np.isin(table["layout"], SPARSE)
    kept = -(-macs // np.maximum(m, 1))
    bits = table["weight_bits"], table["activation_bits"]
    terms = packed_terms(chip.unit, np.where(sparse, kept, k), active, *bits)
    # Each column gathers inputs of its own, so that no other one needs them again.
    shared = np.maximum(table["shared_rows"], 1)
    words = np.where(sparse, macs / shared, k) * active
    one_sweep = _Bits(
        vectors * words * table["activation_bits"],
        macs * active * table["weight_bits"],
        vectors * m * chip.accumulator_bits,
    )
    found = _product(chip, config, vectors, m, terms, one_sweep, sparse)
    # A weight that is expanded from its block's generator moves on by one register.
    expanded = np.where(table["layout"] == "circulant", one_sweep.weights * found.filter, 0.0)
    return found._replace(moved_bits=found.moved_bits + expanded)


def _spectral(
    table: ProductTable, chip: Chip, config: SystolicConfig, vectors: Array, density: Array
) -> _Products:
    """Block-circulant products in the frequency domain: each of the b/2 − 1 complex bins is a product
    of twice the block rows and columns, the two real bins one of their own (C-LSTM, FPGA 2018).
    """
    block = np.maximum(table["block"], 1)
    p, q = table["m"] // block, table["k"] // block
    width = np.maximum(table["activation_bits"], SPECTRUM_BITS)
    real_bins, bins = np.minimum(block, 2), np.maximum(block // 2 - 1, 0)
    inputs = vectors * table["k"] * density * width
    stored = p * table["k"] * density * table["weight_bits"]
    sums = vectors * table["m"] * chip.accumulator_bits

    def of(n: int) -> _Products:
        """All words as if they belonged to bins of n numbers; a complex weight enters twice."""
        terms = packed_terms(chip.unit, n * q, density, table["weight_bits"], width)
        return _product(chip, config, vectors, n * p, terms, _Bits(inputs, n * stored, sums))

    real, whole = of(1), of(2)
    share = real_bins / block
    mean = _Products(*(share * r + (1 - share) * w for r, w in zip(real, whole, strict=True)))
    return mean._replace(
        cycles=real_bins * real.cycles + bins * whole.cycles,
        terms=real_bins * real.terms + bins * whole.terms,
    )


def _product(
    chip: Chip,
    config: SystolicConfig,
    vectors: Array,
    n: Array,
    k: Array,
    one_sweep: _Bits,
    gathered: Array | bool = False,
) -> _Products:
    """A product of `vectors`×k by k×n; `gathered` inputs are those of all columns already."""
    if np.any(vectors * n * k > MAX_MACS):
        raise UserError(
            f"products of {np.max(vectors):.6g} vectors of inputs overflow the counters",
            f"at most 2^{MAX_MACS.bit_length() - 1} multiplications in a run",
            "shorter sequences, a smaller batch, or workload = 'streaming'",
        )
    # T is a quotient of counters: its product with the batch may lie a rounding error too high.
    m = np.ceil(vectors - 1e-9).astype(np.int64)
    f = folds(config.dataflow, m, n, k, chip.rows, chip.columns)
    swept = sweeps(config.dataflow, f)
    along_rows, along_columns, _ = mapped(config.dataflow, m, n, k)
    input_bits = one_sweep.inputs * np.where(gathered, 1, swept.ifmap)
    weight_bits = one_sweep.weights * swept.filter
    sum_bits = one_sweep.sums * swept.ofmap_writes
    # The skew at the array's edges: (side − 1)/2 registers a word on average.
    down, across = (
        np.maximum(np.minimum(side, size) - 1, 0) / 2
        for side, size in ((chip.rows, along_rows), (chip.columns, along_columns))
    )
    skew = {
        "os": input_bits * down + weight_bits * across,
        "ws": input_bits * down + sum_bits * across,
        "is": weight_bits * down + sum_bits * across,
    }[config.dataflow]
    started = np.asarray(k > 0)
    return _Products(
        cycles=array_cycles(f) * started,
        terms=np.asarray(m * n * k),
        moved_bits=skew * started,
        input_bits=input_bits,
        filter=swept.filter,
        ofmap_reads=swept.ofmap_reads * started,
        ofmap_writes=swept.ofmap_writes * started,
    )


def _butterflies(table: ProductTable, density: Array) -> Array:
    """Results of the transforms: of the active inputs there, of the results back (real signals: half
    of the b/2·log₂ b butterflies).
    """
    block = np.maximum(table["block"], 1)
    transforms = table["k"] * density / block + table["m"] / block
    return np.asarray(BUTTERFLY_RESULTS * transforms * block / 4 * np.log2(block))
