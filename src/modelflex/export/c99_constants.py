"""The constants of generated C: arrays exactly as kernels read them, each stored once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.export.names import member, numbers, unique

C_TYPES: Final[Mapping[str, str]] = {
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint32": "uint32_t",
    "float32": "float",
}


class Constants:
    """Arrays that are added while the calls are printed; equal ones share their memory."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._arrays: dict[str, Array] = {}
        self._known: dict[tuple[str, bytes], str] = {}
        self._taken: set[str] = set()

    def add(self, what: str, array: Array | None) -> str:
        """The C name of an array; NULL for None and for an array without elements."""
        if array is None or array.size == 0:
            return "NULL"
        flat = np.ascontiguousarray(array).ravel()
        key = flat.dtype.name, flat.tobytes()
        if key not in self._known:
            name = unique(f"{self.symbol}_mf_k_{member(what)}", self._taken)
            self._known[key], self._arrays[name] = name, flat
        return self._known[key]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())

    def declarations(self) -> str:
        """The header's lines."""
        return "".join(
            f"extern const {C_TYPES[a.dtype.name]} {name}[{a.size}];\n"
            for name, a in self._arrays.items()
        )

    def definitions(self) -> str:
        """The arrays, and assertions that each has the bytes that the plan counts."""
        parts = []
        for name, a in self._arrays.items():
            parts.append(
                f"const {C_TYPES[a.dtype.name]} {name}[] = {{\n{numbers(a)}\n}};\n"
                f"MF_ASSERT({name}, sizeof {name} == {a.nbytes});\n"
            )
        return "\n".join(parts)
