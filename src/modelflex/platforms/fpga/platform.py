"""The FPGA platform: prices product rows on four gate units that stream their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Platform
from modelflex.core.products import ProductTable, count_totals, single_recipe
from modelflex.core.recipe import read_config
from modelflex.errors import UserError
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import GATES, REFERENCE, Engine, ceil_div, check_size
from modelflex.platforms.fpga.operators import (
    LUT_WORDS,
    RAM_WORDS,
    WORDS,
    find_word,
    memory,
)
from modelflex.platforms.fpga.resources import Resources, dense_resources
from modelflex.registry import PLATFORMS

FUNCTION_OPS: Final = 5.8
"""Of σ or tanh: with the 8 other results of an LSTM's row, five of them are its 37 operations."""

MAX_TILE: Final = 1024
"""Largest tile of the engine."""
CODE_BITS: Final = 16
"""Operands up to this width are codes, wider ones floats."""

MODEL: Final = "roofline of an LSTM engine: no engine was synthesised for this recipe"

ASSUMPTIONS: Final = (
    "four gate units of T_r × T_c multipliers each share the rows of every product; a tile at the edge "
    "takes as long as a full one; pipelines are always full",
    "every fetched byte of a weight comes over the DRAM bus at each run; the transfer runs beside the "
    "arithmetic of the same product, the longer of both counts; products follow one another",
    "operands have at most the engine's width, narrower ones save bytes, not arithmetic; codes, scales "
    "and indices are decoded on the way at no cost",
    "dense products run in tiles; of other layouts the multiply-accumulates are shared evenly by all "
    "multipliers; block-circulant weights save bytes, not operations; delta inputs save both",
    "T_r lanes compute what is elementwise, encode the inputs of products and rescale their results; "
    "σ and tanh take 5.8 operations, so that an LSTM's row takes the published 37",
    "inputs, results and state stay on the chip",
    "under delta, figures of a step are means over steps; worst_step_latency_s (resources) is that "
    "of a step in which every input is sent",
    "the power is that measured above idle for the published dense engine, whatever the tiles; None "
    "for chips on which nobody measured it",
)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class FpgaConfig:
    """The options of a configuration file.

    Attributes:
        spec: name of a shipped spec, or the path of a .toml file.
        word_bits: 16 (fixed point) or 32 (single precision); wider operands are not priced.
        row_tile, column_tile: T_r and T_c of the engine; without both, powers of two, doubled in turn
            while they fit.
        bandwidth: a quantity such as "8.2 GB/s" that replaces the spec's.
        utilization: share of each resource that the engine may take.
    """

    spec: str = "zc706"
    word_bits: int = 16
    row_tile: int | None = None
    column_tile: int | None = None
    bandwidth: str | None = None
    utilization: float = 1.0


@final
@PLATFORMS.register("fpga")
class Fpga(Platform):
    """The dense engine of `Engine` for products of any shape, layout and width.

    A product takes max(cycles / clock, bytes / bandwidth); a step is the sum of its products and of
    its elementwise work. Terms are priced as two products; engines that refine: `explore`.
    """

    reference = REFERENCE

    def __init__(self, config: FpgaConfig) -> None:
        self.config = config
        self.word = find_word(config.word_bits)
        self.chip = Chip.read(
            config.spec, bandwidth=config.bandwidth, utilization=config.utilization
        )
        self.row_tile, self.column_tile = self._tiles()
        self.taken = self._taken(self.row_tile, self.column_tile)
        free = self.chip.block_rams - int(self.taken.block_rams)
        blocks = int(free // (self.column_tile * int(memory(RAM_WORDS, self.word.bits).block_rams)))
        self.input_words = self.column_tile * max(blocks * RAM_WORDS, LUT_WORDS)
        """Inputs of a product that the chip has room for."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the options; see `FpgaConfig`.

        Raises:
            UserError: an unknown option or spec, a wrong type, a value out of range, an engine that
                does not fit the chip.
        """
        return cls(read_config(FpgaConfig, config, "platform"))

    def _taken(self, row_tile: int, column_tile: int) -> Resources:
        """Resources of an engine whose banks are so small that LUTs hold them."""
        shape = Engine(self.chip, self.word, LUT_WORDS * row_tile, LUT_WORDS * column_tile)
        return dense_resources(shape, row_tile, column_tile)

    def _fits(self, row_tile: int, column_tile: int) -> bool:
        return bool(self._taken(row_tile, column_tile).fits(self.chip))

    def _tiles(self) -> tuple[int, int]:
        row_tile, column_tile = self.config.row_tile, self.config.column_tile
        if row_tile is not None and column_tile is not None:
            for name, tile in (("row_tile", row_tile), ("column_tile", column_tile)):
                check_size(tile, MAX_TILE, f"platform.{name}", "")
            if not self._fits(row_tile, column_tile):
                raise UserError(
                    f"an engine of {row_tile} × {column_tile} multipliers a gate does not fit "
                    f"{self.chip.spec.name}",
                    "smaller platform.row_tile and platform.column_tile",
                )
            return row_tile, column_tile
        if (row_tile, column_tile) != (None, None):
            raise UserError(
                "one of platform.row_tile and platform.column_tile is given", "both or none"
            )
        if not self._fits(1, 1):
            raise UserError(f"no engine fits {self.chip.spec.name}", "a larger chip or share of it")
        row_tile = column_tile = 1
        while self._fits(row_tile, 2 * column_tile):
            column_tile *= 2
            if self._fits(2 * row_tile, column_tile):
                row_tile *= 2
        return row_tile, column_tile

    @property
    def description(self) -> Mapping[str, Any]:
        return {
            "model": MODEL,
            **self.chip.spec.to_json(),
            "engine": {
                "gate_units": GATES,
                "row_tile": self.row_tile,
                "column_tile": self.column_tile,
                "word_bits": self.word.bits,
                "utilization": self.config.utilization,
                **self._resources(),
            },
            "assumptions": list(ASSUMPTIONS),
        }

    def _resources(self) -> dict[str, float]:
        taken = {name: float(value) for name, value in vars(self.taken).items()}
        return taken | {"block_rams": taken["block_rams"] / 2}

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """Columns [rows]; figures are for one run of the row unless named otherwise.

        - unpriced: 1 for products with operands wider than the engine's words or with more inputs
          than the chip holds, else 0;
        - step_runs: runs in a steady-state step; once_runs: runs once in an inference;
        - compute_s: of the product and of elementwise results;
        - fetch_bytes: of the weight; reset_bytes: read at the start of an inference.
        """
        bits = np.maximum(table["weight_bits"], table["activation_bits"])
        wide, large = self._unpriced(table)
        active = np.ceil(table["k"] * table["active"])
        tiled = ceil_div(table["m"], GATES * self.row_tile) * np.ceil(active / self.column_tile)
        shared = table["macs"] * table["active"] / (GATES * self.row_tile * self.column_tile)
        cycles = np.where(table["layout"] == "dense", tiled * table["positions"], np.ceil(shared))
        # Elementwise rows have k = 0; float products neither encode nor rescale.
        coded = (bits <= CODE_BITS) * table.vector_results
        results = coded + (FUNCTION_OPS - 1) * table["functions"]
        step = table["runs_per_step"] >= 1
        return {
            "unpriced": 1.0 * (wide | large),
            "step_runs": np.where(step, table["runs_per_step"], 0.0),
            "once_runs": np.where(step, 0.0, table["runs_per_step"] * table.steps),
            "compute_s": (cycles + np.ceil(results / self.row_tile)) / self.chip.clock,
            "fetch_bytes": table["units"] * table["unit_bytes"] * table["density"]
            + table["fixed_bytes"],
            "reset_bytes": table["reset_bytes"],
        }

    def _unpriced(self, table: ProductTable) -> tuple[Array, Array]:
        """Which rows have operands wider than the words, and which more inputs than the chip holds."""
        inputs = np.where(table["map_size"] > 0, table["map_size"], table["k"])
        bits = np.maximum(table["weight_bits"], table["activation_bits"])
        return bits > self.word.bits, inputs > self.input_words

    def _why_unpriced(self, table: ProductTable) -> str | None:
        wide, large = self._unpriced(table)
        reasons = []
        if wide.any():
            reasons.append(
                f"{wide.sum()} of {len(wide)} rows have operands wider than the engine's words of "
                f"{self.word.bits} bits: set word_bits = {max(WORDS)} in the table [platform] of a .toml "
                f'file (name = "fpga", spec = "{self.config.spec}")'
            )
        if large.any():
            reasons.append(
                f"{large.sum()} of {len(large)} rows have more than {self.input_words} inputs, all that "
                "the chip has room for: name a larger chip"
            )
        return "; ".join(reasons) or None

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        def total(column: Array) -> Array:
            return table.total(column, choices)

        step_s, once_s = (total(seconds) for seconds in self._seconds(columns))
        runs = columns["step_runs"]
        compute_s = total(columns["compute_s"] * runs)
        dram_bytes = total(columns["fetch_bytes"] * runs)
        operations = 2e-9 * total(table["dense_macs"] * runs)
        power_w, latency_s = float(self.chip.power_w(1.0)), table.steps * step_s + once_s
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = {
                "latency_s": latency_s,
                "energy_j": power_w * latency_s,
                "latency_per_step_s": step_s,
                "energy_per_step_j": power_w * step_s,
                "throughput_steps_per_s": 1 / step_s,
                "power_w": np.full(step_s.shape, power_w),
                "gops": operations / step_s,
                "gops_per_w": operations / (power_w * step_s),
                "bandwidth_bytes_per_s": dram_bytes / compute_s,
            }
            macs = table["macs"] * 1.0
            coverage = total(macs * (1.0 - columns["unpriced"])) / total(macs)
        whole = (total(columns["unpriced"]) < 0.5) & (step_s > 0)
        return {name: np.where(whole, values, np.nan) for name, values in figures.items()} | {
            **count_totals(table, choices),
            "dram_bytes_per_step": dram_bytes,
            "coverage": coverage,
        }

    def _seconds(self, columns: Mapping[str, Array]) -> tuple[Array, Array]:
        """Of a steady-state step, and of what runs once an inference: [rows] each."""
        step, once, compute_s = (columns[n] for n in ("step_runs", "once_runs", "compute_s"))
        fetch_s = columns["fetch_bytes"] / self.chip.bandwidth
        reset_s = columns["reset_bytes"] / self.chip.bandwidth
        step_s = np.maximum(compute_s, fetch_s) * step
        return step_s, np.maximum(compute_s * once, fetch_s * once + reset_s)

    def cost(self, table: ProductTable) -> Cost:
        columns = self.price(table)
        totals = self.combine(table, columns, single_recipe(table))
        figures: dict[str, Any] = {
            n: None if np.isnan(totals[n][0]) else float(totals[n][0]) for n in COST_UNITS
        }
        if figures["latency_s"] is None:
            return Cost(
                **figures,
                resources=self._resources(),
                residency="streamed",
                unpriced=self._why_unpriced(table),
            )
        worst = table.with_everything_sent()
        worst_s = self.combine(worst, self.price(worst), single_recipe(worst))["latency_per_step_s"]
        step_s, once_s = self._seconds(columns)
        power_w = figures["power_w"]
        waits = columns["fetch_bytes"] / self.chip.bandwidth > columns["compute_s"]
        return Cost(
            **figures,
            resources=self._resources() | {"worst_step_latency_s": float(worst_s[0])},
            per_op=_per_op(table, step_s, once_s, power_w),
            energy_breakdown_j={}
            if power_w is None
            else {"above_idle": figures["energy_per_step_j"]},
            bound="memory" if step_s[waits].sum() > step_s.sum() / 2 else "compute",
            residency="streamed",
        )


def _per_op(
    table: ProductTable, step_s: Array, once_s: Array, power_w: float | None
) -> dict[str, dict[str, float]]:
    """Site → its part of a steady-state step and of one inference; no energy without a power."""
    inference_s = table.steps * step_s + once_s
    figures = {"latency_s": step_s, "inference_latency_s": inference_s}
    if power_w is not None:
        figures |= {"energy_j": power_w * step_s, "inference_energy_j": power_w * inference_s}
    return {
        str(site): {name: float(values[i]) for name, values in figures.items()}
        for i, site in enumerate(table["site"])
    }
