"""Golden vectors: inputs that exercise a network, and what the interpreter makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE, Array, from_fx
from modelflex.core.model import Model
from modelflex.core.program import Program, Stage, input_symbols
from modelflex.execute.anytime import term_counts
from modelflex.execute.interpret import Interpreter

TOLERANCE = 1e-4
"""Of float programs, relative to the larger of 1 and the output: sums run in another order, and
functions are those of another library."""
STEPS = 64
LIMITED_STEPS = 12
"""Of models with terms also, for each of several prefixes."""
_SEED = b"modelflex golden vectors"
_KEEP = 8
"""An input keeps all but 1/8 of its distance from 0 from step to step: real signals move slowly."""


@dataclass(frozen=True, eq=False)
class Golden:
    """Inputs [STEPS, in] and expected outputs [STEPS, out]: int32 fx, or float32 of a float program.

    `limited` has prefixes of the terms (of every weight that has any, from none to all), and the outputs
    [LIMITED_STEPS, out] with them.
    """

    inputs: Array
    outputs: Array
    limited: tuple[tuple[tuple[int, ...], Array], ...] = ()


def golden(model: Model, program: Program) -> Golden:
    """The golden vectors of a model; the same model gives the same vectors."""
    x = _inputs(model, program)
    floats = program.numeric == "float"

    def stored(outputs: Array) -> Array:
        return outputs.astype(np.float32) if floats else np.rint(outputs * FX_ONE).astype(np.int32)

    outputs = step_outputs(program, Sequences(from_fx(x), np.array([STEPS])))
    start = Sequences(from_fx(x[:LIMITED_STEPS]), np.array([LIMITED_STEPS]))
    limited = tuple(
        (tuple(terms.values()), stored(step_outputs(program, start, terms)))
        for terms in _prefixes(program)
    )
    return Golden(from_fx(x).astype(np.float32) if floats else x, stored(outputs), limited)


def _prefixes(program: Program) -> list[dict[str, int]]:
    """None of the terms, one, about half, all; nothing where there are none."""
    ordered = term_counts(program)
    if not ordered:
        return []
    takes = (lambda n: 0, lambda n: 1, lambda n: (n + 1) // 2, lambda n: n)
    return [{weight: take(n) for weight, n in ordered.items()} for take in takes]


def step_outputs(
    program: Program, sequences: Sequences, terms: Mapping[str, int] | None = None
) -> Array:
    """The interpreter's output after every step, float64 [ΣT, K], with the first `terms` of weights.

    Stages that run once a sequence run after each step here, from a reset state, as they do when a
    device asks for an output there.
    """
    first = [stage for stage in program.stages if stage.mode == "step"]
    x = sequences
    if first:
        made = _run(_part(program, first), sequences, terms or {})
        x = Sequences(made, sequences.lengths)
    last = program.stages[len(first) :]
    if not last:
        return x.x
    alone = Sequences(x.x, np.ones(x.x.shape[0], np.int64))
    return _run(_part(program, list(last)), alone, terms or {})


def _run(part: Program, sequences: Sequences, terms: Mapping[str, int]) -> Array:
    own = {product.weight for product in part.products.values()}
    mine = {weight: n for weight, n in terms.items() if weight in own}
    return Interpreter(part).run(sequences, terms=mine).outputs


def _part(program: Program, stages: list[Stage]) -> Program:
    ops = [op for stage in stages for op in stage.graph.ops]
    sites = {op.site for op in ops} | {op.attrs.get("inner") for op in ops}
    products = {site: p for site, p in program.products.items() if site in sites}
    return replace(program, stages=tuple(stages), products=products)


def _inputs(model: Model, program: Program) -> Array:
    """Walks [STEPS, in] in fx that stay within about the range of the first product's codes.

    They come from a hash, so that they hang on no generator of random numbers.
    """
    raw = hashlib.shake_128(_SEED).digest(2 * STEPS * model.inputs)
    noise = np.frombuffer(raw, "<u2").astype(np.int64).reshape(STEPS, model.inputs)
    symbols = input_symbols(model)
    if symbols is not None:
        return (noise % symbols * FX_ONE).astype(np.int32)
    walk = np.zeros((STEPS, model.inputs), np.int64)
    at = np.zeros(model.inputs, np.int64)
    for t in range(STEPS):
        at = at - at // _KEEP + noise[t] - (1 << 15)
        walk[t] = at
    # The walk spreads over some ±2^17: noise of 2^15/√3 times √(8/2).
    span = max(1, min(round(_span(program) * FX_ONE), 1 << 26))
    return (walk * span >> 17).astype(np.int32)


def _span(program: Program) -> float:
    """The real values that the codes of the network's input can stand for; 1 where there are none."""
    graph = program.stages[0].graph
    for op in graph.ops:
        if op.kind == "quantize" and op.site is not None and op.inputs == (graph.inputs["x"],):
            link = program.products[op.site].link
            if link is not None:
                return link.step * 2 ** (link.bits - 1)
    return 1.0
