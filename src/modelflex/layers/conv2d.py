"""Two-dimensional convolution over each step's image, and over a few steps before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from modelflex.core.extension import FeedForward, Namespace, Sizes
from modelflex.core.windows import MAX_TAPS, Windows
from modelflex.errors import UserError
from modelflex.registry import LAYERS


@final
class Conv2d(FeedForward):
    """y[f, p, q] = b[f] + Σ w[f, (c, i, j)]·x[c, p·stride + i − padding, q·stride + j − padding].

    A step's input is an image [channels, height, width], row by row; its result [filters, H, W]. With
    `frames` = n the channels are those of the last n steps, the oldest first (zeros before the first),
    so that the kernel reaches over time too. The kernel `w` is [filters, frames·channels·kernel_height·
    kernel_width]; it is stored, and fetched in a run, once for all positions. The vector that is
    encoded is the image, so delta sends the pixels that changed (Parger et al., DeltaCNN, CVPR 2022).
    `beside` = m elements behind the image (what else a step brings) stand behind the result as they are.
    """

    reference = (
        "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
    )
    options = {
        "channels": 1,
        "height": None,
        "width": None,
        "filters": None,
        "kernel_height": None,
        "kernel_width": None,
        "stride_height": 1,
        "stride_width": 1,
        "padding_height": 0,
        "padding_width": 0,
        "frames": 1,
        "beside": 0,
    }
    examples = (
        Sizes(
            10, 15, {"height": 1, "width": 10, "filters": 3, "kernel_height": 1, "kernel_width": 4,
                     "stride_width": 2, "padding_width": 1, "frames": 3}
        ),
        Sizes(
            24, 16, {"channels": 2, "height": 4, "width": 3, "filters": 4, "kernel_height": 2,
                     "kernel_width": 2, "stride_height": 2, "padding_height": 0}
        ),
        Sizes(
            9, 8, {"height": 3, "width": 3, "filters": 8, "kernel_height": 3, "kernel_width": 3}
        ),
        Sizes(
            11, 8, {"height": 3, "width": 3, "filters": 3, "kernel_height": 2, "kernel_width": 3,
                    "beside": 2, "frames": 2}
        ),
    )  # fmt: skip

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, int]]:
        _check(sizes)
        return {"w": (sizes["filters"], _columns(sizes))}

    def past(self, sizes: Sizes) -> int:
        return max(sizes["frames"] - 1, 0)

    def apply(self, F: Namespace, x: Any, params: Mapping[str, Any], sizes: Sizes) -> Any:
        beside = sizes["beside"]
        if not beside:
            return params["w"](x, windows(sizes))
        image, steps = sizes.inputs - beside, F.split(x, sizes["frames"])
        images = F.concat([F.slice(step, 0, image) for step in steps])
        passed = F.slice(steps[-1], image, sizes.inputs)
        return F.concat((params["w"](images, windows(sizes)), passed))


def _columns(sizes: Sizes) -> int:
    """Inputs of the kernel."""
    taps = sizes["kernel_height"] * sizes["kernel_width"]
    return sizes["frames"] * sizes["channels"] * taps


def _extent(sizes: Sizes, side: str) -> int:
    """Positions of the kernel along a side ("height" or "width")."""
    room = sizes[side] + 2 * sizes[f"padding_{side}"] - sizes[f"kernel_{side}"]
    return room // sizes[f"stride_{side}"] + 1 if room >= 0 else 0


def _check(sizes: Sizes) -> None:
    for name, value in sizes.options.items():
        if value < 1 and not name.startswith(("padding", "beside")):
            raise UserError(f"{name} of a conv2d layer is {value}", "at least 1")
    image, beside = sizes["channels"] * sizes["height"] * sizes["width"], sizes["beside"]
    more = f" + {beside} beside" if beside else ""
    if sizes.inputs != image + beside:
        raise UserError(
            f"a conv2d layer has {sizes.inputs} inputs",
            f"{image + beside} = {sizes['channels']} channels × {sizes['height']} × "
            f"{sizes['width']}{more}",
        )
    for side in ("height", "width"):
        if sizes[f"padding_{side}"] >= sizes[f"kernel_{side}"]:
            raise UserError(
                f"padding_{side} of a conv2d layer is {sizes[f'padding_{side}']}",
                f"less than kernel_{side}, {sizes[f'kernel_{side}']}",
            )
    high, wide = _extent(sizes, "height"), _extent(sizes, "width")
    if sizes.units != sizes["filters"] * high * wide + beside or not high * wide:
        raise UserError(
            f"a conv2d layer has {sizes.units} units",
            f"{sizes['filters']} filters × {high} × {wide} positions{more}",
        )
    if high * wide * _columns(sizes) > MAX_TAPS:
        raise UserError(
            f"a conv2d layer has {high * wide} positions of {_columns(sizes)} inputs",
            f"at most {MAX_TAPS} in all",
        )


def windows(sizes: Sizes) -> Windows:
    """Where the kernel is applied to the stacked images [frames·channels, height, width]."""
    channels = sizes["frames"] * sizes["channels"]
    high, wide = sizes["height"], sizes["width"]
    rows, columns = (
        np.arange(_extent(sizes, side))[:, None] * sizes[f"stride_{side}"]
        - sizes[f"padding_{side}"]
        + np.arange(sizes[f"kernel_{side}"])
        for side in ("height", "width")
    )
    # Axes: positions down and across, channel, and place in the kernel down and across.
    y, x = rows[:, None, None, :, None], columns[None, :, None, None, :]
    taps = np.arange(channels)[:, None, None] * (high * wide) + y * wide + x
    inside = (y >= 0) & (y < high) & (x >= 0) & (x < wide)
    taps = np.where(inside, taps, -1)
    return Windows(taps.reshape(-1, _columns(sizes)), channels * high * wide)


LAYERS.register("conv2d")(Conv2d())
