"""Calibration statistics of every weight's input in the uncompressed network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array


@dataclass(frozen=True, eq=False)
class SiteStats:
    """One weight's input over the calibration sequences.

    Attributes:
        trace: float32 [ΣT or N, in], in the order of the sequences.
        lengths: int64, the lengths of the runs in `trace` (all 1 where the weight runs once a sequence).
        std: root mean square of the standard deviations of its elements.
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
