"""The systolic platform: prices product rows on an array of BitFusion units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self, final

import numpy as np

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Platform
from modelflex.core.products import ProductTable, count_totals, single_recipe
from modelflex.core.recipe import read_config
from modelflex.core.spec import Spec
from modelflex.platforms.systolic.breakdown import Breakdown
from modelflex.platforms.systolic.chip import Chip, read_chip
from modelflex.platforms.systolic.config import SystolicConfig
from modelflex.platforms.systolic.runs import runs
from modelflex.platforms.systolic.units import WIDEST_BITS
from modelflex.registry import PLATFORMS

ASSUMPTIONS: Final = (
    "streaming: one step is a matrix-vector product for each weight and sequence of the batch; "
    "sequence: products that hang on no state run once for all steps and their share of a step is a "
    "T-th; the results of all of them wait in SRAM, or in DRAM if they do not fit or if the weights "
    "that fit in their stead save more traffic",
    "batch: figures of a step are those of the whole batch, energy_j is one sequence's; under delta an "
    "input is multiplied if one of the sequences sends it, each for itself",
    "a fold at the array's edge costs as much as a full one, and every unit spends its energy in "
    "every cycle; pipeline registers are part of it",
    "operands are rounded up to widths of the unit, wider ones take several passes; delta inputs "
    "enter at the width of the codes",
    "odd grids enter as unsigned codes u with code = 2u − (2^b − 1); the one sum of the inputs that "
    "corrects all rows of a product is not counted; groups of columns with a multiplier enter at the "
    "width of their codes, the products with the multipliers are not counted; codebooks, sums of signs "
    "and powers of two enter as the integers that they mean",
    "block-circulant weights save storage and traffic; expanded ones no arithmetic; by fft inputs "
    "are transformed on the vector unit to spectra of 16 bits, stored weights are spectra",
    "sparse layouts: every column of the array has its own terms, gathers their inputs and waits for "
    "none; indices are fetched with the weights and decoded on the way",
    "the vector unit encodes the inputs of a product and rescales its results, delta compares and "
    "accumulates besides; σ and tanh count for more than one result; array and vector unit take turns",
    "under delta, figures of a step are means over steps; worst_step_latency_s and "
    "worst_step_energy_j (resources) are those of a step in which every input is sent",
    "streaming weights overlaps with the arithmetic of the whole step, the longer of both counts",
    "SRAM is counted between buffers and array; filling it from DRAM costs DRAM energy only",
    "inputs, outputs and state stay in SRAM; resident weights are loaded before the first step and "
    "have the room that state and the results that wait there leave; partial residency keeps the "
    "same share of every weight",
    "another technology scales the energy of switching and the area of logic and SRAM; clock, leakage "
    "and DRAM stay as they are",
    "the area is that of units and SRAM, without vector unit, wires between banks and pads",
)


class _Placed(NamedTuple):
    """Where weights and waiting results of recipes lie: [recipes].

    Attributes:
        streamed: share of the weights that comes over the DRAM bus at every run.
        spilled_bytes: results of later steps that wait in DRAM, of a whole sequence.
        held_bytes: state and waiting results in SRAM.
    """

    streamed: Array
    spilled_bytes: Array
    held_bytes: Array


_NARROWER: Final = (
    ": compress the network; one of terms before it is refined, and refine it with bits"
)


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

    def __init__(self, spec: Spec, chip: Chip, config: SystolicConfig) -> None:
        self.spec, self.chip, self.config = spec, chip, config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the options; see `SystolicConfig`.

        Raises:
            UserError: an unknown option or spec, a wrong type, a value out of range.
        """
        options: SystolicConfig = read_config(SystolicConfig, config, "platform")
        return cls(*read_chip(options), options)

    @property
    def description(self) -> Mapping[str, Any]:
        config = self.config
        return {
            **self.spec.to_json(),
            **self.chip.sources,
            "residency": config.residency,
            "dataflow": config.dataflow,
            "workload": config.workload,
            "batch": config.batch,
            "circulant": config.circulant,
            "node": config.node or self.spec.names["node"],
            **{
                name: value
                for name in ("supply_voltage", "sram_bank")
                if (value := getattr(config, name)) is not None
            },
            "dram_bandwidth": "unlimited" if np.isinf(self.chip.dram_bandwidth) else "limited",
            "leakage": ", ".join(self._leaking) if config.leakage else "not counted",
            "registers": "counted" if config.registers else "not counted",
            "assumptions": list(ASSUMPTIONS),
        }

    @property
    def _leaking(self) -> list[str]:
        """Of what leakage is counted where it is asked for: nobody knows that of an unnamed type."""
        chosen = {"SRAM": self.config.sram, "DRAM standby": self.config.dram}
        return ["units", *(part for part, name in chosen.items() if name is not None)]

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """Columns [rows]; figures are for one run of the row, for the whole batch, unless named otherwise.

        - unpriced: 1 for products with operands wider than 16 bits, whose times and energies are 0
          here and not a number in every total; else 0;
        - step_runs: runs in a steady-state step; once_runs: runs once in an inference;
        - cycles, terms: of the array, and those if all units had work; compute_s: of array and
          vector unit;
        - dram_bytes, dram_j: of the fetched weight, if all of it comes from DRAM;
        - sram_bytes, sram_j: between SRAM and array or vector unit, weights included;
        - arithmetic_j, registers_j, elementwise_j: of the array, its registers, the vector unit;
        - buffer_bytes: results of later steps that wait for theirs;
        - reset_bytes, reset_sram_j, reset_dram_j: read at the start of an inference.

        Raises:
            UserError: a layout that this platform cannot price.
        """
        chip = self.chip
        widest = np.maximum(table["weight_bits"], table["activation_bits"])
        priced = widest <= WIDEST_BITS
        run = runs(table, chip, self.config)
        compute = run.cycles + np.ceil(run.results / chip.vector_lanes)
        sram_j = run.read_bytes * chip.sram_read_j + run.write_bytes * chip.sram_write_j
        return {
            "unpriced": 1.0 - priced,
            "step_runs": run.per_step,
            "once_runs": run.once,
            "cycles": run.cycles * priced,
            "terms": run.terms * priced / chip.units,
            "compute_s": compute * priced / chip.clock,
            "dram_bytes": run.fetch_bytes,
            "sram_bytes": (run.read_bytes + run.write_bytes) * priced,
            "arithmetic_j": run.cycles * priced * (chip.units * chip.unit.energy_j),
            "registers_j": run.moved_bits * priced * chip.register_j,
            "elementwise_j": run.results * priced * chip.vector_j,
            "sram_j": sram_j * priced,
            "dram_j": run.fetch_bytes * priced * chip.dram_j,
            "buffer_bytes": run.buffer_bytes,
            "reset_bytes": table["reset_bytes"],
            "reset_sram_j": table["reset_bytes"] * priced * chip.sram_read_j,
            "reset_dram_j": table["reset_bytes"] * priced * chip.dram_j,
        }

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        def total(column: Array) -> Array:
            return table.total(column, choices)

        batch, chip = self.config.batch, self.chip
        weight_bytes, state_bytes = total(table["stored_bytes"]), total(table["state_bytes"])
        streamed, spilled_bytes, _ = self._place(table, columns, choices)
        # Written to DRAM and read again.
        spilled = 2 * spilled_bytes / table.steps
        step, once = columns["step_runs"], columns["once_runs"]
        on_chip = ("arithmetic_j", "registers_j", "elementwise_j", "sram_j")
        chip_j = np.asarray(sum(columns[name] for name in on_chip))

        compute_s = total(columns["compute_s"] * step)
        dram_bytes = streamed * total(columns["dram_bytes"] * step) + spilled
        step_s = np.maximum(compute_s, dram_bytes / chip.dram_bandwidth)
        step_j = total(chip_j * step) + streamed * total(columns["dram_j"] * step)
        step_j = step_j + spilled * chip.dram_j + chip.leakage_w * step_s

        once_bytes = streamed * total(columns["dram_bytes"] * once + columns["reset_bytes"])
        once_s = np.maximum(total(columns["compute_s"] * once), once_bytes / chip.dram_bandwidth)
        once_j = total(chip_j * once + columns["reset_sram_j"]) + chip.leakage_w * once_s
        once_j = once_j + streamed * total(columns["dram_j"] * once + columns["reset_dram_j"])

        macs = table["macs"] * 1.0
        operations = 2e-9 * batch * total(table["dense_macs"] * (table["runs_per_step"] >= 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            totals = {
                "latency_s": table.steps * step_s + once_s,
                "energy_j": (table.steps * step_j + once_j) / batch,
                "latency_per_step_s": step_s,
                "energy_per_step_j": step_j,
                "throughput_steps_per_s": batch / step_s,
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
            "weight_fetch_bytes_per_step": total(columns["dram_bytes"] * step)
            + total(columns["dram_bytes"] * once + columns["reset_bytes"]) / table.steps,
            "macs_per_step": batch * count_totals(table, choices)["macs_per_step"],
            "dram_bytes_per_step": dram_bytes,
            "coverage": coverage,
        }

    def _place(self, table: ProductTable, columns: Mapping[str, Array], choices: Array) -> _Placed:
        """Waiting results go to DRAM where they do not fit or where that moves fewer bytes."""

        def total(column: Array) -> Array:
            return table.total(column, choices)

        weight_bytes, waiting = total(table["stored_bytes"]), total(columns["buffer_bytes"])
        state_bytes = self.config.batch * total(table["state_bytes"])
        runs = columns["step_runs"] * table.steps + columns["once_runs"]
        fetched = total(columns["dram_bytes"] * runs + columns["reset_bytes"])
        room = self.chip.sram_bytes - state_bytes
        beside, instead = (self._streamed(weight_bytes, left) for left in (room - waiting, room))
        spills = (waiting > room) | (fetched * (beside - instead) > 2 * waiting)
        return _Placed(
            np.where(spills, instead, beside),
            np.where(spills, waiting, 0.0),
            state_bytes + np.where(spills, 0.0, waiting),
        )

    def _streamed(self, weight_bytes: Array, room: Array) -> Array:
        """Share of a recipe's weights that has no room in SRAM: [recipes]."""
        if self.config.residency == "streamed":
            return np.ones(weight_bytes.shape)
        if self.config.residency == "fit":
            return np.asarray(weight_bytes > room) * 1.0
        return np.asarray(1.0 - np.clip(room / np.maximum(weight_bytes, 1.0), 0.0, 1.0))

    def cost(self, table: ProductTable) -> Cost:
        columns = self.price(table)
        totals = self.combine(table, columns, single_recipe(table))
        figures: dict[str, Any] = {
            n: None if np.isnan(totals[n][0]) else float(totals[n][0]) for n in COST_UNITS
        }
        placed = self._place(table, columns, single_recipe(table))
        share, spilled = float(placed.streamed[0]), bool(placed.spilled_bytes[0] > 0)
        resident = placed.held_bytes[0] + (1 - share) * totals["weight_bytes"][0]
        resources = {"sram_bytes": float(resident), "area_m2": self.chip.area_m2}
        residency = "streamed" if share == 1 else "fit" if share == 0 else "partial"
        if figures["latency_s"] is None:
            wide = int(np.sum(columns["unpriced"]))
            why = (
                f"{wide} of {table.rows} rows have operands wider than {WIDEST_BITS} bits{_NARROWER}"
                if wide
                else None
            )
            return Cost(**figures, resources=resources, residency=residency, unpriced=why)
        parts = Breakdown(columns, self.chip, share, spilled, table.steps)
        worst = table.with_everything_sent()
        worst_totals = self.combine(worst, self.price(worst), single_recipe(worst))
        cycles, terms = (
            float(np.sum(columns[name] * columns["step_runs"])) for name in ("cycles", "terms")
        )
        resources |= {
            "worst_step_latency_s": float(worst_totals["latency_per_step_s"][0]),
            "worst_step_energy_j": float(worst_totals["energy_per_step_j"][0]),
            "array_cycles_per_step": cycles,
        }
        if cycles:
            resources["array_utilization"] = terms / cycles
        return Cost(
            **figures,
            resources=resources,
            per_op=parts.per_op(table["site"], self.config.batch),
            energy_breakdown_j=parts.energy_per_step(),
            bound="memory" if parts.step.memory_bound else "compute",
            residency=residency,
        )
