"""One-dimensional convolution over time: causal, so that it runs step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from modelflex.core.extension import FeedForward, Namespace, Sizes
from modelflex.errors import UserError
from modelflex.registry import LAYERS


@final
class Conv1d(FeedForward):
    """y_t = b + Σ_i w_i·x_(t − (kernel−1−i)·dilation), with zeros before the first step.

    The weight `w` is [units, kernel·inputs], w_0 … w_(kernel−1) side by side: the oldest step first.
    """

    reference = "van den Oord et al., WaveNet, 2016 (arXiv 1609.03499): causal dilated convolutions"
    options = {"kernel": None, "dilation": 1}
    examples = (Sizes(4, 8, {"kernel": 3}), Sizes(3, 6, {"kernel": 2, "dilation": 3}))

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        for name, value in sizes.options.items():
            if value < 1:
                raise UserError(f"{name} of a conv1d layer is {value}", "at least 1")
        return {"w": (sizes.units, sizes["kernel"] * sizes.inputs)}

    def past(self, sizes: Sizes) -> int:
        return (sizes["kernel"] - 1) * sizes["dilation"]

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        steps = F.split(x, self.past(sizes) + 1)
        return params["w"](F.concat(steps[:: sizes["dilation"]]))


LAYERS.register("conv1d")(Conv1d())
