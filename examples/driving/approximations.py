"""The driving LSTM's augmented matrix at every number of operations: dense tiles, published, data-aware.

A scheme is a list of steps, each with the operations (multiplications and additions) that a time step
spends on the matrix, and with what stands for matrix and bias then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from recurrent import OUTPUT, Recurrent, probabilities
from roads import Floats
from simulator import ACTIONS

import modelflex
from modelflex.core.data import Sequences
from modelflex.core.input_metric import InputMetric
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.refinement import Factors, decompose, operations
from modelflex.core.weight import Weight, float_weight
from modelflex.execute.gradients import backpropagate
from modelflex.progressive.refining import float_terms

PUBLISHED_KEPT = (32, 130, 520, 4160)
"""NZ of the published scheme: those of table 1 of Kouris et al., and one between."""
TERMS = 96
GATES = 4


class Decomposed(NamedTuple):
    """Terms, and how many numbers each v keeps."""

    factors: Factors
    kept: int


@dataclass(frozen=True)
class Approximation:
    """What stands for matrix and bias after some operations; `terms` is None for tiles."""

    operations: int
    terms: int | None
    make: Callable[[], tuple[Floats, Floats]]


def seen_by(recurrent: Recurrent, features: Floats) -> Floats:
    """What the augmented matrix multiplies at every step of features [N, T, F]: [N·T, F + velocities + h]."""
    state, rows = recurrent.start(len(features)), []
    for t in range(features.shape[1]):
        now = features[:, t].astype(np.float32)
        rows.append(np.concatenate([now, state[2], state[0]], 1))
        seen = now @ recurrent.w[:, : recurrent.features].T + recurrent.bias
        _, state = recurrent.step(recurrent.gates(seen, state, recurrent.w), state)
    return np.stack(rows, 1).reshape(-1, recurrent.w.shape[1])


def fisher_information(
    folder: Path, features: Floats, errors: Floats | None = None, seed: int = 0
) -> Floats:
    """Of the outputs in the pre-activations [4·units, 4·units], through all later steps too.

    The mean of outer products of the log-likelihood's gradient, for actions drawn from the network's own
    probabilities (Martens, New Insights and Perspectives on the Natural Gradient Method, JMLR 21, 2020).

    Args:
        errors: standard deviations of the velocities [2], which are then drawn too, around what the
            network predicts; None for the actions alone.
    """
    program = build_program(modelflex.load(folder / "lstm"))
    rng = np.random.default_rng(seed)
    count, steps = features.shape[:2]
    x = features.reshape(count * steps, -1).astype(np.float32)
    total = np.zeros((1, 1))

    def start(outputs: Floats) -> Floats:
        p = probabilities(outputs)
        drawn = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
        actions = np.eye(len(ACTIONS))[np.minimum(drawn, len(ACTIONS) - 1)] - p
        velocities = rng.standard_normal((len(p), outputs.shape[1] - len(ACTIONS)))
        velocities = 0 * velocities if errors is None else velocities / errors
        return np.concatenate([actions, velocities], 1)

    def visit(site: str, gradient: Floats, _: Floats) -> None:
        nonlocal total
        if site == "lstm0.w_x/0":
            total = total + gradient.astype(np.float64).T @ gradient

    backpropagate(program, Sequences(x, np.full(count, steps)), start, visit)
    return total / len(x)


def progressive_model(recurrent: Recurrent, made: Decomposed | None) -> Model:
    """LSTM and head as a model that reads features; with terms, a step may compute a prefix of terms."""
    outputs, units = recurrent.head.shape
    carries = outputs - len(ACTIONS)
    inputs = recurrent.features + carries
    layers = (
        Layer("lstm0", "augmented_lstm", inputs, units, carries=carries),
        Layer("head", "dense", units, outputs),
    )
    if made is None:
        w: Weight = float_weight(recurrent.w, recurrent.bias, GATES)
    else:
        w = float_terms(made.factors, recurrent.bias, GATES, made.kept, block=1)
    head = float_weight(recurrent.head, recurrent.head_bias, 1)
    return check_model(Model("driving_lstm", layers, {"lstm0.w": w, "head.w": head}, OUTPUT))


def row_tiles(recurrent: Recurrent, tiles: int = 16) -> list[Approximation]:
    """The dense product cut short: the same rows of all gates at a time, the others not at all."""
    rows, columns = recurrent.w.shape
    size = rows // GATES // tiles

    def cut(count: int) -> tuple[Floats, Floats]:
        kept = np.arange(rows) % (rows // GATES) < count * size
        return recurrent.w * kept[:, None], recurrent.bias

    return [
        Approximation(2 * columns * GATES * size * n, None, lambda n=n: cut(n))
        for n in range(tiles + 1)
    ]


def column_tiles(recurrent: Recurrent, tiles: int = 16) -> list[Approximation]:
    """The dense product cut short after some of its columns, the state's and velocities' first."""
    rows, columns = recurrent.w.shape
    size = -(-columns // tiles)

    def cut(count: int) -> tuple[Floats, Floats]:
        kept = np.arange(columns)[::-1] < count * size
        return recurrent.w * kept, recurrent.bias

    return [
        Approximation(2 * rows * min(size * n, columns), None, lambda n=n: cut(n))
        for n in range(tiles + 1)
    ]


def prefixes(recurrent: Recurrent, made: Decomposed) -> list[Approximation]:
    """Sums of the first terms: of none, of a few numbers of them, of all."""
    each, factors = operations(len(recurrent.w), made.kept, made.factors.groups), made.factors
    return [
        Approximation(
            each * n,
            n,
            lambda n=n: (factors.matrix(n), recurrent.bias + factors.bias(n)),
        )
        for n in sorted({*term_counts(factors.terms), factors.terms})
    ]


def term_counts(most: int) -> Iterator[int]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, … up to `most`."""
    yield from (n for n in (0, 1, 2, 3) if n <= most)
    n = 4
    while n <= most:
        yield n
        if n * 3 // 2 <= most:
            yield n * 3 // 2
        n *= 2


def published(recurrent: Recurrent, kept: int, terms: int = TERMS) -> Decomposed:
    """The scheme of Kouris et al.: each gate its own singular vectors, v cut to its largest numbers."""
    made = decompose(recurrent.w, terms=terms, kept=kept, groups=GATES, scheme="published")
    return Decomposed(made, kept)


def data_aware(
    recurrent: Recurrent, sample: Floats, fisher: Floats, terms: int = TERMS
) -> Decomposed:
    """Terms for all gates at once, in the metric of the inputs and of the outputs' information."""
    metric = InputMetric.of(sample)
    made = decompose(recurrent.w, terms=terms, metric=metric, importance=fisher)
    return Decomposed(made, recurrent.w.shape[1])
