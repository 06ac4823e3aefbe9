"""What a recipe costs on a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cost:
    """Costs in SI units; what does not apply is None, never 0. Breakdowns sum to totals.

    Attributes:
        latency_s, energy_j: one inference: T steps and what runs once. Of a batch: until all its
            sequences are done, and the energy of one of them.
        latency_per_step_s, energy_per_step_j: one steady-state step, without what runs once; these and
            the other figures of a step are those of the whole batch.
        throughput_steps_per_s: steady-state steps a second, of all sequences.
        power_w: energy over latency of a steady-state step.
        gops, gops_per_w: dense-equivalent operations (2 a MAC of the uncompressed network), in 10⁹/s.
        weight_bytes: stored codes, scales and biases.
        state_bytes: carried state, in the widths of docs/arithmetic.md.
        weight_fetch_bytes_per_step: bytes out of the weight store at the structure's fetch
            granularity, scales and biases included; what runs once a sequence is divided by its length.
        macs_per_step: multiply-accumulates that are performed; likewise.
        dram_bytes_per_step: bytes over the DRAM bus.
        bandwidth_bytes_per_s: DRAM bandwidth required for perfect overlap with the arithmetic.
        resources: platform-specific (e.g. sram_bytes).
        per_op: site → {latency_s, energy_j, …} per step; inference_… of one inference.
        energy_breakdown_j: part → joules per step (arithmetic, sram, dram, …).
        bound: what limits the latency ("compute" or "memory").
        coverage: priced MACs / all.
        unpriced: why not all of them are priced, and what to do about it; None where all are.
        residency: where the weights lie ("streamed", "fit", "partial", or a memory level).
    """

    latency_s: float | None = None
    energy_j: float | None = None
    latency_per_step_s: float | None = None
    energy_per_step_j: float | None = None
    throughput_steps_per_s: float | None = None
    power_w: float | None = None
    gops: float | None = None
    gops_per_w: float | None = None
    weight_bytes: float | None = None
    state_bytes: float | None = None
    weight_fetch_bytes_per_step: float | None = None
    macs_per_step: float | None = None
    dram_bytes_per_step: float | None = None
    bandwidth_bytes_per_s: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    per_op: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    energy_breakdown_j: Mapping[str, float] = field(default_factory=dict)
    bound: str | None = None
    coverage: float | None = None
    residency: str | None = None
    unpriced: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the field names as keys."""
        return asdict(self)


COST_UNITS: Mapping[str, str] = {
    "latency_s": "s",
    "energy_j": "J",
    "latency_per_step_s": "s",
    "energy_per_step_j": "J",
    "throughput_steps_per_s": "1/s",
    "power_w": "W",
    "gops": "",
    "gops_per_w": "",
    "weight_bytes": "B",
    "state_bytes": "B",
    "weight_fetch_bytes_per_step": "B",
    "macs_per_step": "",
    "dram_bytes_per_step": "B",
    "bandwidth_bytes_per_s": "B/s",
    "coverage": "",
}
"""Numeric fields of `Cost` and their SI units (keys of `units.UNITS`)."""
