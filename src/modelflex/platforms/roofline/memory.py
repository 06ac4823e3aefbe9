"""Memory levels of a chip, and the times of products whose weights are read from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.spec import Spec
from modelflex.errors import UserError

LEVELS: Final = ("l1", "l2", "l3", "tcm", "sram", "flash", "dram")
"""Names of memory levels; a spec has some of them, each with a capacity and a bandwidth."""


class Level(NamedTuple):
    """A memory level: bytes, and bytes a second."""

    name: str
    capacity: float
    bandwidth: float


def memory_levels(spec: Spec) -> tuple[Level, ...]:
    """The memory levels of a spec, fastest first.

    Raises:
        UserError: no level, or one with half of its constants.
    """
    found = []
    for name in LEVELS:
        keys = f"{name}_capacity", f"{name}_bandwidth"
        given = [key for key in keys if key in spec.constants]
        if len(given) == 1:
            raise UserError(f"the spec '{spec.name}' has {given[0]} only", " and ".join(keys))
        if given:
            found.append(Level(name, *(spec[key] for key in keys)))
    if not found:
        raise UserError(
            f"the spec '{spec.name}' has no memory level", f"one of {', '.join(LEVELS)}"
        )
    return tuple(sorted(found, key=lambda level: -level.bandwidth))


class Rows:
    """Times of rows whose weights are read at one bandwidth.

    Attributes:
        step_s: of a steady-state step, [rows]; once_s: of what runs once an inference, [rows].
        memory_bound_s: of a step, the time in rows that wait for memory.
    """

    def __init__(self, columns: Mapping[str, Array], bandwidth: float) -> None:
        step, once = columns["step_runs"], columns["once_runs"]
        compute_s, fetch_s = columns["compute_s"], columns["fetch_bytes"] / bandwidth
        reset_s = columns["reset_bytes"] / bandwidth
        self.step_s = np.maximum(compute_s, fetch_s) * step
        self.once_s = np.maximum(compute_s * once, fetch_s * once + reset_s)
        self.memory_bound_s = float(self.step_s[fetch_s > compute_s].sum())
