"""The kernels that the interpreter calls: native ones where they were built, NumPy otherwise.

Both give the same bits in integer programs (tests/native and the contract suites compare them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from modelflex.core import kernels as reference
from modelflex.core.fixed import TANH_TABLE, Array, Multiplier
from modelflex.core.graph import Op
from modelflex.core.piecewise import Piecewise, piecewise

NATIVE_ERROR: str | None = None
"""Why native kernels that were built cannot be loaded; None where they can, or were not built."""
try:
    import modelflex._native as _native
except ModuleNotFoundError:  # installed without a C compiler
    HAVE_NATIVE = False
except ImportError as error:  # built for another machine or Python, or damaged
    HAVE_NATIVE, NATIVE_ERROR = False, str(error)
else:
    HAVE_NATIVE = True

Kernel = Callable[..., Array]


def _contiguous(a: Array) -> Array:
    return np.ascontiguousarray(a)


def _native_unary(kernel: Callable[..., None]) -> Kernel:
    def run(a: Array) -> Array:
        out = np.empty(a.shape, np.int32)
        kernel(_contiguous(a), TANH_TABLE, out)
        return out

    return run


def _native_piecewise(a: Array, table: Piecewise) -> Array:
    out = np.empty(a.shape, np.int32)
    _native.piecewise(_contiguous(a), table.breaks, table.values, table.slopes, table.centre, out)
    return out


def _native_binary(kernel: Callable[..., None]) -> Kernel:
    def run(a: Array, b: Array) -> Array:
        out = np.empty(a.shape, np.int32)
        kernel(_contiguous(a), _contiguous(b), out)
        return out

    return run


def _native_quantize(v: Array, multiplier: Multiplier, bits: int) -> Array:
    out = np.empty(v.shape, np.int16)
    _native.quantize(_contiguous(v), int(multiplier.mantissa[0]), multiplier.shift, bits, out)
    return out


def _native_rescale(acc: Array, multiplier: Multiplier) -> Array:
    repeat = acc.shape[-1] // multiplier.mantissa.size
    factors = np.repeat(multiplier.mantissa.astype(np.int32), repeat)
    out = np.empty(acc.shape, np.int32)
    _native.rescale(_contiguous(acc), factors, multiplier.shift, out)
    return out


def _native_delta(
    codes: Array, sent: Array, thresholds: Array, block: int, overshoot: int, bits: int
) -> tuple[Array, Array, Array]:
    delta, after = np.empty(codes.shape, np.int32), np.empty(codes.shape, np.int16)
    blocks = np.empty((*codes.shape[:-1], -(-codes.shape[-1] // block)), np.uint8)
    _native.delta_encode(
        _contiguous(codes),
        _contiguous(sent),
        block,
        thresholds,
        overshoot,
        bits,
        delta,
        blocks,
        after,
    )
    mask = blocks if block == 1 else np.repeat(blocks, block, axis=-1)
    return delta, mask.astype(bool), after


_NUMPY: Mapping[str, Kernel] = {
    "add": reference.add,
    "sub": reference.sub,
    "mul": reference.mul,
    "sigmoid": reference.sigmoid,
    "tanh": reference.tanh,
    "piecewise": piecewise,
}
_FLOAT: Mapping[str, Kernel] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "sigmoid": reference.float_sigmoid,
    "tanh": np.tanh,
}
_EITHER: Mapping[str, Kernel] = {"relu": reference.relu, "one_hot": reference.one_hot}
"""Kernels for fx and floats, native or not."""


class Kernels:
    """One set of kernels: native or NumPy."""

    def __init__(self, native: bool) -> None:
        self.native = native
        self.quantize = _native_quantize if native else reference.quantize
        self.rescale = _native_rescale if native else reference.rescale
        self.delta_encode = _native_delta if native else reference.delta_encode
        self._integer = _NUMPY
        if native:
            self._integer = {
                "add": _native_binary(_native.add),
                "sub": _native_binary(_native.sub),
                "mul": _native_binary(_native.mul),
                "sigmoid": _native_unary(_native.sigmoid),
                "tanh": _native_unary(_native.tanh),
                "piecewise": _native_piecewise,
            }

    def elementwise(self, op: Op, args: Sequence[Array]) -> Array:
        """The result of an elementwise primitive; the arguments' type decides between fx and float."""
        if op.kind == "slice":
            return args[0][:, op.attrs["start"] : op.attrs["stop"]]
        if op.kind == "concat":
            return np.concatenate(args, axis=1)
        if op.kind in _EITHER:
            return _EITHER[op.kind](*args, **op.attrs)
        table = self._integer if args[0].dtype == np.int32 else _FLOAT
        if op.kind not in table:
            raise ValueError(f"the interpreter knows no elementwise primitive '{op.kind}'")
        return table[op.kind](*args, **op.attrs)


NUMPY_KERNELS = Kernels(native=False)
KERNELS = Kernels(native=HAVE_NATIVE)
"""The fastest set of this installation."""
