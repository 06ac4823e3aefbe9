"""Networks whose recurrent weights are sums of terms, the most informative first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from modelflex.calibrate import some_sequences
from modelflex.core.data import Sequences
from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.input_metric import InputMetric
from modelflex.core.layout import index_bits
from modelflex.core.model import Layer, Model
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.program import build_program, input_symbols
from modelflex.core.refinement import SCHEMES, Factors, completed, decompose, operations
from modelflex.core.weight import Matrix, Terms, Weight, float_weight
from modelflex.errors import UserError, nearest
from modelflex.execute.gradients import information
from modelflex.execute.interpret import Interpreter
from modelflex.progressive.encoding import in_integers
from modelflex.registry import CELLS

SHOWN_STEPS = 40_000
SHOWN_NUMBERS = 1 << 25
"""Time steps, and numbers of their inputs, from which terms learn what matters; at most about so many."""
MIXED = 0.8
"""Share of them in recordings between two of the pilot's (`Sequences.mixtures`)."""
IMPORTANCES = ("none", "diagonal", "full", "outputs")
MAX_TERMS = 1 << 12
"""Terms of a weight: each is searched for on its own."""


@final
@dataclass(frozen=True)
class Refinement:
    """How weights become terms.

    Attributes:
        scheme: see `core.refinement.decompose`.
        kept: share of the numbers of each v that are kept, above 0, at most 1.
        per_gate: whether each gate has v of its own, as published; else all rows share one.
        block: consecutive numbers of v that are kept or left together.
        importance: what errors of the results weigh in "whitened": "full" by the Fisher information in them,
            "diagonal" by its diagonal, "outputs" by the squared errors of the outputs that they cause (of
            a classifier that is sure nearly everywhere the divergence shows few of them), "none" all alike.
        terms: of each weight; None for as many as make it whole, its rank; where numbers are left out,
            as many as cost half as much again as the dense weight, at most twice the rows of a group.
        bits: of the codes of u and v, 4 … 8, in a compressed network, which stays in integers; None
            for floats.
    """

    scheme: str = "whitened"
    kept: float = 1.0
    per_gate: bool = False
    block: int = 1
    importance: str = "diagonal"
    terms: int | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise UserError(
                f"the scheme is '{self.scheme}'", "a scheme", nearest(self.scheme, SCHEMES)
            )
        if self.importance not in IMPORTANCES:
            raise UserError(
                f"the importance is '{self.importance}'",
                "an importance",
                nearest(self.importance, IMPORTANCES),
            )
        if not 0 < self.kept <= 1:
            raise UserError(f"the share kept is {self.kept}", "above 0, at most 1")
        if self.block not in (1, 8):
            raise UserError(f"the block is {self.block}", "1 or 8, what kernels read")
        if self.bits is not None and not 4 <= self.bits <= 8:
            raise UserError(f"terms are to have {self.bits} bits", "4 … 8")
        if self.terms is not None and not 1 <= self.terms <= MAX_TERMS:
            raise UserError(f"{self.terms} terms are wanted", f"1 … {MAX_TERMS}")

    @property
    def label(self) -> str:
        """A short name."""
        return (
            f"{self.scheme}, {'a v for each gate' if self.per_gate else 'one v'}, {100 * self.kept:g} % kept"
            f"{f' in blocks of {self.block}' if self.block > 1 else ''}"
            f"{f', {self.importance} importance' if self.scheme == 'whitened' else ''}"
            f"{'' if self.bits is None else f', {self.bits} bits'}"
        )

    def kept_of(self, columns: int) -> int:
        """NZ: numbers kept of each v, whole blocks."""
        wanted = max(1, round(self.kept * columns / self.block))
        if self.block > 1 and columns % self.block:
            raise UserError(
                f"a weight of {columns} columns is to keep blocks of {self.block}",
                "a number of columns that blocks divide",
                "keep single numbers (block 1)",
            )
        return min(wanted * self.block, columns)

    def count(self, rows: int, columns: int, groups: int) -> int:
        """Terms of a weight [rows, columns]."""
        if self.terms is not None:
            return self.terms
        kept = self.kept_of(columns)
        if kept == columns:
            return min(rows // groups, columns)
        affordable = 3 * rows * columns // operations(rows, kept, groups)
        return max(1, min(affordable, 2 * rows // groups, MAX_TERMS))


@dataclass(frozen=True, eq=False)
class _Whole:
    """A weight that becomes terms, with what it sees.

    Attributes:
        importance: what errors of its results weigh, [out, out] of "full" and of "outputs"; empty where
            nothing is known.
    """

    name: str
    matrix: Array
    bias: Array
    gates: int
    sample: Array
    importance: Mapping[str, Array]


@final
class Refiner:
    """Turns the recurrent weights of one network into terms; each setting of a weight is computed once.

    Layers whose products are only added to each other become a layer of the cell that has one matrix
    over input and old output together (Rizakis et al., ARC 2018). A compressed network is taken at
    what its codes mean: with terms in bits it goes on in integers, otherwise all of it is in floats,
    without activities and nonlinearities.

    What errors matter is learnt from pilot sequences and from mixtures of them, about which the network
    is undecided: where it is sure, gradients tell little. Symbols are not mixed.

    Args:
        pilot: inputs that the network will see; labels are not needed.

    Raises:
        UserError: there is no recurrent layer, or one consists of terms already.
    """

    def __init__(self, model: Model, pilot: Sequences) -> None:
        if any(isinstance(weight, Terms) for weight in model.weights.values()):
            raise UserError(
                f"model '{model.name}' consists of terms already", "the model before it was refined"
            )
        seen, matters = _observe(model, _shown(model, pilot))
        self.source, self._made = model, dict[tuple[str, Refinement], Terms]()
        self._wholes: dict[str, _Whole] = {}
        layers: list[Layer] = []
        for layer in model.layers:
            layers.append(layer)
            if isinstance(layer.plugin, Cell):
                kind = _augmented(layer.kind) or layer.kind
                layers[-1] = replace(layers[-1], kind=kind)
                self._wholes |= {
                    w.name: w for w in _wholes(layer, layers[-1], model, seen, matters)
                }
        self.layers = tuple(layers)
        if not self._wholes:
            kinds = ", ".join(layer.kind for layer in model.layers)
            raise UserError(f"model '{model.name}' has the layers {kinds}", "a recurrent layer")

    @property
    def weights(self) -> tuple[str, ...]:
        """The weights that become terms."""
        return tuple(self._wholes)

    def refined(self, settings: Mapping[str, Refinement] | Refinement) -> Model:
        """The network with terms.

        Args:
            settings: of each of `weights`, or one for all.

        Raises:
            UserError: a setting does not fit its weight.
        """
        each = (
            dict.fromkeys(self._wholes, settings) if isinstance(settings, Refinement) else settings
        )
        integers = {setting.bits is not None for setting in each.values()}
        if len(integers) > 1 or (True in integers and self.source.numeric == "float"):
            raise UserError(
                f"terms of '{self.source.name}' are to be codes",
                "all of them, in a compressed network",
                "an uncompressed one computes in floats: leave the bits out",
            )
        weights: dict[str, Weight] = {}
        for layer in self.layers:
            for name in layer.weight_shapes:
                if name in self._wholes:
                    weights[name] = self._terms(name, each[name])
                    continue
                weights[name] = kept = self.source.weights[name]
                if True not in integers:
                    weights[name] = float_weight(kept.dense(), kept.bias_value(), kept.gates)
        layers = self.layers
        if True not in integers:
            layers = tuple(replace(layer, nonlinearity=None) for layer in layers)
        return replace(self.source, layers=layers, weights=weights)

    def completed(
        self, model: Model, settings: Mapping[str, Refinement], heads: Mapping[str, int]
    ) -> Model:
        """A network whose first terms were changed, with other terms after them, which lead to the
        dense network again; weights whose v leave numbers out stay as they are.

        Args:
            model: in floats; all rows share the v of each term.
            heads: how many terms of each weight are kept, at most those of its setting.
        """
        made = {}
        for name, setting in settings.items():
            weight = model.weights[name]
            if isinstance(weight, Terms) and weight.v.layout == "dense":
                made[name] = _completed(self._wholes[name], setting, weight, heads[name])
        return model.with_weights(made)

    def _terms(self, name: str, setting: Refinement) -> Terms:
        key = name, setting
        if key not in self._made:
            whole = self._wholes[name]
            made = terms_of(whole, setting)
            if setting.bits is not None:
                made = in_integers(made, whole.sample, setting.bits)
            self._made[key] = made
        return self._made[key]


def _shown(model: Model, pilot: Sequences) -> Sequences:
    """Some of the pilot sequences, and mixtures of them."""
    steps = max(1, min(SHOWN_STEPS, SHOWN_NUMBERS // pilot.x.shape[1]))
    if input_symbols(model) is not None:
        return some_sequences(pilot, steps)
    own, pilot = some_sequences(pilot, max(1, int((1 - MIXED) * steps))), pilot.cut(steps)
    return own.followed_by(pilot.mixtures(max(1, int(MIXED * steps / pilot.mean_length)), 0))


def _observe(
    model: Model, pilot: Sequences
) -> tuple[Mapping[str, Array], Mapping[str, Mapping[str, Array]]]:
    """Weight → the inputs that it sees [n, in], and what errors of its results weigh (see `_Whole`);
    the latter of recurrent weights and in floats only.
    """
    program = build_program(model)
    run = Interpreter(program).run(pilot, capture=True)
    seen = {site[:-2]: inputs for site, inputs in run.inputs.items() if site.endswith("/0")}
    if program.numeric != "float":
        return seen, {}
    recurrent = [
        f"{name}/0"
        for layer in model.layers
        if isinstance(layer.plugin, Cell)
        for name in layer.weight_shapes
    ]
    full = information(program, pilot, model.output, 0, recurrent)
    outputs = information(program, pilot, "values", 0, recurrent)
    return seen, {site[:-2]: {"full": full[site], "outputs": outputs[site]} for site in recurrent}


def _augmented(kind: str) -> str | None:
    """The cell that is this one with a single matrix over input and old output."""
    return next((name for name in CELLS.names() if CELLS.get(name).augments == kind), None)


def _wholes(
    layer: Layer,
    after: Layer,
    model: Model,
    seen: Mapping[str, Array],
    matters: Mapping[str, Mapping[str, Array]],
) -> list[_Whole]:
    names = list(layer.weight_shapes)
    matrices = {name: model.weights[name].dense() for name in names}
    biases = {name: model.weights[name].bias_value() for name in names}
    if after.kind == layer.kind:
        groups = {name: [name] for name in names}
    else:
        groups = {next(iter(after.weight_shapes)): names}
    made = []
    for name, parts in groups.items():
        made.append(
            _Whole(
                name,
                np.hstack([matrices[part] for part in parts]),
                np.sum([biases[part] for part in parts], axis=0),
                model.weights[parts[0]].gates,
                np.hstack([seen[part] for part in parts]).astype(np.float64),
                matters.get(parts[0], {}),
            )
        )
    return made


def terms_of(whole: _Whole, setting: Refinement) -> Terms:
    """Terms in floats for one weight."""
    rows, columns = whole.matrix.shape
    groups = whole.gates if setting.per_gate else 1
    factors = decompose(
        whole.matrix,
        terms=setting.count(rows, columns, groups),
        kept=setting.kept_of(columns),
        groups=groups,
        block=setting.block,
        scheme=setting.scheme,
        metric=InputMetric.of(whole.sample) if setting.scheme == "whitened" else None,
        importance=_weighing(whole.importance, setting),
    )
    return float_terms(factors, whole.bias, whole.gates, setting.kept_of(columns), setting.block)


def _completed(whole: _Whole, setting: Refinement, changed: Terms, count: int) -> Terms:
    rows, columns = whole.matrix.shape
    u, v = changed.u.dense()[:, :count], changed.v.dense()[:count]
    base = changed.u.bias_value() - whole.bias
    wanted = count + min(rows, columns + 1) if setting.terms is None else setting.terms
    factors = completed(
        whole.matrix,
        Factors(u, v, changed.v.bias_value()[:count], base),
        min(wanted, MAX_TERMS) - count,
        InputMetric.of(whole.sample),
        _weighing(whole.importance, setting),
    )
    return float_terms(factors, whole.bias, whole.gates, columns, 1)


def _weighing(known: Mapping[str, Array], setting: Refinement) -> Array | None:
    if not known or setting.scheme != "whitened" or setting.importance == "none":
        return None
    return np.diag(known["full"]) if setting.importance == "diagonal" else known[setting.importance]


def float_terms(factors: Factors, bias: Array, gates: int, kept: int, block: int) -> Terms:
    """What a runtime computes of `factors`: v in the layout that keeps `kept` numbers in blocks."""
    columns = factors.v.shape[1]
    offset = None
    if factors.offset.any():
        offset = Part(factors.offset.astype(np.float32), FLOAT_BITS)
    layout, part = "dense", Part(factors.v.astype(np.float32), FLOAT_BITS)
    if kept < columns:
        layout = "row_sparse" if block == 1 else "block_sparse"
        part = _sparse(factors.v, kept, block)
    v = Matrix(part, offset, None, 1, layout, columns)
    base = Part((bias + factors.base).astype(np.float32), FLOAT_BITS)
    u_part = Part(np.ascontiguousarray(factors.u, np.float32), FLOAT_BITS)
    u = Matrix(u_part, base, None, gates, "dense", factors.terms)
    return Terms(v, u, factors.groups)


def _sparse(v: Array, kept: int, block: int) -> Part:
    """The blocks of each row that are not zero, filled up to the same number with others."""
    places = v.reshape(len(v), -1, block)
    order = np.argsort(~places.any(axis=2), axis=1, kind="stable")[:, : kept // block]
    index = np.sort(order, axis=1)
    values = np.take_along_axis(places, index[:, :, None], axis=1).reshape(len(v), -1)
    return Part(
        values.astype(np.float32),
        FLOAT_BITS,
        index=index.astype(np.int64),
        index_bits=index_bits(places.shape[1]),
    )
