"""Layers on one array: what `modelflex simulate systolic` answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import Points
from modelflex.platforms.systolic.scalesim import simulate as simulate_as_scalesim
from modelflex.platforms.systolic.simulate import needed_kb, simulate
from modelflex.platforms.systolic.workload import Workload

COMPAT: Final = "scalesim-3.0.0"
"""The only peer whose numbers can be asked for."""

_COUNTS = ("cycles", "stall_cycles")
_SHARES = ("mapping_utilization", "compute_utilization", "overall_utilization")
_MEMORIES = ("sram", "dram")


def simulate_layer(
    dataflow: Dataflow, layer: Workload, point: Points, compat: bool = False
) -> dict[str, Any]:
    """One layer on one array, as JSON values.

    Returns:
        name, cycles (stalls included), stall_cycles; utilisations in percent; sram and dram: operand →
        words; and the same a cycle (sram_words_per_cycle, dram_words_per_cycle).

    Raises:
        UserError: a buffer that cannot hold what one fold needs (not with `compat`: SCALE-Sim
            accepts it), or what SCALE-Sim cannot run.
    """
    if compat:
        try:
            columns = simulate_as_scalesim(dataflow, layer, point)
        except UserError as error:
            named = (
                error.found if layer.name in error.found else f"layer '{layer.name}': {error.found}"
            )
            raise UserError(named, error.expected, error.mend) from None
    else:
        columns = simulate(dataflow, layer.shape, point)
        if not columns["fits"].item():
            raise _too_small(dataflow, layer, point)
    return _json(layer.name, columns)


def total_cycles(results: Sequence[Mapping[str, Any]]) -> int:
    """Of layers that run one after the other."""
    return sum(result["cycles"] for result in results)


def _json(name: str, columns: Mapping[str, Array]) -> dict[str, Any]:
    values = {column: np.asarray(array).item() for column, array in columns.items()}
    memories = {
        memory: {
            column.removeprefix(f"{memory}_"): value
            for column, value in values.items()
            if column.startswith(f"{memory}_")
        }
        for memory in _MEMORIES
    }
    rates = {
        f"{memory}_words_per_cycle": {
            operand: words / values["cycles"] for operand, words in operands.items()
        }
        for memory, operands in memories.items()
    }
    return {
        "name": name,
        **{column: values[column] for column in (*_COUNTS, *_SHARES)},
        **memories,
        **rates,
    }


def _too_small(dataflow: Dataflow, layer: Workload, point: Points) -> UserError:
    needed = needed_kb(dataflow, layer.shape, point)
    small = {
        operand: (getattr(point, f"{operand}_kb").item(), kb.item())
        for operand, kb in needed.items()
        if kb.item() > getattr(point, f"{operand}_kb").item()
    }
    found = " and ".join(f"the {name} buffer of {kb} kB" for name, (kb, _) in small.items())
    wanted = " and ".join(f"{name} of at least {kb} kB" for name, (_, kb) in small.items())
    return UserError(
        f"layer '{layer.name}': {found} cannot hold the tile of one fold ({dataflow})",
        wanted,
        f"take a larger buffer, a smaller array or another dataflow ({COMPAT} accepts it)",
    )
