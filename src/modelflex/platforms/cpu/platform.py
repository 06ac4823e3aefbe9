"""The platform `cpu`: predicted by constants of this machine, then measured on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self, final

import numpy as np

from modelflex.core.cost import COST_UNITS, Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Executor, MeasuredPlatform, Stream
from modelflex.core.products import ProductTable, count_totals, single_recipe
from modelflex.errors import UserError
from modelflex.platforms.cpu.calibration import calibrate
from modelflex.platforms.cpu.constants import Constants, price_rows
from modelflex.platforms.cpu.machine import keep, kept_file, machine, read_kept
from modelflex.platforms.cpu.timing import energy_per_step_j, single_steps
from modelflex.registry import PLATFORMS

_LOG: Final = logging.getLogger(__name__)
SECONDS: Final = 1.0
"""How long the warm steps of a measurement take, at most."""
MEMORY_SHARE: Final = 0.5
"""A step that takes less than twice as long as reading its weights is bound by memory."""

ASSUMPTIONS: Final = (
    "one thread; sequences are streamed: a step is one call of runtime.step(x, out) from Python, and an "
    "inference is as many steps as a sequence has",
    "predicted figures (all recipes of a search): for each product a constant time, a time for each "
    "input and result, and the larger of its multiplications from a near cache and of reading its packed "
    "weights at the rate of a read loop over as many bytes as all weights have; elementwise work a "
    "constant time and a time for each result",
    "sparse weights take the time of a dense product in 8 bits, in which the runtime multiplies them",
    "measured figures (of what is built): medians of single steps with warm caches; "
    "latency_p99_s and cold_latency_s (resources) are the 99th percentile, and the median after all "
    "caches were overwritten",
    "energy is that of the processor's packages by RAPL counters, with everything else that runs on "
    "them; where they cannot be read there is none. It is not predicted",
    "ram_bytes are a stream's state and scratch, flash_bytes all constants as they are stored; "
    "roofline_share is the time that a read loop takes for the bytes fetched in a step, over the step's",
)


@final
@PLATFORMS.register("cpu")
class Cpu(MeasuredPlatform):
    """This machine."""

    reference = "measured; prediction after Williams et al., Roofline, Communications of the ACM 52(4), 2009"

    def __init__(self, constants: Constants | None = None) -> None:
        self._constants = constants

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """There are no options.

        Raises:
            UserError: an option is given.
        """
        for name in config:
            raise UserError(f"platform has the unknown key '{name}'", "no options for 'cpu'")
        return cls()

    def calibrated(self, executor: Executor, known: Mapping[str, Any] | None = None) -> Self:
        """See `MeasuredPlatform`; what is measured is kept in the user's cache for this machine.

        Raises:
            UserError: `known` is not what `constants` gives.
        """
        if known is not None:
            try:
                return type(self)(Constants.from_json(known))
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"constants of the platform 'cpu' cannot be read ({error!r})",
                    "those that a search stored",
                    "search again into another folder",
                ) from None
        here = machine()
        file = kept_file(here)
        constants = _kept(file)
        if constants is None:
            _LOG.warning("modelflex: measuring this machine, once; its constants go to %s", file)
            constants = calibrate(executor, here)
            keep(file, constants.to_json())
        return type(self)(constants)

    @property
    def constants(self) -> Mapping[str, Any]:
        return self._known.to_json()

    @property
    def _known(self) -> Constants:
        if self._constants is None:
            raise ValueError("the platform 'cpu' is not calibrated")
        return self._constants

    @property
    def description(self) -> Mapping[str, Any]:
        found: dict[str, Any] = {
            "title": "this machine's processor",
            "model": "predicted by a linear model of this machine; measured where a line says so",
            "assumptions": list(ASSUMPTIONS),
        }
        if self._constants is not None:
            of = self._constants
            found["title"] = f"{of.machine['cpu']}, one core"
            found["machine"] = dict(of.machine)
            found["constants"] = {k: v for k, v in self.constants.items() if k != "machine"}
        return found

    # --- predicted -------------------------------------------------------------------------------
    def price(self, table: ProductTable) -> Mapping[str, Array]:
        """See `constants.price_rows`."""
        return price_rows(table, self._known)

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        rates = self._rates(table.total(columns["held_bytes"], choices))
        # Rows hang on the rate, and that on the recipe: between two rates times are interpolated.
        at = [table.total(_row_s(columns, rate), choices) for _, rate in self._known.read]
        step_s = self._known.call_s + _between(rates, np.array(at))
        nothing = np.full(choices.shape[0], np.nan)
        return {
            **dict.fromkeys(COST_UNITS, nothing),
            **count_totals(table, choices),
            "latency_s": table.steps * step_s,
            "latency_per_step_s": step_s,
            "throughput_steps_per_s": 1 / step_s,
            "gops": 2e-9 * table.total(table["dense_macs"], choices) / step_s,
            "coverage": np.ones(choices.shape[0]),
        }

    def _rates(self, held_bytes: Array) -> Array:
        """Where recipes lie between the buffers of the read loop, as a fractional number, [recipes]."""
        sizes = np.log([size for size, _ in self._known.read])
        return np.interp(np.log(np.maximum(held_bytes, 1)), sizes, np.arange(len(sizes)))

    def cost(self, table: ProductTable) -> Cost:
        columns, recipe = self.price(table), single_recipe(table)
        totals = self.combine(table, columns, recipe)
        figures: dict[str, Any] = {
            n: None if np.isnan(totals[n][0]) else float(totals[n][0]) for n in COST_UNITS
        }
        held = table.total(columns["held_bytes"], recipe)
        rows = _between(
            np.repeat(self._rates(held), table.rows),
            np.array([_row_s(columns, rate) for _, rate in self._known.read]),
        )
        seconds = {"call": self._known.call_s} | dict(
            zip(table["site"], map(float, rows), strict=True)
        )
        waiting = rows - columns["fixed_s"] > 1.001 * columns["work_s"]
        memory_s = float(rows[waiting].sum())
        return Cost(
            **figures,
            per_op={
                str(site): {"latency_s": s, "inference_latency_s": table.steps * s}
                for site, s in seconds.items()
            },
            bound="memory" if memory_s > figures["latency_per_step_s"] / 2 else "compute",
            residency=self._residency(float(held[0])),
        )

    def _residency(self, nbytes: float) -> str:
        """The smallest cache that holds so many bytes, or "DRAM"."""
        levels = self._known.machine["caches_bytes"].items()
        return next((level for level, size in levels if nbytes <= size), "DRAM")

    # --- measured --------------------------------------------------------------------------------
    def measure(self, stream: Stream, inputs: Array, table: ProductTable) -> Cost:
        counts: dict[str, Any] = {
            n: float(v[0]) for n, v in count_totals(table, single_recipe(table)).items()
        }
        times = single_steps(stream, inputs, int(counts["weight_bytes"]), SECONDS)
        step_s, energy = float(np.median(times.warm)), energy_per_step_j(stream, inputs)
        operations = 2e-9 * float(table["dense_macs"].sum())
        share = counts["weight_fetch_bytes_per_step"] / times.read_bytes_per_s / step_s
        plan = stream.plan
        return Cost(
            **counts,
            latency_s=table.steps * step_s,
            latency_per_step_s=step_s,
            throughput_steps_per_s=1 / step_s,
            energy_j=None if energy is None else table.steps * energy,
            energy_per_step_j=energy,
            power_w=None if energy is None else energy / step_s,
            gops=operations / step_s,
            gops_per_w=None if not energy else operations / energy,
            coverage=1.0,
            resources={
                "latency_p99_s": float(np.quantile(times.warm, 0.99)),
                "cold_latency_s": float(np.median(times.cold)),
                "cold_latency_p99_s": float(np.quantile(times.cold, 0.99)),
                "flash_bytes": float(plan.flash_bytes),
                "ram_bytes": float(plan.ram_bytes),
                "scratch_bytes": float(plan.scratch_bytes),
                "read_bytes_per_s": times.read_bytes_per_s,
                "roofline_share": share,
            },
            bound="memory" if share >= MEMORY_SHARE else "compute",
            residency=self._residency(counts["weight_bytes"]),
        )


def _kept(file: Path) -> Constants | None:
    try:
        return Constants.from_json(read_kept(file))
    except (KeyError, TypeError, ValueError):
        return None


def _row_s(columns: Mapping[str, Array], rate: float) -> Array:
    """Seconds of every row where weights are read at a rate."""
    return columns["fixed_s"] + np.maximum(columns["work_s"], columns["read_bytes"] / rate)


def _between(at: Array, values: Array) -> Array:
    """values [levels, n] at fractional level numbers [n]."""
    low = np.minimum(np.floor(at).astype(np.int64), len(values) - 2)
    share, each = at - low, np.arange(len(at))
    return np.asarray((1 - share) * values[low, each] + share * values[low + 1, each])
