"""What each choice adds to the divergence: predicted from calibration data, corrected by measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelflex.compress import compress
from modelflex.compress.links import replay, thinned
from modelflex.compress.reduction import reduce
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Choice, LayerRule, Recipe, Rule
from modelflex.core.stats import Stats

COMMON_SPREAD, SLOT_SPREAD, PART_SPREAD, OWN_SPREAD, JOINT_SPREAD = 1.0, 1.2, 0.6, 0.4, 0.7
"""Standard deviations, in log divergence, of what is not known beforehand: how far the prediction is
off for the whole network, and for a whole weight; what each of a choice's parts (structure, format,
activity) does there, what is left, and how far the errors of several weights do not add."""
CROWDING, CROWDING_SPREAD = 1.0, 0.7
"""The power of units / kept units with which the loss of a weight grows once units were removed: what
is left is less redundant. Expected, and its standard deviation."""
NOISE, JOINT_NOISE = 0.1, 0.25
"""Standard deviations of a measurement's log divergence that the model need not explain, alone and
together with other options."""
SMALLEST = 1e-9


def predicted_divergences(
    model: Model,
    stats: Stats,
    candidates: Mapping[str, Sequence[Choice]],
    layers: tuple[LayerRule, ...] = (),
) -> dict[str, Array]:
    """½·Σ_r importance_r·Var[δ_r] of every candidate [candidates] of every weight.

    δ is the error of the weight's result over the calibration trace once the weight is compressed and
    its input quantised (and held, under delta); its mean is left out, which the bias corrects.

    Args:
        layers: rules that remove units, where δ is of what they leave.
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    windows = {p.weight: p.windows for p in build_program(model).products.values()}
    for number in range(max(len(options) for options in candidates.values())):
        chosen = {n: c[number] for n, c in candidates.items() if number < len(c)}
        rules = tuple(Rule(name, choice) for name, choice in chosen.items())
        recipe = Recipe(rules, layers=layers)
        made, left = compress(model, recipe, stats).model, reduce(model, recipe, stats)
        for name, choice in chosen.items():
            site, trained = left.sites[name], np.ascontiguousarray(left.matrix(name))
            own = windows[name]
            block = choice.structure.plan(*trained.shape)[0].geometry.block if own is None else 1
            held = thinned(replay(made.weights[name].links[0], site, block)[0])
            seen = thinned(site.trace)
            if own is not None:
                few = next(own.pieces(len(seen)))
                held, seen = own.gather(held[few]), own.gather(seen[few])
            error = held @ made.weights[name].dense().T - seen @ trained.T
            spread = error.reshape(-1, len(trained)).var(axis=0)
            found[name].append(0.5 * float(site.importance[left.rows[name]] @ spread))
    return {name: np.array(values) for name, values in found.items()}


@dataclass(frozen=True, eq=False)
class Chosen:
    """The options of a recipe: their positions in the belief, and for each the log of units over kept
    units of the layers that it touches.
    """

    options: Array
    crowding: Array


@dataclass(eq=False)
class Sensitivities:
    """A Gaussian belief about log d of every option. A recipe's divergence is the reference's plus
    the sum of d·exp(p·crowding) over its options, times exp(g·(1 − Σ share²)).

    Attributes:
        slots: slot → how many options it has.
        prior: what is expected of log d of every option, slots one after another, of g and of p.
        covariance: of that belief.
        floor: divergence of the reference.
        mean, spread: what is believed now, and its standard deviations.
    """

    slots: Mapping[str, int]
    prior: Array
    covariance: Array
    floor: float
    _seen: list[tuple[Chosen, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = list(self.slots.values())
        self._start = dict(zip(self.slots, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self.mean, self.spread = self.prior.copy(), np.sqrt(np.diag(self.covariance))

    def position(self, slot: str, option: int) -> int:
        """Where an option stands in `mean` and `spread`."""
        return self._start[slot] + option

    def losses(self, slot: str, crowding: float = 0.0) -> Array:
        """d of every option of a slot."""
        start = self._start[slot]
        logs = self.mean[start : start + self.slots[slot]]
        return np.asarray(np.exp(logs + self.mean[-1] * crowding))

    def predict(self, chosen: Chosen) -> float:
        """Divergence of a recipe."""
        log_total, _, jointness = self._sum(self.mean, chosen)
        return float(np.exp(log_total + self.mean[-2] * jointness))

    def doubts(self, chosen: Chosen) -> Array:
        """What is not known of each option of a recipe, as it shows in its log divergence."""
        _, shares, _ = self._sum(self.mean, chosen)
        return self.spread[chosen.options] * shares

    def _sum(self, mean: Array, chosen: Chosen) -> tuple[float, Array, float]:
        """Log of the sum, the options' shares of it, and 1 − Σ share²."""
        parts = np.exp(mean[chosen.options] + mean[-1] * chosen.crowding)
        total = self.floor + float(parts.sum())
        shares = parts / total
        return float(np.log(total)), shares, 1.0 - float(np.sum(shares**2))

    def observe(self, chosen: Chosen, divergence: float) -> None:
        """Correct the belief by a measured divergence (Gauss–Newton to the most probable values)."""
        self._seen.append((chosen, float(np.log(max(divergence, SMALLEST)))))
        rows = len(self._seen)
        at = self.mean
        for _ in range(20):
            jacobian, residual = np.zeros((rows, at.size)), np.zeros(rows)
            noise = np.full(rows, NOISE)
            for row, (seen, wanted) in enumerate(self._seen):
                log_total, shares, jointness = self._sum(at, seen)
                jacobian[row, seen.options] = shares
                jacobian[row, -2:] = jointness, float(shares @ seen.crowding)
                residual[row] = wanted - log_total - at[-2] * jointness
                if seen.options.size > 1:
                    noise[row] = JOINT_NOISE
            gain = self.covariance @ jacobian.T
            inside = jacobian @ gain + np.diag(noise**2)
            towards = residual + jacobian @ (at - self.prior)
            step = np.clip(self.prior + gain @ np.linalg.solve(inside, towards) - at, -0.7, 0.7)
            at = at + step
            if np.abs(step).max() < 1e-4:
                break
        self.mean = at
        known = np.einsum("ij,ji->i", gain, np.linalg.solve(inside, gain.T))
        self.spread = np.sqrt(np.maximum(np.diag(self.covariance) - known, 0.0))


def believe(
    expected: Mapping[str, Array], parts: Mapping[str, Sequence[Sequence[str]]], floor: float
) -> Sensitivities:
    """The belief before anything is measured.

    Args:
        expected: slot → d expected of every option.
        parts: slot → what each option is made of; options that share a part are alike in it.
        floor: divergence of the reference.
    """
    slots = {slot: values.size for slot, values in expected.items()}
    prior = np.log(np.maximum(np.concatenate(list(expected.values())), SMALLEST))
    covariance = np.full((prior.size + 2, prior.size + 2), COMMON_SPREAD**2)
    covariance[-2:], covariance[:, -2:] = 0.0, 0.0
    start = 0
    for slot, count in slots.items():
        own = np.full((count, count), SLOT_SPREAD**2) + OWN_SPREAD**2 * np.eye(count)
        for kind in zip(*parts[slot], strict=True):
            same = np.array([[a == b for b in kind] for a in kind])
            own += PART_SPREAD**2 * same
        covariance[start : start + count, start : start + count] += own
        start += count
    covariance[-2, -2], covariance[-1, -1] = JOINT_SPREAD**2, CROWDING_SPREAD**2
    prior = np.concatenate([prior, [0.0, CROWDING]])
    return Sensitivities(slots, prior, covariance, max(floor, SMALLEST))


def choice_parts(choice: Choice) -> tuple[str, ...]:
    """Structure, format and activity of a choice, as texts that compare."""
    values = choice.to_json()
    return tuple(
        json.dumps(values.get(k), sort_keys=True) for k in ("structure", "format", "activity")
    )
