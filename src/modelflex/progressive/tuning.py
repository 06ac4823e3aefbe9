"""Fitting all terms of a refined network together to the answers of the dense one, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import final

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.divergence import VALUES, divergences, judged, log_softmax
from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.ladder import Ladder, Rung
from modelflex.core.layout import stored_columns
from modelflex.core.model import Model
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.program import build_program, input_symbols, layer_groups
from modelflex.core.weight import Chain, Matrix, Terms, Weight
from modelflex.errors import UserError
from modelflex.execute.gradients import Forward
from modelflex.progressive.climbing import term_weights
from modelflex.progressive.refining import MIXED, Refinement

Tell = Callable[[int, int], None]

BATCH_STEPS = 800
"""Time steps of a batch, about."""
PREFIXES = 2
"""Prefixes whose errors are lowered in a step."""
RATE = 0.1
"""First steps change numbers by this share of their root mean square, times √quality for a KL divergence
(about the square of what relative errors cause it); steps fall to zero by a cosine."""
LARGEST = 0.1
"""The largest quality that makes steps larger."""
NEAR = 30.0
"""Rungs with so many times or parts of the wanted divergence are fitted."""
DECAYS = 0.9, 0.99
TINY = 1e-12
INSIDE = 1.0
"""What the results of recurrent layers weigh beside the outputs."""
FLOOR = 1e-6
"""Added to divergences before their logarithm is taken: what is below need not get better."""


@final
class Parameter:
    """An array that is fitted by Adam (Kingma and Ba, ICLR 2015), each slice at a rate of its own size.

    Args:
        value: float32; changed in place.
        axis: the axis along which a slice (a term's u or v) lies; None for one slice.
        mask: what may differ from zero; None for all.
    """

    def __init__(self, value: Array, axis: int | None, mask: Array | None = None) -> None:
        self.value, self.mask = value, mask
        there = np.ones(value.shape, bool) if mask is None else mask
        square = np.square(value, dtype=np.float64).sum(axis=axis, keepdims=True)
        count = np.maximum(there.sum(axis=axis, keepdims=True), 1)
        self.size = np.sqrt(square / count).astype(np.float32)
        self.first, self.second = np.zeros_like(value), np.zeros_like(value)

    def step(self, gradient: Array, rate: float, count: int) -> None:
        """The `count`-th step, from 1 on."""
        if self.mask is not None:
            gradient = gradient * self.mask
        self.first += (1 - DECAYS[0]) * (gradient - self.first)
        self.second += (1 - DECAYS[1]) * (gradient * gradient - self.second)
        first = self.first / (1 - DECAYS[0] ** count)
        second = np.sqrt(self.second / (1 - DECAYS[1] ** count)) + TINY
        self.value -= np.float32(rate) * self.size * (first / second)


@final
class _Fitted:
    """u, v, c and b′ of one weight, and their gradients of a batch."""

    def __init__(self, weight: Terms) -> None:
        self.weight = weight
        v, part = weight.v.dense().astype(np.float32), weight.v.part
        self.columns = mask = None
        if part.index is not None:
            self.columns = stored_columns(weight.v.layout, part.codes.shape, part.index, v.shape[1])
            mask = np.zeros(v.shape, bool)
            np.put_along_axis(mask, self.columns, True, axis=1)
        values = (
            np.ascontiguousarray(weight.u.dense(), np.float32),
            v,
            weight.v.bias_value().astype(np.float32),
            weight.u.bias_value().astype(np.float32),
        )
        self.u = Parameter(values[0], 0)
        self.v = Parameter(v, 1, mask)
        self.c, self.base = Parameter(values[2], None), Parameter(values[3], None)
        self.gradients = [np.zeros_like(value) for value in values]

    def prefix(self, terms: int) -> Weight:
        """The first terms as two products; b′ alone for none."""
        rows, columns = self.weight.shape
        base = Part(self.base.value, FLOAT_BITS)
        if not terms:
            empty = Part(np.zeros((rows, columns), np.float32), FLOAT_BITS)
            return Matrix(empty, base, None, self.weight.gates, "dense", columns)
        v, offset = (Part(p.value[:terms], FLOAT_BITS) for p in (self.v, self.c))
        u = Part(np.ascontiguousarray(self.u.value[:, :terms]), FLOAT_BITS)
        return Chain(
            (
                Matrix(v, offset, None, 1, "dense", columns),
                Matrix(u, base, None, self.weight.gates, "dense", terms),
            )
        )

    def add(self, product: int, gradient: Array, inputs: Array, terms: int) -> None:
        """Take in the gradient in the results of one of the products of a prefix."""
        u, v, c, base = self.gradients
        if product == 0 and terms:
            v[:terms] += gradient.T @ inputs
            c[:terms] += gradient.sum(axis=0)
            return
        base += gradient.sum(axis=0)
        if terms:
            u[:, :terms] += gradient.T @ inputs

    def step(self, rate: float, count: int) -> None:
        for parameter, gradient in zip(
            (self.u, self.v, self.c, self.base), self.gradients, strict=True
        ):
            parameter.step(gradient, rate, count)
            gradient.fill(0)

    @property
    def finite(self) -> bool:
        """Whether all numbers are."""
        return all(np.isfinite(p.value).all() for p in (self.u, self.v, self.c, self.base))

    def terms(self) -> Terms:
        """The weight as it is now."""
        codes = self.v.value
        if self.columns is not None:
            codes = np.take_along_axis(codes, self.columns, axis=1)
        v = replace(self.weight.v, part=replace(self.weight.v.part, codes=codes.copy()))
        if v.own_bias is not None:  # else c is zero, and so are its steps
            v = replace(v, own_bias=Part(self.c.value.copy(), FLOAT_BITS))
        u = replace(
            self.weight.u,
            part=replace(self.weight.u.part, codes=self.u.value.copy()),
            own_bias=Part(self.base.value.copy(), FLOAT_BITS),
        )
        return replace(self.weight, v=v, u=u)


def check_tunable(dense: Model, settings: Sequence[Refinement]) -> None:
    """Whether a network's terms can be fitted together.

    Raises:
        UserError: the network is compressed, or a setting has a v for each gate.
    """
    if dense.numeric != "float":
        raise UserError(
            f"the terms of '{dense.name}', which is compressed, are to be tuned",
            "an uncompressed network",
            "leave the tuning out",
        )
    if any(setting.per_gate for setting in settings):
        raise UserError(
            "terms with a v for each gate are to be tuned", "terms whose v all gates share"
        )


def rungs_near(ladder: Ladder, quality: float) -> list[Rung]:
    """Those whose divergence is near a quality."""
    return [r for r in ladder.rungs if quality / NEAR < r.divergence < quality * NEAR]


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is told
def tune(
    model: Model,
    dense: Model,
    pilot: Sequences,
    ladder: Ladder,
    quality: float,
    steps: int,
    *,
    seed: int = 0,
    tell: Tell = lambda done, total: None,
) -> Model:
    """The refined network with all its terms fitted to the answers of the dense one.

    In each step prefixes of some rungs of its ladder are run over a batch, and the logarithm of their
    mean divergence and of the squared errors of the recurrent layers' results is lowered: so every
    rung counts by how much better it gets relatively. Batches are pilot sequences and mixtures
    of them (`Sequences.mixtures`; symbols are not mixed).

    Args:
        model: refined, in floats, with one v for all rows (`check_tunable`).
        dense: the network whose answers are wanted.
        pilot: inputs; labels are not used.
        ladder: of `model`.
        quality: the divergence that matters: rungs near it are fitted.
        steps: of the optimiser.
        tell: called after each of them with (done, of how many).

    Returns:
        Its ladder is another one. `model` itself where no rung is near the quality.

    Raises:
        UserError: numbers become too large for float32.
    """
    fitted = {name: _Fitted(weight) for name, weight in term_weights(model).items()}
    rng = np.random.default_rng(seed)
    rungs = [r.terms for r in rungs_near(ladder, quality)]
    if not rungs:
        return model
    mixed, pieces = input_symbols(dense) is None, pilot.cut(BATCH_STEPS)
    program = build_program(dense)
    size = min(quality, LARGEST)
    size = RATE * (size if dense.output == VALUES else np.sqrt(size))
    for step in range(steps):
        batch = _batch(pieces, mixed, rng)
        wanted = Forward(program, batch)
        for at in rng.choice(len(rungs), min(PREFIXES, len(rungs)), replace=False):
            _descend(model, fitted, rungs[at], batch, wanted)
        for name, one in fitted.items():
            one.step(size * 0.5 * (1 + np.cos(np.pi * step / steps)), step + 1)
            if not one.finite:
                raise UserError(
                    f"the terms of '{name}' are not finite after {step + 1} steps of tuning",
                    "finite numbers",
                    "leave the tuning out, or give data of the size that the network was trained on",
                )
        tell(step + 1, steps)
    return model.with_weights({name: one.terms() for name, one in fitted.items()})


def _batch(pilot: Sequences, mixed: bool, rng: np.random.Generator) -> Sequences:
    """Some of the sequences, and mixtures of them."""
    count = max(2, int(BATCH_STEPS / pilot.mean_length))
    chosen = pilot.take(rng.integers(pilot.count, size=count))
    if not mixed:
        return chosen
    own = max(1, int((1 - MIXED) * count))
    mixtures = chosen.mixtures(count - own, int(rng.integers(1 << 31)))
    return chosen.take(np.arange(own)).followed_by(mixtures)


def _descend(
    model: Model,
    fitted: Mapping[str, _Fitted],
    terms: Mapping[str, int],
    batch: Sequences,
    wanted: Forward,
) -> None:
    """Add one prefix's gradients."""
    made = {name: one.prefix(terms[name]) for name, one in fitted.items()}
    run = Forward(build_program(model.with_weights(made)), batch)

    def visit(site: str, gradient: Array, inputs: Array) -> None:
        name, product = site.rsplit("/", 1)
        if name in fitted:
            fitted[name].add(int(product), gradient, inputs, terms[name])

    inside = {}
    for number, layers in enumerate(layer_groups(model.layers)):
        if len(layers) == 1 and isinstance(layers[0].plugin, Cell):
            wrong = run.results[number] - wanted.results[number]
            total = float(np.square(wrong, dtype=np.float64).sum())
            inside[number] = wrong * np.float32(2 * INSIDE / (total + FLOOR * wrong.size))
    run.back(_gradient(model.output, wanted.outputs, run.outputs), visit, inside)


def _gradient(output: str, wanted: Array, found: Array) -> Array:
    """Of log(mean divergence) in the outputs."""
    mean = float(np.mean(divergences(output, wanted, found))) + FLOOR
    change, count = np.zeros(found.shape), judged(output, found.shape[1])
    if output == VALUES:
        power = float(np.mean(np.sum(np.square(wanted), axis=1)))
        change = 2 * (found - wanted) / (power if power > 0 else 1.0)
    else:
        chances = np.exp(log_softmax(found[:, :count])), np.exp(log_softmax(wanted[:, :count]))
        change[:, :count] = chances[0] - chances[1]
    return np.asarray(change / (len(found) * mean))
