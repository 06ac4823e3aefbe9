"""Printing a plan as calls of the reference kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import TANH_TABLE, Array
from modelflex.core.piecewise import Piecewise
from modelflex.core.plan import ITEM_BYTES, Buffer, Call, Plan, PlannedStage, Slot, View
from modelflex.core.stored_matrix import StoredMatrix, stored_matrix
from modelflex.core.tracer import Product
from modelflex.execute.anytime import REFINE, refine_attrs, term_inputs, term_outputs
from modelflex.export.c99_constants import C_TYPES, Constants
from modelflex.export.c99_terms import shares
from modelflex.export.names import member, remark, unique

_FIELDS: Final = ("out", "inputs", "rows", "row_codes", "block", "kept", "block_rows")
_MORE_FIELDS: Final = ("rows_per_table", "groups", "bits", "index_bits")
_ACCUMULATORS: Final = {"i32": np.int32, "i64": np.int64}
MEMBERS: Final[Mapping[str, str]] = {
    "int64": "i64",
    "int32": "i32",
    "float32": "f32",
    "int16": "i16",
    "uint8": "u8",
}
"""Type of a buffer → the member of the union of scratch memory that is of it."""
_HEADERS: Final[Mapping[str, str]] = {
    "piecewise": "piecewise.h",
    **dict.fromkeys(
        [f"{kind}_{width}" for kind in ("linear", "accumulate") for width in _ACCUMULATORS],
        "matrix.h",
    ),
    "refine_f32": "refine.h",
    "refine_i32": "refine_codes.h",
    "refine_i64": "refine_codes.h",
}


class CallPrinter:
    """Statements of a plan, and the constants, matrices and headers that they need.

    Attributes:
        kernels: the prefix of all kernels.
        matrices: definitions of matrices and tables, in the order of their first use.
        headers: of the kernels that are called.
    """

    def __init__(self, plan: Plan, symbol: str) -> None:
        self.plan, self.symbol, self.kernels = plan, symbol, f"{symbol}_mf_"
        self.constants = Constants(symbol)
        self.matrices: dict[str, str] = {}
        self.headers: set[str] = set()
        self._members: dict[int, str] = {}
        self._stored: dict[str, str] = {}
        self._tables: dict[str, str] = {}
        taken: set[str] = set()
        for stage in plan.stages:
            for slot in stage.state:
                name = f"{member(stage.name)}_{member(slot.name.removeprefix(stage.name))}"
                self._members[slot.view.buffer] = unique(name, taken)

    # --- memory ----------------------------------------------------------------------------------
    def state(self) -> list[tuple[str, Buffer]]:
        """Names and buffers of the carried state; wide elements come first, so that nothing is padded."""
        found = [(name, self.plan.buffers[i]) for i, name in self._members.items()]
        return sorted(found, key=lambda item: -ITEM_BYTES[item[1].dtype])

    def at(self, view: View) -> str:
        """The address of a view's first element."""
        buffer = self.plan.buffers[view.buffer]
        if buffer.space == "state":
            return _offset(f"m->state.{self._members[view.buffer]}", view.start)
        start = buffer.offset // ITEM_BYTES[buffer.dtype] + view.start
        return _offset(f"m->scratch.{MEMBERS[buffer.dtype]}", start)

    def nbytes(self, view: View) -> str:
        """The bytes of a view as an expression."""
        return f"{view.size} * sizeof({C_TYPES[self.plan.buffers[view.buffer].dtype]})"

    # --- statements ------------------------------------------------------------------------------
    def stage(self, stage: PlannedStage) -> list[str]:
        """The statements of a stage, products with their site."""
        lines: list[str] = []
        site = None
        for call in stage.calls:
            if call.site is not None and call.site != site:
                lines.append(f"/* {remark(call.site)} */")
            site = call.site
            lines.append(self.call(call))
        return lines

    def reset(self, slot: Slot) -> str:
        """The statement that sets a carried value to what it is before the first step."""
        return self._fill(f"{slot.name}_first", slot.view, slot.init)

    def call(self, call: Call) -> str:
        """One statement."""
        kernel = call.kernel
        if kernel == "copy":
            target, source = self.at(call.outputs[0]), self.at(call.inputs[0])
            return f"memcpy({target}, {source}, {self.nbytes(call.outputs[0])});"
        base, _, width = kernel.rpartition("_")
        if width in _ACCUMULATORS and base in ("linear", "accumulate"):
            name, arguments = self._product(call, base, width)
        elif kernel == "linear_f32":
            name, arguments = self._float_product(call)
        elif kernel in REFINE:
            name, arguments = f"refine_within_{width}", self._refine(call, width)
        else:
            name, arguments = kernel, _ARGUMENTS[kernel](self, call)
        is_float = kernel.endswith("_f32")
        default = "elementwise_f32.h" if is_float else "elementwise.h"
        self.headers.add(_HEADERS.get(kernel, default))
        return f"{self.kernels}{_FUNCTIONS.get(name, name)}({', '.join(map(str, arguments))});"

    def _fill(self, what: str, view: View, value: Array | None) -> str:
        if value is None or not value.any():
            return f"memset({self.at(view)}, 0, {self.nbytes(view)});"
        made = value.astype(self.plan.buffers[view.buffer].dtype)
        return f"memcpy({self.at(view)}, {self.constants.add(what, made)}, {self.nbytes(view)});"

    def _product(self, call: Call, base: str, width: str) -> tuple[str, Sequence[Any]]:
        """linear_* and accumulate_* of a stored matrix, once or at the positions of a map."""
        product = self.plan.products[str(call.site)]
        x = call.inputs[0]
        matrix = f"&{self._matrix(product, skip_zeros=bool(call.attrs.get('skip_zeros')))}"
        out = self.at(call.outputs[0])
        bias = self._bias(product, _ACCUMULATORS[width]) if base == "linear" else None
        if product.windows is None:
            if bias is not None:
                return f"linear_{width}", (matrix, self.at(x), bias, out)
            mask = self.at(call.inputs[1]), call.attrs["mask_block"]
            return f"accumulate_{width}", (matrix, self.at(x), *mask, out)
        taps = self._taps(product), product.positions
        kind = self.plan.buffers[x.buffer].dtype
        seen = f"m->seen.{MEMBERS[kind]}"
        made = (matrix, *taps, self.at(x), seen, *(() if bias is None else (bias,)), out)
        return f"{base}_windows_{width}", made

    def _float_product(self, call: Call) -> tuple[str, Sequence[Any]]:
        product = self.plan.products[str(call.site)]
        geometry, x, y = product.geometry, self.at(call.inputs[0]), self.at(call.outputs[0])
        weights = self.constants.add(f"{call.site}_weights", product.integers())
        first = weights, geometry.out, geometry.inputs, self._bias(product, np.float32)
        if product.windows is None:
            return "linear_f32", (*first, x, y)
        return "linear_windows_f32", (*first, self._taps(product), product.positions, x, y)

    def _refine(self, call: Call, width: str) -> Sequence[Any]:
        outer = self.plan.products[str(call.site)]
        inner = self.plan.products[call.attrs["inner"]]
        numbers = {site: n for n, site in enumerate(self.plan.products)}
        attrs = refine_attrs(self.plan, outer.site, call.attrs["groups"], numbers)
        name = f"{member(outer.weight)}_terms"
        if width == "f32":
            terms = self._float_terms(inner, outer, attrs["groups"])
            bias = self._bias(outer, np.float32)
        else:
            terms = self._stored_terms(inner, outer, attrs)
            bias = self._bias(outer, _ACCUMULATORS[width])
        kind = f"{self.kernels}{'terms' if width == 'f32' else 'stored_terms'}"
        fields = "".join(f"    .{key} = {value},\n" for key, value in terms.items())
        name = unique(name, set(self.matrices))
        self.matrices[name] = f"static const {kind} {name} = {{\n{fields}}};\n"
        x, y = self.at(call.inputs[0]), self.at(call.outputs[0])
        share = shares(self.plan)[outer.site]
        return f"&{name}", x, bias, y, "budget", attrs["number"], share

    def _float_terms(self, inner: Product, outer: Product, groups: int) -> Mapping[str, Any]:
        values, index = term_inputs(inner)
        kept = values.shape[1] if index is None else index.shape[1]
        return {
            "rows": outer.geometry.out,
            "inputs": inner.geometry.inputs,
            "terms": outer.geometry.inputs,
            "groups": groups,
            "kept": kept,
            "width": values.shape[1] // kept,
            "u": self.constants.add(f"{outer.site}_terms", term_outputs(outer)),
            "v": self.constants.add(f"{inner.site}_terms", values),
            "index": self.constants.add(f"{inner.site}_places", index),
            "c": self._bias(inner, np.float32),
        }

    def _stored_terms(
        self, inner: Product, outer: Product, attrs: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        wide = self.plan.bits[inner.site] == 64
        c = self._bias(inner, np.int64 if wide else np.int32)
        return {
            "v": f"&{self._matrix(inner, skip_zeros=False)}",
            "u": f"&{self._matrix(outer, skip_zeros=True)}",
            "c_i32": "NULL" if wide else c,
            "c_i64": c if wide else "NULL",
            "groups": attrs["groups"],
            "mu": self.constants.add(f"{inner.site}_mu", attrs["mu"]),
            "mu_count": attrs["mu"].size,
            **{key: attrs[key] for key in ("shift", "code_mu", "code_shift", "code_bits")},
        }

    def _matrix(self, product: Product, skip_zeros: bool) -> str:
        """The name of the stored matrix of a product."""
        if product.site not in self._stored:
            taken = set(self.matrices)
            name = unique(f"{member(product.site)}_matrix", taken)
            self._stored[product.site] = name
            self.matrices[name] = self._matrix_definition(
                name, product.site, stored_matrix(product, skip_zeros=skip_zeros)
            )
        return self._stored[product.site]

    def _matrix_definition(self, name: str, site: str, stored: StoredMatrix) -> str:
        arrays = {
            key: self.constants.add(f"{site}_{key}", getattr(stored, key))
            for key in ("codes", "table", "multipliers", "index")
        }
        sizes = {key: getattr(stored, key) for key in (*_FIELDS, *_MORE_FIELDS)}
        kinds = {
            "grid": f"MF_GRID_{stored.grid.upper()}",
            "layout": f"MF_LAYOUT_{stored.layout.upper()}",
            "by_columns": int(stored.by_columns),
        }
        fields = "".join(
            f"    .{key} = {value},\n" for key, value in {**arrays, **sizes, **kinds}.items()
        )
        return f"static const {self.kernels}matrix {name} = {{\n{fields}}};\n"

    def _bias(self, product: Product, dtype: Any) -> str:
        """The bias of the rows; a plan's product repeats it at every position."""
        if product.bias is None:
            return "NULL"
        rows = product.bias.reshape(product.geometry.out, product.positions)[:, 0]
        return self.constants.add(f"{product.site}_bias", rows.astype(dtype))

    def _taps(self, product: Product) -> str:
        if product.windows is None:
            raise ValueError(f"'{product.site}' has no windows")
        return self.constants.add(f"{product.site}_taps", product.windows.taps.astype(np.int32))

    def _table(self, table: Piecewise) -> str:
        """The name of a table of a function; equal ones are one."""
        columns = {
            key: self.constants.add(f"piecewise_{key}", getattr(table, key))
            for key in ("breaks", "values", "slopes")
        }
        fields = {**columns, "segments": table.segments, "centre": table.centre}
        text = "".join(f"    .{key} = {value},\n" for key, value in fields.items())
        if text not in self._tables:
            name = f"piecewise_table_{len(self._tables)}"
            self._tables[text] = name
            self.matrices[name] = f"static const {self.kernels}piecewise {name} = {{\n{text}}};\n"
        return self._tables[text]

    # --- arguments of the kernels ----------------------------------------------------------------
    def _quantize(self, call: Call) -> Sequence[Any]:
        a, x, out = call.attrs, call.inputs[0], call.outputs[0]
        return self.at(x), x.size, a["mu"], a["shift"], a["bits"], self.at(out)

    def _rescale(self, call: Call) -> Sequence[Any]:
        x, mu = call.inputs[0], call.attrs["mu"]
        name = self.constants.add(f"{call.site}_mu", mu)
        return self.at(x), 1, x.size, name, mu.size, call.attrs["shift"], self.at(call.outputs[0])

    def _delta_encode(self, call: Call) -> Sequence[Any]:
        a, (x, sent) = call.attrs, call.inputs
        thresholds = self.constants.add(f"{call.site}_thresholds", a["thresholds"])
        outs = [self.at(view) for view in call.outputs]
        limits = a["block"], thresholds, a["overshoot"], a["bits"]
        return self.at(x), self.at(sent), 1, x.size, *limits, *outs

    def _elements(self, call: Call) -> Sequence[Any]:
        ins, outs = [self.at(v) for v in call.inputs], [self.at(v) for v in call.outputs]
        return *ins, call.inputs[0].size, *outs

    def _lookup(self, call: Call) -> Sequence[Any]:
        table = self.constants.add("tanh", TANH_TABLE)
        x = call.inputs[0]
        return self.at(x), x.size, table, self.at(call.outputs[0])

    def _piecewise(self, call: Call) -> Sequence[Any]:
        x, table = call.inputs[0], self._table(call.attrs["table"])
        return self.at(x), x.size, f"&{table}", self.at(call.outputs[0])

    def _one_hot(self, call: Call) -> Sequence[Any]:
        out = call.outputs[0]
        return f"*({self.at(call.inputs[0])})", out.size, self.at(out)


def _offset(base: str, start: int) -> str:
    return f"{base} + {start}" if start else base


_Arguments = Callable[[CallPrinter, Call], Sequence[Any]]
_ARGUMENTS: Final[Mapping[str, _Arguments]] = {
    "quantize": CallPrinter._quantize,
    "rescale_i32": CallPrinter._rescale,
    "rescale_i64": CallPrinter._rescale,
    "delta_encode": CallPrinter._delta_encode,
    "add": CallPrinter._elements,
    "sub": CallPrinter._elements,
    "mul": CallPrinter._elements,
    "relu": CallPrinter._elements,
    "sigmoid": CallPrinter._lookup,
    "tanh": CallPrinter._lookup,
    "piecewise": CallPrinter._piecewise,
    "one_hot": CallPrinter._one_hot,
    "add_f32": CallPrinter._elements,
    "sub_f32": CallPrinter._elements,
    "mul_f32": CallPrinter._elements,
    "sigmoid_f32": CallPrinter._elements,
    "tanh_f32": CallPrinter._elements,
    "relu_f32": CallPrinter._elements,
    "one_hot_f32": CallPrinter._one_hot,
}
_FUNCTIONS: Final[Mapping[str, str]] = {
    "sigmoid": "sigmoid_array",
    "tanh": "tanh_array",
    "piecewise": "piecewise_array",
}
"""Kernels whose function in csrc/ has another name."""
