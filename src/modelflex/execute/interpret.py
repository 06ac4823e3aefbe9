"""The interpreter: runs programs batched over ragged sequences, bit-exact in integers.

Integer products run as floating-point matrix products, which are exact while every partial sum
stays below the mantissa (float32 below 2²⁴, float64 below 2⁵³): integer matrix products in NumPy
are some thirty times slower. Values that depend on no state are computed for all steps at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modelflex.core.accumulators import sum_bound
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array, from_fx, to_fx
from modelflex.core.graph import Graph, Op
from modelflex.core.packing import Packing, make_packing
from modelflex.core.profile import Profile, SiteCounts
from modelflex.core.program import Program, Stage
from modelflex.core.tracer import Product
from modelflex.errors import UserError
from modelflex.execute.anytime import check_terms
from modelflex.execute.kernels import KERNELS, Kernels

CHUNK_STEPS = 16_384
CHUNK_NUMBERS = 1 << 26
"""Time steps executed together at most, and numbers of a value of all of them (one sequence may be
longer), which bounds memory."""


@dataclass(frozen=True, eq=False)
class Execution:
    """What a run gave.

    Attributes:
        outputs: float64 [ΣT, K] (an output at every step) or [N, K].
        profile: counters of every product.
        inputs: site → real values [ΣT or N, in] that the product multiplied (under delta the held
            ones), in the order of the sequences; empty unless captured.
        state: stage → slot → final value of every sequence [N, size].
    """

    outputs: Array
    profile: Profile
    inputs: Mapping[str, Array]
    state: Mapping[str, Mapping[str, Array]]


class _Counter:
    def __init__(self) -> None:
        self.runs = self.units = self.active = 0

    def add(self, product: Product, rows: int, mask: Array | None) -> None:
        geo, windows = product.geometry, product.windows
        self.runs += rows
        if mask is None:
            self.units += rows * geo.units
            self.active += rows * geo.inputs * product.positions
            return
        if windows is not None:
            for piece in windows.pieces(rows):
                seen = windows.gather(mask[piece])
                self.active += int(np.count_nonzero(seen))
                columns = seen.any(axis=1).reshape(-1, geo.units, geo.block)
                self.units += int(np.count_nonzero(columns.any(axis=-1)))
            return
        blocks = mask if geo.block == 1 else mask.reshape(rows, geo.units, geo.block).any(axis=-1)
        self.units += int(np.count_nonzero(blocks))
        self.active += int(np.count_nonzero(mask))


class Interpreter:
    """A program ready to run: matrices expanded and widths proven once."""

    def __init__(self, program: Program, kernels: Kernels = KERNELS) -> None:
        self.program, self.kernels = program, kernels
        self._matrices = {site: _matrix(p) for site, p in program.products.items()}

    def run(
        self,
        sequences: Sequences,
        *,
        capture: bool = False,
        state: Mapping[str, Mapping[str, Array]] | None = None,
        terms: Mapping[str, int] | None = None,
    ) -> Execution:
        """Run all sequences; `state` (as `Execution.state` gives it) continues where a run ended.

        Args:
            terms: weight → how many of its first terms are used at every step; all where it is not named.

        Raises:
            UserError: the sequences do not have the features that the program reads, or an output
                overflows.
        """
        check_terms(self.program, terms or {})
        graph = self.program.stages[0].graph
        wanted = graph.values[graph.inputs["x"]].size
        if sequences.x.shape[1] != wanted:
            raise UserError(
                f"the data have {sequences.x.shape[1]} features", f"{wanted}, the model's inputs"
            )
        runs = [
            _Run(self, part, capture, state and _slice_state(state, first, part.count), terms or {})
            for first, part in chunks(sequences, self._chunk_steps)
        ]
        counts = {site: _Counter() for site in self.program.products}
        for run in runs:
            with np.errstate(over="ignore", invalid="ignore"):  # the outputs tell, below
                run.execute()
            for site, counter in run.counters.items():
                total = counts[site]
                total.runs += counter.runs
                total.units += counter.units
                total.active += counter.active
            run.release()
        sites = {s: SiteCounts(c.runs, c.units, c.active) for s, c in counts.items()}
        outputs = np.concatenate([run.outputs for run in runs])
        if not np.all(np.isfinite(outputs)):
            raise UserError(
                "the network's outputs are not finite",
                "finite numbers",
                "repair the trained weights or standardise the data",
            )
        return Execution(
            outputs,
            Profile(sequences.steps, sequences.count, sites),
            _join([run.inputs for run in runs]),
            {
                stage.name: _join([run.state[stage.name] for run in runs])
                for stage in self.program.stages
            },
        )

    @property
    def _chunk_steps(self) -> int:
        """Time steps that are executed together."""
        widest = max(value.size for stage in self.program.stages for value in stage.graph.values)
        return min(CHUNK_STEPS, max(1, CHUNK_NUMBERS // widest))

    def linear(self, site: str, x: Array) -> Array:
        """A·x for rows x [rows, in]; exact integers in integer programs (held as floats)."""
        matrix, windows = self._matrices[site], self.program.products[site].windows
        x = x.astype(matrix.dtype, copy=False)
        if windows is None:
            return x @ matrix
        shape = x.shape[0], matrix.shape[1], windows.positions
        results = np.empty(shape, matrix.dtype)
        for piece in windows.pieces(x.shape[0]):
            seen = windows.gather(x[piece])
            found = seen.reshape(-1, seen.shape[2]) @ matrix
            results[piece] = found.reshape(*seen.shape[:2], -1).transpose(0, 2, 1)
        return results.reshape(shape[0], -1)


def _matrix(product: Product) -> Array:
    """The matrix [in, out] in the narrowest float type that keeps integer products exact."""
    matrix = product.integers()
    if product.link is None:
        return np.ascontiguousarray(matrix.T, np.float32)
    bound = sum_bound(product, matrix)
    return np.ascontiguousarray(matrix.T, np.float32 if bound < 1 << 24 else np.float64)


def chunks(sequences: Sequences, limit: int) -> list[tuple[int, Sequences]]:
    """(number of the first sequence, sequences) of at most `limit` steps or one sequence, in order."""
    if sequences.steps <= limit:
        return [(0, sequences)]
    chunks, start, steps = [], 0, 0
    for i, length in enumerate(sequences.lengths):
        if steps and steps + length > limit:
            chunks.append((start, sequences.take(np.arange(start, i))))
            start, steps = i, 0
        steps += int(length)
    chunks.append((start, sequences.take(np.arange(start, sequences.count))))
    return chunks


def _slice_state(
    state: Mapping[str, Mapping[str, Array]], first: int, count: int
) -> dict[str, dict[str, Array]]:
    return {
        stage: {slot: value[first : first + count] for slot, value in slots.items()}
        for stage, slots in state.items()
    }


def _own(value: Array) -> Array:
    """The value in memory of its own: it may be a view of a state that is about to change."""
    return value if value.base is None else value.copy()


def _join(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


class _Run:
    """One chunk of sequences going through all stages."""

    def __init__(
        self,
        interpreter: Interpreter,
        sequences: Sequences,
        capture: bool,
        state: Mapping[str, Mapping[str, Array]] | None,
        terms: Mapping[str, int],
    ) -> None:
        self.terms = terms
        self.interpreter, self.sequences, self.capture = interpreter, sequences, capture
        self.packing = make_packing(sequences.lengths)
        self.once = Packing(
            self.packing.order,
            np.array([sequences.count]),
            np.array([0, sequences.count]),
            self.packing.order,
        )
        self.initial = state or {}
        self.counters = {site: _Counter() for site in interpreter.program.products}
        self.inputs: dict[str, Array] = {}
        self.state: dict[str, dict[str, Array]] = {}
        self.outputs: Array

    def execute(self) -> None:
        program = self.interpreter.program
        integer = program.numeric == "integer"
        x = self.packing.pack(self.sequences.x)
        value = to_fx(x) if integer else x.astype(np.float32)
        packing = self.packing
        for stage in program.stages:
            if stage.mode == "once" and packing is not self.once:
                value, packing = self._last(value), self.once
            value = self._stage(stage, value, packing)
        real = from_fx(value) if integer else value.astype(np.float64)
        self.outputs = packing.unpack(real)

    def release(self) -> None:
        """Drop what only the run itself needs."""
        self.initial = {}

    def _last(self, packed: Array) -> Array:
        """The last step of every sequence, longest first."""
        lengths = self.sequences.lengths[self.packing.order]
        return packed[self.packing.offsets[lengths - 1] + np.arange(lengths.size)]

    def _stage(self, stage: Stage, x: Array, packing: Packing) -> Array:
        graph = stage.graph
        dirty = graph.state_dependent()
        values: dict[int, Array] = {graph.inputs["x"]: x}
        caught: dict[str, Array] = {}
        for op in graph.ops:
            if dirty.isdisjoint(op.inputs):
                self._apply(op, values, caught)
        if graph.state:
            y = self._steps(stage, dirty, values, caught, packing)
        else:
            y = values[graph.outputs["y"]]
            self.state[stage.name] = {}
        if self.capture:
            self.inputs |= {site: packing.unpack(rows) for site, rows in caught.items()}
        return y

    def _steps(
        self,
        stage: Stage,
        dirty: frozenset[int],
        ready: dict[int, Array],
        caught: dict[str, Array],
        packing: Packing,
    ) -> Array:
        graph, y = stage.graph, stage.graph.outputs["y"]
        state = self._first_state(stage, packing)
        ops = [op for op in graph.ops if not dirty.isdisjoint(op.inputs)]
        fed = {i for op in ops for i in op.inputs if i in ready}
        out: Array | None = None
        for t, n in enumerate(packing.alive):
            rows = slice(int(packing.offsets[t]), int(packing.offsets[t + 1]))
            values = {i: ready[i][rows] for i in fed}
            values |= {slot.read: state[slot.name][:n] for slot in graph.state}
            now: dict[str, Array] = {}
            for op in ops:
                self._apply(op, values, now)
            if out is None:
                out = np.empty((packing.rows.size, values[y].shape[1]), values[y].dtype)
            out[rows] = values[y]  # before the state changes: it may be a view of it
            after = [_own(values[slot.write]) for slot in graph.state]
            for slot, new in zip(graph.state, after, strict=True):
                state[slot.name][:n] = new
            for site, used in now.items():
                if t == 0:
                    caught[site] = np.empty((packing.rows.size, used.shape[1]), used.dtype)
                caught[site][rows] = used
        back = np.empty_like(packing.order)
        back[packing.order] = np.arange(packing.order.size)
        self.state[stage.name] = {name: value[back] for name, value in state.items()}
        if out is None:
            raise UserError("there is no time step to run", "at least one")
        return out

    def _first_state(self, stage: Stage, packing: Packing) -> dict[str, Array]:
        """The state before the first step, sequences longest first."""
        # What runs once a sequence has no step before it, wherever the sequence was cut.
        graph, given = stage.graph, {} if stage.mode == "once" else self.initial.get(stage.name, {})
        state = {}
        for slot in graph.state:
            kind = graph.values[slot.read]
            if slot.name in given:
                state[slot.name] = given[slot.name][packing.order].copy()
                continue
            dtype = self._dtype(graph, slot.write, kind.dtype)
            first: Array = np.zeros((packing.order.size, kind.size), dtype)
            if slot.init is not None:
                first[:] = slot.init
            state[slot.name] = first
        return state

    def _dtype(self, graph: Graph, value: int, dtype: str) -> type:
        """The NumPy type that holds a carried value; accumulators are exact floats of their product."""
        if dtype == "acc":
            op = next(op for op in graph.ops if value in op.outputs)
            return self.interpreter._matrices[str(op.site)].dtype.type
        return {"fx": np.int32, "float32": np.float32, "code": np.int16}[dtype]

    def _apply(self, op: Op, values: dict[int, Array], caught: dict[str, Array]) -> None:
        args = [values[i] for i in op.inputs]
        if op.site is None or op.kind == "add":  # with a site: the terms of a weight that is a sum
            values[op.outputs[0]] = self.interpreter.kernels.elementwise(op, args)
            return
        product = self.interpreter.program.products[op.site]
        if op.kind == "quantize" and product.encode is not None and product.link is not None:
            values[op.outputs[0]] = self.interpreter.kernels.quantize(
                args[0], product.encode, product.link.bits
            )
        elif op.kind == "rescale" and product.rescale is not None:
            values[op.outputs[0]] = self.interpreter.kernels.rescale(args[0], product.rescale)
        elif op.kind == "delta_encode":
            made = self.interpreter.kernels.delta_encode(args[0], args[1], **op.attrs)
            values.update(zip(op.outputs, made, strict=True))
            self._catch(op.site, made[2], caught)
        elif op.kind == "linear":
            result = self.interpreter.linear(op.site, args[0])
            if product.bias is not None:
                result = result + product.bias.astype(result.dtype)
            values[op.outputs[0]] = result
            mask = args[0] != 0 if op.attrs.get("skip_zeros") else None
            self.counters[op.site].add(product, args[0].shape[0], mask)
            self._catch(op.site, args[0], caught)
        elif op.kind == "refine":
            values[op.outputs[0]] = self._refine(op, product, args[0])
        elif op.kind == "accumulate":
            values[op.outputs[0]] = args[2] + self.interpreter.linear(op.site, args[0])
            self.counters[op.site].add(product, args[0].shape[0], args[1])
        else:
            raise ValueError(f"the interpreter knows no product primitive '{op.kind}'")

    def _refine(self, op: Op, outer: Product, x: Array) -> Array:
        """bias + Σ_n u_n·(v_n·x) over the first terms, and what it counts."""
        inner, groups = self.interpreter.program.products[op.attrs["inner"]], op.attrs["groups"]
        count, rows = outer.geometry.inputs, x.shape[0]
        terms = min(self.terms.get(outer.weight, count), count)
        for product in (inner, outer):
            counter, inputs = self.counters[product.site], product.geometry.inputs
            counter.runs += rows
            counter.units += rows * terms
            counter.active += rows * (inputs * terms // count)
        if inner.rescale is None:
            t = x @ self.interpreter._matrices[inner.site][:, : terms * groups]
            t = t if inner.bias is None else t + inner.bias[: terms * groups]
            t = t.reshape(rows, terms, groups).transpose(2, 0, 1)
        else:
            t = self._codes_between(inner, outer, x).reshape(rows, count, groups)
            t = t[:, :terms].transpose(2, 0, 1)
        matrix = self.interpreter._matrices[outer.site][:terms]  # [terms, out]
        u = matrix.reshape(terms, groups, matrix.shape[1] // groups).transpose(1, 0, 2)
        result = np.matmul(t.astype(u.dtype, copy=False), u).transpose(1, 0, 2).reshape(rows, -1)
        return result if outer.bias is None else result + outer.bias.astype(result.dtype)

    def _codes_between(self, inner: Product, outer: Product, x: Array) -> Array:
        """V·x of all terms, as the codes that U is multiplied with."""
        if inner.rescale is None or outer.encode is None or outer.link is None:
            raise ValueError(f"'{outer.site}' is of floats")
        t = self.interpreter.linear(inner.site, x)
        t = t if inner.bias is None else t + inner.bias.astype(t.dtype)
        between = self.interpreter.kernels.rescale(t, inner.rescale)
        return self.interpreter.kernels.quantize(between, outer.encode, outer.link.bits)

    def _catch(self, site: str, used: Array, caught: dict[str, Array]) -> None:
        if self.capture:
            link = self.interpreter.program.products[site].link
            step = 1.0 if link is None else link.step
            caught[site] = used.astype(np.float32) * np.float32(step)


def run(program: Program, sequences: Sequences, *, capture: bool = False) -> Execution:
    """Run a program once; see `Interpreter.run`."""
    return Interpreter(program).run(sequences, capture=capture)
