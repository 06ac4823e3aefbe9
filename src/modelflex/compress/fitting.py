"""Compression: Recipe × Model × Stats → Model, with a statement of what was left uncompressed and why."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from modelflex.compress.choices import (
    UNNAMED,
    additive_groups,
    bias_carriers,
    choices,
    gates,
)
from modelflex.compress.links import inner_link, make_link, replay, thinned
from modelflex.compress.recall import Arrays, Recall
from modelflex.compress.reduction import reduce
from modelflex.core.divergence import divergences, mean_divergence
from modelflex.core.extension import Fit, Moments
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.part import pack_bias
from modelflex.core.products import bias_bits
from modelflex.core.program import build_program
from modelflex.core.recipe import Recipe
from modelflex.core.regression import check_inputs
from modelflex.core.stats import Stats
from modelflex.core.tracer import Link
from modelflex.core.weight import Weight
from modelflex.execute.native import execute

FITTED = 1 << 23
"""Numbers of the vectors that a windowed weight is fitted to, at most (or those of one step)."""


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


@dataclass(frozen=True, eq=False)
class _Seen:
    """Moments of what an additive group's products see, their inputs one after another.

    `o` are the original network's inputs [K], `c` those of the compressed network [K′], aligned in
    time; K′ < K where units were removed.
    """

    wide: Mapping[str, slice]
    narrow: Mapping[str, slice]
    mean_o: Array
    mean_c: Array
    cov_c: Array
    cov_oc: Array

    def blend(self, latest: _Seen, share: float) -> _Seen:
        """The running mean of moments: `share` of the latest."""
        return _Seen(
            self.wide,
            self.narrow,
            self.mean_o,
            (1 - share) * self.mean_c + share * latest.mean_c,
            (1 - share) * self.cov_c + share * latest.cov_c,
            (1 - share) * self.cov_oc + share * latest.cov_oc,
        )


def _centred(traces: Iterable[Array]) -> tuple[Array, Array]:
    """Aligned traces [steps, in] side by side, less their means, and these; float64."""
    x = np.hstack(list(traces)).astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    return x, mean


def _slices(columns: Mapping[str, int]) -> dict[str, slice]:
    """Where the columns of each stand when they are put side by side."""
    ends = np.cumsum(list(columns.values())).tolist()
    return {n: slice(end - columns[n], end) for n, end in zip(columns, ends, strict=True)}


def _replay_key(link: Link, block: int) -> tuple[Hashable, ...]:
    """All that `replay` hangs on but the trace."""
    thresholds = None if link.thresholds is None else link.thresholds.tobytes()
    return link.bits, link.step, link.activity, thresholds, block


Group = tuple[str, ...]


class _Compressor:
    """One recipe applied to one model, round by round."""

    def __init__(self, model: Model, recipe: Recipe, stats: Stats, recall: Recall) -> None:
        self.model, self.stats, self.recall = model, stats, recall
        self.chosen = choices(model, recipe)
        self.gates = gates(model)
        self.groups = additive_groups(model)
        self.carriers = bias_carriers(model, self.chosen)
        self.reduced = reduce(model, recipe, stats)
        self.wanted = {n: self.reduced.kept_rows(n) for n in model.weights}
        self.matrices = {n: self.reduced.matrix(n) for n in model.weights}
        self.windows = {p.weight: p.windows for p in build_program(model).products.values()}
        self.blocks = {
            n: c.structure.plan(*self.matrices[n].shape)[0].geometry.block
            if self.windows[n] is None
            else 1
            for n, c in self.chosen.items()
        }
        self.links = {n: self._link(n, self.blocks[n]) for n in self.chosen}
        self.aware = [g for g in self.groups if any(self.chosen[n].data_aware for n in g)]
        for group in self.aware:
            inputs = sum(self.wanted[n].shape[1] for n in group)
            check_inputs(f"fitted to data, {', '.join(group)} would see", inputs)

    def moments(self, inputs: Mapping[str, Array]) -> dict[Group, _Seen]:
        """Moments of every group with a data-aware weight, given what each product sees."""
        return {group: self._seen(group, self._pooled(group, inputs)) for group in self.aware}

    def first_moments(self, inputs: Mapping[str, Array]) -> dict[Group, _Seen]:
        """The same of what is replayed; recipes that differ in other things share it."""
        found = {}
        for group in self.aware:
            key = ("replayed", group, *(_replay_key(self.links[n], self.blocks[n]) for n in group))
            whole = all(self.reduced.sites[n] is self.stats.sites[n] for n in group)
            make = partial(self._pooled, group, inputs)
            found[group] = self._seen(group, self.recall(key, make) if whole else make())
        return found

    def _seen(self, group: Group, found: Arrays) -> _Seen:
        """Moments as `_pooled` gives them, with the places of the weights' columns."""
        wide = {n: self.wanted[n].shape[1] for n in group}
        narrow = {n: self.matrices[n].shape[1] for n in group}
        return _Seen(_slices(wide), _slices(narrow), *found)

    def _pooled(self, group: Group, inputs: Mapping[str, Array]) -> Arrays:
        """Means of the original and the compressed inputs, and the latter's covariances."""

        def original() -> Arrays:
            return _centred(self._multiplied(n, self.stats.sites[n].trace) for n in group)

        o, mean_o = self.recall(("original", group), original)
        c, mean_c = _centred(self._multiplied(n, inputs[n]) for n in group)
        return mean_o, mean_c, c.T @ c / len(c), o.T @ c / len(c)

    def _link(self, name: str, block: int) -> Link:
        """What enters a product that reads a weight's own input."""
        site, matrix = self.reduced.sites[name], self.matrices[name]
        return make_link(self.chosen[name], site, matrix, block, self.windows[name])

    def _multiplied(self, name: str, trace: Array) -> Array:
        """The vectors [n, in] that a weight is multiplied with, from a trace of what enters its product."""
        windows = self.windows[name]
        if windows is None:
            return trace
        rows = trace[:: -(-trace.shape[0] * windows.taps.size // FITTED)]
        return windows.gather(rows).reshape(-1, windows.taps.shape[1])

    def fit(
        self, seen: Mapping[Group, _Seen], before: Mapping[str, Array], inputs: Mapping[str, Array]
    ) -> Model:
        """Compress all weights, the data-aware ones by the moments of what they see.

        Args:
            before: the matrices that stood for the weights in the round before.
            inputs: what each product sees.
        """
        weights: dict[str, Weight] = {}
        for group in self.groups:
            weights |= self._fit_group(group, seen.get(group), before, inputs)
        return self.reduced.model.with_weights(weights)

    def _fit_group(
        self,
        group: Group,
        seen: _Seen | None,
        before: Mapping[str, Array],
        inputs: Mapping[str, Array],
    ) -> dict[str, Weight]:
        """Fit the largest weight first; each is fitted to what the sum of the group still lacks."""
        stand = {n: before[n] for n in group}
        weights: dict[str, Weight] = {}
        for name in sorted(group, key=lambda n: -self.matrices[n].size):
            choice, needs = self.chosen[name], None
            if seen is not None and choice.data_aware:
                needs = self._needs(name, group, seen, stand)
            problem = Fit(
                self.matrices[name],
                needs,
                choice.format,
                self.gates[name],
                self.links[name],
                thinned(self._multiplied(name, inputs[name])),
                partial(inner_link, choice.activation),
                partial(self._link, name),
            )
            weights[name] = choice.structure.fit_weight(problem)
            stand[name] = weights[name].dense()
        holder = next((n for n in group if self.carriers[n]), None)
        if holder is not None:
            bias = np.sum(
                [self.model.weights[n].bias_value()[self.reduced.rows[n]] for n in group], axis=0
            )
            if seen is not None:
                for name in group:
                    bias += self.wanted[name] @ seen.mean_o[seen.wide[name]]
                    bias -= stand[name] @ seen.mean_c[seen.narrow[name]]
            bits = bias_bits(self.chosen[holder].format.stored_bits)
            units = weights[holder].accumulator_scale()
            weights[holder] = weights[holder].with_bias(pack_bias(bias, units, bits))
        return {name: weights[name] for name in group}

    def _needs(self, name: str, group: Group, seen: _Seen, stand: Mapping[str, Array]) -> Moments:
        """What the weight `name` is fitted to: the group's original sum less its partners' products."""
        own = seen.narrow[name]
        target = sum(self.wanted[n] @ seen.cov_oc[seen.wide[n], own] for n in group)
        for partner in group:
            if partner != name:
                target = target - stand[partner] @ seen.cov_c[seen.narrow[partner], own]
        return Moments(seen.cov_c[own, own], np.asarray(target))

    def replayed(self) -> dict[str, Array]:
        """The first guess of what each product sees: the encoders run over the original trace."""
        return {
            name: replay(self.links[name], self.reduced.sites[name], self.blocks[name])[0]
            for name in self.model.weights
        }

    def observed(self, model: Model) -> tuple[dict[str, Array], float]:
        """Run a compressed network: what each product sees, and its divergence on calibration data."""
        run = execute(build_program(model), self.stats.sequences, capture=True)
        rows = divergences(model.output, self.stats.outputs, run.outputs)
        inputs = {name: run.inputs[f"{name}/0"] for name in model.weights}
        return inputs, mean_divergence(model.output, rows)


def compress(
    model: Model, recipe: Recipe, stats: Stats, recall: Recall | None = None
) -> Compression:
    """Apply a recipe without retraining.

    Data-aware choices are first fitted to the original network's own trace, replayed through the
    quantisers and encoders. Each of the recipe's recalibration rounds then runs the compressed
    network, captures what its products really see, and fits again to the moments pooled over all
    rounds so far (fitting to the latest alone oscillates); the best round by divergence on the
    calibration data is kept.

    Args:
        recall: what other compressions of the model by the same calibration left.

    Raises:
        UserError: a choice does not fit its weight, or a rule decides for no weight.
    """
    work = _Compressor(model, recipe, stats, Recall() if recall is None else recall)
    coverage = {n: "" if recipe.choice(n) is not None else UNNAMED for n in model.weights}
    inputs = work.replayed()
    candidate = work.fit(work.first_moments(inputs), work.matrices, inputs)
    if recipe.recalibrate == 0 or not work.aware:
        return Compression(candidate, coverage, ())
    inputs, least = work.observed(candidate)
    pooled = work.moments(inputs)
    best, rounds = candidate, [least]
    for number in range(1, recipe.recalibrate + 1):
        before = {n: w.dense() for n, w in candidate.weights.items()}
        candidate = work.fit(pooled, before, inputs)
        inputs, divergence = work.observed(candidate)
        rounds.append(divergence)
        if divergence < least:
            best, least = candidate, divergence
        if number < recipe.recalibrate:
            latest = work.moments(inputs)
            pooled = {g: pooled[g].blend(latest[g], 1 / (number + 1)) for g in pooled}
    return Compression(best, coverage, tuple(rounds))
