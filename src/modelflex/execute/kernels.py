"""The kernels that the interpreter calls: native where they were built, NumPy otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from modelflex.core import kernels as reference
from modelflex.core.fixed import Array
from modelflex.core.graph import Op

quantize = reference.quantize
rescale = reference.rescale
delta_encode = reference.delta_encode

_INTEGER: Mapping[str, Callable[..., Array]] = {
    "add": reference.add,
    "sub": reference.sub,
    "mul": reference.mul,
    "sigmoid": reference.sigmoid,
    "tanh": reference.tanh,
}
_FLOAT: Mapping[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "sigmoid": reference.float_sigmoid,
    "tanh": np.tanh,
}


def elementwise(op: Op, args: Sequence[Array]) -> Array:
    """The result of an elementwise primitive; the type of the arguments decides between fx and float."""
    if op.kind == "slice":
        return args[0][:, op.attrs["start"] : op.attrs["stop"]]
    table = _INTEGER if args[0].dtype == np.int32 else _FLOAT
    if op.kind not in table:
        raise ValueError(f"the interpreter knows no elementwise primitive '{op.kind}'")
    return table[op.kind](*args)
