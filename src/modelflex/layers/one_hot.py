"""Symbols as vectors: a 1 at the symbol's number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace, Sizes, check_symbols
from modelflex.registry import LAYERS


@final
class OneHot(FeedForward):
    """The input is the number of a symbol, 0 … units − 1.

    A product that reads the result multiplies, and fetches, one column.
    """

    reference = (
        "Graves, Generating Sequences With Recurrent Neural Networks, 2013 (arXiv 1308.0850)"
    )
    options = {}
    examples = (Sizes(1, 6),)

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        check_symbols("one_hot", sizes.inputs, sizes.units)
        return {}

    def past(self, sizes: Sizes) -> int:
        return 0

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        return F.one_hot(x, sizes.units)


LAYERS.register("one_hot")(OneHot())
