"""Batches of the native runtime: data of any real type, arrays that change or go meanwhile, few threads."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.program import Program, build_program
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE, KERNELS
from modelflex.testing.native import run_python
from modelflex.testing.recipes import cached_case

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.loading import Shared
from modelflex.execute.native import run_native


# --- types ---------------------------------------------------------------------------------------
def between_codes(program: Program) -> Array:
    """Numbers just above the middle of two fx numbers with different codes: float32 rounds them to the
    middle, from where it is the even number of the two that is taken."""
    product = next(
        p for p in program.products.values() if p.encode is not None and p.link is not None
    )
    assert product.encode is not None
    assert product.link is not None
    v = np.arange(-(1 << 18), 1 << 18, dtype=np.int32)
    codes = KERNELS.quantize(v, product.encode, product.link.bits)
    low = v[:-1][(np.diff(codes) != 0) & (v[:-1] % 2 == 0)]
    return (low + 0.5 + 2.0**-20) / 65536.0


@pytest.mark.parametrize("dtype", ["f8", ">f8", "g", "f4", ">f4", "f2", "i8", "i4", "i2", "?"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batches_read_all_bits_of_their_data(seed: int, dtype: str) -> None:
    program = cached_case(seed).program
    chosen = np.random.default_rng(seed).choice(between_codes(program), (40, 8))
    x, lengths = chosen.astype(dtype), np.array([7, 30, 3])
    wanted = Interpreter(program).run(Sequences(x, lengths), capture=True)
    found = run_native(program, Sequences(x, lengths), 2, capture=True)
    np.testing.assert_array_equal(found.outputs, wanted.outputs)
    assert found.profile == wanted.profile
    for site, codes in wanted.inputs.items():
        np.testing.assert_array_equal(found.inputs[site], codes)
    narrow = Interpreter(program).run(Sequences(x.astype("f4"), lengths), capture=True)
    differs = any(not np.array_equal(c, narrow.inputs[site]) for site, c in wanted.inputs.items())
    assert differs == (dtype in ("f8", ">f8", "g"))


@pytest.mark.parametrize("dtype", [complex, object, "S8", "datetime64[s]"])
def test_data_that_are_no_real_numbers_are_refused(dtype: Any) -> None:
    with pytest.raises(UserError, match="expected real numbers"):
        run_native(cached_case(1).program, Sequences(np.zeros((3, 8)).astype(dtype), np.array([3])))


def test_floats_beyond_float32_are_refused() -> None:
    data = Sequences(np.full((3, 8), 1e300), np.array([3]))
    with pytest.raises(ValueError, match="beyond float32"):
        run_native(build_program(cached_case(0).model), data)


# --- memory --------------------------------------------------------------------------------------
class Call:
    """What `run_batch` is called with for the sequences of one plan."""

    def __init__(self, lengths: list[int]) -> None:
        shared = Shared(cached_case(1).program)
        plan, self.loaded = shared.native_plan(lanes=4)
        slots = [slot for stage in plan.stages for slot in stage.state]
        steps, rng = sum(lengths), np.random.default_rng(0)
        self.x = rng.normal(size=(steps, 8)).astype(np.float32)
        self.lengths = np.array(lengths)
        self.order = np.argsort(-self.lengths, kind="stable")
        self.starts = np.cumsum(self.lengths) - self.lengths
        rows = steps if plan.per_step else len(lengths)
        self.outputs = np.full((rows, plan.outputs), np.nan)
        self.counts = np.zeros((len(shared.sites), 3), np.uint64)
        self.states = [
            np.empty((len(lengths), s.view.size), plan.buffers[s.view.buffer].dtype).view(np.uint8)
            for s in slots
        ]
        self.codes = [
            np.empty(
                (len(lengths) if self.loaded_once(shared, site) else steps, p.inputs), np.int16
            )
            for site, p in shared.program.products.items()
        ]

    @staticmethod
    def loaded_once(shared: Shared, site: str) -> bool:
        stages = [s for s in shared.plan.stages if s.mode == "once"]
        return any(call.site == site for stage in stages for call in stage.calls)

    def run(self) -> None:
        native.run_batch(
            self.loaded, self.x, self.order, self.starts, self.lengths, 2, self.outputs,
            self.states, self.counts, self.codes,
        )  # fmt: skip


def test_arrays_are_held_and_numbers_copied_while_a_batch_runs() -> None:
    """The interpreter's lock is released: another thread may change lists and arrays meanwhile."""
    lengths = [400] * 400
    quiet = Call(lengths)
    quiet.run()
    assert not np.isnan(quiet.outputs).any()
    for _ in range(20):
        call = Call(lengths)
        held = [weakref.ref(array) for array in (*call.states, *call.codes)]
        worker = threading.Thread(target=call.run)
        worker.start()
        while np.isnan(call.outputs).all() and worker.is_alive():
            time.sleep(0.0005)
        call.states.clear()
        call.codes.clear()
        for numbers in (call.starts, call.lengths, call.order):
            numbers[:] = 1 << 40
        alive = [array() is not None for array in held]
        in_time = np.isnan(call.outputs).any()  # results are still to come
        worker.join()
        np.testing.assert_array_equal(call.outputs, quiet.outputs)
        np.testing.assert_array_equal(call.counts, quiet.counts)
        if in_time:  # a busy machine may let this thread run too late
            assert all(alive)
            return
    pytest.fail("no other thread runs before a batch is done")


def shares_memory(call: Call) -> None:
    steps, size = call.outputs.shape
    memory = np.zeros(2 * steps * size)
    call.outputs = memory[: steps * size].reshape(steps, size)
    state = call.states[0]
    call.states[0] = memory.view(np.uint8)[: state.size].reshape(state.shape)


def one_array_twice(call: Call) -> None:
    call.codes[1] = np.empty_like(call.codes[0])
    call.codes[0] = call.codes[1]


def overlapping(call: Call) -> None:
    call.starts[1] -= 1


def no_sequences(call: Call) -> None:
    call.lengths[0] = 0


def beyond(call: Call) -> None:
    call.starts[2] += 1


def wraps(call: Call) -> None:
    call.starts[0] = (1 << 63) - 1


def twice(call: Call) -> None:
    call.order[1] = call.order[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shares_memory, "share memory"),
        (one_array_twice, "share memory|codes must be"),
        (overlapping, "sequences overlap"),
        (no_sequences, "falling lengths"),
        (beyond, "beyond x"),
        (wraps, "beyond x"),
        (twice, "every sequence once"),
        (lambda call: call.states.pop(), "carried value"),
        (lambda call: call.codes.pop(), "each site"),
    ],
)
def test_batches_that_do_not_fit_are_refused(spoil: Any, message: str) -> None:
    call = Call([5, 4, 4])
    spoil(call)
    with pytest.raises(ValueError, match=message):
        call.run()
    assert np.isnan(call.outputs).all() or spoil is shares_memory


def read_only(a: Array) -> Array:
    a.setflags(write=False)
    return a


def test_results_need_arrays_that_may_be_written() -> None:
    for name in ("outputs", "counts", "states"):
        call = Call([5, 4, 4])
        if name == "states":
            call.states[0] = read_only(call.states[0])
        else:
            setattr(call, name, read_only(getattr(call, name)))
        with pytest.raises((TypeError, RuntimeError)):
            call.run()


# --- threads -------------------------------------------------------------------------------------
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="ASan reserves terabytes")
def test_without_memory_for_threads_fewer_do_the_work() -> None:
    code = """
import resource
import numpy as np
from modelflex.execute.native import run_native
from modelflex.testing.generators import random_sequences
from modelflex.testing.recipes import cached_case
case = cached_case(1)
data = random_sequences(np.random.default_rng(0), [5] * 600, 8)
wanted = run_native(case.program, data).outputs
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
for spare in (4, 20, 60, 200):
    resource.setrlimit(resource.RLIMIT_AS, (used + (spare << 20), -1))
    try:
        found = run_native(case.program, data, 300).outputs
    except MemoryError:
        print("no memory")
    else:
        print(np.array_equal(found, wanted))
"""
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("the size of the process is read from /proc")
    told = run_python(code).split("\n")
    assert set(told) <= {"no memory", "True", ""}
    assert "True" in told


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_goes_on_with_its_copy() -> None:
    """Also where another thread was stepping a stream: that one stays taken in the child, others run."""
    code = """
import os, threading, time
import numpy as np
from modelflex.execute.native import Runtime, run_native
from modelflex.testing.recipes import cached_case
case = cached_case(1)
runtime, taken = Runtime(case.program), Runtime(case.program)
wanted = run_native(case.program, case.data, 2).outputs
x, long = np.linspace(-1, 1, 8), np.zeros((200_000, 8))
runtime.step(x)
after = runtime.stream()
after.state = runtime.state
after = after.step(x)
thread = threading.Thread(target=taken.run, args=(long,))
thread.start()
time.sleep(0.01)
child = os.fork()
if child == 0:
    same = np.array_equal(runtime.step(x), after)
    same &= np.array_equal(run_native(case.program, case.data, 2).outputs, wanted)
    try:
        taken.step(x)
    except RuntimeError:
        pass
    os._exit(0 if same else 1)
thread.join()
print(os.waitpid(child, 0)[1], np.array_equal(runtime.step(x), after))
"""
    assert run_python(code).split() == ["0", "True"]
