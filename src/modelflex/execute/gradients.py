"""Reverse-mode gradients through float programs: how much each product's results matter to the output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.divergence import VALUES, judged, log_softmax
from modelflex.core.fixed import Array
from modelflex.core.graph import Graph, Op
from modelflex.core.packing import Packing, make_packing
from modelflex.core.program import Program, Stage
from modelflex.core.tracer import Product
from modelflex.execute.interpret import Interpreter, chunks

PASS_STEPS = 10_000
"""Time steps that are gone back through at once, about: all their values are kept."""
Values = dict[int, Array]
Seed = Callable[[Array], Array]
"""Outputs [N or ΣT, K] in the order of the sequences → the objective's gradient in them, likewise."""
Visit = Callable[[str, Array, Array], None]
"""Takes a site, the objective's gradient in the product's results [rows, outputs] and the product's
inputs [rows, …], a piece at a time.
"""
Adjoint = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class _Tape:
    """A stage's forward values: those that hang on no state for all steps, the others by step."""

    ready: Values
    steps: Sequence[Values]
    result: Array


def importances(
    program: Program, sequences: Sequences, output: str, seed: int
) -> Mapping[str, Array]:
    """The diagonal of the Fisher information in every product's results: site → float64 [out].

    For logits it is the mean over outputs of the squared gradient of log p(label), with a label
    drawn from the network's own softmax at each output; for "values" that of vᵀy with v normal and
    scaled so that the divergence is the squared relative error. Gradients are summed over the time
    steps of a sequence, so that ½·Σ_r importance_r·E[δ_r²] is the mean divergence that small errors
    δ [out], independent from step to step and from position to position of a map, cause.

    Source: Martens, New insights and perspectives on the natural gradient method, JMLR 21, 2020, §5.

    Raises:
        ValueError: the program is not in float arithmetic or holds an unknown primitive.
    """
    sums = {site: np.zeros(p.geometry.out) for site, p in program.products.items()}

    def add(site: str, gradient: Array, _: Array) -> None:
        squares = np.einsum("ij,ij->j", gradient, gradient, dtype=np.float64)
        sums[site] += squares.reshape(sums[site].size, -1).sum(axis=1)

    rows = _sample_gradients(program, sequences, output, seed, add)
    return {site: total / rows for site, total in sums.items()}


def information(
    program: Program, sequences: Sequences, output: str, seed: int, sites: Collection[str]
) -> Mapping[str, Array]:
    """The Fisher information in the results of some products that run once a step: site → [out, out].

    See `importances`, which gives its diagonal; ½·tr(F·E[δδᵀ]) is the mean divergence of small errors.

    Raises:
        ValueError: see `importances`.
    """
    outs = {site: program.products[site].outputs for site in sites}
    sums = {site: np.zeros((out, out)) for site, out in outs.items()}

    def add(site: str, gradient: Array, _: Array) -> None:
        if site in sums:
            sums[site] += gradient.T.astype(np.float64) @ gradient

    rows = _sample_gradients(program, sequences, output, seed, add)
    return {site: total / rows for site, total in sums.items()}


def _sample_gradients(
    program: Program, sequences: Sequences, output: str, seed: int, visit: Visit
) -> int:
    """Go back from outputs whose gradient's second moment is the Fisher information; how many there are."""
    rng = np.random.default_rng(seed)
    rows = 0

    def start(outputs: Array) -> Array:
        nonlocal rows
        rows += outputs.shape[0]
        if output == VALUES:
            return _scaled_noise(rng, outputs)
        count, seed = judged(output, outputs.shape[1]), np.zeros(outputs.shape)
        seed[:, :count] = _drawn(rng, outputs[:, :count])
        return seed

    for _, part in chunks(sequences, PASS_STEPS):
        backpropagate(program, part, start, visit)
    return rows


def _drawn(rng: np.random.Generator, logits: Array) -> Array:
    """∂ log p(label)/∂ logits = onehot(label) − p, with labels drawn from p."""
    p = np.exp(log_softmax(logits))
    drawn = (p.cumsum(axis=1) < rng.random((p.shape[0], 1))).sum(axis=1)
    return np.asarray(np.eye(p.shape[1])[np.minimum(drawn, p.shape[1] - 1)] - p)


def _scaled_noise(rng: np.random.Generator, outputs: Array) -> Array:
    """v with E[v·vᵀ] = 2·I / E‖y‖²: ½·E[(vᵀδ)²] is the squared relative error of y + δ."""
    power = float(np.mean(np.sum(np.square(outputs), axis=1)))
    scale = np.sqrt(2.0 / power) if power > 0 else 1.0
    return np.asarray(scale * rng.standard_normal(outputs.shape))


def backpropagate(program: Program, sequences: Sequences, start: Seed, visit: Visit) -> None:
    """Run a float program and go back through layers and time.

    Args:
        start: gives the objective's gradient in the outputs.
        visit: is called with its gradient in the results of each product; all calls for a site
            together cover every run of the product once.

    Raises:
        ValueError: see `importances`.
    """
    run = Forward(program, sequences)
    run.back(start(run.outputs), visit)


@final
class Forward:
    """A run of a float program that one can go back through.

    Attributes:
        outputs: float64 [N or ΣT, K], in the order of the sequences.
        results: of every stage, float32 [rows, size]; two runs over the same sequences have their rows
            in the same order, by time step.

    Raises:
        ValueError: see `importances`.
    """

    def __init__(self, program: Program, sequences: Sequences) -> None:
        if program.numeric != "float":
            raise ValueError("gradients are defined for float programs only")
        self._interpreter = Interpreter(program)
        packing = make_packing(sequences.lengths)
        once = np.array([sequences.count]), np.array([0, sequences.count])
        alone = Packing(packing.order, *once, packing.order)
        ends = sequences.lengths[packing.order]
        self._last = packing.offsets[ends - 1] + np.arange(ends.size)
        self._rows = packing.rows.size
        value, at = packing.pack(sequences.x).astype(np.float32), packing
        self._tapes: list[tuple[Stage, Packing, _Tape, bool]] = []
        for stage in program.stages:
            enters = stage.mode == "once" and at is not alone
            if enters:
                value, at = value[self._last], alone
            tape = _forward(self._interpreter, stage.graph, value, at)
            self._tapes.append((stage, at, tape, enters))
            value = tape.result
        self._at = at
        self.outputs = at.unpack(value).astype(np.float64)
        self.results = [tape.result for _, _, tape, _ in self._tapes]

    def back(
        self, gradient: Array, visit: Visit, inside: Mapping[int, Array] | None = None
    ) -> None:
        """Go back.

        Args:
            gradient: the objective's in `outputs`.
            visit: see `backpropagate`.
            inside: number of a stage → the objective's own gradient in its `results`.
        """
        upstream = self._at.pack(gradient).astype(np.float32)
        for number, (stage, at, tape, enters) in reversed(list(enumerate(self._tapes))):
            if inside is not None and number in inside:
                upstream = upstream + inside[number]
            upstream = _backward(self._interpreter, stage.graph, tape, at, upstream, visit)
            if enters:
                spread = np.zeros((self._rows, upstream.shape[1]), np.float32)
                spread[self._last] = upstream
                upstream = spread


# --- forwards ------------------------------------------------------------------------------------
def _forward(interpreter: Interpreter, graph: Graph, x: Array, packing: Packing) -> _Tape:
    dirty = graph.state_dependent()
    ready: Values = {graph.inputs["x"]: x}
    _run(interpreter, [op for op in graph.ops if dirty.isdisjoint(op.inputs)], ready)
    y = graph.outputs["y"]
    if not graph.state:
        return _Tape(ready, (), ready[y])
    late = [op for op in graph.ops if not dirty.isdisjoint(op.inputs)]
    state = {s.name: _first(graph, s.read, s.init, packing.order.size) for s in graph.state}
    kept = _needed(late)
    steps: list[Values] = []
    result = np.empty((packing.rows.size, graph.values[y].size), np.float32)
    for t, n in enumerate(packing.alive):
        rows = slice(int(packing.offsets[t]), int(packing.offsets[t + 1]))
        values = {i: v[rows] for i, v in ready.items()}
        values |= {s.read: state[s.name][:n] for s in graph.state}
        _run(interpreter, late, values)
        state |= {s.name: values[s.write] for s in graph.state}
        result[rows] = values[y]
        steps.append({i: values[i] for i in kept})
    return _Tape(ready, steps, result)


def _first(graph: Graph, read: int, init: Array | None, count: int) -> Array:
    first = np.zeros((count, graph.values[read].size), np.float32)
    if init is not None:
        first[:] = init
    return first


def _needed(ops: Sequence[Op]) -> set[int]:
    """Values that going back through `ops` reads."""
    return {i for op in ops for i in (*op.inputs, *op.outputs) if op.kind in _READS_VALUES}


def _run(interpreter: Interpreter, ops: Sequence[Op], values: Values) -> None:
    for op in ops:
        args = [values[i] for i in op.inputs]
        if op.kind != "linear":
            values[op.outputs[0]] = interpreter.kernels.elementwise(op, args)
            continue
        site = str(op.site)
        result, bias = interpreter.linear(site, args[0]), interpreter.program.products[site].bias
        values[op.outputs[0]] = result if bias is None else result + bias


# --- backwards -----------------------------------------------------------------------------------
def _backward(
    interpreter: Interpreter,
    graph: Graph,
    tape: _Tape,
    packing: Packing,
    upstream: Array,
    visit: Visit,
) -> Array:
    """The gradient in the stage's input, from that in its output; rows are packed."""
    dirty, x, y = graph.state_dependent(), graph.inputs["x"], graph.outputs["y"]
    early = [op for op in graph.ops if dirty.isdisjoint(op.inputs)]
    late = [op for op in graph.ops if not dirty.isdisjoint(op.inputs)]
    adjoints = {
        str(op.site): _adjoint(interpreter.program.products[str(op.site)])
        for op in graph.ops
        if op.kind == "linear"
    }
    rows_of = packing.rows.size
    sizes = [value.size for value in graph.values]
    whole: Values = {y: upstream.copy()} if y not in dirty else {}
    carried = {
        s.name: np.zeros((packing.order.size, graph.values[s.read].size), np.float32)
        for s in graph.state
    }
    for t in reversed(range(len(tape.steps))):
        rows = slice(int(packing.offsets[t]), int(packing.offsets[t + 1]))
        n = rows.stop - rows.start
        gradients: Values = {y: upstream[rows]} if y in dirty else {}
        for slot in graph.state:
            _accumulate(gradients, slot.write, carried[slot.name][:n])
        _reverse(late, tape.steps[t], gradients, sizes, adjoints, visit)
        for slot in graph.state:
            carried[slot.name][:n] = gradients.get(slot.read, 0.0)
        for i in tape.ready.keys() & gradients.keys():
            if i not in whole:
                whole[i] = np.zeros((rows_of, gradients[i].shape[1]), np.float32)
            whole[i][rows] += gradients[i]
    _reverse(early, tape.ready, whole, sizes, adjoints, visit)
    found = whole.get(x)
    return np.zeros((rows_of, graph.values[x].size), np.float32) if found is None else found


def _adjoint(product: Product) -> Adjoint:
    """From the gradient in a product's results to that in its input."""
    matrix, windows = product.integers(), product.windows
    if windows is None:
        return lambda gradient: gradient @ matrix

    def back(gradient: Array) -> Array:
        found = np.empty((gradient.shape[0], windows.size), gradient.dtype)
        results = gradient.reshape(gradient.shape[0], matrix.shape[0], -1)
        for piece in windows.pieces(gradient.shape[0]):
            found[piece] = windows.scatter(results[piece].transpose(0, 2, 1) @ matrix)
        return found

    return back


def _accumulate(gradients: Values, value: int, more: Array) -> None:
    gradients[value] = gradients[value] + more if value in gradients else more


def _reverse(
    ops: Sequence[Op],
    values: Values,
    gradients: Values,
    sizes: Sequence[int],
    adjoints: Mapping[str, Adjoint],
    visit: Visit,
) -> None:
    """Go back through `ops`; `gradients` holds those in the results and gains those in the inputs."""
    own: set[int] = set()  # gradients that nothing else refers to, which slices may add to
    for op in reversed(ops):
        gradient = gradients.get(op.outputs[0])
        if gradient is None:
            continue
        if op.kind == "linear":
            visit(str(op.site), gradient, values[op.inputs[0]])
            _accumulate(gradients, op.inputs[0], adjoints[str(op.site)](gradient))
        elif op.kind == "slice":
            whole = op.inputs[0]
            if whole not in own:
                made = np.zeros((gradient.shape[0], sizes[whole]), np.float32)
                gradients[whole] = made + gradients.get(whole, np.float32(0.0))
                own.add(whole)
            gradients[whole][:, op.attrs["start"] : op.attrs["stop"]] += gradient
        elif op.kind == "concat":
            first = sizes[op.inputs[0]]
            own.difference_update(op.inputs)
            _accumulate(gradients, op.inputs[0], gradient[:, :first])
            _accumulate(gradients, op.inputs[1], gradient[:, first:])
        elif op.kind in _ELEMENTWISE:
            pieces = _ELEMENTWISE[op.kind](op, values, gradient)
            for value, piece in zip(op.inputs, pieces, strict=True):
                own.discard(value)
                _accumulate(gradients, value, piece)
        else:
            raise ValueError(f"no gradient is known of the primitive '{op.kind}'")


def _sum(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    return g, g


def _difference(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    return g, -g


def _product(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    a, b = op.inputs
    return g * values[b], g * values[a]


def _sigmoid(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    y = values[op.outputs[0]]
    return (g * y * (1.0 - y),)


def _tanh(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    y = values[op.outputs[0]]
    return (g * (1.0 - y * y),)


def _relu(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    return (g * (values[op.outputs[0]] > 0),)


def _flat(op: Op, values: Values, g: Array) -> tuple[Array, ...]:
    return (np.zeros((g.shape[0], 1), np.float32),)


Backward = Callable[[Op, Values, Array], tuple[Array, ...]]
_ELEMENTWISE: Mapping[str, Backward] = {
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": _relu,
    "one_hot": _flat,
}
_READS_VALUES = ("linear", "mul", "sigmoid", "tanh", "relu")
