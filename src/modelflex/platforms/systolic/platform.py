"""The systolic platform: prices product rows on an array of BitFusion units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Platform
from modelflex.core.products import ProductTable, single_recipe
from modelflex.core.recipe import read_config
from modelflex.core.spec import Spec, SpecField, find_spec, read_spec
from modelflex.errors import UserError
from modelflex.platforms.systolic.breakdown import Breakdown
from modelflex.platforms.systolic.closed_forms import Dataflow, ceil_div, cycles, folds, sweeps
from modelflex.platforms.systolic.fusion import MAX_BITS, packed_terms
from modelflex.registry import PLATFORMS

SPECS: Final = Path(__file__).resolve().parents[1] / "specs"

FIELDS: Final[Mapping[str, SpecField]] = {
    "array_rows": SpecField("fusion unit", "count"),
    "array_columns": SpecField("fusion unit", "count"),
    "clock": SpecField("1/s"),
    "sram_capacity": SpecField("B"),
    "fusion_unit_energy": SpecField("J/cycle"),
    "fusion_unit_leakage": SpecField("W"),
    "sram_energy": SpecField("J/bit"),
    "dram_energy": SpecField("J/bit"),
    "dram_bandwidth": SpecField("B/s"),
    "accumulator_width": SpecField("bit", "count"),
    "vector_lanes": SpecField("lane", "count"),
    "vector_energy": SpecField("J/result"),
    "vector_traffic": SpecField("bit/result", "count"),
}
"""The constants of a spec of this family."""

LAYOUTS: Final = ("", "dense", "circulant")
"""Layouts that can be priced; a circulant saves storage and traffic and is multiplied expanded."""

ASSUMPTIONS: Final = (
    "one step is a matrix-vector product for each weight (M = 1): no batch",
    "a fold at the array's edge costs as much as a full one, and every fusion unit spends its "
    "energy in every cycle",
    "operands are rounded up to 2, 4, 8 or 16 bits; delta inputs enter at the width of the codes",
    "odd grids enter as unsigned codes u with code = 2u − (2^b − 1); the one sum of the inputs that "
    "corrects all rows of a product is not counted",
    "block-circulant weights save storage and traffic, not arithmetic",
    "under delta, figures of a step are means over steps; worst_step_latency_s and "
    "worst_step_energy_j (resources) are those of a step in which every input is sent",
    "streaming weights overlaps with the arithmetic of the whole step, the longer of both counts",
    "SRAM is counted between buffers and array; filling it from DRAM costs DRAM energy only",
    "inputs, outputs and state stay in SRAM; resident weights are loaded before the first step",
    "SRAM leakage and the DRAM's background power are not counted",
)


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class SystolicConfig:
    """The options of a configuration file.

    Attributes:
        spec: name of a shipped spec, or the path of a .toml file.
        residency: "streamed": every fetched byte of a weight comes over the DRAM bus at each run;
            "fit": weights stay in SRAM if all of them and the state fit, else they are streamed.
        dataflow: output, weight or input stationary.
        dram_energy_per_bit, dram_bandwidth: quantities that replace the spec's ("4 pJ/bit",
            "6.4 GB/s"); the bandwidth may be "unlimited".
        leakage: whether the energy counts the fusion units' leakage.
    """

    spec: str = "bitfusion_32x32"
    residency: Literal["streamed", "fit"] = "streamed"
    dataflow: Dataflow = "os"
    dram_energy_per_bit: str | None = None
    dram_bandwidth: str | None = None
    leakage: bool = False


@final
@PLATFORMS.register("systolic")
class Systolic(Platform):
    """A systolic array of variable-precision units with SRAM, DRAM and a vector unit.

    The array multiplies; the vector unit does everything elementwise: the cell's equations,
    encoding a product's inputs and rescaling its results. Both take turns.
    """

    reference = (
        "cycles: Samajdar et al., SCALE-Sim, ISPASS 2020; "
        "units: Sharma et al., Bit Fusion, ISCA 2018"
    )

    def __init__(self, spec: Spec, config: SystolicConfig) -> None:
        self.spec = spec
        self.config = config
        self.bandwidth = np.inf if config.dram_bandwidth == "unlimited" else spec["dram_bandwidth"]
        """Bytes a second over the DRAM bus."""
        units = spec["array_rows"] * spec["array_columns"]
        self.leakage_w = units * spec["fusion_unit_leakage"] if config.leakage else 0.0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the options; see `SystolicConfig`.

        Raises:
            UserError: an unknown option or spec, a wrong type, a value out of range.
        """
        options: SystolicConfig = read_config(SystolicConfig, config, "platform")
        spec = read_spec(find_spec(SPECS, options.spec), "systolic", FIELDS)
        energy, bandwidth = options.dram_energy_per_bit, options.dram_bandwidth
        if energy is not None:
            where = "platform.dram_energy_per_bit"
            spec = spec.with_constant("dram_energy", energy, "J/bit", where)
        if bandwidth is not None and bandwidth != "unlimited":
            where = "platform.dram_bandwidth"
            spec = spec.with_constant("dram_bandwidth", bandwidth, "B/s", where)
        return cls(spec, options)

    @property
    def description(self) -> Mapping[str, Any]:
        return {
            **self.spec.to_json(),
            "residency": self.config.residency,
            "dataflow": self.config.dataflow,
            "dram_bandwidth": "unlimited" if np.isinf(self.bandwidth) else "limited",
            "leakage": "counted" if self.config.leakage else "not counted",
            "assumptions": list(ASSUMPTIONS),
        }

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """Columns [rows]; figures are for one run of the row unless named otherwise.

        - unpriced: 1 for products with operands wider than 16 bits, whose times and energies are 0
          here and not a number in every total; else 0;
        - step_runs: runs in a steady-state step; once_runs: runs once in an inference;
        - cycles: of the array; compute_s: of array and vector unit;
        - dram_bytes, dram_j: of the fetched weight, if weights are streamed;
        - sram_bytes, sram_j: between SRAM and array or vector unit, weights included;
        - arithmetic_j, elementwise_j: of the array, of the vector unit;
        - reset_bytes, reset_sram_j, reset_dram_j: read at the start of an inference.

        Raises:
            UserError: a layout that this platform cannot price.
        """
        self._check(table)
        spec = self.spec
        priced = (table["weight_bits"] <= MAX_BITS) & (table["activation_bits"] <= MAX_BITS)
        run, sram_bytes = self._array(table)
        # Elementwise rows have k = 0; a product encodes its k inputs and rescales its m results.
        results = table["m"] + table["k"]
        sram_bytes = sram_bytes + results * spec["vector_traffic"] / 8
        fetch = table["units"] * table["unit_bytes"] * table["density"] + table["fixed_bytes"]
        step = table["runs_per_step"] >= 1
        sram_j, dram_j = 8 * spec["sram_energy"], 8 * spec["dram_energy"]
        units = spec["array_rows"] * spec["array_columns"]
        vector_cycles = ceil_div(results, int(spec["vector_lanes"]))
        return {
            "unpriced": 1.0 - priced,
            "step_runs": np.where(step, table["runs_per_step"], 0.0),
            "once_runs": np.where(step, 0.0, table["runs_per_step"] * table.steps),
            "cycles": run * priced,
            "compute_s": (run + vector_cycles) * priced / spec["clock"],
            "dram_bytes": fetch,
            "sram_bytes": sram_bytes * priced,
            "arithmetic_j": run * priced * (units * spec["fusion_unit_energy"]),
            "elementwise_j": results * priced * spec["vector_energy"],
            "sram_j": sram_bytes * priced * sram_j,
            "dram_j": fetch * priced * dram_j,
            "reset_bytes": table["reset_bytes"],
            "reset_sram_j": table["reset_bytes"] * priced * sram_j,
            "reset_dram_j": table["reset_bytes"] * priced * dram_j,
        }

    def _check(self, table: ProductTable) -> None:
        for layout in np.unique(table["layout"]):
            if layout not in LAYOUTS:
                raise UserError(
                    f"the systolic platform cannot price the layout '{layout}'",
                    f"one of {', '.join(filter(None, LAYOUTS))}",
                )

    def _array(self, table: ProductTable) -> tuple[Array, Array]:
        """Cycles of the array and SRAM bytes of operands, results and state, one run: [rows]."""
        dataflow = self.config.dataflow
        rows, columns = int(self.spec["array_rows"]), int(self.spec["array_columns"])
        product = table["layout"] != ""
        n = table["m"]
        m = np.ones_like(n)
        k = packed_terms(
            table["k"], table["active"], table["weight_bits"], table["activation_bits"]
        )
        swept = sweeps(dataflow, folds(dataflow, m, n, k, rows, columns))
        inputs = table["k"] * table["active"] * table["activation_bits"] * swept.ifmap
        sums = n * (swept.ofmap_writes + swept.ofmap_reads) * self.spec["accumulator_width"]
        weights = table["units"] * table["unit_bytes"] * table["density"] * swept.filter
        state = 2 * table["state_bytes"]  # read and written
        traffic = (inputs + sums) / 8 + weights + table["fixed_bytes"] + state
        return cycles(dataflow, m, n, k, rows, columns) * product, traffic * product

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        def total(column: Array) -> Array:
            return table.total(column, choices)

        weight_bytes, state_bytes = total(table["stored_bytes"]), total(table["state_bytes"])
        streamed = self._streamed(weight_bytes + state_bytes)
        step, once = columns["step_runs"], columns["once_runs"]
        chip_j = columns["arithmetic_j"] + columns["elementwise_j"] + columns["sram_j"]

        compute_s = total(columns["compute_s"] * step)
        dram_bytes = np.where(streamed, total(columns["dram_bytes"] * step), 0.0)
        step_s = np.maximum(compute_s, dram_bytes / self.bandwidth)
        step_j = total(chip_j * step) + np.where(streamed, total(columns["dram_j"] * step), 0.0)
        step_j = step_j + self.leakage_w * step_s

        once_bytes = total(columns["dram_bytes"] * once + columns["reset_bytes"])
        once_s = np.maximum(
            total(columns["compute_s"] * once), np.where(streamed, once_bytes / self.bandwidth, 0.0)
        )
        once_dram_j = total(columns["dram_j"] * once + columns["reset_dram_j"])
        once_j = total(chip_j * once + columns["reset_sram_j"]) + self.leakage_w * once_s
        once_j = once_j + np.where(streamed, once_dram_j, 0.0)

        macs = table["macs"] * 1.0
        operations = 2e-9 * total(table["dense_macs"] * step)
        with np.errstate(divide="ignore", invalid="ignore"):
            totals = {
                "latency_s": table.steps * step_s + once_s,
                "energy_j": table.steps * step_j + once_j,
                "latency_per_step_s": step_s,
                "energy_per_step_j": step_j,
                "throughput_steps_per_s": 1 / step_s,
                "power_w": step_j / step_s,
                "gops": operations / step_s,
                "gops_per_w": operations / step_j,
                "bandwidth_bytes_per_s": dram_bytes / compute_s,
            }
            coverage = total(macs * (1.0 - columns["unpriced"])) / total(macs)
        whole = (total(columns["unpriced"]) < 0.5) & (step_s > 0)
        return {name: np.where(whole, values, np.nan) for name, values in totals.items()} | {
            "weight_bytes": weight_bytes,
            "state_bytes": state_bytes,
            "weight_fetch_bytes_per_step": total(table.fetch_bytes_per_step),
            "dram_bytes_per_step": dram_bytes,
            "coverage": coverage,
        }

    def _streamed(self, bytes_on_chip: Array) -> Array:
        """Whether the weights of a recipe come over the DRAM bus at every run: [recipes]."""
        if self.config.residency == "streamed":
            return np.ones(bytes_on_chip.shape, bool)
        return np.asarray(bytes_on_chip > self.spec["sram_capacity"])

    def cost(self, table: ProductTable) -> Cost:
        columns = self.price(table)
        totals = self.combine(table, columns, single_recipe(table))
        figures: dict[str, Any] = {
            n: None if np.isnan(totals[n][0]) else float(totals[n][0]) for n in COST_UNITS
        }
        on_chip = totals["weight_bytes"] + totals["state_bytes"]
        streamed = bool(self._streamed(on_chip)[0])
        resident = totals["state_bytes"] if streamed else on_chip
        resources = {"sram_bytes": float(resident[0])}
        residency = "streamed" if streamed else "fit"
        if figures["latency_s"] is None:
            return Cost(**figures, resources=resources, residency=residency)
        parts = Breakdown(columns, self.bandwidth, self.leakage_w, streamed)
        worst = table.with_everything_sent()
        worst_totals = self.combine(worst, self.price(worst), single_recipe(worst))
        resources |= {
            "worst_step_latency_s": float(worst_totals["latency_per_step_s"][0]),
            "worst_step_energy_j": float(worst_totals["energy_per_step_j"][0]),
        }
        cycles_per_step = float(np.sum(columns["cycles"] * columns["step_runs"]))
        return Cost(
            **figures,
            resources={**resources, "array_cycles_per_step": cycles_per_step},
            per_op=parts.per_op(table["site"], table.steps),
            energy_breakdown_j=parts.energy_per_step(),
            bound="memory" if parts.step.memory_bound else "compute",
            residency=residency,
        )
