"""The configurations that a method's search range stands for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from modelflex.core.extension import Structure
from modelflex.errors import UserError

QUARTERS = 4


def is_interval(values: Sequence[Any]) -> bool:
    """Whether a field's range is an interval: two floats, its ends."""
    return len(values) == 2 and all(isinstance(v, float) for v in values)


def spread(values: Sequence[Any]) -> tuple[Any, ...]:
    """The values of a field's range; of an interval its ends and quarters."""
    if not is_interval(values):
        return tuple(values)
    low, high = values
    return tuple(low + (high - low) * i / QUARTERS for i in range(QUARTERS + 1))


def configurations(kind: Any) -> list[Any]:
    """Every configuration of a method's search range, each once."""
    return _made(kind, itertools.product(*map(spread, kind.search_range.values())))


def one_at_a_time(kind: Any) -> list[Any]:
    """Configurations of a method in which only the first field of its range and one other vary."""
    ranges = [spread(values) for values in kind.search_range.values()]
    return _made(kind, _one_at_a_time(ranges))


def _one_at_a_time(ranges: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    if not ranges:
        yield ()
        return
    leading, *others = ranges
    first = tuple(values[0] for values in others)
    for value in leading:
        yield (value, *first)
    for i, values in enumerate(others):
        for other, value in itertools.product(values[1:], leading):
            yield (value, *first[:i], other, *first[i + 1 :])


def _made(kind: Any, chosen: Iterator[tuple[Any, ...]]) -> list[Any]:
    made = (kind(**dict(zip(kind.search_range, values, strict=True))) for values in chosen)
    return list(dict.fromkeys(made))


def fits(structure: Structure, shape: tuple[int, int]) -> bool:
    """Whether a structure can hold a weight [out, in] of this shape."""
    try:
        structure.plan(*shape)
    except UserError:
        return False
    return True
