"""Sweeps: a workload on every point of a grid of arrays, buffers, bandwidths and number formats.

The grid is evaluated in chunks, so memory grows with the chunk, not with the grid. A point is
brought into the simulator's terms: a unit takes g terms a cycle (of narrow operands several, of wide
ones a part), so K becomes ⌈⌈K·density⌉ ÷ g⌉ groups, and buffers and bandwidth are measured in groups.

Assumptions:

- a block-circulant weight has 1/block of the words in DRAM and buffers, and is multiplied expanded;
  a layer whose N or K the block does not divide stays dense;
- density is the share of inputs that a delta sends: the others' weights are not read;
- a result has the chip's `accumulator_width`, or one byte without a chip;
- every unit spends its energy in every cycle that is no stall; filling a buffer from DRAM costs DRAM
  energy only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.spec import Spec
from modelflex.errors import UserError
from modelflex.platforms.systolic.chip import DEFAULT_SRAM, Chip, read_chip
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.config import SystolicConfig
from modelflex.platforms.systolic.memories import OnChipType, read_onchip
from modelflex.platforms.systolic.points import Bandwidth, Points
from modelflex.platforms.systolic.simulate import KB, simulate
from modelflex.platforms.systolic.sweep_config import Axis, ChipConfig, SweepConfig
from modelflex.platforms.systolic.sweep_found import Best, Front, Least, Sample
from modelflex.platforms.systolic.units import Unit, packed_terms, read_unit
from modelflex.platforms.systolic.workload import MAX_MACS, Shape, Workload, gemm_shape

CHUNK: Final = 1 << 15
"""Points that are evaluated at once."""
DEFAULT_UNIT: Final = "fusion_8_2"
"""What multiplies where no chip is given."""

_BUFFERS: Final = ("ifmap", "filter", "ofmap")
_MOVED: Final = tuple(
    f"{memory}_{name}"
    for memory in ("sram", "dram")
    for name in ("ifmap", "filter", "ofmap", "ofmap_reads")
)
_SAMPLE: Final = 2000

Columns = Mapping[str, Array]
Tell = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class SweepSummary:
    """What a sweep found; a row maps the table's columns to values.

    Attributes:
        points, infeasible: of the grid, and those whose buffers cannot hold a tile.
        best: column → the row in which it is least.
        objectives: the three columns of the front.
        front: column → values of the rows that no other row beats in all objectives, by the first.
        thinned: whether the front had more points than are kept.
        least: column → [y, x], least value over all other axes, NaN where no point fits; places
            are those of `bins`.
        map_axes: (x, y) of `least`.
        sample: column → values of some evenly spaced rows.
        notes: what a reader must know.
    """

    points: int
    infeasible: int
    best: Mapping[str, Mapping[str, Any]]
    objectives: tuple[str, ...]
    front: Columns
    thinned: bool
    least: Columns
    map_axes: tuple[Axis, Axis]
    sample: Columns
    notes: tuple[str, ...] = field(default=())


def run_sweep(
    config: SweepConfig,
    layers: Sequence[Workload],
    write: Callable[[dict[str, Array]], None],
    tell: Tell = lambda done, total: None,
    chunk: int = CHUNK,
) -> SweepSummary:
    """Evaluate the grid; rows come in its order, dataflow outermost and density innermost.

    The layers run one after the other, each once. Columns: those of the axes; fits; cycles (stalls
    included), stall_cycles, three utilisations in percent; sram_… and dram_… of each operand in
    bytes, dram_bytes: their sum; units of the array; and with a chip latency_s,
    energy_j with its parts, edp_js and area_m2. Where the buffers cannot hold a tile, fits is false
    and everything after it that time or traffic goes into is NaN.

    Args:
        write: takes the columns of each chunk.
        tell: told points done and points in all, after each chunk.
        chunk: points that are evaluated at once.

    Raises:
        UserError: an unknown chip, unit or memory; layers that are too large to count together.
    """
    if sum(math.prod(map(int, layer.shape[:3])) for layer in layers) > MAX_MACS:
        raise UserError("the layers together overflow the counters", f"at most {MAX_MACS} products")
    pricing = None if config.chip is None else _Pricing(config.chip, config.axes)
    unit = read_unit(DEFAULT_UNIT) if pricing is None else pricing.chip.unit
    objectives = ("cycles", "dram_bytes", "units")
    wanted: tuple[str, ...] = objectives
    if pricing is not None:
        objectives = ("latency_s", "energy_j", "area_m2")
        wanted = (*objectives, "edp_js")
    best = {name: Best((name, *(o for o in objectives if o != name))) for name in wanted}
    front, sample = Front(objectives), Sample(max(1, config.points // _SAMPLE))
    x, y = config.map_axes
    least = {name: Least(y.size, x.size) for name in objectives[:2]}
    done = infeasible = 0
    for grid in _chunks(config, chunk):
        rows = _evaluate(grid, layers, unit, pricing)
        write(rows)
        for each in best.values():
            each.add(rows)
        front.add(rows)
        sample.add(grid.start, rows)
        for name, found in least.items():
            found.add(grid.places[y.name], grid.places[x.name], rows[name])
        done += grid.size
        infeasible += int(np.count_nonzero(~rows["fits"]))
        tell(done, config.points)
    return SweepSummary(
        points=config.points,
        infeasible=infeasible,
        best={name: found.row for name, found in best.items() if found.row},
        objectives=objectives,
        front=front.rows(),
        thinned=front.thinned,
        least={name: found.values() for name, found in least.items()},
        map_axes=(x, y),
        sample=sample.rows(),
        notes=tuple(_notes(config, layers)),
    )


class _Grid(NamedTuple):
    """A chunk of the grid.

    Attributes:
        start, size: rows start … start + size − 1.
        places: axis → index into its values: [size], or [1] for an axis of one value.
        columns: the axes' columns, likewise.
        dataflow, unlimited: the same for all of a chunk.
    """

    start: int
    size: int
    places: Mapping[str, Array]
    columns: Mapping[str, Array]
    dataflow: Dataflow
    unlimited: bool


def _chunks(config: SweepConfig, chunk: int) -> Iterator[_Grid]:
    """Chunks of one dataflow each, and of limited or unlimited bandwidth."""
    sizes = [axis.size for axis in config.axes]
    dataflow, bandwidth = config.axes[:2]
    limits = bandwidth.columns["bandwidth"]
    inner = math.prod(sizes[2:])
    finite = int(np.count_nonzero(np.isfinite(limits))) * inner
    one = np.zeros(1, np.int64)
    for number, name in enumerate(dataflow.columns["dataflow"]):
        begin = number * len(limits) * inner
        end = begin + len(limits) * inner
        for low, high in ((begin, begin + finite), (begin + finite, end)):
            for start in range(low, high, chunk):
                flat = np.arange(start, min(start + chunk, high))
                spread = np.unravel_index(flat, sizes)
                places = {
                    axis.name: place if axis.size > 1 else one
                    for axis, place in zip(config.axes, spread, strict=True)
                }
                columns = {
                    column: values[places[axis.name]]
                    for axis in config.axes
                    for column, values in axis.columns.items()
                }
                yield _Grid(
                    start,
                    len(flat),
                    places,
                    columns,
                    cast(Dataflow, str(name)),
                    low == begin + finite,
                )


def _evaluate(
    grid: _Grid, layers: Sequence[Workload], unit: Unit, pricing: _Pricing | None
) -> dict[str, Array]:
    """The rows of a chunk: column → [size]."""
    result_bytes = 1.0 if pricing is None else pricing.chip.accumulator_bits / 8
    ran = _run(grid, layers, unit, result_bytes)
    # A row that does not fit has no figures: whoever averages or sorts must not meet them.
    missing = np.where(ran.pop("fits"), 0.0, np.nan)
    figures = {name: values + missing for name, values in ran.items()}
    figures["dram_bytes"] = np.asarray(sum(figures[n] for n in _MOVED if n.startswith("dram")))
    figures["units"] = grid.columns["rows"] * grid.columns["columns"]
    if pricing is not None:
        figures |= pricing.price(grid, figures)
    del figures["work"]
    columns = {**grid.columns, "fits": np.isfinite(missing), **figures}
    return {name: np.broadcast_to(values, grid.size) for name, values in columns.items()}


def _run(
    grid: _Grid, layers: Sequence[Workload], unit: Unit, result_bytes: float
) -> dict[str, Array]:
    """Sums over the layers; `work` are the cycles without stalls."""
    at = grid.columns
    packing = unit.packing(at["weight_bits"], at["activation_bits"])
    terms = packing[0] / packing[1]  # of a group
    ifmap_bytes = terms * at["activation_bits"] / 8
    total: dict[str, Array] = {}
    fits: Array = np.ones(1, bool)
    for layer in layers:
        shape = layer.shape
        divides = (shape.n % at["block"] == 0) & (shape.k % at["block"] == 0)
        filter_bytes = terms * at["weight_bits"] / 8 / np.where(divides, at["block"], 1)
        groups = packed_terms(
            unit, shape.k, at["density"], at["weight_bits"], at["activation_bits"]
        )
        points = Points(
            at["rows"],
            at["columns"],
            at["ifmap_kb"] / ifmap_bytes,
            at["filter_kb"] / filter_bytes,
            at["ofmap_kb"] / result_bytes,
            _channels(grid, ifmap_bytes, filter_bytes, result_bytes),
        )
        ran = simulate(grid.dataflow, in_groups(shape, groups), points)
        fits = fits & ran["fits"]
        _add(total, _layer(ran, ifmap_bytes, filter_bytes, result_bytes))
    cycles, work = total["cycles"], total["work"]
    return {
        "cycles": cycles,
        "stall_cycles": cycles - work,
        "mapping_utilization": total["mapped"] / work,
        "compute_utilization": total["used"] / work,
        "overall_utilization": total["used"] / cycles,
        **{name: total[name] for name in _MOVED},
        "work": work,
        "fits": fits,
    }


def _channels(
    grid: _Grid, ifmap_bytes: Array, filter_bytes: Array, result_bytes: float
) -> Bandwidth | None:
    """Groups of the inputs and of the weights, and results, that a channel moves a cycle."""
    if grid.unlimited:
        return None
    width = grid.columns["bandwidth"]
    return Bandwidth(width / ifmap_bytes, width / filter_bytes, width / result_bytes)


def _layer(
    ran: Columns, ifmap_bytes: Array, filter_bytes: Array, result_bytes: float
) -> dict[str, Array]:
    """One layer's figures in bytes, utilisations weighted by the cycles without stalls."""
    size = {"ifmap": ifmap_bytes, "filter": filter_bytes}
    moved = {name: ran[name] * size.get(name.split("_", 1)[1], result_bytes) for name in _MOVED}
    cycles, work = ran["cycles"], ran["cycles"] - ran["stall_cycles"]
    return {
        "cycles": cycles,
        "work": work,
        "mapped": ran["mapping_utilization"] * work,
        "used": ran["compute_utilization"] * work,
        **moved,
    }


def _add(total: dict[str, Array], more: Columns) -> None:
    for name, values in more.items():
        total[name] = total[name] + values if name in total else values


def in_groups(shape: Shape, groups: Array) -> Shape:
    """A layer whose K terms are taken as so many groups; the ifmap's words become groups as well."""
    m, n, k, words, ifmap_slice = shape
    if words == m * k:
        return gemm_shape(m, n, groups)
    share = groups / k

    def scaled(count: Array) -> Array:
        return np.ceil(count * share).astype(np.int64)

    distinct = scaled(words)

    def groups_in_slice(pixels: Array, terms: Array) -> Array:
        return np.minimum(
            scaled(ifmap_slice(pixels, np.ceil(terms / share).astype(np.int64))), distinct
        )

    return Shape(m, n, groups, distinct, groups_in_slice)


def swept_chip(config: ChipConfig) -> tuple[Spec, Chip, OnChipType]:
    """The spec, the chip, and the memory type of its buffers.

    Raises:
        UserError: an unknown or broken spec, unit or memory.
    """
    chosen = SystolicConfig(spec=config.spec, unit=config.unit, dram=config.dram)
    memory = read_onchip(DEFAULT_SRAM if config.sram is None else config.sram)
    return (*read_chip(chosen), memory)


class _Pricing:
    """A chip's clock, energies and areas; those of buffers for every value of their axes."""

    def __init__(self, config: ChipConfig, axes: Sequence[Axis]) -> None:
        _, self.chip, memory = swept_chip(config)
        self.buffers: dict[str, dict[str, Array]] = {}
        for name in _BUFFERS:
            (axis,) = (axis for axis in axes if axis.name == f"{name}_kb")
            capacity = KB * axis.columns[axis.name]
            energy = {
                "read_j": np.full(axis.size, self.chip.sram_read_j),
                "write_j": np.full(axis.size, self.chip.sram_write_j),
            }
            if config.sram is not None:
                energy = {
                    "read_j": memory.energy_j_per_byte(capacity, "read"),
                    "write_j": memory.energy_j_per_byte(capacity, "write"),
                }
            self.buffers[name] = {
                **energy,
                "area_m2": memory.area_m2(capacity),
                # Leakage of a type that nobody chose would be a guess.
                "leakage_w": memory.leakage_w(capacity) * (config.sram is not None),
            }
        self.leakage = config.leakage

    def price(self, grid: _Grid, figures: Columns) -> dict[str, Array]:
        """Columns in SI units, from figures [size]."""
        chip, units = self.chip, figures["units"]

        def of(name: str, what: str) -> Array:
            return self.buffers[name][what][grid.places[f"{name}_kb"]]

        latency_s = figures["cycles"] / chip.clock
        parts = {
            "arithmetic_j": figures["work"] * units * chip.unit.energy_j,
            "sram_j": figures["sram_ifmap"] * of("ifmap", "read_j")
            + figures["sram_filter"] * of("filter", "read_j")
            + figures["sram_ofmap"] * of("ofmap", "write_j")
            + figures["sram_ofmap_reads"] * of("ofmap", "read_j"),
            "dram_j": figures["dram_bytes"] * chip.dram_j,
        }
        if self.leakage:
            leakage_w = units * chip.unit.leakage_w + sum(of(n, "leakage_w") for n in _BUFFERS)
            parts["leakage_j"] = leakage_w * latency_s
        energy_j = np.asarray(sum(parts.values()))
        area_m2 = units * chip.unit.area_m2 + sum(of(name, "area_m2") for name in _BUFFERS)
        return {
            "latency_s": latency_s,
            "energy_j": energy_j,
            **parts,
            "edp_js": energy_j * latency_s,
            "area_m2": np.asarray(area_m2),
        }


def _notes(config: SweepConfig, layers: Sequence[Workload]) -> Iterator[str]:
    blocks = next(axis for axis in config.axes if axis.name == "block").columns["block"].tolist()
    for layer in layers:
        n, k = int(layer.shape.n), int(layer.shape.k)
        if dense := [str(b) for b in blocks if n % b or k % b]:
            more = " and others" if len(dense) > 5 else ""
            yield (
                f"layer {layer.name} ({n}×{k}) stays dense where a block does not divide it: "
                f"{', '.join(dense[:5])}{more}"
            )
