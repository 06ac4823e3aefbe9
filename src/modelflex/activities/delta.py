"""Delta networks: only inputs that have changed enough since they were last sent are multiplied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.fixed import Array
from modelflex.core.kernels import OVERSHOOT_BITS, delta_encode
from modelflex.core.packing import make_packing
from modelflex.core.recorder import Value
from modelflex.core.tracer import Activity, InputSite, Link, Product, Tracer
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES

try:
    from modelflex._native import replay_delta
except ImportError:  # installed without a C compiler, or built for another machine
    HAVE_NATIVE = False
else:
    HAVE_NATIVE = True

ACCUMULATOR_BYTES = 8
NEVER = 1 << 16
TRACE_STEPS, SEQUENCE_STEPS = 4000, 1000
"""Time steps of the calibration trace, in all and of one sequence, on which a wanted density is met."""
WIDEST = 2.0**8
"""A threshold scaled by a column's norm is at most this many times the common one."""


@final
@ACTIVITIES.register("delta")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Delta(Activity):
    """Send an input when it differs from its last sent value by the threshold or more.

    M = bias + A·x̂ is the raw accumulator over the last sent codes x̂; each step adds A·Δ for the
    sent inputs, so M equals the dense product of x̂ exactly and does not drift.

    Attributes:
        threshold: θ ≥ 0, in units of the input or of its standard deviation (`unit`); None where a
            density is wanted.
        granularity: "element", or "block": the inputs of one fetch unit are sent together when a
            change among them reaches the threshold.
        unit: "absolute", or "std": θ counts standard deviations of the input over calibration data.
        density: instead of θ, the largest share of fetch units, 0 < d ≤ 1, that may be read: θ is
            the smallest that keeps to it over calibration data.
        scaled: "none": one threshold for all; "norm": each input (each block) has its own,
            inversely proportional to the norm of the columns that it multiplies (for a block the root
            mean square of the norms), with the geometric mean θ.
        overshoot: 0 ≤ o < 1: what is sent lies beyond the input by o times its change, of which no
            more than θ counts: x̂ = x + o·clip(x − x̂, −θ, θ). An input that goes on in the same
            direction is then nearer to what was sent. None in a product that runs once a sequence.
    """

    threshold: float | None = None
    granularity: Literal["element", "block"] = "element"
    unit: Literal["absolute", "std"] = "absolute"
    density: float | None = None
    scaled: Literal["none", "norm"] = "none"
    overshoot: float = 0.0

    reference = "Neil et al., Delta Networks for Optimized Recurrent Network Computation, ICML 2017"
    search_range = {
        "threshold": (0.0, 1.0),
        "granularity": ("element", "block"),
        "scaled": ("none", "norm"),
        "overshoot": (0.0, 0.5, 0.99),
    }

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.density is None):
            given = "neither a threshold nor" if self.threshold is None else "both a threshold and"
            raise UserError(f"delta has {given} a density", "one of the two")
        if self.threshold is not None and not 0 <= self.threshold < float("inf"):
            raise UserError(f"delta threshold is {self.threshold}", "a finite number ≥ 0")
        if self.density is not None and not 0 < self.density <= 1:
            raise UserError(f"delta density is {self.density}", "a share above 0, at most 1")
        if self.density is not None and self.unit != "absolute":
            raise UserError("delta has a density and a unit", "no unit", "a unit is of a threshold")
        if not 0 <= self.overshoot < 1:
            raise UserError(f"delta overshoot is {self.overshoot}", "0 or more, below 1")

    # --- thresholds ------------------------------------------------------------------------------
    def resolve(self, site: InputSite) -> Delta:
        # An input that is never seen again cannot go on in the same direction.
        overshoot = self.overshoot if site.lengths.max() > 1 else 0.0
        theta = replace(self, overshoot=overshoot)._absolute(site)
        return replace(self, threshold=theta, unit="absolute", density=None, overshoot=overshoot)

    @property
    def resolved(self) -> bool:
        return self.threshold is not None and self.unit == "absolute"

    def _absolute(self, site: InputSite) -> float:
        """θ in units of the input."""
        if self.threshold is not None:
            return self.threshold * (site.std if self.unit == "std" else 1.0)
        rows, lengths = _excerpt(site.lengths)
        few = replace(site, codes=site.codes[rows], lengths=lengths)
        low, high = 0, 1 << site.bits
        # Thresholds of inputs with wide columns are smaller than the common one.
        while high < NEVER and self._units_sent(high * site.step, few) > float(self.density or 0.0):
            low, high = high + 1, 2 * high
        while low < high:  # the smallest θ, in code steps, that sends no more than is wanted
            middle = (low + high) // 2
            if self._units_sent(middle * site.step, few) <= float(self.density or 0.0):
                high = middle
            else:
                low = middle + 1
        return low * site.step

    def _units_sent(self, theta: float, site: InputSite) -> float:
        """The share of fetch units that are sent at the threshold θ."""
        fixed = replace(self, threshold=theta, density=None)
        stored = fixed.thresholds(site)
        unit = self._block(site.block)
        each = fixed._each(stored, site.step, site.codes.shape[1] // unit)
        _, mask = _encode(site.codes, site.lengths, each, unit, fixed._overshoot, site.bits)
        return float(mask.reshape(mask.shape[0], -1, site.block).any(axis=-1).mean())

    def thresholds(self, site: InputSite) -> Array | None:
        if self.scaled == "none":
            return None
        squares = (site.norms**2).reshape(-1, self._block(site.block)).mean(axis=1)
        seen = squares[squares > 0]
        middle = np.exp(np.log(seen).mean()) if seen.size else 1.0
        factors = np.sqrt(middle / np.maximum(squares, middle / WIDEST**2))
        top = (1 << (8 if site.bits <= 8 else 16)) - 1
        return np.rint(np.minimum(self._steps(site.step) * factors, top)).astype(np.int32)

    def threshold_count(self, inputs: int, block: int) -> int:
        return 0 if self.scaled == "none" else inputs // self._block(block)

    def _steps(self, step: float) -> float:
        if self.threshold is None:
            raise ValueError("a delta with a wanted density is not resolved")
        return min(self.threshold / step, float(NEVER))

    def codes(self, step: float) -> int:
        """θ in code steps: round(θ / step); at 2¹⁶, more than any difference of codes, nothing is sent."""
        return round(self._steps(step))

    def _each(self, stored: Array | None, step: float, count: int) -> Array:
        """The threshold of everything that is sent by itself, int32 [count]."""
        return np.full(count, self.codes(step), np.int32) if stored is None else stored

    def _block(self, block: int) -> int:
        return block if self.granularity == "block" else 1

    @property
    def _overshoot(self) -> int:
        return int(self.overshoot * (1 << OVERSHOOT_BITS))

    # --- running ---------------------------------------------------------------------------------
    def lower(self, tracer: Tracer, product: Product, codes: Value) -> Value:
        link = product.link
        if link is None:
            raise ValueError("delta is lowered in integer programs only")
        site, size, out = product.site, codes.size, product.outputs
        block = self._block(product.block)
        sent = tracer.state(f"{site}.sent", size, "code")
        total = tracer.state(f"{site}.m", out, "acc", init=product.bias)
        delta, mask, sent_after = tracer.record(
            "delta_encode",
            (codes, sent),
            ((size, "delta"), (size, "mask"), (size, "code")),
            site,
            thresholds=self._each(link.thresholds, link.step, size // block),
            block=block,
            overshoot=self._overshoot,
            bits=link.bits,
        )
        after = tracer.record("accumulate", (delta, mask, total), ((out, "acc"),), site)[0]
        tracer.set_state(f"{site}.sent", sent_after)
        tracer.set_state(f"{site}.m", after)
        return after

    def replay(self, codes: Array, lengths: Array, block: int, link: Link) -> tuple[Array, Array]:
        unit = self._block(block)
        thresholds = self._each(link.thresholds, link.step, codes.shape[1] // unit)
        return _encode(codes, lengths, thresholds, unit, self._overshoot, link.bits)

    def state_bytes(self, out: int, inputs: int) -> int:
        return 2 * inputs + ACCUMULATOR_BYTES * out

    @property
    def stateful(self) -> bool:
        return True

    def naive(self) -> Delta:
        return replace(self, scaled="none", overshoot=0.0)


def _excerpt(lengths: Array) -> tuple[Array, Array]:
    """Rows of about `TRACE_STEPS` time steps, beginnings of evenly spaced sequences, and their lengths."""
    cut = np.minimum(lengths, SEQUENCE_STEPS)
    apart = -(-int(cut.sum()) // TRACE_STEPS)
    starts, taken = (np.cumsum(lengths) - lengths)[::apart], cut[::apart]
    return np.concatenate([np.arange(s, s + n) for s, n in zip(starts, taken, strict=True)]), taken


def _encode(
    codes: Array, lengths: Array, thresholds: Array, block: int, overshoot: int, bits: int
) -> tuple[Array, Array]:
    """Run the encoder over sequences: held codes and mask, both [ΣT, in]."""
    if HAVE_NATIVE and codes.dtype == np.int16:
        return _encode_native(codes, lengths, thresholds, block, overshoot, bits)
    packing = make_packing(lengths)
    packed = packing.pack(codes)
    held, masks = np.empty_like(packed), np.empty(packed.shape, bool)
    sent = np.zeros((lengths.size, codes.shape[1]), codes.dtype)
    for t, n in enumerate(packing.alive):
        rows = slice(packing.offsets[t], packing.offsets[t + 1])
        _, masks[rows], sent[:n] = delta_encode(
            packed[rows], sent[:n], thresholds, block, overshoot, bits
        )
        held[rows] = sent[:n]
    return packing.unpack(held), packing.unpack(masks)


def _encode_native(
    codes: Array, lengths: Array, thresholds: Array, block: int, overshoot: int, bits: int
) -> tuple[Array, Array]:
    """`_encode` in compiled code."""
    codes, lengths = np.ascontiguousarray(codes), np.ascontiguousarray(lengths, np.int64)
    held, mask = np.empty_like(codes), np.empty((len(codes), codes.shape[1] // block), np.uint8)
    each = np.ascontiguousarray(thresholds, np.int32)
    replay_delta(codes, lengths, block, each, overshoot, bits, held, mask)
    return held, np.repeat(mask.view(bool), block, axis=1)
