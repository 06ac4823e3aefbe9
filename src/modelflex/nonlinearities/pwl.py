"""Piecewise linear with free knots: the least largest error for a number of segments."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Nonlinearity
from modelflex.core.fixed import FX_ONE
from modelflex.core.piecewise import (
    BREAK_BYTES,
    FUNCTIONS,
    SLOPE_BITS,
    SLOPE_BYTES,
    VALUE_BYTES,
    Piecewise,
    chords,
    make_piecewise,
)
from modelflex.errors import UserError
from modelflex.registry import NONLINEARITIES

HALVINGS = 48
FAR = 16.0


@final
@NONLINEARITIES.register("pwl")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Pwl(Nonlinearity):
    """Continuous lines from the origin on, the last one flat.

    tanh is concave at x ≥ 0, so a line that is off by +δ at both ends and by −δ between them has the
    least largest error; with the same δ on every segment the ends meet.

    Attributes:
        segments: lines on the positive half, the flat one included: 2 … 128.
    """

    segments: int = 8

    reference = (
        "Amin, Curtis & Hayes-Gill, Piecewise linear approximation applied to nonlinear function of a "
        "neural network, IEE Proc. Circuits Devices Syst. 144(6), 1997; knots of equal error: Imamoto "
        "& Tang, Optimal piecewise linear approximation of convex functions, WCECS 2008"
    )
    search_range = {"segments": (4, 8, 16)}

    def __post_init__(self) -> None:
        if not 2 <= self.segments <= 128:
            raise UserError(f"{self.segments} segments", "2 … 128")

    def table(self, function: str) -> Piecewise:
        kind = FUNCTIONS[function]
        knots, heights = _tanh_knots(self.segments)
        breaks = np.rint(np.array(knots) * kind.stretch * FX_ONE).astype(np.int64)
        values = kind.rounded(np.array(heights) / kind.stretch * FX_ONE)
        slopes = np.minimum(chords(breaks, values), (1 << SLOPE_BITS) - 1)
        return make_piecewise(function, breaks, values, slopes)

    @property
    def table_bytes(self) -> int:
        return (BREAK_BYTES + VALUE_BYTES + SLOPE_BYTES) * self.segments * len(FUNCTIONS)

    def naive(self) -> Pwl:
        return self


@cache
def _tanh_knots(segments: int) -> tuple[list[float], list[float]]:
    """Starts of the segments and their heights there, by halving the error that needs them all."""
    low, high = 0.0, 0.25
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _walk(middle, segments) else (middle, high)
    knots = _walk(high, segments)
    return knots, [0.0, *(math.tanh(knot) + high for knot in knots[1:])]


def _walk(error: float, segments: int) -> list[float]:
    """Knots from 0 on, each as far as the error allows; empty if that takes more segments."""
    knots, end = [0.0], 1 - 2 * error
    for _ in range(segments - 1):
        knots.append(_reach(knots[-1], error))
        if math.tanh(knots[-1]) >= end:
            # The last sloped line need not be longer than the flat one needs it to be.
            return [*knots[:-1], math.atanh(end)]
    return []


def _reach(start: float, error: float) -> float:
    """The farthest end of a line from `start` that stays within the error."""
    height = math.tanh(start) + error if start else 0.0
    low, high = start, FAR
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = _sag(start, height, middle, math.tanh(middle) + error) <= error
        low, high = (middle, high) if fits else (low, middle)
    return low


def _sag(start: float, height: float, end: float, top: float) -> float:
    """How far tanh rises above the line from (start, height) to (end, top)."""
    if end <= start:
        return 0.0
    slope = (top - height) / (end - start)
    if not 0 < slope < 1:
        return 0.0
    x = math.atanh(math.sqrt(1 - slope))  # where tanh has the line's slope
    if not start < x < end:
        return 0.0
    return math.tanh(x) - height - slope * (x - start)
