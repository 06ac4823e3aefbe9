"""How good the answers of a refined network are with few terms and with many, on pilot data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.divergence import VALUES, divergence_name, divergences, mean_divergence
from modelflex.core.fixed import Array
from modelflex.core.ladder import Ladder, Rung
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.weight import Terms
from modelflex.evaluate import Task, metric_value
from modelflex.execute.interpret import Interpreter

GROWTH = 1.26
"""Rungs are about a third of an octave apart: each has so many times the terms of the one before."""
STRIDES = (1, 3, 6)
"""Rungs that a weight is tried to climb at once where there are several weights: a step that shows
little, or harm, may lead to one that shows much.
"""


def term_weights(model: Model) -> dict[str, Terms]:
    """The weights of a model that are sums of terms."""
    return {name: w for name, w in model.weights.items() if isinstance(w, Terms)}


def all_terms(model: Model) -> dict[str, int]:
    """Weight → how many terms it has."""
    return {name: weight.count for name, weight in term_weights(model).items()}


def operations(model: Model, terms: Mapping[str, int]) -> int:
    """Multiplications and additions of so many terms a step."""
    return sum(weight.operations(terms[name]) for name, weight in term_weights(model).items())


def climb(model: Model, original: Array, pilot: Sequences, task: Task | None = None) -> Ladder:
    """The ladder of a refined model.

    From no term on, the weight is given more terms whose next ones lower the divergence most for their
    operations, looking several rungs ahead (all weights in turn where none lowers it). One weight is
    simply climbed.

    Args:
        original: outputs of the network with dense weights on the pilot data [ΣT or N, K].
        task: whose figure is told too, where the data have labels.
    """
    judge = _Judge(model, original, pilot, task)
    counts = all_terms(model)
    terms = dict.fromkeys(counts, 0)
    rungs = [judge.rung(terms)]
    strides = STRIDES if len(counts) > 1 else (1,)
    while terms != counts:
        now, tried = rungs[-1], []
        for name, most in counts.items():
            if terms[name] < most:
                tried += [(name, judge.rung(_further(terms, name, most, n))) for n in strides]
        gains = [
            (now.divergence - r.divergence) / (r.operations - now.operations) for _, r in tried
        ]
        name, aim = tried[int(np.argmax(gains))]
        if max(gains) <= 0:  # none tells: the weight of which the least is computed
            name = min((n for n, _ in tried), key=lambda n: terms[n] / counts[n])
            aim = judge.rung(_further(terms, name, counts[name], 1))
        while terms != aim.terms:
            terms = _further(terms, name, counts[name], 1)
            rungs.append(judge.rung(terms))
    dense = sum(2 * w.shape[0] * w.shape[1] for w in term_weights(model).values())
    return Ladder(divergence_name(model.output), dense, len(original), tuple(rungs))


def _further(terms: Mapping[str, int], name: str, most: int, rungs: int) -> dict[str, int]:
    """So many rungs more terms of one weight."""
    count = terms[name]
    for _ in range(rungs):
        count = min(most, max(count + 1, round(count * GROWTH)))
    return {**terms, name: count}


class _Judge:
    """Runs the model with some terms, once for each set of them."""

    def __init__(self, model: Model, original: Array, pilot: Sequences, task: Task | None) -> None:
        self.model, self.original, self.pilot, self.task = model, original, pilot, task
        self.interpreter = Interpreter(build_program(model))
        self.known: dict[tuple[int, ...], Rung] = {}

    def rung(self, terms: Mapping[str, int]) -> Rung:
        key = tuple(terms.values())
        if key not in self.known:
            self.known[key] = self._judged(terms)
        return self.known[key]

    def _judged(self, terms: Mapping[str, int]) -> Rung:
        outputs = self.interpreter.run(self.pilot, terms=terms).outputs
        rows = divergences(self.model.output, self.original, outputs)
        shown = np.sqrt(rows) if self.model.output == VALUES else rows
        metric = None
        if self.task is not None and self.task.name and self.pilot.y is not None:
            metric = metric_value(
                self.task, self.model.output, outputs, self.pilot.y, self.pilot.lengths
            )
        return Rung(
            dict(terms),
            operations(self.model, terms),
            mean_divergence(self.model.output, rows),
            float(np.median(shown)),
            float(np.quantile(shown, 0.9)),
            float(shown.max()),
            metric,
        )
