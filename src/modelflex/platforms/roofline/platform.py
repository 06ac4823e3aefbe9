"""The roofline platform: processors and GPUs, by their peak rates and the bandwidth of their memory."""

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
from modelflex.core.spec import SPECS, Spec, SpecField, find_spec, read_spec
from modelflex.errors import UserError, nearest
from modelflex.platforms.roofline.memory import LEVELS, Rows, memory_levels
from modelflex.registry import PLATFORMS
from modelflex.units import show_quantity

WIDER: Final = {"float16": "float32", "int8": "int16"}
"""Precisions that a chip may lack, and those that take their place."""

FIELDS: Final[Mapping[str, SpecField]] = {
    "clock": SpecField("1/s"),
    "mac_rate_float32": SpecField("MAC/cycle"),
    "mac_rate_float16": SpecField("MAC/cycle", required=False),
    "mac_rate_int16": SpecField("MAC/cycle"),
    "mac_rate_int8": SpecField("MAC/cycle", required=False),
    "vector_rate": SpecField("result/cycle"),
    **{f"{level}_capacity": SpecField("B", required=False) for level in LEVELS},
    **{f"{level}_bandwidth": SpecField("B/s", required=False) for level in LEVELS},
    "busy_power": SpecField("W", required=False),
    "idle_power": SpecField("W", required=False),
}
"""The constants of a spec of this family; rates are those of the whole chip."""

MODEL: Final = "roofline: an upper bound on speed, for chips that no better model covers"
COVERAGE: Final = "all products in every layout, and all elementwise work"

ASSUMPTIONS: Final = (
    "every product runs at the chip's peak rate or at the full bandwidth of its memory, whichever "
    "takes longer; calls, loops, unpacking, synchronisation and cache misses cost nothing",
    "one step is a matrix-vector product for each weight (M = 1); products and elementwise work "
    "follow one another without overlap",
    "a product runs at the rate of its wider operand: at most 8 bits at int8, at most 16 at int16, "
    "else float32; operands narrower than 8 bits save bytes, not operations",
    "elementwise results, encoded inputs and rescaled results take one slot of the vector rate each",
    "weights are read at every run, from the fastest level that holds all weights and the state; "
    "inputs, results and state move at no cost",
    "block-circulant weights save bytes, not operations; delta inputs save both",
    "under delta, figures of a step are means over steps; worst_step_latency_s (resources) is that "
    "of a step in which every input is sent",
    "energy is the chip's or board's busy power times the time, the same for all work: with a time "
    "that is a lower bound, it tends to be too low as well",
)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class RooflineConfig:
    """The options of a configuration file.

    Attributes:
        spec: name of a shipped spec, or the path of a .toml file.
        level: the memory level that the weights are read from ("dram" for cold caches, "flash" where
            they are not copied to RAM); without it, the fastest that holds weights and state.
    """

    spec: str = "raspberry_pi_4"
    level: str | None = None


@final
@PLATFORMS.register("roofline")
class Roofline(Platform):
    """Peak arithmetic rates over memory levels.

    A product takes max(MACs / peak rate of its precision, bytes / bandwidth of the level that holds
    the weights); a step is the sum of its products and of its elementwise work.
    """

    reference = "Williams et al., Roofline, Communications of the ACM 52(4), 2009"

    def __init__(self, spec: Spec, config: RooflineConfig) -> None:
        self.spec = spec
        self.config = config
        self.levels = memory_levels(spec)
        """Levels that may hold the weights, fastest first."""
        self.has_dram = any(level.name == "dram" for level in self.levels)
        if config.level is not None:
            names = [level.name for level in self.levels]
            if config.level not in names:
                raise UserError(
                    f"platform.level is '{config.level}'",
                    f"a memory level of {spec.name}: {', '.join(names)}",
                    nearest(config.level, names),
                )
            self.levels = (self.levels[names.index(config.level)],)
        self.busy_w = spec["busy_power"] if "busy_power" in spec.constants else np.nan
        self.idle_w = spec["idle_power"] if "idle_power" in spec.constants else None
        if self.idle_w is not None and not self.idle_w < self.busy_w:
            raise UserError(
                f"the spec '{spec.name}' has an idle_power of {self.idle_w:g} W",
                "less than a busy_power beside it",
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the options; see `RooflineConfig`.

        Raises:
            UserError: an unknown option, spec or level, a wrong type, a value out of range.
        """
        options: RooflineConfig = read_config(RooflineConfig, config, "platform")
        return cls(read_spec(find_spec(SPECS, options.spec), "roofline", FIELDS), options)

    @property
    def peak_macs_per_s(self) -> Mapping[str, float]:
        """Precision → multiply-accumulates a second; the next wider rate where the chip has none."""
        return {
            name: self.spec[f"mac_rate_{self._runs_as(name)}"] * self.spec["clock"]
            for name in ("float32", "float16", "int16", "int8")
        }

    def _runs_as(self, precision: str) -> str:
        return precision if f"mac_rate_{precision}" in self.spec.constants else WIDER[precision]

    @property
    def description(self) -> Mapping[str, Any]:
        missing = [
            f"the chip has no {name} arithmetic: it runs at the {wider} rate"
            for name, wider in WIDER.items()
            if self._runs_as(name) == wider
        ]
        return {
            "model": MODEL,
            "coverage": COVERAGE,
            **self.spec.to_json(),
            "peak": {
                name: {
                    "value": peak,
                    "unit": "MAC/s",
                    "source": f"mac_rate_{self._runs_as(name)} × clock",
                }
                for name, peak in self.peak_macs_per_s.items()
            },
            "level": self.config.level or "the fastest that holds weights and state",
            "assumptions": [*ASSUMPTIONS, *missing],
        }

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """Columns [rows]; figures are for one run of the row unless named otherwise.

        - step_runs: runs in a steady-state step; once_runs: runs once in an inference;
        - compute_s: of the products and of elementwise results;
        - fetch_bytes: of the weight; reset_bytes: read at the start of an inference.
        """
        peak, clock = self.peak_macs_per_s, self.spec["clock"]
        bits = np.maximum(table["weight_bits"], table["activation_bits"])
        rate = np.select([bits <= 8, bits <= 16], [peak["int8"], peak["int16"]], peak["float32"])
        # Elementwise rows have k = 0; a product of codes encodes k inputs and rescales m results.
        results = np.where(bits <= 16, table.vector_results, 0)
        step = table["runs_per_step"] >= 1
        return {
            "step_runs": np.where(step, table["runs_per_step"], 0.0),
            "once_runs": np.where(step, 0.0, table["runs_per_step"] * table.steps),
            "compute_s": table["macs"] * table["active"] / rate
            + results / (self.spec["vector_rate"] * clock),
            "fetch_bytes": table["units"] * table["unit_bytes"] * table["density"]
            + table["fixed_bytes"],
            "reset_bytes": table["reset_bytes"],
        }

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        def total(column: Array) -> Array:
            return table.total(column, choices)

        counts = count_totals(table, choices)
        level = self._level(counts["weight_bytes"] + counts["state_bytes"])
        timed = [Rows(columns, at.bandwidth) for at in self.levels]
        nowhere = np.full(level.shape, np.nan)
        step_s = np.choose(level, [*(total(rows.step_s) for rows in timed), nowhere])
        once_s = np.choose(level, [*(total(rows.once_s) for rows in timed), nowhere])
        step_s = np.where(step_s > 0, step_s, np.nan)
        latency_s = table.steps * step_s + once_s

        fetched = total(columns["fetch_bytes"] * columns["step_runs"])
        if self.has_dram:
            moved = [fetched * (at.name == "dram") for at in self.levels]
            dram_bytes = np.choose(level, [*moved, nowhere])
        else:
            dram_bytes = nowhere
        compute_s = total(columns["compute_s"] * columns["step_runs"])
        operations = 2e-9 * total(table["dense_macs"] * columns["step_runs"])
        with np.errstate(divide="ignore", invalid="ignore"):
            bandwidth = np.where(compute_s > 0, dram_bytes / compute_s, np.nan)
        return {
            "latency_s": latency_s,
            "energy_j": self.busy_w * latency_s,
            "latency_per_step_s": step_s,
            "energy_per_step_j": self.busy_w * step_s,
            "throughput_steps_per_s": 1 / step_s,
            "power_w": np.where(np.isnan(step_s), np.nan, self.busy_w),
            "gops": operations / step_s,
            "gops_per_w": operations / (self.busy_w * step_s),
            **counts,
            "dram_bytes_per_step": dram_bytes,
            "bandwidth_bytes_per_s": bandwidth,
            "coverage": np.where(level < len(self.levels), 1.0, 0.0),
        }

    def _level(self, held_bytes: Array) -> Array:
        """Number of the level that recipes' weights are read from, [recipes]; past the last: none."""
        fits = np.array([held_bytes <= level.capacity for level in self.levels])
        return np.where(fits.any(axis=0), fits.argmax(axis=0), len(self.levels))

    def cost(self, table: ProductTable) -> Cost:
        columns = self.price(table)
        totals = self.combine(table, columns, single_recipe(table))
        figures: dict[str, Any] = {
            n: None if np.isnan(totals[n][0]) else float(totals[n][0]) for n in COST_UNITS
        }
        held = totals["weight_bytes"] + totals["state_bytes"]
        if figures["latency_s"] is None:
            return Cost(**figures, unpriced=self._why_unpriced(float(held[0])))
        level = self.levels[int(self._level(held)[0])]
        worst = table.with_everything_sent()
        worst_s = self.combine(worst, self.price(worst), single_recipe(worst))["latency_per_step_s"]
        rows = Rows(columns, level.bandwidth)
        return Cost(
            **figures,
            resources={
                f"{level.name}_bytes": float(held[0]),
                "worst_step_latency_s": float(worst_s[0]),
            },
            per_op=self._per_op(rows, table),
            energy_breakdown_j=self._energy_parts(figures["latency_per_step_s"]),
            bound="memory" if rows.memory_bound_s > rows.step_s.sum() / 2 else "compute",
            residency=level.name,
        )

    def _why_unpriced(self, held_bytes: float) -> str | None:
        room = max(level.capacity for level in self.levels)
        if held_bytes <= room:
            return None
        return (
            f"weights and state take {show_quantity(held_bytes, 'B')} and there is room for "
            f"{show_quantity(room, 'B')}: compress further, or name a larger chip or memory level"
        )

    def _energy_parts(self, step_s: float) -> dict[str, float]:
        """Part → joules of a step; none without a power."""
        if np.isnan(self.busy_w):
            return {}
        if self.idle_w is None:
            return {"busy": self.busy_w * step_s}
        return {"idle": self.idle_w * step_s, "above_idle": (self.busy_w - self.idle_w) * step_s}

    def _per_op(self, rows: Rows, table: ProductTable) -> dict[str, dict[str, float]]:
        """Site → its part of a steady-state step and of one inference; no energy without a power."""
        inference_s = table.steps * rows.step_s + rows.once_s
        figures = {
            "latency_s": rows.step_s,
            "energy_j": self.busy_w * rows.step_s,
            "inference_latency_s": inference_s,
            "inference_energy_j": self.busy_w * inference_s,
        }
        return {
            str(site): {name: float(v[i]) for name, v in figures.items() if not np.isnan(v[i])}
            for i, site in enumerate(table["site"])
        }
