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
    """One for every reason for which choices are not offered for a weight, whatever its sizes."""
    missed: dict[tuple[str, str], Counter[str]] = {}
    nothing: dict[str, list[str]] = {}
    counts = {name: len(found) for (name, _), found in reasons.items()}
    for (name, (out, inputs)), found in reasons.items():
        size = f"{out}×{inputs}"
        for reason in filter(None, found):
            missed.setdefault((name, reason), Counter())[size] += 1
        if all(found):
            nothing.setdefault(name, []).append(size)
    return [
        *(
            f"{name} of {_few(list(sizes))}: {max(sizes.values())} of {counts[name]} choices are not "
            f"offered ({reason})"
            for (name, reason), sizes in missed.items()
        ),
        *(
            f"layer sizes that leave {name} of {_few(sizes)} are not offered"
            for name, sizes in nothing.items()
        ),
    ]


def _few(sizes: Sequence[str]) -> str:
    """The first sizes of a list, and how many more there are."""
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    return ", ".join(sizes[:3]) + more
