"""The options and the spec of the systolic platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ConfigDict, with_config

from modelflex.core.spec import SpecField
from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import Dataflow

FIELDS: Final[Mapping[str, SpecField]] = {
    "array_rows": SpecField("unit", "count"),
    "array_columns": SpecField("unit", "count"),
    "clock": SpecField("1/s"),
    "supply_voltage": SpecField("V"),
    "sram_capacity": SpecField("B"),
    "sram_energy": SpecField("J/bit"),
    "dram_energy": SpecField("J/bit"),
    "dram_bandwidth": SpecField("B/s"),
    "accumulator_width": SpecField("bit", "count"),
    "register_energy": SpecField("J/bit"),
    "vector_lanes": SpecField("lane", "count"),
    "vector_energy": SpecField("J/result"),
    "vector_traffic": SpecField("bit/result", "count"),
    "function_results": SpecField("result", "count"),
}
"""The constants of a spec of this family."""

NAMES: Final = ("unit", "node")
"""What a spec names besides: its arithmetic unit, and its technology node in nm."""


@with_config(ConfigDict(extra="forbid", strict=True))
@dataclass(frozen=True)
class SystolicConfig:
    """The options of a configuration file.

    Attributes:
        spec: name of a shipped spec, or the path of a .toml file.
        dataflow: output, weight or input stationary.
        residency: "streamed": every fetched byte of a weight comes over the DRAM bus at each run;
            "fit": weights stay in SRAM if all of them fit beside the state and waiting results, else
            they are streamed;
            "partial": the same share of every weight stays that fits, the rest is streamed.
        workload: "streaming": steps come one at a time; "sequence": all are known, so products that
            hang on no state run for all steps as one.
        batch: sequences that run together and share what is read of the weights.
        circulant: block-circulant weights are multiplied "expanded", or by "fft".
        unit, dram, sram: names of other arithmetic units and memory types than the spec's, or the
            paths of .toml files.
        sram_bank: size of the banks that the SRAM consists of ("4 KiB"); needs `sram`.
        node, supply_voltage: another technology to scale the logic and the SRAM to ("28", "0.8 V").
        dram_energy_per_bit, dram_bandwidth: quantities that replace the spec's ("4 pJ/bit",
            "6.4 GB/s"); the bandwidth may be "unlimited".
        leakage: whether the energy counts leakage of the units and, where their types are chosen by
            `sram` and `dram`, that of the SRAM and the DRAM's standby power.
        registers: whether it counts the registers that skew operands at the array's edges and that
            expand circulant weights.
    """

    spec: str = "bitfusion_32x32"
    dataflow: Dataflow = "os"
    residency: Literal["streamed", "fit", "partial"] = "streamed"
    workload: Literal["streaming", "sequence"] = "streaming"
    batch: int = 1
    circulant: Literal["expanded", "fft"] = "expanded"
    unit: str | None = None
    dram: str | None = None
    sram: str | None = None
    sram_bank: str | None = None
    node: str | None = None
    supply_voltage: str | None = None
    dram_energy_per_bit: str | None = None
    dram_bandwidth: str | None = None
    leakage: bool = False
    registers: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 2**16:
            raise UserError(f"platform.batch is {self.batch}", "1 … 65536")
        if self.sram_bank is not None and self.sram is None:
            raise UserError(
                "platform.sram_bank is given without platform.sram",
                "a memory type, such as sram = 'sram'",
            )
