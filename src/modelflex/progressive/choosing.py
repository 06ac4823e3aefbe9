"""How weights become terms and how many are used: for a quality the cheapest, for a limit the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.ladder import Ladder, Rung
from modelflex.core.model import Model
from modelflex.evaluate import Task
from modelflex.progressive.climbing import climb, operations
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.progressive.tuning import Tell, rungs_near, tune

Price = Callable[[Model, Mapping[str, int]], float]
"""(refined model, weight → terms) → what a step costs, such as operations or seconds."""


@final
@dataclass(frozen=True)
class Target:
    """What is wanted of a step; exactly one of both.

    Attributes:
        quality: the divergence that must not be exceeded, at the least price.
        limit: the price that must not be exceeded, at the least divergence.
    """

    quality: float | None = None
    limit: float | None = None

    def better(self, offer: Offer) -> tuple[bool, float, float]:
        """A key by which the better of two offers is the smaller."""
        if self.quality is not None:
            return offer.rung.divergence > self.quality, offer.price, offer.rung.divergence
        limit = float("inf") if self.limit is None else self.limit
        return offer.price > limit, offer.rung.divergence, offer.price


@final
@dataclass(frozen=True, eq=False)
class Offer:
    """A refined network, and the rung of its ladder that serves the target best.

    Attributes:
        settings: weight → how it became terms.
        rung: the cheapest that reaches the quality, or the best within the limit; where there is none, the
            last, or the first.
        price: of that rung.
        met: whether the target is.
        tuning_steps: in which all terms were fitted together; 0 where they are as their settings made them.
    """

    settings: Mapping[str, Refinement]
    model: Model
    ladder: Ladder
    rung: Rung
    price: float
    met: bool
    tuning_steps: int = 0

    @property
    def label(self) -> str:
        """The settings in short."""
        names = "; ".join(dict.fromkeys(s.label for s in self.settings.values()))
        return f"{names}, tuned" if self.tuning_steps else names


def choose(
    refiner: Refiner,
    original: Array,
    judged: Sequences,
    settings: Sequence[Refinement],
    target: Target,
    price: Price,
    task: Task | None = None,
) -> list[Offer]:
    """Offers, the best first: every setting for all weights, and the best of single weights together.

    Weight after weight, the settings are tried against the best offer so far and kept where they are
    better, so that layers may differ.

    Args:
        original: outputs of the network with dense weights on `judged` [ΣT or N, K].
        judged: data apart from those that the refiner saw.
    """

    def offer(chosen: Mapping[str, Refinement]) -> Offer:
        model = refiner.refined(chosen)
        return _offer(chosen, model, climb(model, original, judged, task), target, price)

    made: dict[tuple[Refinement, ...], Offer] = {}

    def tried(chosen: Mapping[str, Refinement]) -> Offer:
        key = tuple(chosen[name] for name in refiner.weights)
        if key not in made:
            made[key] = offer(chosen)
        return made[key]

    for setting in settings:
        tried(dict.fromkeys(refiner.weights, setting))
    for name in refiner.weights:
        best = min(made.values(), key=target.better)
        for setting in settings:
            tried({**best.settings, name: setting})
    return sorted(made.values(), key=target.better)


def tuned(
    offer: Offer,
    refiner: Refiner,
    pilot: Sequences,
    original: Array,
    judged: Sequences,
    target: Target,
    price: Price,
    steps: int,
    task: Task | None = None,
    tell: Tell = lambda done, total: None,
) -> Offer:
    """An offer with its terms fitted together, for the quality that is wanted or that its limit allows;
    the same offer where no rung is near that. See `fit_together` and `choose`.
    """
    quality = offer.rung.divergence if target.quality is None else target.quality
    given = offer.model, pilot, offer.ladder, quality, steps, tell
    model = fit_together(refiner, offer.settings, *given)
    if model is offer.model:
        return offer
    ladder = climb(model, original, judged, task)
    return replace(_offer(offer.settings, model, ladder, target, price), tuning_steps=steps)


def fit_together(
    refiner: Refiner,
    settings: Mapping[str, Refinement],
    model: Model,
    pilot: Sequences,
    ladder: Ladder,
    quality: float,
    steps: int,
    tell: Tell = lambda done, total: None,
) -> Model:
    """A refined network whose first terms are tuned, as many as rungs near the quality have, and
    followed by terms that lead to the dense network again; see `tune` and `Refiner.completed`.
    """
    rungs = rungs_near(ladder, quality)
    if not rungs:
        return model
    made = tune(model, refiner.source, pilot, ladder, quality, steps, tell=tell)
    return refiner.completed(
        made, settings, {name: max(1, *(r.terms[name] for r in rungs)) for name in settings}
    )


def _offer(
    settings: Mapping[str, Refinement], model: Model, ladder: Ladder, target: Target, price: Price
) -> Offer:
    prices = {id(rung): price(model, rung.terms) for rung in ladder.rungs}
    if target.quality is not None:
        rung = ladder.reaching(target.quality)
        met = rung is not None
        rung = ladder.rungs[-1] if rung is None else rung
    else:
        limit = float("inf") if target.limit is None else target.limit
        within = [rung for rung in ladder.rungs if prices[id(rung)] <= limit]
        met = bool(within)
        rung = min(within, key=lambda r: r.divergence) if within else ladder.rungs[0]
    return Offer(settings, model, ladder, rung, prices[id(rung)], met)


def operations_price(model: Model, terms: Mapping[str, int]) -> float:
    """Multiplications and additions of the terms a step."""
    return float(operations(model, terms))
