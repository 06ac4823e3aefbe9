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
    """

    trace: Array
    lengths: Array
    std: float
    peak: float


@dataclass(frozen=True, eq=False)
class Stats:
    """What calibration found: the sequences used, the network's outputs on them, and every site."""

    sequences: Sequences
    outputs: Array
    sites: Mapping[str, SiteStats]
