"""Hard σ and tanh: straight lines, cut off."""

from __future__ import annotations

from dataclasses import dataclass
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
    Piecewise,
    make_piecewise,
)
from modelflex.registry import NONLINEARITIES

SLOPES = {"tanh": 1.0, "sigmoid": 0.2}


@final
@NONLINEARITIES.register("hard")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Hard(Nonlinearity):
    """max(−1, min(1, x)) for tanh, max(0, min(1, x/5 + ½)) for σ, one fx unit short of their ends."""

    reference = (
        "hard_sigmoid of Theano and of Keras 1 and 2 (slope 0.2); hard tanh: Collobert, Large scale "
        "machine learning, PhD thesis, Paris 6, 2004"
    )
    search_range = {}

    def table(self, function: str) -> Piecewise:
        top, slope = FUNCTIONS[function].top, round(SLOPES[function] * FX_ONE)
        cut = -(-(top << SLOPE_BITS) // slope)  # where the line has reached the top
        return make_piecewise(
            function, np.array([0, cut]), np.array([0, top]), np.array([slope, 0])
        )

    @property
    def table_bytes(self) -> int:
        """A slope and the place of the cut for each function."""
        return len(SLOPES) * (SLOPE_BYTES + BREAK_BYTES)

    def naive(self) -> Hard:
        return self
