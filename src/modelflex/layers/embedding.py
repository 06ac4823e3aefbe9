"""Embedding: a vector of its own for every symbol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace, Sizes, check_symbols
from modelflex.registry import LAYERS


@final
class Embedding(FeedForward):
    """y = A·e_x + b for the symbol x = 0 … symbols − 1: a column of the weight `w` [units, symbols].

    It is a product like any other, so every structure and format stores it; one column is fetched.
    """

    reference = "Bengio et al., A Neural Probabilistic Language Model, JMLR 3, 2003"
    options = {"symbols": None}
    examples = (Sizes(1, 8, {"symbols": 12}),)

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        check_symbols("embedding", sizes.inputs, sizes["symbols"])
        return {"w": (sizes.units, sizes["symbols"])}

    def past(self, sizes: Sizes) -> int:
        return 0

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        return params["w"](F.one_hot(x, sizes["symbols"]))


LAYERS.register("embedding")(Embedding())
