"""Exploring the design space of an FPGA engine that refines LSTM gates term by term."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Final, cast, get_args

from modelflex.errors import UserError
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import GATES, REFERENCE, Engine
from modelflex.platforms.fpga.explore import (
    Design,
    Objective,
    explore,
    explore_deadline,
    explore_dense,
)
from modelflex.platforms.fpga.operators import find_word
from modelflex.units import parse_quantity

MAX_VALUES: Final = 1000
"""Most values of NZ, and of numbers of terms."""


def explore_fpga(
    chip: str,
    rows: int,
    columns: int,
    nz: str,
    *,
    steps: str | None = None,
    deadline: str | None = None,
    word_bits: int = 16,
    bandwidth: str | None = None,
    utilization: float = 1.0,
    objective: str = "time",
) -> dict[str, Any]:
    """The fastest designs of the engine for LSTM gates of `rows` × `columns`, beside the dense one.

    Args:
        chip: name of a shipped spec of the family "fpga", or the path of a .toml file.
        nz, steps: whole numbers with commas between them: inputs that a term keeps, numbers of terms.
        deadline: a time such as "50 us" in place of `steps`: as many terms as it allows.
        word_bits, bandwidth, utilization: see `FpgaConfig`.
        objective: "time" or "latency"; see `Timing`. With a deadline it is the dense engine's alone.

    Raises:
        UserError: what is not a number or out of range, an unknown chip, or no design fits.
    """
    if objective not in get_args(Objective):
        known = ", ".join(get_args(Objective))
        raise UserError(f"unknown objective '{objective}'", f"one of {known}")
    if (steps is None) == (deadline is None):
        raise UserError(
            f"{'neither' if steps is None else 'both'} of steps and deadline given", "one of them"
        )
    by = cast(Objective, objective)
    found_chip = Chip.read(chip, bandwidth=bandwidth, utilization=utilization)
    engine = Engine(found_chip, find_word(word_bits), rows, columns)
    if steps is not None:
        found = explore(engine, _numbers(nz, "nz"), _numbers(steps, "steps"), by)
    else:
        deadline_s = parse_quantity(deadline, "s", "deadline")
        found = explore_deadline(engine, _numbers(nz, "nz"), deadline_s)
    if not found.feasible:
        raise UserError(
            f"none of {found.designs:,} designs fits {found_chip.spec.name}",
            "an engine that the chip holds",
            "take a larger chip, fewer rows and columns, or words of 16 bits",
        )
    if all(design is None for _, _, design in found.best):
        raise UserError(
            f"no design that fits {found_chip.spec.name} adds a term within {deadline}",
            "a longer deadline",
        )
    dense = explore_dense(engine, by)
    return {
        "chip": found_chip.spec.to_json(),
        "engine": {
            "gates": GATES,
            "rows": rows,
            "columns": columns,
            "word_bits": word_bits,
            "utilization": utilization,
            "reference": REFERENCE,
        },
        "objective": "terms" if deadline is not None else objective,
        "deadline_s": None if deadline is None else parse_quantity(deadline, "s", "deadline"),
        "dense_ops": engine.dense_ops,
        "designs": found.designs,
        "feasible": found.feasible,
        "dense": _figures(engine, dense),
        "best": [
            {"nz": kept, "steps": count, "design": _figures(engine, design, dense)}
            for kept, count, design in found.best
        ],
    }


def _numbers(text: str, where: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"-?[0-9]{1,18}", part) for part in parts):
        raise UserError(f"{where} is '{text}'", "whole numbers with commas between them")
    if len(parts) > MAX_VALUES:
        raise UserError(f"{where} has {len(parts)} numbers", f"at most {MAX_VALUES}")
    return list(dict.fromkeys(int(part) for part in parts))


def _figures(
    engine: Engine, design: Design | None, dense: Design | None = None
) -> dict[str, Any] | None:
    """A design with its rates by the dense operations, and how much faster than the dense engine it is."""
    if design is None:
        return None
    rate = 1e-9 * engine.dense_ops / design.time_s
    return asdict(design) | {
        "gops": rate,
        "gops_per_w": None if design.power_w is None else rate / design.power_w,
        "speedup": None if dense is None else dense.time_s / design.time_s,
        "latency_speedup": None if dense is None else dense.latency_s / design.latency_s,
    }
