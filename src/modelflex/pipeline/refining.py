"""Refining: a network whose answers get better term by term, how its weights become terms, and its ladder."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from threadpoolctl import threadpool_limits

from modelflex.core.data import Sequences
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.errors import UserError
from modelflex.evaluate import make_task
from modelflex.execute.interpret import Interpreter
from modelflex.execute.native import Runtime
from modelflex.export.artefact import check_replaceable, save_artefact
from modelflex.importers.data import check_task, load_sequences
from modelflex.importers.models import load_model
from modelflex.pipeline.setting import versions
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import GATES, Engine
from modelflex.platforms.fpga.explore import Design, explore
from modelflex.platforms.fpga.operators import find_word
from modelflex.progressive.choosing import Offer, Price, Target, choose, operations_price, tuned
from modelflex.progressive.climbing import term_weights
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.progressive.tuning import Tell, check_tunable
from modelflex.search.problem import model_digest

CPU: Final = "cpu"
TIMED_STEPS: Final = 50
"""Steps whose median time is the price of a rung on this CPU."""
JUDGED: Final = 3
"""One of so many sequences judges, the others are what terms are fitted to."""


def refine_model(
    source: Any,
    data: Any,
    out: Path | None = None,
    *,
    settings: Sequence[Refinement] = (Refinement(),),
    task: str = "none",
    quality: float | None = None,
    operations: float | None = None,
    deadline_s: float | None = None,
    on: str = CPU,
    word_bits: int = 32,
    tuning_steps: int = 0,
    tell: Tell = lambda done, total: None,
) -> tuple[list[Offer], dict[str, Any]]:
    """Make a network progressive: every setting's ladder, the best first, and what the best is.

    Two thirds of the data are what the terms are fitted to; on the others answers are compared with
    those of the dense network. With none of `quality`, `operations` and `deadline_s` the quality is
    a divergence of 0.01.

    Args:
        source: what `load_model` takes, trained or compressed; of the latter all results weigh alike,
            whatever the `importance` of the settings.
        data: sequences, as `load_sequences` takes them; labels are needed for a `task` only.
        out: folder for the best network and its ladder.
        quality: the divergence to reach with the fewest operations, or in the least time on `on`.
        operations: multiplications and additions of the terms a step, to be used best, wherever it runs.
        deadline_s: seconds for a step on `on`, to be used best.
        on: "cpu", this one, or an FPGA: the name of a shipped spec or a .toml file.
        word_bits: of the FPGA's numbers.
        tuning_steps: in which the terms of the best offer are fitted together (`tune`), for another offer.
        tell: called with (steps done, of how many) of them.

    Raises:
        UserError: what the loaders refuse, settings that don't fit, or more than one target.
    """
    target, timed = _target(quality, operations, deadline_s)
    if out is not None:
        check_replaceable(out)
    model = load_model(source) if not isinstance(source, Model) else source
    sequences = check_task(load_sequences(data), model, task)
    fitted, judged = _split(sequences)
    if model.numeric != "float":  # gradients, from which the information comes, are those of floats
        settings = tuple(dict.fromkeys(replace(s, importance="none") for s in settings))
    if tuning_steps < 0:
        raise UserError(f"{tuning_steps} steps of tuning are wanted", "0 or more")
    if tuning_steps:
        check_tunable(model, settings)
    # Products of this size gain nothing from a second thread; the result is the same on any number.
    with threadpool_limits(1):
        original = Interpreter(build_program(model)).run(judged).outputs
        refiner = Refiner(model, fitted)
        in_seconds = timed or (on != CPU and operations is None)
        price = _price(on, word_bits, judged) if in_seconds else operations_price
        figure = make_task(task)
        offers = choose(refiner, original, judged, settings, target, price, figure)
        if tuning_steps:
            given = refiner, fitted, original, judged, target, price, tuning_steps, figure, tell
            another = tuned(offers[0], *given)
            if another is not offers[0]:
                offers = sorted([another, *offers], key=target.better)
    best = offers[0]
    found = _told(best, offers, target, "s" if price is not operations_price else "operations")
    if out is not None:
        notes = {
            "versions": versions(),
            "source_sha256": model_digest(model),
            "data_sha256": sequences.digest,
            "settings": {name: asdict(setting) for name, setting in best.settings.items()},
            "tuning_steps": best.tuning_steps,
        }
        save_artefact(best.model, out, recipe=None, provenance=notes, ladder=best.ladder)
    return offers, found


def _target(
    quality: float | None, operations: float | None, deadline_s: float | None
) -> tuple[Target, bool]:
    """The target, and whether it is in seconds."""
    given = {"quality": quality, "operations": operations, "deadline_s": deadline_s}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} are given", "one of them")
    for name, value in named.items():
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} is {value}", "a finite number above 0")
    if operations is not None:
        return Target(limit=operations), False
    if deadline_s is not None:
        return Target(limit=deadline_s), True
    return Target(quality=0.01 if quality is None else quality), False


def _split(sequences: Sequences) -> tuple[Sequences, Sequences]:
    """What terms are fitted to, and what judges them."""
    if sequences.count < 2:
        raise UserError(
            f"the data are {sequences.count} sequence",
            "two or more: some for the terms, others to judge them",
            "cut the sequence into pieces",
        )
    judges = np.arange(sequences.count) % JUDGED == min(JUDGED, sequences.count) - 1
    return sequences.take(np.flatnonzero(~judges)), sequences.take(np.flatnonzero(judges))


def _price(on: str, word_bits: int, judged: Sequences) -> Price:
    """Seconds of a step: measured on this CPU, modelled for an FPGA."""
    if on == CPU:
        return _measured(judged.x[:TIMED_STEPS])
    chip = Chip.read(on)
    designs: dict[tuple[int, int, int, int], tuple[Engine, Design]] = {}

    def price(model: Model, terms: Mapping[str, int]) -> float:
        seconds = 0.0
        for name, weight in term_weights(model).items():
            if weight.groups not in (1, GATES) or weight.v.layout == "block_sparse":
                raise UserError(
                    f"'{name}' has {weight.groups} groups of rows in the layout {weight.v.layout}",
                    f"what the engine computes: {GATES} gates, single numbers kept",
                    "leave the blocks out, or name another target",
                )
            rows, columns = -(-weight.shape[0] // GATES), weight.shape[1]
            kept = weight.v.part.codes.shape[1]
            key = rows, columns, kept, weight.groups
            if key not in designs:
                engine = Engine(chip, find_word(word_bits), rows, columns, weight.groups == 1)
                design = explore(engine, [kept], [1], "latency").best[0][2]
                if design is None:
                    raise UserError(
                        f"no engine for '{name}' ({rows} × {columns}) fits {chip.spec.name}",
                        "a larger chip or words of 16 bits",
                    )
                designs[key] = engine, design
            engine, design = designs[key]
            # The next step waits for the state: what counts is the time from first term to result.
            tiles = design.row_tile, design.column_tile
            seconds += float(engine.refine(*tiles, kept, terms[name]).latency_s)
        return seconds

    return price


def _measured(x: np.ndarray[Any, Any]) -> Price:
    runtimes: dict[int, Runtime] = {}

    def price(model: Model, terms: Mapping[str, int]) -> float:
        if id(model) not in runtimes:
            runtimes[id(model)] = Runtime(build_program(model))
        runtime, times = runtimes[id(model)], []
        for step in np.ascontiguousarray(x, np.float32):
            begin = time.perf_counter()
            runtime.step(step, terms=terms)
            times.append(time.perf_counter() - begin)
        return float(np.median(times))

    return price


def _told(best: Offer, offers: Sequence[Offer], target: Target, unit: str) -> dict[str, Any]:
    """What the command tells, as JSON values."""
    return {
        "target": {name: v for name, v in asdict(target).items() if v is not None},
        "met": best.met,
        "price_unit": unit,
        "divergence": best.ladder.divergence,
        "dense_operations": best.ladder.dense_operations,
        "offers": [
            {
                "settings": {n: asdict(setting) for n, setting in offer.settings.items()},
                "label": offer.label,
                "tuning_steps": offer.tuning_steps,
                "met": offer.met,
                "price": offer.price,
                "rung": asdict(offer.rung),
            }
            for offer in offers
        ],
        "ladder": best.ladder.to_json()["rungs"],
    }
