"""Delta networks: only inputs that have changed enough since they were last sent are multiplied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.fixed import Array
from modelflex.core.kernels import delta_encode
from modelflex.core.packing import make_packing
from modelflex.core.tracer import Activity, InputSite, Link, Product, Tracer, Value
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES

ACCUMULATOR_BYTES = 8
NEVER = 1 << 16


@final
@ACTIVITIES.register("delta")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Delta(Activity):
    """Send an input when it differs from its last sent value by the threshold or more.

    M = bias + A·x̂ is the raw accumulator over the last sent codes x̂; each step adds A·Δ for the
    sent inputs, so M equals the dense product of x̂ exactly and does not drift.

    Attributes:
        threshold: θ ≥ 0, in units of the input or of its standard deviation (`unit`).
        granularity: "element", or "block": the inputs of one fetch unit are sent together when the
            largest change among them reaches the threshold.
        unit: "absolute", or "std": θ counts standard deviations of the input over calibration data.
    """

    threshold: float
    granularity: Literal["element", "block"] = "element"
    unit: Literal["absolute", "std"] = "absolute"

    reference = "Neil et al., Delta Networks for Optimized Recurrent Network Computation, ICML 2017"
    search_range = {"threshold": (0.0, 1.0), "granularity": ("element", "block")}

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < float("inf"):
            raise UserError(f"delta threshold is {self.threshold}", "a finite number ≥ 0")

    def resolve(self, site: InputSite) -> Delta:
        if self.unit == "absolute":
            return self
        return replace(self, threshold=self.threshold * site.std, unit="absolute")

    def thresholds(self, site: InputSite) -> None:
        return None

    @property
    def has_thresholds(self) -> bool:
        return False

    def _block(self, block: int) -> int:
        return block if self.granularity == "block" else 1

    def codes(self, step: float) -> int:
        """θ in code steps: round(θ / step); at 2¹⁶, more than any difference of codes, nothing is sent."""
        return round(min(self.threshold / step, float(NEVER)))

    def lower(self, tracer: Tracer, product: Product, codes: Value) -> Value:
        if product.link is None:
            raise ValueError("delta is lowered in integer programs only")
        site, size, out = product.site, codes.size, product.geometry.out
        sent = tracer.state(f"{site}.sent", size, "code")
        total = tracer.state(f"{site}.m", out, "acc", init=product.bias)
        delta, mask, sent_after = tracer.record(
            "delta_encode",
            (codes, sent),
            ((size, "delta"), (size, "mask"), (size, "code")),
            site,
            threshold=self.codes(product.link.step),
            block=self._block(product.geometry.block),
        )
        after = tracer.record("accumulate", (delta, mask, total), ((out, "acc"),), site)[0]
        tracer.set_state(f"{site}.sent", sent_after)
        tracer.set_state(f"{site}.m", after)
        return after

    def replay(self, codes: Array, lengths: Array, block: int, link: Link) -> tuple[Array, Array]:
        packing, threshold, group = make_packing(lengths), self.codes(link.step), self._block(block)
        packed = packing.pack(codes)
        held, masks = np.empty_like(packed), np.empty(packed.shape, bool)
        sent = np.zeros((lengths.size, codes.shape[1]), codes.dtype)
        for t, n in enumerate(packing.alive):
            rows = slice(packing.offsets[t], packing.offsets[t + 1])
            _, masks[rows], sent[:n] = delta_encode(packed[rows], sent[:n], threshold, group)
            held[rows] = sent[:n]
        return packing.unpack(held), packing.unpack(masks)

    def state_bytes(self, out: int, inputs: int) -> int:
        return 2 * inputs + ACCUMULATOR_BYTES * out

    def naive(self) -> Delta:
        return self
