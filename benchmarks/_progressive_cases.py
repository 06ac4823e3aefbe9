"""The three recurrent networks of the examples, and what it costs to come close to them with few terms."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from _methods_cases import FAMILIES, Family, prepared

from modelflex.core.data import Draw, Sequences
from modelflex.core.divergence import divergences
from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.refinement import operations as term_operations
from modelflex.core.refinement_orders import BitPlanes, EntryOrder
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.progressive.choosing import fit_together
from modelflex.progressive.climbing import climb, operations
from modelflex.progressive.refining import Refinement, Refiner

LEVELS = (1.0, 0.1, 0.01, 0.001)
"""KL divergences, nats."""
NETWORKS = {
    "vowels": ("vowels LSTM-128", 6, 1, 1, None),
    "digits": ("digits LSTM-256×2", 3, 4, 2, None),
    "characters": ("Shakespeare LSTM-320", 3, 4, 2, 200),
}
"""Name → family, checkpoints, every n-th pilot (validation) and test sequence that is judged, and how many
steps of it.
"""


@dataclass(frozen=True, eq=False)
class Case:
    """One checkpoint: terms are fitted to calibration data, chosen on pilot data, scored on test data."""

    name: str
    model: Model
    calibration: Sequences
    pilot: Sequences
    test: Sequences

    @cached_property
    def original(self) -> Mapping[str, Array]:
        """Outputs of the trained network on pilot and test data."""
        run = Interpreter(build_program(self.model)).run
        return {"pilot": run(self.pilot).outputs, "test": run(self.test).outputs}

    @cached_property
    def refiner(self) -> Refiner:
        return Refiner(self.model, self.calibration)

    @cached_property
    def layers(self) -> Mapping[str, tuple[Array, int]]:
        """Recurrent layer → [W_x W_h] and its gates."""
        weights = self.model.weights
        return {
            layer.name: (
                np.hstack([weights[n].dense() for n in layer.weight_shapes]),
                weights[f"{layer.name}.w_x"].gates,
            )
            for layer in self.model.layers
            if isinstance(layer.plugin, Cell)
        }

    @property
    def dense_operations(self) -> int:
        """Of all recurrent layers, a step: two for each number of [W_x W_h]."""
        return sum(2 * matrix.size for matrix, _ in self.layers.values())

    def divergence(self, outputs: Array, part: str) -> float:
        return float(np.mean(divergences(self.model.output, self.original[part], outputs)))

    def data(self, part: str) -> Sequences:
        return self.pilot if part == "pilot" else self.test


class Course:
    """Approximations from the cheapest to the best, each with more operations than the one before.

    Args:
        size: how many there are.
        share: number → operations, as a share of the dense layers'.
        outputs: (number, data) → the network's outputs.
        coarse: numbers that are looked at first, ascending; what lies between is searched by halves.
    """

    def __init__(
        self, case: Case, size: int, share: Callable[[int], float],
        outputs: Callable[[int, Sequences], Array], coarse: Sequence[int],
    ) -> None:  # fmt: skip
        self.case, self.size, self.share, self.outputs = case, size, share, outputs
        self.coarse = sorted({*coarse, 0, size - 1})
        self._known: dict[tuple[int, str], float] = {}

    def divergence(self, number: int, part: str) -> float:
        key = number, part
        if key not in self._known:
            outputs = self.outputs(number, self.case.data(part))
            self._known[key] = self.case.divergence(outputs, part)
        return self._known[key]

    def curve(self, part: str) -> list[tuple[float, float]]:
        """(share of operations, divergence) at the numbers looked at first."""
        return [(self.share(i), self.divergence(i, part)) for i in self.coarse]

    def number(self, level: float, part: str) -> int | None:
        """The cheapest from which on no approximation looked at is above `level`; None if none is."""
        low = -1
        for place in reversed(range(len(self.coarse))):
            if self.divergence(self.coarse[place], part) > level:
                low = place
                break
        if low == len(self.coarse) - 1:
            return None
        bad, good = -1 if low < 0 else self.coarse[low], self.coarse[low + 1]
        while good - bad > 1:
            middle = (bad + good) // 2
            if self.divergence(middle, part) > level:
                bad = middle
            else:
                good = middle
        return good

    def reach(self, level: float, part: str) -> float | None:
        """The share of operations at `number`."""
        found = self.number(level, part)
        return None if found is None else self.share(found)


def term_path(
    case: Case, settings: Mapping[str, Refinement], tuned: tuple[float, int] | None = None
) -> Course:
    """Terms of all layers, given out greedily by what they lower the divergence of pilot data for their
    operations.

    Args:
        tuned: the divergence for which they are fitted together to the calibration data, and steps.
    """
    model = case.refiner.refined(settings)
    ladder = climb(model, case.original["pilot"], case.pilot)
    if tuned is not None:
        quality, steps = tuned
        given = model, case.calibration, ladder, quality, steps
        model = fit_together(case.refiner, settings, *given)
        ladder = climb(model, case.original["pilot"], case.pilot)
    steps, coarse = [dict(ladder.rungs[0].terms)], [0]
    for rung in ladder.rungs[1:]:
        while steps[-1] != rung.terms:
            now = steps[-1]
            steps.append({name: n + (n < rung.terms[name]) for name, n in now.items()})
        coarse.append(len(steps) - 1)
    interpreter = Interpreter(build_program(model))
    path = Course(
        case, len(steps),
        lambda i: operations(model, steps[i]) / case.dense_operations,
        lambda i, data: interpreter.run(data, terms=steps[i]).outputs,
        coarse,
    )  # fmt: skip
    for place, rung in zip(coarse, ladder.rungs, strict=True):
        path._known[place, "pilot"] = rung.divergence
    return path


def cut_path(case: Case, order: Callable[[Array, int], EntryOrder | BitPlanes]) -> Course:
    """A plain product of every layer cut short, at about the same share of its pieces in all layers."""
    orders = {name: order(matrix, gates) for name, (matrix, gates) in case.layers.items()}
    size = max(o.count for o in orders.values())

    def pieces(number: int, name: str) -> int:
        return round(number * orders[name].count / size)

    def outputs(number: int, data: Sequences) -> Array:
        weights = {}
        for name, one in orders.items():
            first, second = (case.model.weights[f"{name}.{w}"] for w in ("w_x", "w_h"))
            matrix = one.matrix(pieces(number, name))
            for key, old, part in (
                ("w_x", first, matrix[:, : first.shape[1]]),
                ("w_h", second, matrix[:, first.shape[1] :]),
            ):
                weights[f"{name}.{key}"] = float_weight(part, old.bias_value(), old.gates)
        model = case.model.with_weights(weights)
        return Interpreter(build_program(model)).run(data).outputs

    def share(number: int) -> float:
        done = sum(one.operations(pieces(number, name)) for name, one in orders.items())
        return done / case.dense_operations

    coarse = np.unique(np.linspace(0, size, min(size, 20) + 1).astype(int))
    return Course(case, size + 1, share, outputs, coarse.tolist())


def terms_within(case: Case, setting: Refinement, share: float) -> dict[str, Refinement]:
    """Weight → the setting with at most as many terms as cost a share of the dense product."""
    found = {}
    for weight, (matrix, gates) in zip(case.refiner.weights, case.layers.values(), strict=True):
        rows, columns = matrix.shape
        groups = gates if setting.per_gate else 1
        each = term_operations(rows, setting.kept_of(columns), groups)
        most = max(1, int(share * 2 * matrix.size / each))
        found[weight] = replace(setting, terms=min(most, setting.count(rows, columns, groups)))
    return found


def load_cases(name: str, folder: Path) -> list[Case]:
    """The checkpoints of a network that are there."""
    wanted, count, every, every_test, steps = NETWORKS[name]
    family: Family = next(f for f in FAMILIES if f.name == wanted)
    weights, data = family.checkpoints[0]
    names = (
        (weights.replace("seed0", f"seed{i}"), data.replace("seed0", f"seed{i}"))
        for i in range(count)
    )
    family = replace(family, checkpoints=tuple(names))
    cases = []
    for stored, at, parts_at in prepared(family, folder):
        parts = {part: load_sequences(parts_at / f"{part}.npz") for part in ("validation", "test")}
        first = parts_at / "calibration.npz"
        train = load_sequences(first if first.exists() else parts_at / "train.npz")
        cases.append(
            Case(
                f"{wanted} {Path(stored).name}",
                load_model(at),
                Draw(family.draw.limit).apply(train, 0),
                _some(parts["validation"], every, steps),
                _some(parts["test"], every_test, steps),
            )
        )
        print(f"{cases[-1].name}: {cases[-1].pilot.count} pilot, {cases[-1].test.count} test sequences",
              file=sys.stderr)  # fmt: skip
    return cases


def _some(data: Sequences, n: int, steps: int | None) -> Sequences:
    chosen = data.take(np.arange(0, data.count, n))
    if steps is None:
        return chosen
    lengths = np.minimum(chosen.lengths, steps)
    starts = np.cumsum(chosen.lengths) - chosen.lengths
    rows = np.concatenate(
        [np.arange(a, a + length) for a, length in zip(starts, lengths, strict=True)]
    )
    return Sequences(chosen.x[rows], lengths, None if chosen.y is None else chosen.y[rows])
