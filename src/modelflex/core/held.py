"""Activities of products whose input is known from a sample only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.tracer import Activity, InputSite, Link


def with_activity(link: Link, activity: Activity, sample: Array, matrix: Array, block: int) -> Link:
    """The link with an activity whose thresholds fit a product's input.

    Args:
        sample: of its input, real values [n, in].
        matrix: what it is multiplied by, [out, in].
        block: inputs that share a fetch unit of the product.
    """
    top = 1 << (link.bits - 1)
    codes = np.clip(np.rint(sample / link.step), -top, top - 1).astype(np.int16)
    std = float(np.sqrt(np.mean(np.var(sample, axis=0))))
    norms = np.linalg.norm(matrix, axis=0)
    site = InputSite(codes, np.array([len(codes)]), link.step, std, norms, block, link.bits)
    resolved = activity.resolve(site)
    return replace(link, activity=resolved, thresholds=resolved.thresholds(site))
