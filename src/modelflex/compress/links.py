"""What enters the products: input formats from calibration, and encoders replayed over its trace."""

from __future__ import annotations

from functools import reduce

import numpy as np

from modelflex.core.extension import Planned
from modelflex.core.fixed import Array, Scale
from modelflex.core.held import quantised, with_activity
from modelflex.core.products import Density
from modelflex.core.recipe import Activation, Choice
from modelflex.core.stats import SiteStats
from modelflex.core.tracer import Link
from modelflex.core.windows import Windows

SAMPLE = 2000
"""Rows of a trace that are looked at for a range."""


def activation_scale(activation: Activation, trace: Array, peak: float) -> Scale:
    """The scale of a product's input codes, from its calibration trace [n, in] and largest value."""
    top = (1 << (activation.bits - 1)) - 1
    full = peak / top
    if activation.clip == "max":
        return Scale.nearest(full)
    sample = thinned(trace).astype(np.float64)
    errors = []
    shares = np.linspace(1.0, 0.3, 29)
    for share in shares:
        step = full * share
        errors.append(
            np.mean((np.clip(np.rint(sample / step), -top - 1, top) * step - sample) ** 2)
        )
    return Scale.nearest(full * float(shares[int(np.argmin(errors))]))


def thinned(trace: Array) -> Array:
    """At most about `SAMPLE` rows of a trace, evenly spaced."""
    return trace[:: max(1, trace.shape[0] // SAMPLE)]


def make_link(
    choice: Choice, site: SiteStats, matrix: Array, block: int, windows: Windows | None = None
) -> Link:
    """The input format and the activity (thresholds in real units) of a weight's own input.

    Args:
        matrix: trained, [out, in].
        block: inputs that share a fetch unit.
        windows: where the weight is applied to its input.
    """
    link = Link(choice.activation.bits, activation_scale(choice.activation, site.trace, site.peak))
    if choice.activity is None:
        return link
    norms = np.linalg.norm(matrix, axis=0)
    if windows is not None:
        norms, block = windows.spread_norms(norms), 1
    return with_activity(link, choice.activity, site, norms, block)


def inner_link(activation: Activation, sample: Array) -> Link:
    """The input format of an intermediate result, from some of its values [n, k]."""
    peak = max(float(np.abs(sample).max(initial=0.0)), 2.0**-14)
    return Link(activation.bits, activation_scale(activation, sample, peak))


def replay(link: Link, site: SiteStats, block: int) -> tuple[Array, Array | None]:
    """What the product would see of the uncompressed network's trace: (held values [ΣT, in], mask)."""
    codes = quantised(site.trace, link)
    if link.activity is None:
        return codes.astype(np.float32) * np.float32(link.step), None
    held, mask = link.activity.replay(codes, site.lengths, block, link)
    return held.astype(np.float32) * np.float32(link.step), mask


def replayed_density(
    planned: Planned, link: Link, site: SiteStats, windows: Windows | None = None
) -> Density:
    """Expected densities of a product of a weight, by replaying its encoder over the trace.

    Of an intermediate result nothing is known before the weight is compressed: anything from none
    to all of it may be sent.
    """
    if not planned.outer:
        return Density() if planned.inner is None else UNKNOWN
    geo = planned.geometry
    _, mask = replay(link, site, geo.block if windows is None else 1)
    if mask is None:
        return Density()
    active = _share(mask)
    if windows is not None:
        mask = thinned(mask)
        seen = [windows.gather(mask[piece]) for piece in windows.pieces(mask.shape[0])]
        active = float(np.mean([part.mean() for part in seen]))
        mask = np.concatenate([part.any(axis=1) for part in seen])
    # One input of all units after another: a reduction over a short last axis is slow.
    units = reduce(np.logical_or, (mask[:, i :: geo.block] for i in range(geo.block)))
    return Density(_interval(_share(units)), _interval(active))


def _share(mask: Array) -> float:
    """How many of a mask are true, as a share of all."""
    return np.count_nonzero(mask) / mask.size


UNKNOWN = Density((0.5, 0.0, 1.0), (0.5, 0.0, 1.0))
DENSITY_SPREAD = 0.5
"""Half-width, as a share of the expected density, of the interval in which the density of a
compressed network is assumed to lie; benchmarks/main_job reports the observed spread."""


def _interval(density: float) -> tuple[float, float, float]:
    low, high = density * (1 - DENSITY_SPREAD), density * (1 + DENSITY_SPREAD)
    return density, low, min(high, 1.0)
