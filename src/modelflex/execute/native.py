"""The native executor: plans run by compiled code, bit-exact to the interpreter in integers.

Floats agree to `FLOAT_TOLERANCE`: sums run in another order, and σ and tanh are approximated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, SupportsIndex

import numpy as np

from modelflex.core.data import Sequences, as_sequences
from modelflex.core.fixed import TANH_TABLE, Array
from modelflex.core.plan import ITEM_BYTES, KERNELS, Call, Plan, View
from modelflex.core.planner import accumulator_bits, make_plan
from modelflex.core.profile import Profile, SiteCounts
from modelflex.core.program import Program
from modelflex.core.stored_matrix import stored_matrix
from modelflex.core.tracer import Product
from modelflex.errors import UserError
from modelflex.execute.interpret import Execution, Interpreter
from modelflex.execute.kernels import HAVE_NATIVE, NATIVE_ERROR

if HAVE_NATIVE:
    import modelflex._native as _native

FLOAT_TOLERANCE = 1e-5
"""Largest distance of float results from the interpreter's, relative to the larger of 1 and the value."""
CACHED_BYTES = 1 << 18
"""Memory of all rows of a plan, so that they stay in a cache near the core; of a chunk also as much as
the weights take that are read once for all its steps."""
MAX_CHUNK, MAX_LANES = 32, 64
MAX_THREADS = 1024
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
        if product.link is None:
            matrix = np.ascontiguousarray(product.integers(), np.float32)
            self.weights.add_floats(matrix, bias, taps, entering, unit)
            return
        bits = self.bits[product.site]
        bias = None if bias is None else bias.astype(f"int{bits}")
        stored = stored_matrix(product, skip_zeros=skip_zeros)
        self.weights.add_codes(stored, product.link.bits, bits, bias, taps, entering, unit)

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
                _attrs(plan, call),
                number < len(stage.ahead),
            )
        for slot in stage.state:
            item = ITEM_BYTES[plan.buffers[slot.view.buffer].dtype]
            first = None if slot.init is None else slot.init.tobytes()
            made.add_slot(place(slot.view), item, first)
    made.finish(place(plan.stages[0].x), place(plan.stages[-1].y))
    return made


def _attrs(plan: Plan, call: Call) -> dict[str, Any]:
    """A call's attributes as numbers and int32 arrays."""
    if call.kernel == "piecewise":
        table = call.attrs["table"]
        columns = {name: getattr(table, name) for name in ("breaks", "values", "slopes")}
        return {**columns, "centre": table.centre}
    if call.kernel in ("sigmoid", "tanh"):
        return {"table": TANH_TABLE}
    if call.kernel == "copy":
        return {"item_bytes": ITEM_BYTES[plan.buffers[call.outputs[0].buffer].dtype]}
    return dict(call.attrs)


class Runtime:
    """A program ready to run, step by step or on whole sequences, in compiled code.

    One instance is one stream: it carries the state of one sequence. Streams share their weights
    and may run in threads of their own; one stream runs in one thread at a time.

    Attributes:
        step: (x, out=None) → y: one time step. x [inputs] is a C-contiguous float32 or float64 array,
            the result [outputs] has its type (float64 holds the integers' results exactly). With
            `out`, nothing is allocated. Where the network reads only the last step somewhere, the
            result is what it gives if the sequence ends here.
        run: (x, out=None) → y: the time steps x [T, inputs] as one call; [T, outputs], or [outputs]
            where the network has one result a sequence. It goes on from the carried state, as `step`
            does, and equals T calls of it.

    Both raise ValueError for arrays of another shape, type, byte order or layout and for inputs or
    results that are not finite (results of integer programs always are: they saturate), and RuntimeError
    where another thread is running the stream; the state is as before, `out` may have been written to. For
    this, `run` copies the state first, and streams of floats also for each step, and check every result.

    `run` releases the interpreter's lock. `step` does so from 65,536 multiplications on: in smaller steps,
    which take microseconds, handing the lock over costs more than threads gain. Threads that make small
    steps take turns; `run` and `run_batch` use several cores.
    """

    def __init__(self, program: Program | Shared) -> None:
        shared = program if isinstance(program, Shared) else Shared(program)
        self._shared = shared
        self.plan = shared.plan
        _, step = shared.native_plan()
        _, chunk = shared.native_plan(chunk=shared.chunk)
        self._stream = _native.Stream(step, chunk)
        self.step: Callable[..., Array] = self._stream.step
        self.run: Callable[..., Array] = self._stream.run

    @property
    def inputs(self) -> int:
        """Elements of an input."""
        return self.plan.inputs

    @property
    def outputs(self) -> int:
        """Elements of an output."""
        return self.plan.outputs

    def reset(self) -> None:
        """Forget the sequence so far."""
        self._stream.reset()

    def stream(self) -> Runtime:
        """Another stream with the same weights, at reset."""
        return Runtime(self._shared)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        # A copy would share the carried state; compiled code has no form to send to a process.
        raise TypeError(
            "a Runtime cannot be copied or pickled; for another sequence use stream(), in another "
            "process compile the model there"
        )

    # --- state -----------------------------------------------------------------------------------
    @property
    def state(self) -> dict[str, dict[str, Array]]:
        """Copies of the carried values: stage → slot → array (fx int32, codes int16, sums int32 or int64,
        float32); assigning continues where another run ended.

        Raises:
            UserError: on assignment: not the slots, sizes and types of this model, or sums that are not
                those of the codes sent.
        """
        memory = self._stream.get_state()
        return {
            stage.name: {slot.name: self._slot(memory, slot.view).copy() for slot in stage.state}
            for stage in self.plan.stages
        }

    @state.setter
    def state(self, given: Mapping[str, Mapping[str, Array]]) -> None:
        memory = bytearray(self.plan.state_bytes)
        stages = {stage.name: stage for stage in self.plan.stages}
        _same_names("stages", stages, given)
        for name, stage in stages.items():
            slots = {slot.name: slot for slot in stage.state}
            _same_names(f"values of '{name}'", slots, given[name])
            for slot_name, slot in slots.items():
                place, value = self._slot(memory, slot.view), np.asarray(given[name][slot_name])
                if value.shape != place.shape or value.dtype != place.dtype:
                    raise UserError(
                        f"the state's '{slot_name}' of '{name}' is {value.dtype} {list(value.shape)}",
                        f"{place.dtype} {list(place.shape)}, as the state of this model has it",
                    )
                if value.dtype == np.float32 and not np.all(np.isfinite(value)):
                    raise UserError(f"the state's '{slot_name}' of '{name}' is not finite")
                place[:] = value
        carried = {name: value for slots in given.values() for name, value in slots.items()}
        for product in self.plan.products.values():
            self._check_sums(product, carried)
        self._stream.set_state(bytes(memory))

    def _slot(self, memory: bytes | bytearray, view: View) -> Array:
        buffer = self.plan.buffers[view.buffer]
        return np.frombuffer(memory, buffer.dtype, view.size, buffer.offset)

    def _check_sums(self, product: Product, slots: Mapping[str, Array]) -> None:
        """Sums that are carried must be those of the codes that were sent: so they stay in their bound."""
        sent, total = (slots.get(f"{product.site}.{name}") for name in ("sent", "m"))
        if sent is None or total is None or product.link is None:
            return
        half = 1 << (product.link.bits - 1)
        matrix, seen = product.integers().astype(np.float64), sent[None].astype(np.float64)
        if product.windows is not None:
            seen = product.windows.gather(seen)[0]
        wanted = (matrix @ seen.T).ravel() + (0 if product.bias is None else product.bias)
        if sent.min() < -half or sent.max() >= half or not np.array_equal(wanted, total):
            raise UserError(
                f"the state's sums of '{product.site}' are not those of the codes sent",
                "a state of this model",
            )

    # --- batches ---------------------------------------------------------------------------------
    def run_batch(
        self, sequences: Sequences | Iterable[Array] | Array, threads: int = 1
    ) -> Execution:
        """Run sequences, each from reset; the stream's own state stays as it is. See `run_native`.

        Args:
            sequences: what `load_sequences` gives, arrays [T, inputs] or an array [N, T, inputs].
            threads: how many threads run at once, from 1 to 1024.
        """
        return run_native(self._shared, as_sequences(sequences), threads)


def run_native(
    program: Program | Shared, sequences: Sequences, threads: int = 1, *, capture: bool = False
) -> Execution:
    """Outputs, counters and final state of a program on sequences, as the interpreter gives them.

    Data are read as float32 where that holds them exactly, else as float64. Sequences of about the same
    length are stepped together, in `threads` threads. Carried sums are integers in the state (the
    interpreter's are integers held as floats).

    Args:
        capture: keep what products see (integer programs only).

    Raises:
        UserError: the sequences do not have the features that the program reads, or outputs are not
            finite; a number of threads that is not from 1 to 1024.
    """
    whole = isinstance(threads, int | np.integer) and not isinstance(threads, bool)
    if not whole or not 1 <= threads <= MAX_THREADS:
        raise UserError(f"threads is {str(threads)[:30]}", f"a number from 1 to {MAX_THREADS}")
    shared = program if isinstance(program, Shared) else Shared(program)
    if sequences.x.ndim != 2 or sequences.x.shape[1] != shared.plan.inputs:
        raise UserError(
            f"the data have {sequences.x.shape[-1]} features",
            f"{shared.plan.inputs}, the model's inputs",
        )
    lanes = min(shared.lanes, max(1, -(-sequences.count // threads)))
    plan, loaded = shared.native_plan(lanes=lanes)
    lengths = np.ascontiguousarray(sequences.lengths, np.int64)
    rows = sequences.steps if plan.per_step else sequences.count
    outputs = np.empty((rows, plan.outputs))
    slots = [slot for stage in plan.stages for slot in stage.state]
    held: list[Array] = [
        np.empty((sequences.count, s.view.size), plan.buffers[s.view.buffer].dtype) for s in slots
    ]
    counts = np.zeros((len(shared.sites), 3), np.uint64)
    seen = _room_for_codes(shared, sequences) if capture else {}
    _native.run_batch(
        loaded,
        _real(sequences.x),
        np.argsort(-lengths, kind="stable"),
        np.cumsum(lengths) - lengths,
        lengths,
        threads,
        outputs,
        [value.view(np.uint8) for value in held],
        counts,
        list(seen.values()),
    )
    if not np.all(np.isfinite(outputs)):
        raise UserError(
            "the network's outputs are not finite",
            "finite numbers",
            "repair the trained weights or standardise the data",
        )
    values = iter(held)
    state = {s.name: {slot.name: next(values) for slot in s.state} for s in plan.stages}
    sites = {s: SiteCounts(*map(int, counts[n])) for s, n in shared.sites.items()}
    inputs = {site: _reals(codes, shared.program.products[site]) for site, codes in seen.items()}
    return Execution(outputs, Profile(sequences.steps, sequences.count, sites), inputs, state)


def _real(x: Array) -> Array:
    """x as compiled code reads it: float32, or float64 where float32 might round."""
    if x.dtype.kind not in "fiub":
        raise UserError(f"the data are of type {x.dtype}", "real numbers")
    narrow = np.can_cast(x.dtype, np.float32)
    return np.require(x, np.float32 if narrow else np.float64, ["C", "ALIGNED"])


def _room_for_codes(shared: Shared, sequences: Sequences) -> dict[str, Array]:
    """Site → int16 [steps, or sequences where it runs once, inputs], in the order of the sites."""
    once = {c.site for stage in shared.plan.stages if stage.mode == "once" for c in stage.calls}
    return {
        site: np.empty(
            (sequences.count if site in once else sequences.steps, product.inputs), np.int16
        )
        for site, product in shared.program.products.items()
    }


def _reals(codes: Array, product: Product) -> Array:
    step = 1.0 if product.link is None else product.link.step
    return codes.astype(np.float32) * np.float32(step)


def execute(program: Program, sequences: Sequences, *, capture: bool = False) -> Execution:
    """Run a program with the fastest executor that gives the interpreter's bits: integers in compiled
    code, where it was built. Floats run in the interpreter, so that they hang on no instruction set.

    Raises:
        UserError: see `Interpreter.run`.
    """
    if HAVE_NATIVE and program.numeric == "integer":
        return run_native(program, sequences, capture=capture)
    return Interpreter(program).run(sequences, capture=capture)


def _same_names(what: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping) or set(given) != set(wanted):
        found = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise UserError(
            f"the state's {what} are {found or 'none'}", f"{', '.join(wanted) or 'none'}"
        )
