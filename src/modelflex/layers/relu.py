"""Rectified linear units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace, Sizes
from modelflex.errors import UserError
from modelflex.registry import LAYERS


@final
class ReLU(FeedForward):
    """y = max(x, 0)."""

    reference = (
        "Nair & Hinton, Rectified Linear Units Improve Restricted Boltzmann Machines, ICML 2010"
    )
    options = {}
    examples = (Sizes(8, 8),)

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        if sizes.inputs != sizes.units:
            raise UserError(f"a relu layer has {sizes.inputs} inputs, {sizes.units} units", "equal")
        return {}

    def past(self, sizes: Sizes) -> int:
        return 0

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        return F.relu(x)


LAYERS.register("relu")(ReLU())
