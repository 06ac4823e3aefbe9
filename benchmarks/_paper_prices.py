"""Axes and prices of paper_sensitivity.py: the paper's 36 solutions under every combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from modelflex_paper import solutions

from modelflex.core.fixed import Array
from modelflex.core.products import ProductTable
from modelflex.platforms.systolic import Systolic
from modelflex.platforms.systolic.closed_forms import Dataflow, Folds, array_cycles, folds, sweeps
from modelflex.platforms.systolic.memories import read_dram, read_onchip
from modelflex.platforms.systolic.units import packed_terms, read_unit

SPEC = Systolic.from_config({}).spec
ROWS, COLUMNS = int(SPEC["array_rows"]), int(SPEC["array_columns"])
FUSION = read_unit("fusion_8_2")
WIDTHS = (16, 8, 4, 2)
PJ = 1e-12


@dataclass(frozen=True)
class Level:
    """One value of an axis; `cited` is False for values without a source that can be looked up."""

    label: str
    value: Any
    source: str = ""
    cited: bool = True


class UnitCost(NamedTuple):
    """Energy [J] a cycle and leakage [W] at one place of the array, by operand width."""

    energy: Mapping[int, float]
    leakage: Mapping[int, float]


def _fixed_units() -> UnitCost:
    """As many fixed units of an operand's width as match a fusion unit's throughput at that width."""
    energy, leakage = {}, {}
    for width in WIDTHS:
        unit = read_unit(f"fixed_{width}")
        products, cycles = FUSION.packing(np.array(width), np.array(width))
        energy[width] = float(products / cycles) * unit.energy_j
        leakage[width] = float(products / cycles) * unit.leakage_w
    return UnitCost(energy, leakage)


def _drams() -> tuple[Level, ...]:
    """Distinct energies of a bit in the shipped DRAM types; equal ones count once."""
    levels = []
    for name, constant, cited in (
        ("hbm2", "energy", True), ("hmc", "energy", True), ("lpddr4", "energy", True),
        ("lpddr3", "energy_low", False), ("gddr5", "energy", True), ("bitfusion", "energy", True),
        ("horowitz", "energy_low", True), ("lpddr2", "energy", True), ("ddr3", "energy", True),
    ):  # fmt: skip
        spec = read_dram(name).spec
        label = f"{spec[constant] / PJ:g} pJ/bit"
        source = f"{spec.title}: {spec.constants[constant].source}"
        levels.append(Level(label, spec[constant], source, cited))
    fit = Level("4 pJ/bit", 4 * PJ, "a fit: chosen to give 18 and 1", cited=False)
    return tuple(sorted([*levels, fit], key=lambda level: level.value))


def _srams() -> tuple[Level, ...]:
    """Energy of a bit read by the size of a bank: CACTI's points and Horowitz's."""
    cacti = read_onchip("sram")
    energies = dict(zip(cacti.capacities, cacti.points["read_energy"] / 8, strict=True))
    energies[4096] = SPEC["sram_energy"]  # the same point, as the platform rounds it
    source = f"{cacti.spec.title}, read: CACTI, repository hsharma35/bitfusion"
    levels = [Level(f"{_size(b)} CACTI", float(e), source) for b, e in energies.items()]
    horowitz = "Horowitz, Computing's Energy Problem, ISSCC 2014, 45 nm: {} pJ for 64 bits"
    for bank, access in ((2**13, 10), (2**15, 20), (2**20, 100)):
        label = f"{_size(bank)} Horowitz"
        levels.append(Level(label, access / 64 * PJ, horowitz.format(access)))
    return tuple(sorted(levels, key=lambda level: level.value))


def _size(capacity: float) -> str:
    for unit, factor in (("MB", 2**20), ("KB", 2**10)):
        if capacity >= factor:
            return f"{capacity / factor:g} {unit}"
    return f"{capacity:g} B"


SYNTHESIS = "repository hsharma35/bitfusion, results/systolic_array_synth.csv, 45 nm"
FUSION_COST = UnitCost(
    dict.fromkeys(WIDTHS, FUSION.energy_j), dict.fromkeys(WIDTHS, FUSION.leakage_w)
)

AXES: Mapping[str, tuple[Level, ...]] = {
    "dataflow": tuple(Level(name, name) for name in ("os", "ws", "is")),
    "on-chip words": (
        Level("own width", "own", "operands at their width, 32-bit partial sums read back"),
        Level("whole bytes", "bytes", "inputs and weights of 2 and 4 bits fill a byte of SRAM"),
        Level("SCALE-Sim's", "scalesim", "3.0.0: no partial sum is read back; os writes R + C more a fold"),
    ),
    "residency": (
        Level("streamed", "streamed", "weights come from DRAM at every step"),
        Level("all or none", "fit", "weights stay in the 4 MB of SRAM if all fit, else all are streamed"),
        Level("what fits", "partial", "what exceeds the 4 MB of SRAM is streamed"),
    ),
    "DRAM bandwidth": (
        Level("unlimited", np.inf),
        Level("12.8 GB/s", SPEC["dram_bandwidth"], "LPDDR4-3200, 32 bit, peak"),
    ),
    "unit": (
        Level("fusion 8/2", FUSION_COST, f"0.459 pJ a cycle, 59.3 µW; {SYNTHESIS}"),
        Level("fixed", _fixed_units(), f".603/.203/.0824/.0407 pJ a product at 16/8/4/2 bits; {SYNTHESIS}"),
    ),
    "units that spend": (
        Level("all, every cycle", True, "BitFusion's simulator"),
        Level("busy ones", False, "perfect clock gating"),
    ),
    "leakage": (Level("not counted", 0.0, "as in BitFusion"), Level("of the units", 1.0, SYNTHESIS)),
    "SRAM energy": _srams(),
    "DRAM energy": _drams(),
    "energy limit": tuple(Level(f"{p:+d} %", 1 + p / 100) for p in (-20, -10, 0, 10, 20)),
    "latency limit": tuple(Level(f"{p:+d} %", 1 + p / 100) for p in (-20, -10, 0, 10, 20)),
}  # fmt: skip
NAMES = tuple(AXES)
PRICED, LIMITS = NAMES[:-2], NAMES[-2:]
"""Axes of prices; the limits come after them, the solutions last."""

CITED = {
    "dataflow": "os", "on-chip words": "own width", "residency": "streamed",
    "DRAM bandwidth": "unlimited", "unit": "fusion 8/2", "units that spend": "all, every cycle",
    "leakage": "not counted", "SRAM energy": "4 KB CACTI", "DRAM energy": "8 pJ/bit",
    "energy limit": "+0 %", "latency limit": "+0 %",
}  # fmt: skip
"""The shipped spec and the platform's defaults."""
FIT = CITED | {"DRAM energy": "4 pJ/bit"}
RIVAL = CITED | {"dataflow": "ws", "residency": "what fits"}
"""Weight stationary, weights kept as far as they fit: cited constants alone."""
POINTS = {"fit": FIT, "rival": RIVAL, "cited": CITED}


def at(point: Mapping[str, str], axes: Sequence[str] = NAMES) -> tuple[int, ...]:
    """The index of a combination given by the labels of its levels."""
    return tuple([level.label for level in AXES[a]].index(point[a]) for a in axes)


class Prices(NamedTuple):
    """Latency [s] and energy [J] of a step: [levels of each axis of PRICED ..., 36]."""

    latency_s: Array
    energy_j: Array


def prices() -> Prices:
    """Every solution under every combination of constants and choices."""
    per_dataflow = [_priced(level.value) for level in AXES["dataflow"]]
    return Prices(*(np.stack(column) for column in zip(*per_dataflow, strict=True)))


def _priced(dataflow: Dataflow) -> Prices:
    table = solutions()
    bits, outputs, inputs = table["weight_bits"], table["m"], table["k"]
    terms = packed_terms(FUSION, inputs, table["active"], bits, table["activation_bits"])
    f = folds(dataflow, np.ones_like(outputs), outputs, terms, ROWS, COLUMNS)
    results = vector_results(table)
    vector_cycles = np.ceil(results / SPEC["vector_lanes"])
    compute_s = (array_cycles(f) + vector_cycles) / SPEC["clock"]

    resident = np.array([resident_share(r.value, table) for r in AXES["residency"]])
    dram_bits = fetched_bits(table) * (1 - _along("residency", resident))
    latency = np.maximum(compute_s, dram_bits / 8 / _levels("DRAM bandwidth"))

    moved = np.array([sram_bits(dataflow, w.value, table, f) for w in AXES["on-chip words"]])
    spending = np.array([array_cycles(f) * ROWS * COLUMNS, outputs * terms])
    energy = (
        _along("units that spend", spending) * _of_units("energy", bits)
        + results * SPEC["vector_energy"]
        + _along("on-chip words", moved) * _levels("SRAM energy")
        + dram_bits * _levels("DRAM energy")
        + _levels("leakage") * _of_units("leakage", bits) * ROWS * COLUMNS * latency
    )
    return Prices(np.broadcast_to(latency, energy.shape), energy)


def _along(axis: str, values: Array) -> Array:
    """`values` [levels] or [levels, 36], shaped to broadcast over the axes after the dataflow."""
    shape = [1] * len(PRICED)
    shape[PRICED.index(axis) - 1] = len(values)
    shape[-1] = values.shape[1] if values.ndim == 2 else 1
    return values.reshape(shape)


def _levels(axis: str) -> Array:
    return _along(axis, np.array([level.value for level in AXES[axis]], dtype=float))


def _of_units(constant: str, bits: Array) -> Array:
    by_width = [getattr(level.value, constant) for level in AXES["unit"]]
    return _along("unit", np.array([[widths[b] for b in bits] for widths in by_width]))


def resident_share(residency: str, table: ProductTable) -> Array:
    """Share of the weights that stays in SRAM from step to step: [36]."""
    fits = (SPEC["sram_capacity"] - table["state_bytes"]) / table["stored_bytes"]
    shares = {"streamed": 0 * fits, "fit": fits >= 1, "partial": np.minimum(fits, 1)}
    return np.asarray(shares[residency], dtype=float)


def vector_results(table: ProductTable) -> Array:
    """Inputs that are encoded and outputs that are rescaled; delta differences and accumulates: [36]."""
    return np.asarray((table["m"] + table["k"]) * np.where(table["state_bytes"] > 0, 2, 1))


def fetched_bits(table: ProductTable) -> Array:
    """Bits of the weights that a step reads: [36]."""
    return np.asarray(8 * table["units"] * table["unit_bytes"] * table["density"])


def sram_bits(dataflow: Dataflow, words: str, table: ProductTable, f: Folds) -> Array:
    """Between SRAM and array or vector unit in a step, under a variant of counting words: [36]."""
    swept = sweeps(dataflow, f)
    sums = table["m"] * (swept.ofmap_writes + swept.ofmap_reads)
    if words == "scalesim":
        drained = f.rows * f.columns * (ROWS + COLUMNS) if dataflow == "os" else 0
        sums = table["m"] * swept.ofmap_writes + drained
    inputs = table["k"] * table["active"] * table["activation_bits"] * swept.ifmap
    operands = inputs + fetched_bits(table) * swept.filter
    if words == "bytes":
        operands = operands * np.maximum(8 / table["weight_bits"], 1)
    elementwise = vector_results(table) * SPEC["vector_traffic"]
    state = 2 * 8 * table["state_bytes"]  # read and written
    return np.asarray(operands + sums * SPEC["accumulator_width"] + state + elementwise)
