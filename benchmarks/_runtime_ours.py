"""This project's runtime as a contender, in fp32 and compressed; and the read loop of the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
from _runtime_case import GATES, SEQUENCE_STEPS, Array, Case, Contender

import modelflex
from modelflex._native import isa, read_loop
from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.stats import Stats
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter

BLOCK = 8
FP32_TOLERANCE, INT8_TOLERANCE = 1e-4, 0.1
CALIBRATION_STEPS = 256
RINGS = 4
"""Turns of the ring over which the share of active columns is counted."""


@dataclass(frozen=True)
class Variant:
    """A way to store and run the weights.

    Attributes:
        precision: the peers' word for what it is compared with, or its own.
        share: the share of columns that delta may read, at least; None without delta.
        padded: inputs are padded to a multiple of the block.
    """

    name: str
    precision: str
    bits: int = 8
    block: int = 1
    share: float | None = None
    padded: bool = False


VARIANTS = (
    Variant("fp32", "fp32", 0),
    Variant("int8", "int8"),
    Variant("int4", "int4", 4),
    Variant("2-bit", "2-bit", 2),
    Variant(f"circulant {BLOCK}, int8", "circulant", block=BLOCK),
    Variant(f"circulant {BLOCK}, int8, padded inputs", "circulant", block=BLOCK, padded=True),
    Variant("delta int8, 20 % active", "delta", share=0.2),
    Variant("delta int8, 50 % active", "delta", share=0.5),
    Variant("delta int8, all active", "delta", share=1.0),
)


def versions() -> dict[str, str]:
    return {"modelflex": metadata.version("modelflex"), "modelflex_isa": isa()}


def contenders(case: Case) -> Iterator[Callable[[], Contender]]:
    """Ways to make each contender, so that one that fails leaves the others."""
    for variant in VARIANTS:
        if variant.padded and case.inputs % variant.block == 0:
            continue
        for mode in ("step", "sequence"):
            yield lambda v=variant, m=mode: _contender(case, v, m)
    for name, bits in (("fp32", 32), ("int8", 8), ("int4", 4)):
        yield lambda n=name, b=bits: _read_loop(case, n, b)


@lru_cache(maxsize=2)
def _calibrated(case: Case) -> tuple[Model, Stats]:
    t, gates = case.tensors, GATES[case.cell]
    layer = Layer("layer", case.cell, case.inputs, case.units)
    weights = {
        "layer.w_x": float_weight(t["w_x"].astype(float), t["b_x"].astype(float), gates),
        "layer.w_h": float_weight(t["w_h"].astype(float), t["b_h"].astype(float), gates),
    }
    model = check_model(Model(case.name, (layer,), weights, output="values"))
    rng = np.random.default_rng(case.inputs + 2)
    x = rng.normal(size=(CALIBRATION_STEPS, case.inputs)).astype(np.float32)
    return model, calibrate(model, Sequences(x, np.array([len(x)])))


@lru_cache(maxsize=2 * len(VARIANTS))
def compressed(case: Case, variant: Variant) -> tuple[Model, dict[str, Any]]:
    """The model of a variant, and what is to be noted about it."""
    model, stats = _calibrated(case)
    if not variant.bits:
        return model, {}
    if variant.share is None or variant.share == 1.0:
        held = None if variant.share is None else {"method": "delta", "threshold": 0.0}
        made = _compress(case, model, stats, variant, held)
        return made, {} if held is None else {"active_share": _share(case, made)}
    # Data other than those of calibration may be more quiet: no less than the share is read.
    for wanted in np.arange(variant.share, 1.0, 0.005):
        held = {"method": "delta", "density": float(wanted)}
        made = _compress(case, model, stats, variant, held)
        if (share := _share(case, made)) >= variant.share:
            return made, {"active_share": share}
    raise RuntimeError(f"no threshold reads {variant.share} of the columns")


def _compress(
    case: Case, model: Model, stats: Stats, variant: Variant, held: Mapping[str, Any] | None
) -> Model:
    rules = []
    for weight in ("w_x", "w_h"):
        divides = (case.inputs if weight == "w_x" else case.units) % variant.block == 0
        block = {"method": "circulant", "block": variant.block, "fit": "mean"}
        rule: dict[str, Any] = {
            "weights": f"*.{weight}",
            "structure": block if variant.block > 1 and divides else {"method": "dense"},
            "format": {
                "method": "uniform", "bits": variant.bits, "clip": "max", "rounding": "nearest"
            },
        }  # fmt: skip
        rules.append(rule | ({"activity": held} if held else {}))
    recipe = {"schema": "modelflex.recipe/1", "label": variant.name, "rules": rules}
    return compress(model, recipe_from_json(recipe), stats).model


def _share(case: Case, model: Model) -> float:
    """The share of all columns that is read, over some turns of the ring from zeros."""
    x = np.tile(case.ring, (RINGS, 1))
    ran = Interpreter(build_program(model)).run(Sequences(x, np.array([len(x)])))
    read = sum(counts.active / counts.runs for counts in ran.profile.sites.values())
    return float(read / (case.inputs + case.units))


class _Runtime:
    def __init__(self, case: Case, model: Model) -> None:
        self.runtime = modelflex.compile(model)
        self.step = self.runtime.step
        self.h = np.zeros(case.units, np.float32)
        self.y = np.zeros((SEQUENCE_STEPS, case.units), np.float32)

    def run(self, tokens: Sequence[Array]) -> None:
        step, out = self.step, self.h
        for x in tokens:
            step(x, out)

    def run_sequence(self, tokens: Sequence[Array]) -> None:
        for x in tokens:
            self.runtime.run(x, self.y)


def _contender(case: Case, variant: Variant, mode: str) -> Contender:
    if variant.padded:
        inputs = -(-case.inputs // variant.block) * variant.block
        case = Case(case.cell, inputs, case.units)
    model, notes = compressed(case, variant)
    if variant.padded:
        notes = notes | {"padded_inputs": case.inputs}
    made, step = _Runtime(case, model), mode == "step"
    expected = None
    if variant.bits:
        x = case.ring if step else case.sequence
        expected = Interpreter(build_program(model)).run(Sequences(x, np.array([len(x)]))).outputs
        expected = expected[-1] if step else expected
        notes = notes | {"difference_from_float": _difference(case, variant, expected, step)}
    if variant.block > 1 and case.inputs % variant.block:
        notes = notes | {"w_x": f"dense: {variant.block} does not divide {case.inputs} inputs"}
    return Contender(
        f"ModelFlex {variant.name}", "ours", variant.precision, mode,
        list(case.ring) if step else [case.sequence],
        made.run if step else made.run_sequence,
        lambda: made.h if step else made.y,
        made.runtime.reset,
        0.0 if variant.bits else FP32_TOLERANCE,
        notes | {"weight_bytes": model.weight_bytes},
        expected,
    )  # fmt: skip


def _difference(case: Case, variant: Variant, found: Array, step: bool) -> float:
    """The largest difference to the equations in binary64; int8 and int4 are held to the peers' tolerance."""
    largest = float(np.abs(found - (case.of_ring if step else case.of_sequence)).max())
    if variant.precision in ("int8", "int4") and largest > INT8_TOLERANCE:
        raise RuntimeError(f"its result is off by {largest:.3g}")
    return largest


def _read_loop(case: Case, name: str, bits: int) -> Contender:
    """Reading as many bytes as the weights have, once a step."""
    # Written: pages that never were are all one page of zeros.
    words = np.ones(-(-case.weights * bits // 64), np.uint64)

    def run(tokens: Sequence[None]) -> None:
        read_loop(words, len(tokens))

    return Contender(
        f"read loop, {name} bytes", "roofline", name, "step", [None] * len(case.ring), run,
        lambda: np.zeros(0), lambda: None, 0.0, {"bytes": words.nbytes}, np.zeros(0),
    )  # fmt: skip
