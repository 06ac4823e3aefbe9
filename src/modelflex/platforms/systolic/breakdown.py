"""How the cost of one recipe divides among its rows and among the parts of the chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array

PARTS = ("arithmetic", "elementwise", "sram", "dram")
"""Parts of the energy; leakage comes on top where it is counted."""


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
        bandwidth: bytes a second over the DRAM bus.
        leakage_w: leakage that is counted, 0 for none.
        streamed: whether weights come over the DRAM bus at every run.
    """

    def __init__(
        self, columns: Mapping[str, Array], bandwidth: float, leakage_w: float, streamed: bool
    ) -> None:
        step, once = columns["step_runs"], columns["once_runs"]
        per_byte = float(streamed) / bandwidth
        self.step = _phase(
            columns["compute_s"] * step,
            columns["dram_bytes"] * step * per_byte,
            {p: columns[f"{p}_j"] * step * (streamed or p != "dram") for p in PARTS},
            leakage_w,
        )
        reset = {"sram": columns["reset_sram_j"], "dram": columns["reset_dram_j"]}
        self.once = _phase(
            columns["compute_s"] * once,
            (columns["dram_bytes"] * once + columns["reset_bytes"]) * per_byte,
            {
                p: (columns[f"{p}_j"] * once + reset.get(p, 0.0)) * (streamed or p != "dram")
                for p in PARTS
            },
            leakage_w,
        )

    def energy_per_step(self) -> dict[str, float]:
        """Part → joules of a steady-state step."""
        return {part: float(rows.sum()) for part, rows in self.step.energy_j.items()}

    def per_op(self, sites: Array, steps: float) -> dict[str, dict[str, float]]:
        """Site → its share of a steady-state step, and of one inference of `steps` steps.

        What runs once an inference has no share in a step, so its `latency_s` and `energy_j` are 0.
        """
        figures = {
            "latency_s": self.step.latency_s,
            "energy_j": self.step.total_j,
            "inference_latency_s": steps * self.step.latency_s + self.once.latency_s,
            "inference_energy_j": steps * self.step.total_j + self.once.total_j,
        }
        return {
            str(site): {name: float(values[i]) for name, values in figures.items()}
            for i, site in enumerate(sites)
        }
