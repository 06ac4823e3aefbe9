"""Loading of programs into compiled code: weights packed once, plans in the form that it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelflex.core.fixed import TANH_TABLE
from modelflex.core.plan import ITEM_BYTES, KERNELS, Call, Plan, View
from modelflex.core.planner import accumulator_bits, make_plan
from modelflex.core.program import Program
from modelflex.core.stored_matrix import stored_matrix
from modelflex.core.tracer import Product
from modelflex.errors import UserError
from modelflex.execute.anytime import (
    REFINE,
    refine_attrs,
    refinements,
    term_inputs,
    term_outputs,
)
from modelflex.execute.kernels import HAVE_NATIVE, NATIVE_ERROR

if HAVE_NATIVE:
    import modelflex._native as _native

CACHED_BYTES = 1 << 18
"""Memory of all rows of a plan, so that they stay in a cache near the core; of a chunk also as much as
the weights take that are read once for all its steps."""
MAX_CHUNK, MAX_LANES = 32, 64
ISA_VARIABLE = "MODELFLEX_ISA"
"""Of the environment: the best instruction set to use, of those that `_native.isa()` may name."""
_NUMBERS = {name: number for number, name in enumerate(KERNELS)}


class Shared:
    """What all streams of a program use: its weights, packed once, and its plans."""

    def __init__(self, program: Program) -> None:
        if not HAVE_NATIVE:
            raise UserError(
                f"the native kernels cannot be loaded ({NATIVE_ERROR or 'they were not built'})",
                "an installation with a C compiler",
                "run the program with the interpreter",
            )
        _limit_isa()
        self.program = program
        self.sites = {site: number for number, site in enumerate(program.products)}
        self.bits = accumulator_bits(program)
        self.plan = make_plan(program, bits=self.bits)
        self.weights = _native.Weights()
        self.refined = refinements(self.plan)
        skipping = {c.site for c in self.plan.calls if c.attrs.get("skip_zeros")}
        for site, product in program.products.items():
            self._add(product, site in skipping)
        self._row_bytes = max(self.plan.ram_bytes, 1)
        ahead = {call.site for stage in self.plan.stages for call in stage.ahead if call.site}
        self._ahead_bytes = sum(_stored_bytes(program.products[site]) for site in ahead)
        self._loaded: dict[tuple[int, int], tuple[Plan, _native.Plan]] = {}

    def _add(self, product: Product, skip_zeros: bool) -> None:
        windows, bias = product.windows, product.bias
        taps = None if windows is None else windows.taps.astype(np.int32)
        entering, unit = product.inputs, product.geometry.block
        if bias is not None:  # stored once for all positions
            bias = np.ascontiguousarray(bias[:: product.positions])
        site = product.site
        if product.link is None and site in self.refined.values():
            values, index = term_inputs(product)
            self.weights.add_term_inputs(values, index, product.geometry.inputs, bias)
            return
        if product.link is None and site in self.refined:
            self.weights.add_term_outputs(term_outputs(product), bias)
            return
        if product.link is None:
            matrix = np.ascontiguousarray(product.integers(), np.float32)
            self.weights.add_floats(matrix, bias, taps, entering, unit)
            return
        bits = self.bits[site]
        bias = None if bias is None else bias.astype(f"int{bits}")
        stored = stored_matrix(product, skip_zeros=skip_zeros or site in self.refined)
        packed = site not in self.refined and site not in self.refined.values()
        link = product.link.bits
        self.weights.add_codes(stored, link, bits, bias, taps, entering, unit, packed)

    def native_plan(self, *, chunk: int = 1, lanes: int = 1) -> tuple[Plan, _native.Plan]:
        """A plan and its loaded form, made once for all streams and batches."""
        key = chunk, lanes
        if key not in self._loaded:
            plan = self.plan
            if key != (1, 1):
                plan = make_plan(self.program, chunk=chunk, lanes=lanes, bits=self.bits)
            self._loaded[key] = plan, load_plan(plan, self.weights, self.sites)
        return self._loaded[key]

    @property
    def chunk(self) -> int:
        """Steps of a sequence whose state-independent calls are made together."""
        room = max(CACHED_BYTES, self._ahead_bytes)
        return max(1, min(MAX_CHUNK, room // self._row_bytes))

    @property
    def lanes(self) -> int:
        """Sequences that are stepped together."""
        return max(1, min(MAX_LANES, CACHED_BYTES // self._row_bytes))


def _stored_bytes(product: Product) -> int:
    floats = 4 * product.geometry.out * product.geometry.inputs
    return floats if product.link is None else product.part.nbytes


def _limit_isa() -> None:
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted and wanted != _native.isa():
        try:
            _native.limit_isa(wanted)
        except ValueError:
            raise UserError(
                f"{ISA_VARIABLE} is '{wanted}'",
                "an instruction set of this CPU and installation: 'portable', or a better one",
                f"without {ISA_VARIABLE} the best is taken",
            ) from None


def load_plan(plan: Plan, weights: _native.Weights, sites: Mapping[str, int]) -> _native.Plan:
    """A plan in the form that compiled code runs; `sites` are the numbers of products in `weights`."""
    starts = {"state": 0, "scratch": plan.state_bytes}

    def place(view: View) -> tuple[int, int, int]:
        buffer = plan.buffers[view.buffer]
        item = ITEM_BYTES[buffer.dtype]
        start = starts[buffer.space] + buffer.offset
        stride = buffer.size * item if buffer.rows > 1 else 0
        return start + view.start * item, stride, view.size

    integer = plan.numeric == "integer"
    made = _native.Plan(weights, integer, plan.rows, plan.state_bytes, plan.scratch_bytes)
    for stage in plan.stages:
        made.begin_stage(stage.mode == "once")
        for number, call in enumerate(stage.calls):
            made.add_call(
                _NUMBERS[call.kernel],
                sites.get(call.site or "", -1),
                [place(view) for view in call.inputs],
                [place(view) for view in call.outputs],
                _attrs(plan, call, sites),
                number < len(stage.ahead),
            )
        for slot in stage.state:
            item = ITEM_BYTES[plan.buffers[slot.view.buffer].dtype]
            first = None if slot.init is None else slot.init.tobytes()
            made.add_slot(place(slot.view), item, first)
    made.finish(place(plan.stages[0].x), place(plan.stages[-1].y))
    return made


def _attrs(plan: Plan, call: Call, sites: Mapping[str, int]) -> dict[str, Any]:
    """A call's attributes as numbers and int32 arrays."""
    if call.kernel in REFINE:
        return refine_attrs(plan, call.site or "", call.attrs["groups"], sites)
    if call.kernel == "piecewise":
        table = call.attrs["table"]
        columns = {name: getattr(table, name) for name in ("breaks", "values", "slopes")}
        return {**columns, "centre": table.centre}
    if call.kernel in ("sigmoid", "tanh"):
        return {"table": TANH_TABLE}
    if call.kernel == "copy":
        return {"item_bytes": ITEM_BYTES[plan.buffers[call.outputs[0].buffer].dtype]}
    return dict(call.attrs)
