"""The design space: every T_r in [1, R] and T_c in [1, NZ] is tried for each NZ and number of terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.fpga.engine import MAX_SIZE, Engine, Timing, check_size
from modelflex.platforms.fpga.resources import Resources, dense_resources, refine_resources

Objective = Literal["time", "latency"]
"""What is least: `Timing.time_s`, as published, or `Timing.latency_s`."""
BLOCK: Final = 2**18
"""Designs that are evaluated at once."""
MAX_DESIGNS: Final = 3 * 10**8
"""Most designs of an exploration: a minute or two."""


@dataclass(frozen=True)
class Design:
    """An engine at a workload: the tiles, what it takes, and how long.

    Attributes:
        nz, steps: NZ and number of terms; None for the dense engine.
        row_tile, column_tile: T_r and T_c.
        bound: "memory" or "compute".
        block_rams: of 36 Kb, in halves.
        energy_j: power above idle over time_s; None where nobody measured the chip's power.
        Other fields: see `Timing` and `Resources`.
    """

    nz: int | None
    steps: int | None
    row_tile: int
    column_tile: int
    time_s: float
    latency_s: float
    ops: int
    bytes: int
    cycles: int
    ops_per_s: float
    compute_ops_per_s: float
    intensity: float
    bound: str
    dsp_slices: int
    luts: int
    flip_flops: int
    block_rams: float
    power_w: float | None
    energy_j: float | None


@dataclass(frozen=True)
class Exploration:
    """What was found.

    Attributes:
        designs: how many were evaluated; feasible: how many of them fit.
        best: (NZ, terms, the fastest design) in the order asked for; None where none fits.
    """

    designs: int
    feasible: int
    best: tuple[tuple[int, int, Design | None], ...]


def explore(
    engine: Engine, nz: Sequence[int], steps: Sequence[int], objective: Objective = "time"
) -> Exploration:
    """The fastest design that fits, for every NZ and every number of terms.

    Of designs that are equally fast, the one with the fewest DSP slices is taken, of those the one with the
    fewest block RAMs, of those the one with the smallest T_r, then T_c.

    Args:
        nz: inputs that each term keeps, from 1 to C; steps: numbers of terms.

    Raises:
        UserError: sizes out of range, or more than `MAX_DESIGNS` designs.
    """
    _check_nz(engine, nz)
    if not steps:
        raise UserError("steps is empty", "at least one number")
    for value in steps:
        check_size(value, MAX_SIZE, "steps", "")
    designs = engine.rows * sum(nz) * len(steps)
    _check_count(designs, "explore fewer values of NZ and of steps")
    feasible, best = 0, []
    for kept in nz:
        found = [_Least() for _ in steps]
        for row_tile, column_tile, taken in _fitting(engine, kept):
            feasible += row_tile.size * len(steps)
            for least, count in zip(found, steps, strict=True):
                timing = engine.refine(row_tile, column_tile, kept, count)
                least.see(_rank(timing, objective), row_tile, column_tile, taken)
        best += [
            (
                kept,
                count,
                None if least.tiles is None else refine_design(engine, kept, count, *least.tiles),
            )
            for count, least in zip(steps, found, strict=True)
        ]
    return Exploration(designs, feasible, tuple(best))


def explore_deadline(engine: Engine, nz: Sequence[int], deadline_s: float) -> Exploration:
    """The design that adds the most terms before a deadline, for every NZ: by the latency, tail included.

    Where no design that fits adds one term in time, the number of terms is 0 and the design None.

    Raises:
        UserError: sizes or a deadline out of range, or more than `MAX_DESIGNS` designs.
    """
    if not 0 < deadline_s < np.inf:  # also of a number that is none
        raise UserError(f"deadline is {deadline_s:g} s", "a finite time above zero")
    _check_nz(engine, nz)
    designs = engine.rows * sum(nz)
    _check_count(designs, "explore fewer values of NZ")
    feasible = 0
    best: list[tuple[int, int, Design | None]] = []
    for kept in nz:
        most = _Least()
        for row_tile, column_tile, taken in _fitting(engine, kept):
            feasible += row_tile.size
            terms = engine.terms_within(row_tile, column_tile, kept, deadline_s)
            most.see(-terms, row_tile, column_tile, taken)
        steps = 0
        if most.tiles is not None:
            steps = int(engine.terms_within(*most.tiles, kept, deadline_s))
        if most.tiles is None or not steps:
            best.append((kept, 0, None))
        else:
            best.append((kept, steps, refine_design(engine, kept, steps, *most.tiles)))
    return Exploration(designs, feasible, tuple(best))


def explore_dense(engine: Engine, objective: Objective = "time") -> Design | None:
    """The fastest dense engine that fits, with T_r in [1, R] and T_c in [1, C]; None if none fits.

    Raises:
        UserError: more than `MAX_DESIGNS` designs.
    """
    _check_count(engine.rows * engine.columns, "fewer rows or columns")
    least = _Least()
    for row_tile, column_tile in _tiles(engine.rows, engine.columns):
        taken = dense_resources(engine, row_tile, column_tile)
        fits = taken.fits(engine.chip)
        if fits.any():
            row_tile, column_tile, taken = _only(fits, row_tile, column_tile, taken)
            timing = engine.dense(row_tile, column_tile)
            least.see(_rank(timing, objective), row_tile, column_tile, taken)
    if least.tiles is None:
        return None
    timing = engine.dense(*least.tiles)
    return _design(engine, least.tiles, timing, dense_resources(engine, *least.tiles))


def _check_nz(engine: Engine, nz: Sequence[int]) -> None:
    if not nz:
        raise UserError("nz is empty", "at least one number")
    for value in nz:
        check_size(value, engine.columns, "nz", f", the columns ({engine.columns})")


def _check_count(designs: int, mend: str) -> None:
    if designs > MAX_DESIGNS:
        raise UserError(f"there are {designs:,} designs", f"at most {MAX_DESIGNS:,}", mend)


def refine_design(engine: Engine, nz: int, steps: int, row_tile: int, column_tile: int) -> Design:
    """A given design at a workload, whether it fits or not."""
    taken = refine_resources(engine, row_tile, column_tile, nz)
    timing = engine.refine(row_tile, column_tile, nz, steps)
    return _design(engine, (row_tile, column_tile), timing, taken, (nz, steps))


def time_of(engine: Engine, design: Design, nz: Array | int, steps: Array | int) -> Array:
    """Seconds of other workloads on a design that stays as it is; see `Timing.time_s`."""
    return engine.refine(design.row_tile, design.column_tile, nz, steps).time_s


def _tiles(rows: int, columns: int) -> Iterator[tuple[Array, Array]]:
    """All pairs of tiles, T_c running fastest, in pieces of about `BLOCK`."""
    for start in range(0, rows * columns, BLOCK):
        place = np.arange(start, min(start + BLOCK, rows * columns))
        yield place // columns + 1, place % columns + 1


def _only(
    fits: Array, row_tile: Array, column_tile: Array, taken: Resources
) -> tuple[Array, Array, Resources]:
    kept = Resources(*(np.asarray(v)[fits] for v in vars(taken).values()))
    return row_tile[fits], column_tile[fits], kept


def _fitting(engine: Engine, nz: int) -> Iterator[tuple[Array, Array, Resources]]:
    """(T_r, T_c, resources) of the designs that fit, in pieces."""
    for row_tile, column_tile in _tiles(engine.rows, nz):
        taken = refine_resources(engine, row_tile, column_tile, nz)
        fits = taken.fits(engine.chip)
        if fits.any():
            yield _only(fits, row_tile, column_tile, taken)


def _rank(timing: Timing, objective: Objective) -> Array:
    seconds = timing.time_s if objective == "time" else timing.latency_s
    # In femtoseconds: sums of the same parts in another order are equally fast.
    return np.rint(seconds * 1e15)


class _Least:
    """The best design seen so far."""

    def __init__(self) -> None:
        self.key: tuple[float, ...] | None = None
        self.tiles: tuple[int, int] | None = None

    def see(self, rank: Array, row_tile: Array, column_tile: Array, taken: Resources) -> None:
        """Take the design of the least rank, if it is better than what was seen."""
        among = np.flatnonzero(rank == rank.min())
        for column in (taken.dsp_slices, taken.block_rams):
            values = column[among]
            among = among[values == values.min()]
        first = int(among[0])
        columns = rank, taken.dsp_slices, taken.block_rams, row_tile, column_tile
        key = tuple(float(column[first]) for column in columns)
        if self.key is None or key < self.key:
            self.key, self.tiles = key, (int(row_tile[first]), int(column_tile[first]))


def _design(
    engine: Engine,
    tiles: tuple[int, int],
    timing: Timing,
    taken: Resources,
    refined: tuple[int, int] | None = None,
) -> Design:
    nz, steps = (None, None) if refined is None else refined
    power_w = float(engine.chip.power_w(1.0 if nz is None else engine.columns / nz))
    time_s = float(timing.time_s)
    known = not np.isnan(power_w)
    return Design(
        nz=nz,
        steps=steps,
        row_tile=tiles[0],
        column_tile=tiles[1],
        time_s=time_s,
        latency_s=float(timing.latency_s),
        ops=int(timing.ops),
        bytes=int(timing.bytes),
        cycles=int(timing.cycles),
        ops_per_s=float(timing.ops_per_s),
        compute_ops_per_s=float(timing.compute_ops_per_s),
        intensity=float(timing.intensity),
        bound="memory" if bool(timing.memory_bound) else "compute",
        dsp_slices=int(taken.dsp_slices),
        luts=int(taken.luts),
        flip_flops=int(taken.flip_flops),
        block_rams=float(taken.block_rams) / 2,
        power_w=power_w if known else None,
        energy_j=power_w * time_s if known else None,
    )
