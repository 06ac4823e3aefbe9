"""What each choice adds to the divergence: predicted from calibration data, corrected by measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modelflex.compress import compress
from modelflex.compress.links import replay, thinned
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Choice, Recipe, Rule
from modelflex.core.stats import Stats

SLOT_SPREAD, PART_SPREAD, OWN_SPREAD, JOINT_SPREAD = 1.5, 0.6, 0.4, 0.7
"""Standard deviations, in log divergence, of what is not known beforehand: how much a whole weight
matters, what each of a choice's parts (structure, format, activity) does there, what is left, and
how far the errors of several weights do not add."""
NOISE = 0.1
"""Standard deviation of a measurement's log divergence that the model need not explain."""
SMALLEST = 1e-9


def predicted_divergences(
    model: Model, stats: Stats, candidates: Mapping[str, Sequence[Choice]]
) -> dict[str, Array]:
    """½·Σ_r importance_r·Var[δ_r] of every candidate [candidates] of every weight.

    δ is the error of the weight's result over the calibration trace once the weight is compressed and
    its input quantised (and held, under delta); its mean is left out, which the bias corrects.
    """
    found: dict[str, list[float]] = {name: [] for name in candidates}
    windows = {p.weight: p.windows for p in build_program(model).products.values()}
    for number in range(max(len(options) for options in candidates.values())):
        chosen = {n: c[number] for n, c in candidates.items() if number < len(c)}
        recipe = Recipe(tuple(Rule(name, choice) for name, choice in chosen.items()))
        made = compress(model, recipe, stats).model
        for name, choice in chosen.items():
            site, trained = stats.sites[name], model.weights[name].dense()
            own = windows[name]
            block = choice.structure.plan(*trained.shape)[0].geometry.block if own is None else 1
            held = thinned(replay(made.weights[name].links[0], site, block)[0])
            seen = thinned(site.trace)
            if own is not None:
                few = next(own.pieces(len(seen)))
                held, seen = own.gather(held[few]), own.gather(seen[few])
            error = held @ made.weights[name].dense().T - seen @ trained.T
            spread = error.reshape(-1, len(trained)).var(axis=0)
            found[name].append(0.5 * float(site.importance @ spread))
    return {name: np.array(values) for name, values in found.items()}


@dataclass(eq=False)
class Sensitivities:
    """A Gaussian belief about log d of every option, where a recipe's divergence is the reference's
    plus the sum of d over its options, times exp(g·(1 − Σ share²)).

    Attributes:
        slots: slot → how many options it has.
        prior: log d expected of every option, slots one after another.
        covariance: of that belief; the last row and column are those of g.
        floor: divergence of the reference.
    """

    slots: Mapping[str, int]
    prior: Array
    covariance: Array
    floor: float
    _seen: list[tuple[Array, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        sizes = list(self.slots.values())
        self._start = dict(zip(self.slots, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        self.mean, self.joint = self.prior.copy(), 0.0
        self.spread = np.sqrt(np.diag(self.covariance))[:-1]

    def position(self, slot: str, option: int) -> int:
        """Where an option stands in `mean` and `spread`."""
        return self._start[slot] + option

    def losses(self, slot: str) -> Array:
        """d of every option of a slot."""
        start = self._start[slot]
        return np.asarray(np.exp(self.mean[start : start + self.slots[slot]]))

    def predict(self, options: Array) -> float:
        """Divergence of a recipe with the options at these positions."""
        log_total, _, jointness = self._sum(self.mean, options)
        return float(np.exp(log_total + self.joint * jointness))

    def _sum(self, mean: Array, options: Array) -> tuple[float, Array, float]:
        parts = np.exp(mean[options])
        total = self.floor + float(parts.sum())
        shares = parts / total
        return float(np.log(total)), shares, 1.0 - float(np.sum(shares**2)) if len(shares) else 0.0

    def observe(self, options: Array, divergence: float) -> None:
        """Correct the belief by a measured divergence (Gauss–Newton to the most probable values)."""
        self._seen.append((options, float(np.log(max(divergence, SMALLEST)))))
        count, rows = self.prior.size, len(self._seen)
        at = np.concatenate([self.mean, [self.joint]])
        start = np.concatenate([self.prior, [0.0]])
        for _ in range(12):
            jacobian, residual = np.zeros((rows, count + 1)), np.zeros(rows)
            for row, (chosen, wanted) in enumerate(self._seen):
                log_total, shares, jointness = self._sum(at[:-1], chosen)
                jacobian[row, chosen], jacobian[row, -1] = shares, jointness
                residual[row] = wanted - log_total - at[-1] * jointness
            gain = self.covariance @ jacobian.T
            inside = jacobian @ gain + NOISE**2 * np.eye(rows)
            target = start + gain @ np.linalg.solve(inside, residual + jacobian @ (at - start))
            step = np.clip(target - at, -1.0, 1.0)
            at = at + step
            if np.abs(step).max() < 1e-4:
                break
        self.mean, self.joint = at[:-1], float(at[-1])
        left = np.diag(self.covariance) - np.einsum(
            "ij,ji->i", gain, np.linalg.solve(inside, gain.T)
        )
        self.spread = np.sqrt(np.maximum(left, 0.0))[:-1]


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
    covariance = np.zeros((prior.size + 1, prior.size + 1))
    start = 0
    for slot, count in slots.items():
        own = np.full((count, count), SLOT_SPREAD**2) + OWN_SPREAD**2 * np.eye(count)
        for kind in zip(*parts[slot], strict=True):
            same = np.array([[a == b for b in kind] for a in kind])
            own += PART_SPREAD**2 * same
        covariance[start : start + count, start : start + count] = own
        start += count
    covariance[-1, -1] = JOINT_SPREAD**2
    return Sensitivities(slots, prior, covariance, max(floor, SMALLEST))


def choice_parts(choice: Choice) -> tuple[str, ...]:
    """Structure, format and activity of a choice, as texts that compare."""
    values = choice.to_json()
    return tuple(
        json.dumps(values.get(k), sort_keys=True) for k in ("structure", "format", "activity")
    )
