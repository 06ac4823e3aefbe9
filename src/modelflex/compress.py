"""Compression: Recipe × Model × Stats → Model, with a statement of what was left uncompressed and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.divergence import divergences, mean_divergence
from modelflex.core.extension import Cell, Moments
from modelflex.core.fixed import Array, Scale
from modelflex.core.model import Model
from modelflex.core.part import pack_bias
from modelflex.core.products import Density, bias_bits
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe
from modelflex.core.stats import SiteStats, Stats
from modelflex.core.tracer import Link
from modelflex.core.weight import Weight
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.registry import FORMATS, STRUCTURES

UNNAMED = "no rule of the recipe names it: stored in 16 bits"


@dataclass(frozen=True, eq=False)
class Compression:
    """A compressed model.

    Attributes:
        model: the network whose weights stand in their compressed form.
        coverage: weight → "" where a rule compressed it, else the reason why not.
        rounds: divergence on the calibration data before and after every recalibration round.
    """

    model: Model
    coverage: Mapping[str, str]
    rounds: tuple[float, ...]


def uncompressed_choice() -> Choice:
    """What an uncompressed weight is in an integer program: int16, with 16-bit inputs."""
    uniform = FORMATS.get("uniform")(bits=16, scales="row", clip="max", rounding="nearest")
    return Choice(STRUCTURES.get("dense")(), uniform, Activation(16, "max"))


def choices(model: Model, recipe: Recipe) -> dict[str, Choice]:
    """The choice for every weight of the model; uncompressed where no rule names it.

    Raises:
        UserError: a rule names no weight of the model, or decides for none because others come first.
    """
    used = {recipe.rule(name) for name in model.weights}
    for number, rule in enumerate(recipe.rules):
        if number not in used:
            raise UserError(
                f"the rule for '{rule.weights}' decides for no weight",
                f"a pattern that matches one of {', '.join(model.weights)} before other rules do",
            )
    return {name: recipe.choice(name) or uncompressed_choice() for name in model.weights}


def gates(model: Model) -> dict[str, int]:
    """Row groups of every weight: the gates of a cell, 1 elsewhere."""
    groups = {}
    for layer in model.layers:
        plugin = layer.plugin
        for name in layer.weight_shapes:
            short = name.removeprefix(layer.name + ".")
            groups[name] = plugin.gates[short] if isinstance(plugin, Cell) else 1
    return groups


def additive_groups(model: Model) -> list[tuple[str, ...]]:
    """Weights whose results are only ever added to each other, in groups; the others alone."""
    groups: list[tuple[str, ...]] = []
    for layer in model.layers:
        plugin = layer.plugin
        additive = plugin.additive if isinstance(plugin, Cell) else ()
        merged = tuple(f"{layer.name}.{w}" for w in additive)
        groups += [merged] if merged else []
        groups += [(name,) for name in layer.weight_shapes if name not in merged]
    return groups


def bias_carriers(model: Model, chosen: Mapping[str, Choice]) -> dict[str, tuple[str, ...]]:
    """Weight → the weights whose biases it carries once compressed (itself included), or none.

    Biases of an additive group are merged: into the first weight that keeps its accumulator under an
    activity, where the bias is read at reset only, else into the first.
    """
    carriers: dict[str, tuple[str, ...]] = {}
    for group in additive_groups(model):
        needed = any(model.weights[n].bias is not None or chosen[n].data_aware for n in group)
        holder = next((n for n in group if chosen[n].activity is not None), group[0])
        carriers |= dict.fromkeys(group, ())
        if needed:
            carriers[holder] = group
    return carriers


def activation_scale(activation: Activation, site: SiteStats) -> Scale:
    """The scale of a product's input codes, from the calibration trace."""
    full = site.peak / ((1 << (activation.bits - 1)) - 1)
    if activation.clip == "max":
        return Scale.nearest(full)
    sample = site.trace[:: max(1, site.trace.shape[0] // 2000)].astype(np.float64)
    top = (1 << (activation.bits - 1)) - 1
    errors = []
    shares = np.linspace(1.0, 0.3, 29)
    for share in shares:
        step = full * share
        errors.append(
            np.mean((np.clip(np.rint(sample / step), -top - 1, top) * step - sample) ** 2)
        )
    return Scale.nearest(full * float(shares[int(np.argmin(errors))]))


def make_link(choice: Choice, site: SiteStats) -> Link:
    """The input format and the activity (thresholds in real units) of a weight's product."""
    scale = activation_scale(choice.activation, site)
    activity = None if choice.activity is None else choice.activity.resolve(site.std)
    return Link(choice.activation.bits, scale, activity)


def replay(link: Link, site: SiteStats, block: int) -> tuple[Array, Array | None]:
    """What the product would see of the uncompressed network's trace: (held values [ΣT, in], mask)."""
    top = 1 << (link.bits - 1)
    codes = np.clip(np.rint(site.trace / np.float32(link.step)), -top, top - 1).astype(np.int16)
    if link.activity is None:
        return codes.astype(np.float32) * np.float32(link.step), None
    held, mask = link.activity.replay(codes, site.lengths, block, link.step)
    return held.astype(np.float32) * np.float32(link.step), mask


def replayed_density(choice: Choice, shape: tuple[int, int], site: SiteStats) -> Density:
    """Expected densities of a weight under a choice, by replaying its encoder over the trace."""
    if choice.activity is None:
        return Density()
    ((_, geo),) = choice.structure.geometries(*shape)
    _, mask = replay(make_link(choice, site), site, geo.block)
    if mask is None:
        return Density()
    units = mask.reshape(mask.shape[0], geo.units, geo.block).any(axis=-1)
    return Density(_interval(float(units.mean())), _interval(float(mask.mean())))


DENSITY_SPREAD = 0.5
"""Half-width, as a share of the expected density, of the interval in which the density of a
compressed network is assumed to lie; benchmarks/main_job reports the observed spread."""


def _interval(density: float) -> tuple[float, float, float]:
    low, high = density * (1 - DENSITY_SPREAD), density * (1 + DENSITY_SPREAD)
    return density, low, min(high, 1.0)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Moments of what an additive group's products see, their inputs one after another [K].

    `o` are the original network's inputs, `c` those of the compressed network, aligned in time.
    """

    columns: Mapping[str, slice]
    mean_o: Array
    mean_c: Array
    cov_c: Array
    cov_oc: Array

    def blend(self, latest: _Seen, share: float) -> _Seen:
        """The running mean of moments: `share` of the latest."""
        return _Seen(
            self.columns,
            self.mean_o,
            (1 - share) * self.mean_c + share * latest.mean_c,
            (1 - share) * self.cov_c + share * latest.cov_c,
            (1 - share) * self.cov_oc + share * latest.cov_oc,
        )


def _moments(columns: Mapping[str, slice], original: Array, compressed: Array) -> _Seen:
    """Moments of aligned traces [steps, K]."""
    o, c = original.astype(np.float64), compressed.astype(np.float64)
    mean_o, mean_c = o.mean(axis=0), c.mean(axis=0)
    o, c = o - mean_o, c - mean_c
    return _Seen(columns, mean_o, mean_c, c.T @ c / len(c), o.T @ c / len(c))


Group = tuple[str, ...]


class _Compressor:
    """One recipe applied to one model, round by round."""

    def __init__(self, model: Model, recipe: Recipe, stats: Stats) -> None:
        self.model, self.stats = model, stats
        self.chosen = choices(model, recipe)
        self.gates = gates(model)
        self.groups = additive_groups(model)
        self.carriers = bias_carriers(model, self.chosen)
        self.links = {n: make_link(c, stats.sites[n]) for n, c in self.chosen.items()}
        self.matrices = {n: w.dense() for n, w in model.weights.items()}
        self.aware = [g for g in self.groups if any(self.chosen[n].data_aware for n in g)]

    def moments(self, inputs: Mapping[str, Array]) -> dict[Group, _Seen]:
        """Moments of every group with a data-aware weight, given what each product sees."""
        found = {}
        for group in self.aware:
            columns, start = {}, 0
            for name in group:
                width = self.matrices[name].shape[1]
                columns[name] = slice(start, start + width)
                start += width
            original = np.hstack([self.stats.sites[n].trace for n in group])
            found[group] = _moments(columns, original, np.hstack([inputs[n] for n in group]))
        return found

    def fit(self, seen: Mapping[Group, _Seen], before: Mapping[str, Array]) -> Model:
        """Compress all weights, the data-aware ones by the moments of what they see.

        Args:
            before: the matrices that stood for the weights in the round before.
        """
        weights: dict[str, Weight] = {}
        for group in self.groups:
            weights |= self._fit_group(group, seen.get(group), before)
        return self.model.with_weights(weights)

    def _fit_group(
        self, group: Group, seen: _Seen | None, before: Mapping[str, Array]
    ) -> dict[str, Weight]:
        """Fit the largest weight first; each is fitted to what the sum of the group still lacks."""
        stand = {n: before[n] for n in group}
        weights: dict[str, Weight] = {}
        for name in sorted(group, key=lambda n: -self.matrices[n].size):
            choice, needs = self.chosen[name], None
            if seen is not None and choice.data_aware:
                needs = self._needs(name, group, seen, stand)
            weights[name] = choice.structure.fit_weight(
                self.matrices[name], needs, choice.format, self.gates[name], (self.links[name],)
            )
            stand[name] = weights[name].dense()
        holder = next((n for n in group if self.carriers[n]), None)
        if holder is not None:
            bias = np.sum([self.model.weights[n].bias_value() for n in group], axis=0)
            if seen is not None:
                for name, columns in seen.columns.items():
                    bias += self.matrices[name] @ seen.mean_o[columns]
                    bias -= stand[name] @ seen.mean_c[columns]
            bits = bias_bits(self.chosen[holder].format.stored_bits)
            units = weights[holder].accumulator_scale()
            weights[holder] = weights[holder].with_bias(pack_bias(bias, units, bits))
        return {name: weights[name] for name in group}

    def _needs(self, name: str, group: Group, seen: _Seen, stand: Mapping[str, Array]) -> Moments:
        """What the weight `name` is fitted to: the group's original sum less its partners' products."""
        own = seen.columns[name]
        target = sum(self.matrices[n] @ seen.cov_oc[seen.columns[n], own] for n in group)
        for partner in group:
            if partner != name:
                target = target - stand[partner] @ seen.cov_c[seen.columns[partner], own]
        return Moments(seen.cov_c[own, own], np.asarray(target))

    def replayed(self) -> dict[str, Array]:
        """The first guess of what each product sees: the encoders run over the original trace."""
        inputs = {}
        for name in (n for group in self.aware for n in group):
            ((_, geo),) = self.chosen[name].structure.geometries(*self.matrices[name].shape)
            inputs[name] = replay(self.links[name], self.stats.sites[name], geo.block)[0]
        return inputs

    def observed(self, model: Model) -> tuple[dict[str, Array], float]:
        """Run a compressed network: what each product sees, and its divergence on calibration data."""
        run = Interpreter(build_program(model)).run(self.stats.sequences, capture=True)
        rows = divergences(model.output, self.stats.outputs, run.outputs)
        inputs = {name: run.inputs[f"{name}/0"] for name in model.weights}
        return inputs, mean_divergence(model.output, rows)


def compress(model: Model, recipe: Recipe, stats: Stats) -> Compression:
    """Apply a recipe without retraining.

    Data-aware choices are first fitted to the original network's own trace, replayed through the
    quantisers and encoders. Each of the recipe's recalibration rounds then runs the compressed
    network, captures what its products really see, and fits again to the moments pooled over all
    rounds so far (fitting to the latest alone oscillates); the best round by divergence on the
    calibration data is kept.

    Raises:
        UserError: a choice does not fit its weight, or a rule decides for no weight.
    """
    work = _Compressor(model, recipe, stats)
    coverage = {n: "" if recipe.choice(n) is not None else UNNAMED for n in model.weights}
    candidate = work.fit(work.moments(work.replayed()), work.matrices)
    if recipe.recalibrate == 0 or not work.aware:
        return Compression(candidate, coverage, ())
    inputs, least = work.observed(candidate)
    pooled = work.moments(inputs)
    best, rounds = candidate, [least]
    for number in range(1, recipe.recalibrate + 1):
        candidate = work.fit(pooled, {n: w.dense() for n, w in candidate.weights.items()})
        inputs, divergence = work.observed(candidate)
        rounds.append(divergence)
        if divergence < least:
            best, least = candidate, divergence
        if number < recipe.recalibrate:
            latest = work.moments(inputs)
            pooled = {g: pooled[g].blend(latest[g], 1 / (number + 1)) for g in pooled}
    return Compression(best, coverage, tuple(rounds))
