"""The dense layer: one affine map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace, Sizes
from modelflex.registry import LAYERS


@final
class Dense(FeedForward):
    """y = A·x + b. The weight is called `w`."""

    reference = "an affine map; the output layer of most recurrent classifiers"
    options = {}
    examples = (Sizes(8, 8), Sizes(5, 12))

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        return {"w": (sizes.units, sizes.inputs)}

    def past(self, sizes: Sizes) -> int:
        return 0

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        return params["w"](x)


LAYERS.register("dense")(Dense())
