"""What is built and runs on this machine: measured figures beside the predicted ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelflex.core.cost import Cost
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.platform import MeasuredPlatform
from modelflex.core.products import program_table
from modelflex.core.profile import Profile
from modelflex.core.program import Program, build_program
from modelflex.execute.native import Runtime
from modelflex.pipeline.setting import Setting
from modelflex.search.limits import cost_violations
from modelflex.search.problem import run_network
from modelflex.search.store import Store
from modelflex.search.study import Study
from modelflex.units import show_quantity

MOST_INPUTS = 512
"""Time steps of data that are fed again and again."""


def measure_program(
    platform: MeasuredPlatform,
    program: Program,
    profile: Profile,
    model: Model,
    data: Sequences | None,
    steps: float,
) -> Cost:
    """What a program takes on this machine, fed with data, or with zeros where there are none.

    Args:
        profile: its counters, on which bytes and operations hang.
        model: the network whose multiply-accumulates are the dense ones.
        steps: T, time steps of a sequence.
    """
    x = np.zeros((1, model.inputs)) if data is None else data.x[:MOST_INPUTS]
    inputs: Array = np.ascontiguousarray(x, np.float32)
    table = program_table(program, profile, model, steps)
    return platform.measure(Runtime(program), inputs, table)


def add_measured(study: Study, setting: Setting, store: Store, model: Model) -> Study:
    """The study with measured figures of the uncompressed network and of the pick, where the platform
    is this machine. Each is measured once and kept in the study's file.
    """
    platform, best = setting.platform, study.best
    if not isinstance(platform, MeasuredPlatform) or best is None or best.evaluation is None:
        return study
    data = setting.problem.validation

    def measured(name: str, network: Model, profile: Profile) -> Cost:
        key = f"measured {setting.problem.key} {name}"
        kept = store.note(key)
        if kept is None:
            program = build_program(network)
            steps = data.mean_length
            kept = measure_program(
                platform, program, profile, setting.problem.model, data, steps
            ).to_json()
            store.set_note(key, kept)
        return Cost(**kept)

    found = {
        "baseline": measured(
            "baseline", setting.problem.model, run_network(setting.problem.model, data)[1]
        ),
        "best": measured(best.recipe.key, model, best.evaluation.profile),
    }
    notes = (*study.notes, *_notes(study, setting, found, best.cost))
    return replace(study, measured=found, notes=notes)


def _notes(study: Study, setting: Setting, found: Mapping[str, Cost], predicted: Cost) -> list[str]:
    """What was measured, how far the prediction was from it, and limits that it misses."""
    notes = [
        "times of all recipes are predicted by a model of this machine; measured figures follow"
    ]
    names = {"baseline": "uncompressed", "best": "the pick"}
    for name, cost in found.items():
        told = study.baseline.cost if name == "baseline" else predicted
        notes.append(f"{names[name]}, {measured_text(cost)}; {_against(told, cost)}")
    for missed in cost_violations(setting.limits, found["best"]):
        if missed.field in MEASURED:
            notes.append(f"the pick as measured misses the limit on {missed.field}")
    return notes


MEASURED = ("latency_s", "latency_per_step_s", "throughput_steps_per_s", "energy_j",
            "energy_per_step_j", "power_w", "gops", "gops_per_w")  # fmt: skip
"""Fields of `Cost` that are measured; the others are counts, which are known exactly."""


def _against(predicted: Cost, measured: Cost) -> str:
    told, found = predicted.latency_per_step_s, measured.latency_per_step_s
    if told is None or found is None:
        return "not predicted"
    return f"predicted {show_quantity(told, 's')} ({100 * (told / found - 1):+.0f} %)"


def measured_text(cost: Cost) -> str:
    """One line: median, 99th percentile and cold time of a step, share of the roof, memory, energy."""
    figures: Mapping[str, Any] = cost.resources
    return (
        f"measured: {show_quantity(cost.latency_per_step_s, 's')} a step "
        f"(99 % within {show_quantity(figures['latency_p99_s'], 's')}, "
        f"{show_quantity(figures['cold_latency_s'], 's')} with cold caches), bound by {cost.bound}, "
        f"{100 * figures['roofline_share']:.3g} % of the read roof; "
        f"{show_quantity(figures['flash_bytes'], 'B')} of constants, "
        f"{show_quantity(figures['ram_bytes'], 'B')} of state and scratch; "
        f"energy {show_quantity(cost.energy_per_step_j, 'J')} a step"
    )
