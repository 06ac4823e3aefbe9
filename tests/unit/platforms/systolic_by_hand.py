"""A systolic platform by hand: plain loops over tiles, bins and butterflies, for one recipe.

Written from the assumptions that the platform states, for a small chip whose constants stand here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.products import ProductRow

ROWS, COLUMNS, CLOCK, SRAM = 4, 6, 1e8, 2000
SRAM_J, DRAM_J, BUS = 0.25e-12, 16e-12, 4e8  # a byte, a byte, bytes a second
SUM_BITS, REGISTER_J, LANES, VECTOR_J, FUNCTION = 24, 2e-15, 3, 1.5e-12, 3
UNIT_J, UNIT_LEAKS_W = 0.459e-12, 59.3e-6  # BitFusion's unit of 8/2 bits at 45 nm
READ, WRITTEN = 8, 4  # bytes of a vector result
SPARSE = ("row_sparse", "block_sparse", "n_m")

CONSTANTS = {
    "array_rows": (ROWS, "unit"),
    "array_columns": (COLUMNS, "unit"),
    "clock": (100, "MHz"),
    "supply_voltage": (0.9, "V"),
    "sram_capacity": (SRAM, "B"),
    "sram_energy": (0.03125, "pJ/bit"),
    "dram_energy": (2, "pJ/bit"),
    "dram_bandwidth": (400, "MB/s"),
    "accumulator_width": (SUM_BITS, "bit"),
    "register_energy": (2, "fJ/bit"),
    "vector_lanes": (LANES, "lane"),
    "vector_energy": (1.5, "pJ/result"),
    "vector_traffic": (96, "bit/result"),
    "function_results": (FUNCTION, "result"),
}


def write_spec(path: Path, **other: tuple[float, str]) -> str:
    """The small chip as a file of its own, with `other` constants."""
    head = (
        'name = "small"\nfamily = "systolic"\ntitle = "small"\nunit = "fusion_8_2"\nnode = "45"\n'
    )
    tables = [
        f'[{name}]\nvalue = {value}\nunit = "{unit}"\nsource = "a test"\n'
        for name, (value, unit) in {**CONSTANTS, **other}.items()
    ]
    path.write_text("\n".join([head, *tables]), encoding="utf-8")
    return str(path)


@dataclass
class Share:
    """What one run of a row takes."""

    cycles: float = 0.0
    useful: float = 0.0
    results: float = 0.0
    read: float = 0.0
    written: float = 0.0
    fetched: float = 0.0
    moved_bits: float = 0.0
    waiting: float = 0.0


@dataclass
class Gemm:
    """Tile by tile: cycles, and how often a word of each operand passes the SRAM."""

    cycles: float = 0.0
    ifmap: float = 0.0
    filter: float = 0.0
    written: float = 0.0
    read: float = 0.0


def gemm(dataflow: str, m: int, n: int, k: int) -> Gemm:
    made = Gemm()
    if k == 0:
        return made

    def tiles(size: int, side: int) -> list[int]:
        return [min(side, size - start) for start in range(0, size, side)]

    if dataflow == "os":
        for rows in tiles(m, ROWS):
            for columns in tiles(n, COLUMNS):
                made.cycles += k + ROWS + COLUMNS - 2
                made.ifmap += rows * k
                made.filter += columns * k
                made.written += rows * columns
    else:
        held, time = (n, m) if dataflow == "ws" else (m, n)
        for first, rows in enumerate(tiles(k, ROWS)):
            for columns in tiles(held, COLUMNS):
                made.cycles += ROWS + time + ROWS + COLUMNS - 2
                made.ifmap += rows * (m if dataflow == "ws" else columns)
                made.filter += rows * (columns if dataflow == "ws" else n)
                made.written += columns * time
                made.read += columns * time if first else 0
    made.ifmap /= m * k
    made.filter /= n * k
    made.written /= m * n
    made.read /= m * n
    return made


def skew(side: int, words: int) -> float:
    """Registers a word passes at the edge: the first none, the second one, …"""
    used = min(side, words)
    return sum(range(used)) / used


def width(bits: int) -> int:
    return next(w for w in (2, 4, 8, 16) if w >= bits)


def packed(k: int, share: float, weight_bits: int, input_bits: int) -> int:
    return math.ceil(math.ceil(k * share - 1e-9) * width(weight_bits) * width(input_bits) / 64)


def butterflies(size: int) -> float:
    """Of a transform of `size` complex numbers, halving them."""
    return 0 if size == 1 else 2 * butterflies(size // 2) + size // 2


@dataclass(frozen=True)
class Hand:
    """The options that decide the figures."""

    dataflow: str = "os"
    residency: str = "streamed"
    workload: str = "streaming"
    batch: int = 1
    circulant: str = "expanded"
    leakage: bool = False
    registers: bool = False

    def multiply(
        self, made: Share, m: float, n: int, k: int, inputs: float, stored: float, **more: Any
    ) -> None:
        """One product m×k·k×n; `inputs` and `stored` are bits that one sweep reads."""
        rows = math.ceil(m - 1e-9)
        swept = gemm(self.dataflow, rows, n, k)
        sums = m * n * SUM_BITS
        ifmap = 1.0 if more.get("gathered") else swept.ifmap
        made.cycles += swept.cycles
        made.useful += rows * n * k / (ROWS * COLUMNS)
        made.read += (inputs * ifmap + stored * swept.filter + sums * swept.read) / 8
        made.written += sums * swept.written / 8
        if k == 0:
            return
        entering = more.get("entering", stored) * swept.filter
        along = {"os": (rows, n), "ws": (k, n), "is": (k, rows)}[self.dataflow]
        down, across = skew(ROWS, along[0]), skew(COLUMNS, along[1])
        left = sums * swept.written
        made.moved_bits += {
            "os": inputs * ifmap * down + entering * across,
            "ws": inputs * ifmap * down + left * across,
            "is": entering * down + left * across,
        }[self.dataflow]
        made.moved_bits += entering if more.get("expanded") else 0

    def run(self, row: ProductRow, steps: float) -> Share:
        made = Share()
        held = row.layout != "" and row.state_bytes > 0
        hoisted = self.hoists(row)
        vectors = (steps if hoisted else 1) * self.batch
        active, density = (1 - (1 - s) ** self.batch for s in (row.active, row.density))
        made.results = vectors * (row.m + row.k) + self.batch * row.functions * FUNCTION
        made.results += self.batch * (row.m + row.k) if held else 0
        weights = row.units * row.unit_bytes * density
        made.fetched = weights + row.fixed_bytes
        if row.layout:
            if row.layout == "circulant" and self.circulant == "fft":
                self._transformed(made, row, vectors, density)
            else:
                self._direct(made, row, vectors, active, weights)
            made.read += row.fixed_bytes + self.batch * row.state_bytes
            made.written += self.batch * row.state_bytes
        made.read += READ * made.results
        made.written += WRITTEN * made.results
        if hoisted:  # the first step's results are used at once
            made.waiting = (steps - 1) * self.batch * row.m * SUM_BITS / 8
        return made

    def _direct(
        self, made: Share, row: ProductRow, vectors: float, active: float, weights: float
    ) -> None:
        sparse = row.layout in SPARSE
        k = math.ceil(row.macs / row.m) if sparse else row.k
        words = row.k * active
        if sparse:
            words = row.macs * active / row.shared_rows
        self.multiply(
            made, vectors, row.m, packed(k, active, row.weight_bits, row.activation_bits),
            vectors * words * row.activation_bits, 8 * weights, gathered=sparse,
            entering=row.macs * active * row.weight_bits, expanded=row.layout == "circulant",
        )  # fmt: skip

    def _transformed(self, made: Share, row: ProductRow, vectors: float, density: float) -> None:
        b = row.block
        p, q = row.m // b, row.k // b
        bits = max(row.activation_bits, 16)
        for number in range(b // 2 + 1):
            n = 1 if number in (0, b / 2) else 2  # a complex number is a 2×2 matrix
            self.multiply(
                made, vectors, n * p, packed(n * q, density, row.weight_bits, bits),
                vectors * n * q * density * bits, n * p * q * density * row.weight_bits,
                entering=n * n * p * q * density * row.weight_bits,
            )  # fmt: skip
        # Of real numbers half the butterflies; a product (4, 2) and two sums of complex numbers.
        made.results += vectors * (q * density + p) * butterflies(b) / 2 * (4 + 2 + 2 + 2)

    def hoists(self, row: ProductRow) -> bool:
        return self.workload == "sequence" and row.hoistable

    def bus(self, stored: float, room: float) -> float:
        """Share of the weights that is streamed."""
        if self.residency == "fit":
            return 0.0 if stored <= room else 1.0
        return 1 - min(max(room / stored, 0), 1) if self.residency == "partial" else 1.0

    def totals(self, rows: Sequence[ProductRow], steps: float) -> dict[str, float]:
        """Numeric fields of a `Cost`, and what else is compared."""
        stored = sum(r.stored_bytes for r in rows)
        state = sum(r.state_bytes for r in rows)
        shares = [self.run(r, steps) for r in rows]
        waiting = sum(s.waiting for s in shares)
        free = SRAM - self.batch * state
        traffic = sum(  # of the weights and of a sequence, if all of them are streamed
            share.fetched * (steps if row.runs_per_step == 1 and not self.hoists(row) else 1.0)
            + row.reset_bytes
            for row, share in zip(rows, shares, strict=True)
        )
        # (bytes over the bus, whether results wait in DRAM): the cheaper way that is possible.
        ways = [(traffic * self.bus(stored, free) + 2 * waiting, True)]
        if waiting <= free:
            ways.append((traffic * self.bus(stored, free - waiting), False))
        spills = min(ways)[1]
        bus = self.bus(stored, free if spills else free - waiting)
        step, once = Phase(), Phase()
        for row, share in zip(rows, shares, strict=True):
            once.dram += bus * row.reset_bytes
            once.joules += row.reset_bytes * SRAM_J
            once.fetched += row.reset_bytes
            if row.runs_per_step == 1:
                runs = 1 / steps if self.hoists(row) else 1.0
                step.add(self, share, runs, bus, row.dense_macs)
            else:
                once.add(self, share, 1.0, bus, 0)
        step.dram += 2 * waiting / steps if spills else 0.0
        for phase in (step, once):
            phase.close(self)
        return {
            "latency_s": steps * step.seconds + once.seconds,
            "energy_j": (steps * step.joules + once.joules) / self.batch,
            "latency_per_step_s": step.seconds,
            "energy_per_step_j": step.joules,
            "throughput_steps_per_s": self.batch / step.seconds,
            "power_w": step.joules / step.seconds,
            "gops": 2 * self.batch * step.dense / step.seconds / 1e9,
            "gops_per_w": 2 * self.batch * step.dense / step.joules / 1e9,
            "weight_bytes": stored,
            "state_bytes": state,
            "weight_fetch_bytes_per_step": step.fetched + once.fetched / steps,
            "macs_per_step": self.batch * sum(r.macs * r.active * r.runs_per_step for r in rows),
            "dram_bytes_per_step": step.dram,
            "bandwidth_bytes_per_s": step.dram / step.busy,
            "coverage": 1.0,
            "array_cycles_per_step": step.cycles,
            "array_utilization": step.useful / step.cycles if step.cycles else 0.0,
            "sram_bytes": self.batch * state + (0 if spills else waiting) + (1 - bus) * stored,
        }


@dataclass
class Phase:
    """A step, or what runs once."""

    busy: float = 0.0
    dram: float = 0.0
    joules: float = 0.0
    fetched: float = 0.0
    dense: float = 0.0
    cycles: float = 0.0
    useful: float = 0.0
    seconds: float = field(default=0.0)

    def add(self, hand: Hand, share: Share, runs: float, bus: float, dense: int) -> None:
        self.busy += runs * (share.cycles + math.ceil(share.results / LANES)) / CLOCK
        self.cycles += runs * share.cycles
        self.useful += runs * share.useful
        self.dram += runs * bus * share.fetched
        self.fetched += runs * share.fetched
        self.dense += dense
        self.joules += runs * (
            share.cycles * ROWS * COLUMNS * UNIT_J
            + share.results * VECTOR_J
            + (share.read + share.written) * SRAM_J
            + (share.moved_bits * REGISTER_J if hand.registers else 0)
        )

    def close(self, hand: Hand) -> None:
        self.seconds = max(self.busy, self.dram / BUS)
        self.joules += self.dram * DRAM_J
        self.joules += ROWS * COLUMNS * UNIT_LEAKS_W * self.seconds if hand.leakage else 0


def check(cost: Cost, expected: dict[str, float]) -> None:
    """The totals are those by hand, and every breakdown sums to its total."""
    found = {name: getattr(cost, name) for name in COST_UNITS}
    extra = {n: cost.resources.get(n, 0.0) for n in expected if n not in COST_UNITS}
    assert found | extra == pytest.approx(expected, rel=1e-9, abs=1e-25)
    summed = {
        "latency_s": cost.latency_per_step_s,
        "energy_j": cost.energy_per_step_j,
        "inference_latency_s": cost.latency_s,
        "inference_energy_j": cost.energy_j,
    }
    for name, total in summed.items():
        assert sum(op[name] for op in cost.per_op.values()) == pytest.approx(total, rel=1e-9)
    assert sum(cost.energy_breakdown_j.values()) == pytest.approx(cost.energy_per_step_j, rel=1e-9)
