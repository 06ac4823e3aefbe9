"""An FPGA: clock, memory, what its fabric holds, and the power that was measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.spec import SPECS, Spec, SpecField, find_spec, read_spec
from modelflex.errors import UserError

FIELDS: Final[Mapping[str, SpecField]] = {
    "clock": SpecField("1/s"),
    "dram_bandwidth": SpecField("B/s"),
    "dsp_slices": SpecField("slice", "count"),
    "block_rams": SpecField("block", "count"),
    "luts": SpecField("LUT", "count"),
    "flip_flops": SpecField("FF", "count"),
    "dense_power": SpecField("W", required=False),
    "power_per_decade": SpecField("W/decade", required=False),
}
"""The constants of a spec of this family; a block RAM holds 36 Kb and counts as two of 18 Kb."""


@dataclass(frozen=True)
class Chip:
    """The constants of an FPGA.

    Attributes:
        bandwidth: bytes a second from DRAM into the fabric.
        block_rams: halves of block RAMs, 18 Kb each.
        dense_w, decade_w: power above idle of the dense engine, and what comes on top where NZ is a
            tenth of the inputs (`power_w`); NaN where nobody measured it.
    """

    spec: Spec
    clock: float
    bandwidth: float
    dsp_slices: float
    block_rams: float
    luts: float
    flip_flops: float
    dense_w: float
    decade_w: float

    @classmethod
    def read(cls, name: str, *, bandwidth: str | None = None, utilization: float = 1.0) -> Self:
        """The chip of a shipped spec, or of a user's own .toml file.

        Args:
            bandwidth: a quantity such as "8.2 GB/s" instead of the spec's.
            utilization: share of each resource that designs may take, in (0, 1].

        Raises:
            UserError: no such spec, a broken one, half of a power model, options out of range.
        """
        if not 0 < utilization <= 1:  # also of a number that is none
            raise UserError(f"utilization is {utilization:g}", "a share above 0, up to 1")
        spec = read_spec(find_spec(SPECS, name), "fpga", FIELDS)
        if bandwidth is not None:
            spec = spec.with_constant("dram_bandwidth", bandwidth, "B/s", "bandwidth")
        powers = [key for key in ("dense_power", "power_per_decade") if key in spec.constants]
        if len(powers) == 1:
            raise UserError(
                f"the spec '{spec.name}' has {powers[0]} only", "dense_power and power_per_decade"
            )
        dense_w, decade_w = (spec[key] for key in powers) if powers else (np.nan, np.nan)
        return cls(
            spec=spec,
            clock=spec["clock"],
            bandwidth=spec["dram_bandwidth"],
            dsp_slices=utilization * spec["dsp_slices"],
            block_rams=utilization * 2 * spec["block_rams"],
            luts=utilization * spec["luts"],
            flip_flops=utilization * spec["flip_flops"],
            dense_w=dense_w,
            decade_w=decade_w,
        )

    def power_w(self, sparsity: Array | float) -> Array:
        """Power above idle by the sparsity C/NZ (1: nothing is pruned); NaN where it is unknown.

        P = dense + per decade · log₁₀(C/NZ): two constants, fitted on the published rows.
        """
        return np.asarray(self.dense_w + self.decade_w * np.log10(sparsity))
