"""The dense layer: one affine map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace
from modelflex.registry import LAYERS


@final
class Dense(FeedForward):
    """y = A·x + b. The weight is called `w`."""

    reference = "an affine map; the output layer of most recurrent classifiers"

    def shapes(self, inputs: int, units: int) -> dict[str, tuple[int, int]]:
        return {"w": (units, inputs)}

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any]) -> Any:
        return params["w"](x)


LAYERS.register("dense")(Dense())
