"""What one run of every product row costs on a chip: cycles, results, bytes and register moves."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.products import ProductTable
from modelflex.errors import UserError
from modelflex.platforms.systolic.chip import Chip
from modelflex.platforms.systolic.closed_forms import Folds, array_cycles, folds, mapped, sweeps
from modelflex.platforms.systolic.config import SystolicConfig
from modelflex.platforms.systolic.units import packed_terms

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
        buffer_bytes: results of all steps that wait in SRAM for theirs.
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


class _Products(NamedTuple):
    """Products that run as they are: folds, and how many words enter of either operand."""

    folds: Folds
    rows: Array
    columns: Array
    terms: Array
    cycles: Array


def runs(table: ProductTable, chip: Chip, config: SystolicConfig) -> Runs:
    """Count what every row does.

    Raises:
        UserError: a layout that cannot be priced.
    """
    _check(table, config)
    product = table["layout"] != ""
    held = product & (table["state_bytes"] > 0)
    hoisted = table["hoistable"].astype(bool) & (config.workload == "sequence")
    repeats = np.where(hoisted, np.ceil(table.steps), 1.0).astype(np.int64) * config.batch
    # Sequences of a batch send on their own: an input is active if it is for one of them.
    active, density = (1 - (1 - table[name]) ** config.batch for name in ("active", "density"))
    fft = (table["layout"] == "circulant") & (config.circulant == "fft")
    direct = _direct(table, chip, config, repeats, active)
    spectral = _spectral(table, chip, config, repeats, density)
    f = Folds(*(np.where(fft, s, d) for s, d in zip(spectral.folds, direct.folds, strict=True)))
    swept = sweeps(config.dataflow, f)

    m, k = table["m"], table["k"]
    weights = table["units"] * table["unit_bytes"] * density
    inputs = _inputs(table, fft, repeats, active, density)
    once_gathered = np.isin(table["layout"], SPARSE)
    ifmap_bytes = inputs * np.where(once_gathered, 1, swept.ifmap) / 8
    sums = repeats * m * chip.accumulator_bits / 8
    state = table["state_bytes"] * config.batch
    results = repeats * (m + k) + np.where(held, config.batch * (m + k), 0)
    results = results + config.batch * table["functions"] * chip.function_results
    results = results + np.where(fft, _butterflies(table, density) * repeats, 0)
    reads = ifmap_bytes + sums * swept.ofmap_reads + weights * swept.filter + table["fixed_bytes"]
    step = table["runs_per_step"] >= 1
    # A hoisted product runs once for all the steps of a sequence.
    per_step = np.where(hoisted, 1 / table.steps, table["runs_per_step"])
    return Runs(
        cycles=np.where(fft, spectral.cycles, direct.cycles) * product,
        terms=np.where(fft, spectral.terms, direct.terms) * product,
        results=results,
        read_bytes=(reads + state) * product + results * chip.vector_read_bytes,
        write_bytes=(sums * swept.ofmap_writes + state) * product
        + results * chip.vector_write_bytes,
        fetch_bytes=weights + table["fixed_bytes"],
        moved_bits=_moved_bits(table, chip, config, repeats, active, fft) * product,
        buffer_bytes=np.where(hoisted, sums, 0.0),
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
    table: ProductTable, chip: Chip, config: SystolicConfig, repeats: Array, active: Array
) -> _Products:
    """Products with the matrix itself, or with the terms that its pattern keeps."""
    m = table["m"]
    kept = -(-table["macs"] // np.maximum(m, 1))
    k = np.where(np.isin(table["layout"], SPARSE), kept, table["k"])
    bits = table["weight_bits"], table["activation_bits"]
    packed = packed_terms(chip.unit, k, active, *bits)
    return _product(chip, config, repeats, m, packed)


def _spectral(
    table: ProductTable, chip: Chip, config: SystolicConfig, repeats: Array, density: Array
) -> _Products:
    """Block-circulant products in the frequency domain: each of the b/2 − 1 complex bins is a product
    of twice the block rows and columns, the two real bins one of their own (C-LSTM, FPGA 2018).
    """
    block = np.maximum(table["block"], 1)
    p, q = table["m"] // block, table["k"] // block
    width = np.maximum(table["activation_bits"], SPECTRUM_BITS)
    real, whole = (
        _product(
            chip, config, repeats, n * p, packed_terms(chip.unit, n * q, density, table["weight_bits"], width)
        )
        for n in (1, 2)
    )  # fmt: skip
    bins = np.maximum(block // 2 - 1, 0)
    real_bins = np.minimum(block, 2)
    # Folds of the bins lie side by side; sweeps need their number only.
    combined = Folds(real.folds.rows, real.folds.columns, real.folds.length)
    return _Products(
        combined,
        real.rows,
        real.columns,
        real_bins * real.terms + bins * whole.terms,
        real_bins * real.cycles + bins * whole.cycles,
    )


def _product(chip: Chip, config: SystolicConfig, m: Array, n: Array, k: Array) -> _Products:
    f = folds(config.dataflow, m, n, k, chip.rows, chip.columns)
    along_rows, along_columns, _ = mapped(config.dataflow, m, n, k)
    busy = np.where(k > 0, array_cycles(f), 0)
    return _Products(f, along_rows, along_columns, np.asarray(m * n * k), busy)


def _inputs(
    table: ProductTable, fft: Array, repeats: Array, active: Array, density: Array
) -> Array:
    """Bits of the inputs that enter the array once."""
    bits = table["activation_bits"]
    words = table["k"] * active
    shared = np.where(table["layout"] == "block_sparse", np.maximum(table["block"], 1), 1)
    gathered = table["macs"] * active / shared
    words = np.where(np.isin(table["layout"], SPARSE), gathered, words)
    spectrum = table["k"] * density * np.maximum(bits, SPECTRUM_BITS)
    return np.asarray(repeats * np.where(fft, spectrum, words * bits))


def _butterflies(table: ProductTable, density: Array) -> Array:
    """Results of the transforms: of the active inputs there, of the results back (real signals: half
    of the b/2·log₂ b butterflies).
    """
    block = np.maximum(table["block"], 1)
    transforms = table["k"] * density / block + table["m"] / block
    return np.asarray(BUTTERFLY_RESULTS * transforms * block / 4 * np.log2(block))


def _moved_bits(
    table: ProductTable,
    chip: Chip,
    config: SystolicConfig,
    repeats: Array,
    active: Array,
    fft: Array,
) -> Array:
    """The skew at the array's edges, (side − 1)/2 registers a word on average, and one register for
    every weight that is expanded from its block's generator.
    """
    m, k = table["m"], table["k"] * active
    f = folds(config.dataflow, repeats, m, np.ceil(k), chip.rows, chip.columns)
    swept = sweeps(config.dataflow, f)
    down, across, _ = mapped(config.dataflow, repeats, m, np.ceil(k))
    rows, columns = (
        (np.minimum(s, n) - 1) / 2 for s, n in ((chip.rows, down), (chip.columns, across))
    )
    weights = m * k * table["weight_bits"]
    inputs = repeats * k * table["activation_bits"] * swept.ifmap
    sums = repeats * m * chip.accumulator_bits * swept.ofmap_writes
    skew = {
        "os": inputs * rows + weights * swept.filter * columns,
        "ws": inputs * rows + sums * columns,
        "is": weights * swept.filter * rows + sums * columns,
    }[config.dataflow]
    expanded = (table["layout"] == "circulant") & ~fft
    return np.asarray(np.maximum(skew, 0) + np.where(expanded, weights * swept.filter, 0.0))
