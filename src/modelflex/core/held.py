"""What enters a product: the codes of what it sees, and activities fitted to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.stats import Trace
from modelflex.core.tracer import Activity, InputSite, Link


def quantised(values: Array, link: Link) -> Array:
    """The codes of real inputs, int16; scales have 15 bits, so the step is exact in binary32 too."""
    top = 1 << (link.bits - 1)
    return np.clip(np.rint(values / link.step), -top, top - 1).astype(np.int16)


def with_activity(link: Link, activity: Activity, trace: Trace, norms: Array, block: int) -> Link:
    """The link with an activity whose thresholds (in real units) fit a product's input.

    Args:
        trace: of the input.
        norms: ‖·‖ of everything that each input is multiplied with, float64 [in].
        block: inputs that share a fetch unit of the product.
    """
    codes = quantised(trace.trace, link)
    site = InputSite(codes, trace.lengths, link.step, trace.std, norms, block, link.bits)
    resolved = activity.resolve(site)
    return replace(link, activity=resolved, thresholds=resolved.thresholds(site))
