"""Making plans: which buffer holds each value, and the calls in their order.

A slice is a view. A carried value is written where it lies as soon as nothing reads the old one any
more; elementwise results take the place of an operand that is not needed again. Scratch buffers
that hold something at different times share their memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from modelflex.core.accumulators import sum_bound
from modelflex.core.fixed import Array
from modelflex.core.graph import Graph, Op
from modelflex.core.plan import ITEM_BYTES, Buffer, Call, Plan, PlannedStage, Slot, View
from modelflex.core.program import Program, Stage
from modelflex.core.tracer import Product

_TYPES = {"fx": "int32", "float32": "float32", "code": "int16", "delta": "int32", "mask": "uint8"}
_ELEMENTWISE = ("add", "sub", "mul", "sigmoid", "tanh", "relu", "piecewise", "one_hot")
_IN_PLACE = ("add", "sub", "mul", "sigmoid", "tanh", "relu", "piecewise", "rescale")
"""Their kernels may write where an operand of the result's type lies."""
_STATE_IN_PLACE = (*_IN_PLACE, "accumulate", "delta_encode")
"""Theirs may write over the carried value that they read."""
_END = 1 << 30
"""Later than every call of a stage."""


def accumulator_bits(program: Program) -> dict[str, int]:
    """Site → 32 where the proven bound of its sums allows it, else 64; empty for float programs.

    Raises:
        UserError: sums may be too large to be rescaled.
    """
    if program.numeric == "float":
        return {}
    bounds = {site: sum_bound(p, p.integers()) for site, p in program.products.items()}
    return {site: 32 if bound < 1 << 31 else 64 for site, bound in bounds.items()}


def make_plan(
    program: Program,
    *,
    chunk: int = 1,
    lanes: int = 1,
    alignment: int = 64,
    bits: Mapping[str, int] | None = None,
) -> Plan:
    """The plan of a program.

    Args:
        chunk: time steps of a stream whose state-independent calls are made together.
        lanes: streams that are stepped together; with more than one, `chunk` must be 1.
        alignment: bytes that offsets of buffers are multiples of, at least 8.
        bits: `accumulator_bits(program)`, where it is known.

    Raises:
        UserError: sums may be too large to be rescaled.
    """
    if min(chunk, lanes) < 1 or (chunk > 1 and lanes > 1) or alignment % 8 or alignment < 8:
        raise ValueError(f"a plan of {chunk} steps, {lanes} lanes, alignment {alignment}")
    widths = accumulator_bits(program) if bits is None else bits
    maker = _Maker(program, max(chunk, lanes), lanes > 1, alignment, widths)
    return maker.make()


@dataclass
class _Room:
    """A buffer while the plan is made; `last` grows with every use."""

    dtype: str
    size: int
    rows: int
    space: str
    first: int
    last: int


class _Maker:
    def __init__(
        self, program: Program, rows: int, lanes: bool, alignment: int, bits: Mapping[str, int]
    ) -> None:
        self.program, self.rows, self.lanes = program, rows, lanes
        self.alignment, self.bits = alignment, bits
        self.rooms: list[_Room] = []
        self.now = 0

    def make(self) -> Plan:
        stages: list[PlannedStage] = []
        graph = self.program.stages[0].graph
        kind = graph.values[graph.inputs["x"]]
        # What is put behind the input is put there in its own buffer: the input is not copied.
        behind = _joined(graph)
        size = graph.values[behind[-1].outputs[0]].size if behind else kind.size
        x = replace(self.room(_TYPES[kind.dtype], size, self.rows), size=kind.size)
        for stage in self.program.stages:
            stages.append(_StageMaker(self, stage, x).make())
            x = stages[-1].y
        self.use(x, self.now)
        return Plan(
            self.program.numeric,
            self.rows,
            self.lanes,
            self.alignment,
            self._placed(),
            tuple(stages),
            self.program.products,
            self.bits,
        )

    def room(self, dtype: str, size: int, rows: int, space: str = "scratch") -> View:
        """A new buffer, all of it."""
        self.rooms.append(_Room(dtype, size, rows, space, self.now, self.now))
        return View(len(self.rooms) - 1, 0, size)

    def use(self, view: View, time: int) -> None:
        """What lies there is needed at the call `time`."""
        room = self.rooms[view.buffer]
        room.last = max(room.last, time)

    def _placed(self) -> tuple[Buffer, ...]:
        """Offsets: the state in its order, scratch by falling size at the first place that is free."""
        made: dict[int, Buffer] = {}
        end = 0
        order = sorted(
            range(len(self.rooms)), key=lambda i: (-self._bytes(self.rooms[i]), self.rooms[i].first)
        )
        for i, room in enumerate(self.rooms):
            if room.space == "state":
                made[i] = _buffer(room, end)
                end += self._bytes(room)
        placed: list[Buffer] = []
        for i in order:
            if i not in made:
                made[i] = _buffer(self.rooms[i], self._free_place(self.rooms[i], placed))
                placed.append(made[i])
        return tuple(made[i] for i in range(len(self.rooms)))

    def _bytes(self, room: _Room) -> int:
        nbytes = room.rows * room.size * ITEM_BYTES[room.dtype]
        return -(-nbytes // self.alignment) * self.alignment

    def _free_place(self, room: _Room, placed: list[Buffer]) -> int:
        """The lowest offset at which nothing lies that is needed at the same time."""
        together = [b for b in placed if b.first <= room.last and room.first <= b.last]
        offset, wanted = 0, self._bytes(room)
        for other in sorted(together, key=lambda b: b.offset):
            if offset + wanted <= other.offset:
                break
            end = other.offset + -(-other.nbytes // self.alignment) * self.alignment
            offset = max(offset, end)
        return offset


def _buffer(room: _Room, offset: int) -> Buffer:
    return Buffer(room.dtype, room.size, room.rows, room.space, offset, room.first, room.last)


@dataclass
class _StageMaker:
    """One stage: places for its values, and its calls."""

    maker: _Maker
    stage: Stage
    x: View
    places: dict[int, View] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    blocks: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.stage.graph
        first = self.stage is self.maker.program.stages[0]
        self.joined = _joined(graph) if first else []
        dirty = graph.state_dependent()
        chunked = self.maker.rows > 1 and not self.maker.lanes
        # What runs once a sequence reads one row of a chunk: its calls are those of a row.
        self.single = chunked and self.stage.mode == "once"
        late = {i for i, op in enumerate(graph.ops) if not dirty.isdisjoint(op.inputs)}
        if self.single:
            late = set(range(len(graph.ops)))
        elif self.maker.lanes:
            late = set()
        self.ahead = [op for i, op in enumerate(graph.ops) if i not in late]
        self.step = [op for i, op in enumerate(graph.ops) if i in late]
        self.chunked = chunked and not self.single
        self.last_use = _last_uses(graph, self.ahead + self.step)
        self.order = -1  # number of the op at work

    def make(self) -> PlannedStage:
        maker, graph = self.maker, self.stage.graph
        self.places[graph.inputs["x"]] = self.x
        begin = maker.now
        slots = [self._slot(slot.name, slot.read, slot.init) for slot in graph.state]
        for op in self.ahead:
            self._op(op, maker.rows)
        ahead, self.calls, first = self.calls, [], maker.now
        for op in self.step:
            self._op(op, 1)
        y = self._finish(slots)
        by_row = self.single or (bool(slots) and not maker.lanes)
        if self.chunked and by_row:
            self._hold_rows(begin, first)
        ahead, step = (ahead, self.calls) if by_row else (ahead + self.calls, [])
        stage = self.stage
        return PlannedStage(
            stage.name, stage.mode, self.x, y, tuple(ahead), tuple(step), tuple(slots)
        )

    # --- places ----------------------------------------------------------------------------------
    def _slot(self, name: str, read: int, init: Array | None) -> Slot:
        kind = self.stage.graph.values[read]
        rows = self.maker.rows if self.maker.lanes else 1
        dtype = self._type(read)
        self.places[read] = self.maker.room(dtype, kind.size, rows, "state")
        return Slot(name, self.places[read], None if init is None else init.astype(dtype))

    def _type(self, value: int) -> str:
        graph = self.stage.graph
        kind = graph.values[value].dtype
        if kind != "acc":
            return _TYPES[kind]
        site = next(
            str(op.site) for op in graph.ops if op.site and value in (*op.outputs, *op.inputs)
        )
        return f"int{self.maker.bits[site]}"

    def _free(self, view: View, in_place: bool) -> bool:
        """Whether the result of this op may go there: nothing that overlaps it is needed any more, but
        for what lies exactly there and is read by this op, if that works `in_place`.
        """
        now = self.order + int(in_place)
        return all(
            self.last_use.get(value, -1) < (now if place == view else self.order)
            for value, place in self.places.items()
            if place.overlaps(view)
        )

    def _place(self, op: Op, value: int, rows: int) -> View:
        """Where the result `value` of an op goes."""
        graph, dtype = self.stage.graph, self._type(value)
        size = graph.values[value].size
        if op in self.joined:
            return replace(self.x, size=size)
        operands = [self.places[i] for i in op.inputs]
        wide = self.chunked and value == graph.outputs["y"]  # of all rows, though made row by row
        for slot in graph.state:
            own = self.places[slot.read]
            if slot.write == value and not wide and self._free(own, op.kind in _STATE_IN_PLACE):
                return own
        if op.kind in _IN_PLACE and not wide:
            for operand in operands:
                room = self.maker.rooms[operand.buffer]
                free = room.space == "scratch" and room.dtype == dtype and operand.size == size
                if free and self._free(operand, True) and rows in (1, room.rows):
                    return operand
        return self.maker.room(dtype, size, self.maker.rows if wide else rows)

    # --- ops -------------------------------------------------------------------------------------
    def _op(self, op: Op, rows: int) -> None:
        self.order += 1
        inputs = tuple(self.places[i] for i in op.inputs)
        if op.kind == "slice":
            start, stop = op.attrs["start"], op.attrs["stop"]
            whole = inputs[0]
            self.places[op.outputs[0]] = View(whole.buffer, whole.start + start, stop - start)
            return
        product = self.maker.program.products.get(op.site or "")
        if op.kind == "delta_encode":
            self._delta(op, inputs, rows)
            return
        out = self._place(op, op.outputs[0], rows)
        if op.kind == "concat":
            second = View(out.buffer, out.start + inputs[0].size, inputs[1].size)
            halves = (replace(out, size=inputs[0].size), second)
            for source, half in zip(inputs, halves, strict=True):
                if source != half:
                    self._call("copy", (source,), (half,))
        elif op.kind == "add" or product is None:
            kernel = op.kind if self.maker.program.numeric == "integer" else f"{op.kind}_f32"
            if op.kind not in _ELEMENTWISE:
                raise ValueError(f"no kernel is known of the primitive '{op.kind}'")
            attrs = {} if op.kind == "one_hot" else op.attrs  # its size is the result's
            self._call(kernel, inputs, (out,), None, **attrs)
        else:
            self._product(op, product, inputs, out)
        self.places[op.outputs[0]] = out

    def _delta(self, op: Op, inputs: tuple[View, ...], rows: int) -> None:
        codes, sent = inputs
        count = op.attrs["thresholds"].size
        outs = (
            self.maker.room("int32", codes.size, rows),
            self.maker.room("uint8", count, rows),
            self._place(op, op.outputs[2], rows),
        )
        self._call("delta_encode", (codes, sent), outs, op.site, **op.attrs)
        self.blocks[op.outputs[1]] = int(op.attrs["block"])
        self.places.update(zip(op.outputs, outs, strict=True))

    def _product(self, op: Op, product: Product, inputs: tuple[View, ...], out: View) -> None:
        site, width = product.site, f"i{self.maker.bits.get(product.site, 32)}"
        if product.link is None or product.encode is None or product.rescale is None:
            self._call(f"{op.kind}_f32", inputs, (out,), site, **op.attrs)
        elif op.kind == "quantize":
            encode = product.encode
            one, bits = int(encode.mantissa[0]), product.link.bits
            self._call("quantize", inputs, (out,), site, mu=one, shift=encode.shift, bits=bits)
        elif op.kind == "rescale":
            made = product.rescale
            mu = made.mantissa.astype(np.int32)
            self._call(f"rescale_{width}", inputs, (out,), site, mu=mu, shift=made.shift)
        elif op.kind == "accumulate":
            delta, mask, total = inputs
            if out != total:
                self._call("copy", (total,), (out,))
            block = self.blocks[op.inputs[1]]
            self._call(f"accumulate_{width}", (delta, mask, out), (out,), site, mask_block=block)
        elif op.kind in ("linear", "refine"):
            self._call(f"{op.kind}_{width}", inputs, (out,), site, **op.attrs)
        else:
            raise ValueError(f"no kernel is known of the primitive '{op.kind}'")

    def _call(
        self,
        kernel: str,
        inputs: tuple[View, ...],
        outputs: tuple[View, ...],
        site: str | None = None,
        **attrs: Any,
    ) -> None:
        for view in (*inputs, *outputs):
            self.maker.use(view, self.maker.now)
        self.calls.append(Call(kernel, inputs, outputs, site, attrs))
        self.maker.now += 1

    # --- the end of a step -----------------------------------------------------------------------
    def _finish(self, slots: list[Slot]) -> View:
        """Copy to where it must lie what does not lie there yet; the place of y."""
        graph = self.stage.graph
        own = {slot.view.buffer for slot in slots}
        written = {
            slot.name: self.places[s.write] for slot, s in zip(slots, graph.state, strict=True)
        }
        y = self.places[graph.outputs["y"]]
        kept = any(slot.view == y == written[slot.name] for slot in slots)
        rows = 1 if self.single else self.maker.rows
        if (y.buffer in own and not kept) or self.maker.rooms[y.buffer].rows < rows:
            y = self._copy(y, rows)
        for slot in slots:
            source = written[slot.name]
            if source.buffer in own and source != slot.view:  # before it is overwritten
                written[slot.name] = self._copy(source, rows if self.maker.lanes else 1)
        for slot in slots:
            if written[slot.name] != slot.view:
                self._call("copy", (written[slot.name],), (slot.view,))
        return y

    def _copy(self, source: View, rows: int) -> View:
        copy = self.maker.room(self.maker.rooms[source.buffer].dtype, source.size, rows)
        self._call("copy", (source,), (copy,))
        return copy

    def _hold_rows(self, begin: int, first: int) -> None:
        """What holds all rows is needed until the last of them is done."""
        for room in self.maker.rooms:
            if room.rows > 1 and room.space == "scratch" and room.last >= first:
                room.first = min(room.first, first) if room.first >= begin else room.first
                room.last = max(room.last, self.maker.now - 1)


def _joined(graph: Graph) -> list[Op]:
    """The ops that put something behind the graph's input, and behind the result of the one before."""
    found: list[Op] = []
    whole = graph.inputs["x"]
    for op in graph.ops:
        if op.kind == "concat" and op.inputs[0] == whole:
            found.append(op)
            (whole,) = op.outputs
    return found


def _last_uses(graph: Graph, ops: list[Op]) -> dict[int, int]:
    """Value → number of the last op that reads it; y and what is carried on outlive all."""
    found = {i: number for number, op in enumerate(ops) for i in op.inputs}
    for value in (*graph.outputs.values(), *(slot.write for slot in graph.state)):
        found[value] = _END
    return found
