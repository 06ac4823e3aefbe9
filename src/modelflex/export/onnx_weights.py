"""Stored weights as ONNX constants: the artefact's bits, and operators that make a matrix of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelflex.core.accumulators import sum_bound
from modelflex.core.bits import pack_bits, pack_codes
from modelflex.core.part import FLOAT_BITS, MULTIPLIER_BITS, Part
from modelflex.core.tracer import Product
from modelflex.export.onnx_graph import OnnxGraph


def product_type(product: Product) -> Any:
    """The type in which a product is multiplied: its sums are exact there (docs/arithmetic.md, claim 3).

    Raises:
        UserError: sums may be too large to be rescaled.
    """
    if product.link is None or sum_bound(product, product.integers()) < 1 << 24:
        return np.float32
    return np.float64


def multiplied(graph: OnnxGraph, product: Product, x: str) -> str:
    """A·x as float or int64 [1, outputs] for x [1, inputs]; no bias."""
    return _product(graph, product, x, None)


def affine(graph: OnnxGraph, product: Product, x: str) -> str:
    """A·x + bias as float or int64 [1, outputs] for x [1, inputs]."""
    if product.bias is None:
        return _product(graph, product, x, None)
    bias = product.bias[:: product.positions]
    integer = product.link is not None
    return _product(
        graph, product, x, graph.constant(bias) if integer else graph.literal(bias, bias.dtype)
    )


def _product(graph: OnnxGraph, product: Product, x: str, bias: str | None) -> str:
    dtype, windows = product_type(product), product.windows
    x = x if product.link is None else graph.cast(x, dtype)
    if windows is not None:
        # The tap −1 is the last element: the 0 beside the map.
        beside = graph.node("Concat", x, graph.literal([[0]], dtype), axis=1)
        x = graph.node("Gather", beside, graph.constant(windows.taps, np.int32), axis=1)
    y = graph.node("MatMul", x, matrix(graph, product, dtype))
    y = y if product.link is None else graph.cast(y, np.int64)
    y = y if bias is None else graph.node("Add", y, bias)
    if windows is not None:
        y = graph.reshape(graph.node("Transpose", y, perm=[0, 2, 1]), 1, product.outputs)
    return y


def matrix(graph: OnnxGraph, product: Product, dtype: Any) -> str:
    """The matrix [in, out] of the numbers that are multiplied, in `dtype`."""
    part = product.part
    if part.bits == FLOAT_BITS:
        stored = graph.literal(part.codes, np.float32)
    else:
        stored = _multiplied_groups(graph, part, _levels(graph, part))
    dense = _expanded(graph, product, stored)
    dense = dense if dtype == np.float32 else graph.cast(dense, dtype)
    return graph.node("Transpose", dense, perm=[1, 0])


def _levels(graph: OnnxGraph, part: Part) -> str:
    """The levels of a part's codes, float32 of any shape."""
    packed, bits = pack_codes(part), part.bits
    symmetric = part.grid.kind == "symmetric"
    if symmetric and bits in (8, 16):
        whole = np.int8 if bits == 8 else np.dtype("<i2")
        return graph.cast(graph.literal(packed.view(whole), whole), np.float32)
    numbers = graph.unpack(packed, part.codes.size, bits)
    if symmetric:  # two's complement
        half = graph.literal(1 << (bits - 1), np.int32)
        flipped = graph.node("BitwiseXor", numbers, half)
        return graph.cast(graph.node("Sub", flipped, half), np.float32)
    levels = part.grid.levels(bits)
    tables = levels.shape[0]
    if tables > 1:
        first = graph.constant(np.arange(tables)[:, None] << bits, np.int32)
        numbers = graph.node("Add", graph.reshape(numbers, tables, -1), first)
    return graph.node("Gather", graph.constant(levels.ravel(), np.float32), numbers, axis=0)


def _multiplied_groups(graph: OnnxGraph, part: Part, levels: str) -> str:
    """Codes [rows, …] in the shape of the part, from their levels and the multipliers of their groups."""
    if part.multipliers is not None:
        packed = pack_bits(part.multipliers.ravel(), MULTIPLIER_BITS)
        factors = graph.unpack(packed, part.multipliers.size, MULTIPLIER_BITS)
        column = graph.reshape(graph.cast(factors, np.float32), -1, 1)
        levels = graph.node("Mul", graph.reshape(levels, part.multipliers.size, -1), column)
    return graph.reshape(levels, *part.codes.shape)


def _expanded(graph: OnnxGraph, product: Product, stored: str) -> str:
    """The matrix [out, in] that stored numbers mean (core/layout.py)."""
    geometry, part = product.geometry, product.part
    if product.layout == "dense":
        return stored
    if product.layout == "circulant":
        b = part.codes.shape[2]
        shift = graph.constant((np.arange(b)[:, None] - np.arange(b)) % b, np.int32)
        blocks = graph.node("Gather", stored, shift, axis=2)
        by_row = graph.node("Transpose", blocks, perm=[0, 2, 1, 3])
        return graph.reshape(by_row, geometry.out, geometry.inputs)
    zeros = graph.node("ConstantOfShape", graph.literal([geometry.out, geometry.inputs]))
    columns = graph.cast(_columns(graph, product), np.int64)
    return graph.node("ScatterElements", zeros, columns, stored, axis=1)


def _columns(graph: OnnxGraph, product: Product) -> str:
    """The column of every code of a sparse layout, int32 [out, kept]."""
    out, kept = product.part.codes.shape
    index, inputs = product.part.index, product.geometry.inputs
    if index is None:
        raise ValueError(f"the layout '{product.layout}' has no index")
    bits = max(product.part.index_bits, 1)  # of one place only, nothing is stored
    places = graph.unpack(pack_bits(index.ravel(), bits), index.size, bits)
    places = graph.reshape(places, *index.shape, 1)
    if product.layout == "n_m":  # [out, groups, n, 1], in a group of `span` columns
        span = inputs // index.shape[1]
        first = graph.constant(np.arange(index.shape[1])[:, None, None] * span, np.int32)
        return graph.reshape(graph.node("Add", places, first), out, kept)
    width = kept // index.shape[1]  # [block rows, kept blocks, 1], blocks of `width` columns
    first = graph.node("Mul", places, graph.literal(width, np.int32))
    each = graph.node("Add", first, graph.literal(np.arange(width), np.int32))
    wide = graph.reshape(each, index.shape[0], 1, kept)
    height = out // index.shape[0]
    rows = graph.node("Expand", wide, graph.literal([index.shape[0], height, kept]))
    return graph.reshape(rows, out, kept)
