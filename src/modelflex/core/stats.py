"""Calibration statistics of every weight's input in the uncompressed network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array


def spread(values: Array) -> float:
    """The root mean square of the standard deviations of the elements of vectors [n, in]."""
    return float(np.sqrt(np.mean(np.var(values, axis=0, dtype=np.float64))))


@dataclass(frozen=True, eq=False)
class Trace:
    """What is known of a product's input.

    Attributes:
        trace: real values [ΣT or N, in], in the order of the sequences.
        lengths: int64, the lengths of the runs in `trace` (all 1 where the weight runs once a sequence).
        std: see `spread`.
    """

    trace: Array
    lengths: Array
    std: float

    @classmethod
    def of(cls, sample: Array) -> Trace:
        """A sample [n, in] taken for a single run."""
        return cls(sample, np.array([len(sample)]), spread(sample))


@dataclass(frozen=True, eq=False)
class SiteStats(Trace):
    """One weight's input (float32) over the calibration sequences.

    Attributes:
        peak: largest absolute value.
        importance: mean squared gradient of the log-likelihood in each result of the weight, float64
            [out]: half of it times a small squared error of the result is about what the error adds
            to the divergence.
    """

    trace: Array
    lengths: Array
    std: float
    peak: float
    importance: Array


@dataclass(frozen=True, eq=False)
class Stats:
    """What calibration found: the sequences used, the network's outputs on them, and every site."""

    sequences: Sequences
    outputs: Array
    sites: Mapping[str, SiteStats]
