"""What compressions of one model by the same calibration data share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from modelflex.core.fixed import Array

KEPT_BYTES = 1 << 26
"""Memory of what is kept, at most."""

Arrays = tuple[Array, ...]


class Recall:
    """Arrays that many recipes need, worked out once; the latest used are kept.

    It serves one model and its calibration. Copies, such as those of other processes, start empty.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._limit, self._bytes = kept_bytes, 0
        self._kept: OrderedDict[Hashable, Arrays] = OrderedDict()

    def __reduce__(self) -> tuple[type[Recall], tuple[int]]:
        return Recall, (self._limit,)

    def __call__(self, key: Hashable, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of a key, made where they are not kept; they must not be changed."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = make()
        self._kept[key] = made
        self._bytes += _nbytes(made)
        while self._bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= _nbytes(dropped)
        return made


def _nbytes(arrays: Arrays) -> int:
    return sum(a.nbytes for a in arrays)
