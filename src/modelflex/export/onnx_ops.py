"""Primitives as ONNX operators, on values [1, size]: float32, or int64 in integer programs.

docs/arithmetic.md defines the integers. An fx value is kept within int32, so no operator overflows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from modelflex.core.fixed import FX_BITS, FX_ONE, TANH_TABLE, Array
from modelflex.core.graph import Op
from modelflex.core.kernels import OVERSHOOT_BITS
from modelflex.core.piecewise import SLOPE_BITS, Piecewise
from modelflex.core.program import Program
from modelflex.core.tracer import Product
from modelflex.errors import UserError
from modelflex.export.onnx_graph import OnnxGraph
from modelflex.export.onnx_weights import affine, multiplied

_DIRECT: Final = {"add": "Add", "sub": "Sub", "mul": "Mul", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def write_op(graph: OnnxGraph, program: Program, op: Op, args: Sequence[str]) -> tuple[str, ...]:
    """Append a primitive; the names of its results.

    Raises:
        UserError: it is not known here.
    """
    integer = program.numeric == "integer"
    if op.kind == "concat":
        return (graph.node("Concat", *args, axis=1),)
    if op.kind == "slice":
        ends = (graph.literal([op.attrs[end]]) for end in ("start", "stop"))
        return (graph.node("Slice", args[0], *ends, graph.literal([1])),)
    if op.kind == "relu":
        return (graph.node("Max", args[0], graph.literal(0, np.int64 if integer else np.float32)),)
    if op.kind == "one_hot":
        return (_one_hot(graph, args[0], int(op.attrs["size"]), integer),)
    if op.kind in _PRODUCT and op.site is not None:
        return _PRODUCT[op.kind](graph, program.products[op.site], op, args)
    if integer and op.kind in _FX:
        return (_FX[op.kind](graph, op, args),)
    if not integer and op.kind in _DIRECT:
        return (graph.node(_DIRECT[op.kind], *args),)
    raise UserError(f"ONNX has no form of the primitive '{op.kind}'", "a primitive known there")


def _one_hot(graph: OnnxGraph, x: str, size: int, integer: bool) -> str:
    kind = np.int64 if integer else np.float32
    if integer:
        index = graph.rounding_shift(x, FX_BITS)
    else:
        index = graph.node("Floor", graph.node("Add", x, graph.literal(0.5, np.float32)))
    numbers = graph.node("Range", *(graph.literal(v, kind) for v in (0, size, 1)))
    one = graph.literal(FX_ONE if integer else 1, kind)
    return graph.node("Where", graph.node("Equal", index, numbers), one, graph.literal(0, kind))


# --- products --------------------------------------------------------------------------------------
def _linear(graph: OnnxGraph, product: Product, _: Op, args: Sequence[str]) -> tuple[str, ...]:
    return (affine(graph, product, args[0]),)


def _accumulate(graph: OnnxGraph, product: Product, _: Op, args: Sequence[str]) -> tuple[str, ...]:
    # Δ is 0 where the mask is not set.
    return (graph.node("Add", args[2], multiplied(graph, product, args[0])),)


def _quantize(graph: OnnxGraph, product: Product, _: Op, args: Sequence[str]) -> tuple[str, ...]:
    if product.encode is None or product.link is None:
        raise ValueError(f"'{product.site}' has no format of its inputs")
    factor = graph.literal(product.encode.mantissa[0])
    codes = graph.rounding_shift(graph.node("Mul", args[0], factor), product.encode.shift)
    half = 1 << (product.link.bits - 1)
    return (graph.clip(codes, -half, half - 1),)


def _rescale(graph: OnnxGraph, product: Product, _: Op, args: Sequence[str]) -> tuple[str, ...]:
    if product.rescale is None:
        raise ValueError(f"'{product.site}' has no scales")
    mantissa = product.rescale.mantissa
    rows = graph.reshape(args[0], mantissa.size, product.outputs // mantissa.size)
    scaled = graph.node("Mul", rows, graph.constant(mantissa[:, None]))
    shifted = graph.rounding_shift(scaled, product.rescale.shift)
    return (graph.reshape(graph.saturate(shifted), 1, product.outputs),)


def _delta_encode(
    graph: OnnxGraph, product: Product, op: Op, args: Sequence[str]
) -> tuple[str, ...]:
    """(Δ, mask, sent′); the mask is [blocks, 1], as nothing but Δ is read from here on."""
    block, overshoot, bits = (int(op.attrs[name]) for name in ("block", "overshoot", "bits"))
    thresholds: Array = op.attrs["thresholds"]
    size = thresholds.size * block
    codes, sent = (graph.reshape(value, thresholds.size, block) for value in args)
    change = graph.node("Sub", codes, sent)
    distance = graph.node("Abs", change)
    least = graph.constant(np.maximum(thresholds, 1)[:, None])
    moved = graph.cast(graph.node("GreaterOrEqual", distance, least), np.int32)
    any_moved = graph.node("ReduceMax", moved, graph.literal([1]), keepdims=1)
    mask = graph.cast(any_moved, np.bool_)
    aim = codes
    if overshoot:
        counted = graph.node("Min", distance, graph.constant(thresholds[:, None]))
        beyond = graph.node("Mul", counted, graph.literal(overshoot))
        beyond = graph.node("Div", beyond, graph.literal(1 << OVERSHOOT_BITS))  # never negative
        signed = graph.node("Mul", beyond, graph.node("Sign", change))
        half = 1 << (bits - 1)
        aim = graph.clip(graph.node("Add", codes, signed), -half, half - 1)
    after = graph.node("Where", mask, aim, sent)
    delta = graph.node("Sub", after, sent)
    return graph.reshape(delta, 1, size), mask, graph.reshape(after, 1, size)


_PRODUCT: Final[
    Mapping[str, Callable[[OnnxGraph, Product, Op, Sequence[str]], tuple[str, ...]]]
] = {
    "linear": _linear,
    "accumulate": _accumulate,
    "quantize": _quantize,
    "rescale": _rescale,
    "delta_encode": _delta_encode,
}


# --- fx --------------------------------------------------------------------------------------------
def _sum(graph: OnnxGraph, op: Op, args: Sequence[str]) -> str:
    return graph.saturate(graph.node(_DIRECT[op.kind], *args))


def _mul(graph: OnnxGraph, _: Op, args: Sequence[str]) -> str:
    return graph.saturate(graph.rounding_shift(graph.node("Mul", *args), FX_BITS))


def _tanh(graph: OnnxGraph, _: Op, args: Sequence[str]) -> str:
    size = graph.node("Abs", args[0])
    a = graph.node("Min", size, graph.literal((1 << 19) - 1))
    i = graph.node("Div", a, graph.literal(1 << 11))
    f = graph.node("BitwiseAnd", a, graph.literal((1 << 11) - 1))
    table = graph.constant(TANH_TABLE)
    low = graph.node("Gather", table, i, axis=0)
    high = graph.node("Gather", table, graph.node("Add", i, graph.literal(1)), axis=0)
    rise = graph.node("Mul", graph.node("Sub", high, low), f)
    twice = graph.node("Add", low, low)
    return _odd(graph, args[0], graph.node("Add", twice, graph.rounding_shift(rise, 10)))


def _odd(graph: OnnxGraph, x: str, y: str) -> str:
    """y with the sign of x."""
    negative = graph.node("Less", x, graph.literal(0))
    return graph.node("Where", negative, graph.node("Neg", y), y)


def _sigmoid(graph: OnnxGraph, op: Op, args: Sequence[str]) -> str:
    half = _tanh(graph, op, [graph.rounding_shift(args[0], 1)])
    return graph.node("Add", graph.rounding_shift(half, 1), graph.literal(1 << (FX_BITS - 1)))


def _piecewise(graph: OnnxGraph, op: Op, args: Sequence[str]) -> str:
    table: Piecewise = op.attrs["table"]
    a = graph.node("Abs", args[0])
    column = graph.node("Unsqueeze", a, graph.literal([2]))
    breaks = graph.constant(table.breaks)
    passed = graph.cast(graph.node("GreaterOrEqual", column, breaks), np.int64)
    count = graph.node("ReduceSum", passed, graph.literal([2]), keepdims=0)
    i = graph.node("Sub", count, graph.literal(1))
    start, value, slope = (
        graph.node("Gather", graph.constant(row), i, axis=0)
        for row in (table.breaks, table.values, table.slopes)
    )
    rise = graph.node("Mul", slope, graph.node("Sub", a, start))
    y = graph.node("Add", value, graph.rounding_shift(rise, SLOPE_BITS))
    return graph.node("Add", _odd(graph, args[0], y), graph.literal(table.centre))


_FX: Final[Mapping[str, Callable[[OnnxGraph, Op, Sequence[str]], str]]] = {
    "add": _sum,
    "sub": _sum,
    "mul": _mul,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "piecewise": _piecewise,
}
