"""What a systolic array is given to do: a matrix product, or a convolution that becomes one.

A convolution is a product of the im2col matrix of its input (ifmap, M×K) and its filters (K×N): M
output pixels, K the words of one window, N filters. Windows overlap, so the ifmap has fewer
distinct words than M·K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

MAX_WORDS = 2**40
"""Largest operand or result, in words."""
MAX_MACS = 2**52
"""Most multiplications of a layer: all counts then stay exact in 64 bits, shares in floating point."""


class Shape(NamedTuple):
    """The counts of a layer, or of many at once; all but `ifmap_slice` are arrays that broadcast.

    Attributes:
        m, n, k: ifmap M×K, filter K×N, ofmap M×N.
        ifmap_words: distinct words of the ifmap that are read.
        ifmap_slice: (pixels, terms) → at most so many distinct words lie in `pixels` adjacent rows
            of the ifmap, `terms` of each.
    """

    m: Array
    n: Array
    k: Array
    ifmap_words: Array
    ifmap_slice: Callable[[Array, Array], Array]


def gemm_shape(m: Array, n: Array, k: Array) -> Shape:
    """Products whose sizes are arrays; nothing is checked."""

    def words(pixels: Array, terms: Array) -> Array:
        return np.minimum(pixels, m) * np.minimum(terms, k)

    return Shape(m, n, k, np.asarray(m * k), words)


class Workload(Protocol):
    """One layer of a network."""

    @property
    def name(self) -> str:
        """Of the layer."""

    @property
    def shape(self) -> Shape:
        """Its counts, as 64-bit integers."""


@dataclass(frozen=True)
class Gemm:
    """A matrix product.

    Raises:
        UserError: a size below 1, or a product that is too large to count.
    """

    name: str
    m: int
    n: int
    k: int

    def __post_init__(self) -> None:
        _check(self, {"M": self.m, "N": self.n, "K": self.k})

    @property
    def shape(self) -> Shape:
        return gemm_shape(*(np.array(size) for size in (self.m, self.n, self.k)))


@dataclass(frozen=True)
class Convolution:
    """A convolution without padding; windows that do not fit whole into the input are dropped.

    Attributes:
        height, width, channels: of the input, padding included.
        filter_height, filter_width, filters: the windows, and how many of them.
        stride_height, stride_width: from one window to the next.
        batch: inputs that the same filters see.

    Raises:
        UserError: a size below 1, a filter larger than the input, or one too large to count.
    """

    name: str
    height: int
    width: int
    filter_height: int
    filter_width: int
    channels: int
    filters: int
    stride_height: int = 1
    stride_width: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        sizes = {
            "input height": self.height, "input width": self.width,
            "filter height": self.filter_height, "filter width": self.filter_width,
            "channels": self.channels, "filters": self.filters,
            "stride": min(self.stride_height, self.stride_width), "batch": self.batch,
        }  # fmt: skip
        for what, size, limit in (
            ("height", self.filter_height, self.height),
            ("width", self.filter_width, self.width),
        ):
            if 1 <= limit < size:
                raise UserError(
                    f"layer '{self.name}': the filter's {what} is {size}, the input's {limit}",
                    "a filter that fits into the input",
                )
        _check(self, sizes)

    @property
    def output_height(self) -> int:
        """⌊(H − r)/s⌋ + 1."""
        return (self.height - self.filter_height) // self.stride_height + 1

    @property
    def output_width(self) -> int:
        """⌊(W − q)/s⌋ + 1."""
        return (self.width - self.filter_width) // self.stride_width + 1

    @property
    def m(self) -> int:
        return self.batch * self.output_height * self.output_width

    @property
    def n(self) -> int:
        return self.filters

    @property
    def k(self) -> int:
        return self.filter_height * self.filter_width * self.channels

    @property
    def shape(self) -> Shape:
        rows = _covered(self.output_height, self.filter_height, self.stride_height)
        columns = _covered(self.output_width, self.filter_width, self.stride_width)
        words = np.array(self.batch * rows * columns * self.channels)

        def slice_words(pixels: Array, terms: Array) -> Array:
            pixels = np.minimum(pixels, self.m)
            # Adjacent pixels may begin and end within a row of the output, or in another input.
            rows = np.minimum((pixels - 2) // self.output_width + 2, self.m // self.output_width)
            inputs = np.minimum((pixels - 2) // (self.m // self.batch) + 2, self.batch)
            next_row = min(self.stride_height, self.filter_height)
            span = (rows - inputs) * next_row + inputs * self.filter_height
            band = span * columns * self.channels
            return np.minimum(pixels * np.minimum(terms, self.k), band)

        return Shape(np.array(self.m), np.array(self.n), np.array(self.k), words, slice_words)


def batched(layer: Workload, batch: int) -> Workload:
    """The layer for `batch` inputs at once.

    Raises:
        UserError: a batch below 1, or a layer that becomes too large to count.
    """
    if isinstance(layer, Gemm):
        if batch < 1:
            raise UserError(f"the batch is {batch}", "a whole number above zero")
        return replace(layer, m=layer.m * batch)
    if isinstance(layer, Convolution):
        return replace(layer, batch=batch)
    raise UserError(f"layer '{layer.name}' has no batch", "a product or a convolution")


def _covered(outputs: int, size: int, stride: int) -> int:
    """Rows (or columns) of the input that some window covers."""
    return (outputs - 1) * min(stride, size) + size


def _check(workload: Gemm | Convolution, sizes: dict[str, int]) -> None:
    for what, size in sizes.items():
        if size < 1:
            raise UserError(
                f"layer '{workload.name}': {what} is {size}", "a whole number above zero"
            )
    m, n, k = workload.m, workload.n, workload.k
    if max(m * k, k * n, m * n) > MAX_WORDS or m * n * k > MAX_MACS:
        raise UserError(
            f"layer '{workload.name}': M×N×K = {m}×{n}×{k} overflows the counters",
            f"at most 2^{MAX_WORDS.bit_length() - 1} words an operand and "
            f"2^{MAX_MACS.bit_length() - 1} multiplications",
            "cut the layer into several",
        )
