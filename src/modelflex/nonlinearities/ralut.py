"""Range-addressable look-up table: flat cells as wide as an allowed error lets them be."""

from __future__ import annotations

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
    SPAN,
    VALUE_BYTES,
    Piecewise,
    make_piecewise,
)
from modelflex.errors import UserError
from modelflex.registry import NONLINEARITIES

LEAST_ERROR, MOST_ERROR = 2**-12, 2**-2
ROUNDING = 0.51
"""fx units that the rounding of a value, and the way from 16 to infinity, may add."""


@final
@NONLINEARITIES.register("ralut")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Ralut(Nonlinearity):
    """A new cell starts where the function has risen by twice the error; around 0 it is 0.

    Attributes:
        max_abs_error: of both functions over all inputs, 2⁻¹² … ¼.
    """

    max_abs_error: float = 1 / 128

    reference = (
        "Muscedere et al., Efficient techniques for binary-to-multidigit multidimensional logarithmic "
        "number system conversion using range-addressable look-up tables, IEEE Trans. Computers "
        "54(3), 2005; for tanh: Leboeuf et al., High speed VLSI implementation of the hyperbolic "
        "tangent sigmoid function, ICCIT 2008"
    )
    search_range = {"max_abs_error": (1 / 32, 1 / 128, 1 / 512)}

    def __post_init__(self) -> None:
        if not LEAST_ERROR <= self.max_abs_error <= MOST_ERROR:
            raise UserError(
                f"an error of {self.max_abs_error:g} is allowed",
                f"{LEAST_ERROR:g} … {MOST_ERROR:g}",
            )

    def table(self, function: str) -> Piecewise:
        return _cells(function, self.max_abs_error * FX_ONE - ROUNDING)

    @property
    def table_bytes(self) -> int:
        segments = sum(self.table(function).segments for function in FUNCTIONS)
        return (BREAK_BYTES + VALUE_BYTES) * segments

    def naive(self) -> Ralut:
        return self


@cache
def _cells(function: str, error: float) -> Piecewise:
    """The cells for an error in fx units, by looking at every |x|."""
    kind = FUNCTIONS[function]
    cell = np.floor((kind.rise(np.arange(SPAN)) + error) / (2 * error))
    breaks = np.append(0, np.flatnonzero(np.diff(cell)) + 1)
    values = kind.rounded(2 * error * cell[breaks])
    return make_piecewise(function, breaks, values, np.zeros(breaks.size))
