"""Look-up table with equal steps, whose index is a shift of |x|."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Nonlinearity
from modelflex.core.fixed import FX_BITS
from modelflex.core.piecewise import FUNCTIONS, VALUE_BYTES, Piecewise, chords, make_piecewise
from modelflex.errors import UserError
from modelflex.registry import NONLINEARITIES

RANGES = (2, 4, 8)
ENTRIES = tuple(2**k for k in range(4, 13))


@final
@NONLINEARITIES.register("lut")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Lut(Nonlinearity):
    """Cells of |x| of equal width, constant beyond the last.

    Attributes:
        entries: cells, a power of two from 16 to 4096.
        range: where tanh's last cell ends: 2, 4 or 8; σ's, being tanh stretched by two, at twice it.
        interpolation: "linear" between the function's values at the ends of a cell; with "nearest" cells
            are centred on multiples of the step and hold the middle of what the function takes there.
    """

    entries: int = 64
    range: int = 4
    interpolation: Literal["nearest", "linear"] = "linear"

    reference = "Piazza et al., Neural networks with digital LUT activation functions, IJCNN 1993"
    search_range = {"entries": (16, 64, 256), "interpolation": ("nearest", "linear")}

    def __post_init__(self) -> None:
        if self.entries not in ENTRIES:
            raise UserError(f"a table of {self.entries} entries", "a power of two, 16 … 4096")
        if self.range not in RANGES:
            raise UserError(f"a table up to {self.range}", "up to 2, 4 or 8")

    def table(self, function: str) -> Piecewise:
        kind = FUNCTIONS[function]
        end = kind.stretch * self.range << FX_BITS
        knots = np.arange(self.entries + 1) * (end // self.entries)
        if self.interpolation == "linear":
            values = kind.rounded(kind.rise(knots))
            return make_piecewise(function, knots, values, chords(knots, values))
        starts = np.append(0, knots[1:-1] - knots[1] // 2)
        low, high = kind.rise(starts), kind.rise(np.append(starts[1:], np.inf))
        middle = kind.rounded((low + high) / 2)
        middle[0] = 0  # its cell reaches as far to the negative side
        return make_piecewise(function, starts, middle, np.zeros(self.entries))

    @property
    def table_bytes(self) -> int:
        stored = self.entries + (self.interpolation == "linear")
        return VALUE_BYTES * stored * len(FUNCTIONS)

    def naive(self) -> Lut:
        return self
