"""The reference: tanh from 257 entries with linear interpolation, σ by tanh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict, with_config

from modelflex.core.extension import Nonlinearity
from modelflex.core.fixed import TANH_TABLE
from modelflex.core.piecewise import VALUE_BYTES, Piecewise
from modelflex.registry import NONLINEARITIES


@final
@NONLINEARITIES.register("exact")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Exact(Nonlinearity):
    """What a network computes with where its recipe names no nonlinearity; one table for both."""

    reference = "docs/arithmetic.md, Elementwise operations"
    search_range = {}

    def table(self, function: str) -> Piecewise | None:
        return None

    @property
    def table_bytes(self) -> int:
        return VALUE_BYTES * TANH_TABLE.size

    def naive(self) -> Exact:
        return self
