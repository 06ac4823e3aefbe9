"""How the cost of one recipe divides among its rows and among the parts of the chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.chip import Chip

PARTS = ("arithmetic", "registers", "elementwise", "sram", "dram")
"""Parts of the energy; registers and leakage only where they are counted."""


@dataclass(frozen=True, eq=False)
class Phase:
    """One steady-state step, or what runs once an inference, row by row.

    Attributes:
        latency_s: [rows]; the whole takes as long as its slower half, arithmetic or DRAM, and a row
            takes its share of that half, so that rows sum to the total.
        energy_j: part → [rows].
    """

    latency_s: Array
    energy_j: Mapping[str, Array]
    memory_bound: bool

    @property
    def total_j(self) -> Array:
        """[rows], all parts."""
        return np.asarray(sum(self.energy_j.values()))


def _phase(
    compute_s: Array, memory_s: Array, energy_j: dict[str, Array], leakage_w: float
) -> Phase:
    memory_bound = bool(memory_s.sum() > compute_s.sum())
    latency_s = memory_s if memory_bound else compute_s
    if leakage_w > 0:
        energy_j["leakage"] = leakage_w * latency_s
    return Phase(latency_s, energy_j, memory_bound)


class Breakdown:
    """The priced columns of one recipe, divided.

    Args:
        columns: as `Systolic.price` returns them.
        streamed: share of the weights that comes over the DRAM bus at every run.
        spilled: whether results that wait for their step do so in DRAM.
        steps: T, mean time steps of a sequence.
    """

    def __init__(
        self,
        columns: Mapping[str, Array],
        chip: Chip,
        streamed: float,
        spilled: bool,
        steps: float,
    ) -> None:
        self.steps = steps
        step, once = columns["step_runs"], columns["once_runs"]
        parts = [part for part in PARTS if part != "registers" or chip.register_j > 0]
        moved = streamed * columns["dram_bytes"] * step
        waiting = spilled * 2 * columns["buffer_bytes"] / steps
        dram = {part: streamed if part == "dram" else 1.0 for part in parts}
        step_j = {part: columns[f"{part}_j"] * step * dram[part] for part in parts}
        step_j["dram"] = step_j["dram"] + waiting * chip.dram_j
        self.step = _phase(
            columns["compute_s"] * step,
            (moved + waiting) / chip.dram_bandwidth,
            step_j,
            chip.leakage_w,
        )
        reset = {"sram": columns["reset_sram_j"], "dram": columns["reset_dram_j"]}
        self.once = _phase(
            columns["compute_s"] * once,
            streamed
            * (columns["dram_bytes"] * once + columns["reset_bytes"])
            / chip.dram_bandwidth,
            {
                part: (columns[f"{part}_j"] * once + reset.get(part, 0.0)) * dram[part]
                for part in parts
            },
            chip.leakage_w,
        )

    def energy_per_step(self) -> dict[str, float]:
        """Part → joules of a steady-state step."""
        return {part: float(rows.sum()) for part, rows in self.step.energy_j.items()}

    def per_op(self, sites: Array, batch: int) -> dict[str, dict[str, float]]:
        """Site → its share of a steady-state step of the batch, and of the inference of a sequence.

        What runs once an inference has no share in a step, so its `latency_s` and `energy_j` are 0.
        """
        steps = self.steps
        figures = {
            "latency_s": self.step.latency_s,
            "energy_j": self.step.total_j,
            "inference_latency_s": steps * self.step.latency_s + self.once.latency_s,
            "inference_energy_j": (steps * self.step.total_j + self.once.total_j) / batch,
        }
        return {
            str(site): {name: float(values[i]) for name, values in figures.items()}
            for i, site in enumerate(sites)
        }
