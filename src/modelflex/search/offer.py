"""Which candidates fit what is left of each weight, in every combination of layer sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.recipe import Choice
from modelflex.errors import UserError
from modelflex.search.pricing import Pricer

Selection = tuple[int, ...]
"""The number of the option of each slot: weights, then layers; −1 for the reference."""
Shape = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Offer:
    """What may be chosen in which layer sizes.

    Attributes:
        candidates: weight → its choices that fit it in some layer sizes.
        fitting: layer sizes → weight → numbers of the candidates that fit what is left of it.
        sizes: the layer sizes in which every weight has one.
        notes: what is not offered, and why.
    """

    candidates: Mapping[str, Sequence[Choice]]
    fitting: Mapping[Selection, Mapping[str, Array]]
    sizes: tuple[Selection, ...]
    notes: tuple[str, ...]


def make_offer(
    pricer: Pricer,
    given: Mapping[str, Sequence[Choice]],
    shapes: Mapping[Selection, Mapping[str, Shape]],
) -> Offer:
    """Sort candidates by whether they fit.

    Args:
        given: weight → its choices.
        shapes: layer sizes → weight → what is left of it, [out, in].

    Raises:
        UserError: no choice fits some weight, in any or in all layer sizes at once.
    """
    reasons: dict[tuple[str, Shape], list[str]] = {}
    for left in shapes.values():
        for name, choices in given.items():
            key = (name, left[name])
            if key not in reasons:
                reasons[key] = [pricer.misfit(*key, choice) for choice in choices]
    kept = {name: _fit_somewhere(name, reasons) for name in given}
    fitting = {
        size: {
            name: np.flatnonzero([not reasons[name, left[name]][i] for i in numbers])
            for name, numbers in kept.items()
        }
        for size, left in shapes.items()
    }
    sizes = tuple(s for s, found in fitting.items() if all(n.size for n in found.values()))
    if not sizes:
        raise UserError(
            "every combination of layer sizes has a weight that no choice fits",
            "one that leaves a choice to all weights",
        )
    candidates = {name: [given[name][i] for i in numbers] for name, numbers in kept.items()}
    return Offer(candidates, fitting, sizes, tuple(_notes(reasons)))


def _fit_somewhere(name: str, reasons: Mapping[tuple[str, Shape], Sequence[str]]) -> list[int]:
    """Numbers of the choices that fit the weight in some layer sizes."""
    own = [found for (weight, _), found in reasons.items() if weight == name]
    kept = [i for i, tried in enumerate(zip(*own, strict=True)) if not all(tried)]
    if not kept:
        raise UserError(
            f"no choice that is given for '{name}' fits it ({own[0][0]})",
            "at least one that does, such as a dense one",
        )
    return kept


def _notes(reasons: Mapping[tuple[str, Shape], Sequence[str]]) -> list[str]:
    notes = []
    for (name, (out, inputs)), found in reasons.items():
        for reason, count in Counter(filter(None, found)).items():
            notes.append(
                f"{name} of {out}×{inputs}: {count} of {len(found)} choices are not offered ({reason})"
            )
        if all(found):
            notes.append(f"layer sizes that leave {name} of {out}×{inputs} are not offered")
    return notes
