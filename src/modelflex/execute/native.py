"""The native executor: plans run by compiled code, bit-exact to the interpreter in integers.

Floats agree to `FLOAT_TOLERANCE`: sums run in another order, and σ and tanh are approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, SupportsIndex

import numpy as np

from modelflex.core.data import Sequences, as_sequences, check_unmasked
from modelflex.core.fixed import Array
from modelflex.core.ladder import Ladder
from modelflex.core.plan import View
from modelflex.core.profile import Profile, SiteCounts
from modelflex.core.program import Program
from modelflex.core.tracer import Product
from modelflex.errors import UserError
from modelflex.execute.anytime import Answer, check_terms
from modelflex.execute.interpret import Execution, Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.execute.loading import Shared

if HAVE_NATIVE:
    import modelflex._native as _native

FLOAT_TOLERANCE = 1e-5
"""Largest distance of float results from the interpreter's, relative to the larger of 1 and the value."""
MAX_THREADS = 1024


class Runtime:
    """A program ready to run, step by step or on whole sequences, in compiled code.

    One instance is one stream: it carries the state of one sequence. Streams share their weights
    and may run in threads of their own; one stream runs in one thread at a time.

    Attributes:
        step: (x, out=None, *, terms=None, budget=None, deadline_s=None) → y, or within a limit `Answer`:
            one time step. x [inputs] is a C-contiguous float32 or float64 array, the result [outputs]
            has its type (float64 holds the integers' results exactly). With `out`, the result is
            written there, which may be where x is. x is read where it lies: nobody may write to it
            before the step has returned, neither another thread nor the stream's own clock. Where the
            network reads only the last step somewhere, the result is what it gives if the sequence ends
            here. At most one limit, of a network some of whose weights are sums of terms
            (docs/progressive.md):
            terms: how many of the first terms of every weight are computed; or weight → how many, all
                of a weight that is not named. What is beyond all terms is all of them.
            budget: multiplications and additions of terms, 0 or more: the highest rung of `ladder`
                that costs no more; without a ladder the same share of all weights.
            deadline_s: seconds from the call, by `clock`. Terms begin while the time that is left holds
                what follows them; one at most ends too late. 0 or less: no term, and `late`. The first
                deadline begins to count after some milliseconds in which is measured what follows.
        run: (x, out=None) → y: the time steps x [T, inputs] as one call; [T, outputs], or [outputs]
            where the network has one result a sequence. It goes on from the carried state, as `step`
            does, and equals T calls of it.

    Both raise ValueError for arrays of another shape, type, byte order or layout, with a mask, for
    inputs or results that are not finite (results of integer programs always are: they saturate), for
    limits that are none (no number, NaN, negative, several, of a network without terms) and times of a
    clock that are none; what a clock raises goes through; and RuntimeError where another thread, or the
    stream's own clock, uses the stream meanwhile. The state is as before then, `out` may have been written
    to. For this, `run` copies the state first, and streams of floats also for each step, and check every
    result.

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
        weights = [shared.program.products[site].weight for site in shared.refined]
        self._stream.describe(tuple(weights), Answer)
        self._ladder: Ladder | None = None
        self.step: Callable[..., Any] = self._stream.step
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
        """Another stream with the same weights, ladder and clock, at reset."""
        made = Runtime(self._shared)
        made.ladder, made.clock = self.ladder, self.clock
        return made

    @property
    def ladder(self) -> Ladder | None:
        """What prefixes of the model's terms cost and how good they are: how a budget is spent."""
        return self._ladder

    @ladder.setter
    def ladder(self, ladder: Ladder | None) -> None:
        weights = [self._shared.program.products[site].weight for site in self._shared.refined]
        if ladder is not None and not isinstance(ladder, Ladder):
            raise UserError(f"the ladder is a {type(ladder).__name__}", "a Ladder, or None")
        rungs = () if ladder is None else ladder.rungs
        if rungs and set(rungs[0].terms) != set(weights):
            found = ", ".join(map(str, rungs[0].terms)) or "none"
            raise UserError(
                f"the ladder's weights with terms are {found}", ", ".join(weights) or "none"
            )
        self._stream.set_ladder(
            [([int(r.terms[w]) for w in weights], float(r.divergence)) for r in rungs]
        )
        self._ladder = ladder

    @property
    def clock(self) -> Callable[[], int] | None:
        """What deadlines are measured by: a callable that gives nanoseconds; None: the monotonic clock."""
        return self._stream.clock

    @clock.setter
    def clock(self, clock: Callable[[], int] | None) -> None:
        if clock is not None and not callable(clock):
            raise UserError(f"the clock is a {type(clock).__name__}", "a callable, or None")
        self._stream.clock = clock

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
                check_unmasked(given[name][slot_name], f"the state's '{slot_name}' of '{name}'")
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
        self,
        sequences: Sequences | Iterable[Array] | Array,
        threads: int = 1,
        *,
        terms: Mapping[str, int] | None = None,
    ) -> Execution:
        """Run sequences, each from reset; the stream's own state stays as it is. See `run_native`.

        Args:
            sequences: what `load_sequences` gives, arrays [T, inputs] or an array [N, T, inputs].
            threads: how many threads run at once, from 1 to 1024.
            terms: weight → how many of its first terms are used at every step; all where it is not named.
        """
        return run_native(self._shared, as_sequences(sequences), threads, terms=terms)


def run_native(
    program: Program | Shared,
    sequences: Sequences,
    threads: int = 1,
    *,
    capture: bool = False,
    terms: Mapping[str, int] | None = None,
) -> Execution:
    """Outputs, counters and final state of a program on sequences, as the interpreter gives them.

    Data are read as float32 where that holds them exactly, else as float64. Sequences of about the same
    length are stepped together, in `threads` threads. Carried sums are integers in the state (the
    interpreter's are integers held as floats).

    Args:
        capture: keep what products see (integer programs only; but for those of terms).
        terms: see `Interpreter.run`.

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
        [seen.get(site) for site in shared.sites] if capture else [],
        _limits(shared, terms),
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


def _limits(shared: Shared, terms: Mapping[str, int] | None) -> list[int]:
    """How many terms are computed of every weight that has any; nothing: all."""
    check_terms(shared.program, terms or {})
    if not terms:
        return []
    products = [shared.program.products[site] for site in shared.refined]
    return [min(terms.get(p.weight, p.geometry.inputs), p.geometry.inputs) for p in products]


def _room_for_codes(shared: Shared, sequences: Sequences) -> dict[str, Array]:
    """Site → int16 [steps, or sequences where it runs once, inputs]; not of terms."""
    refined = {*shared.refined, *shared.refined.values()}
    once = {c.site for stage in shared.plan.stages if stage.mode == "once" for c in stage.calls}
    return {
        site: np.empty(
            (sequences.count if site in once else sequences.steps, product.inputs), np.int16
        )
        for site, product in shared.program.products.items()
        if site not in refined
    }


def _reals(codes: Array, product: Product) -> Array:
    step = 1.0 if product.link is None else product.link.step
    return codes.astype(np.float32) * np.float32(step)


def execute(
    program: Program,
    sequences: Sequences,
    *,
    capture: bool = False,
    terms: Mapping[str, int] | None = None,
) -> Execution:
    """Run a program with the fastest executor that gives the interpreter's bits: integers in compiled
    code, where it was built. Floats run in the interpreter, so that they hang on no instruction set.

    Raises:
        UserError: see `Interpreter.run`.
    """
    if HAVE_NATIVE and program.numeric == "integer":
        return run_native(program, sequences, capture=capture, terms=terms)
    return Interpreter(program).run(sequences, capture=capture, terms=terms)


def _same_names(what: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if not isinstance(given, Mapping) or set(given) != set(wanted):
        found = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise UserError(
            f"the state's {what} are {found or 'none'}", f"{', '.join(wanted) or 'none'}"
        )
