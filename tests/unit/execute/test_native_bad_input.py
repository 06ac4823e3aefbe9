"""The native runtime under hostile use: memory that moves or goes, numbers that wrap, another CPU.

What does not fit a stream or a batch is in test_native_runtime.py; random damage in test_native_fuzz.py.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.fixed import TANH_TABLE, Array
from modelflex.core.plan import KERNELS
from modelflex.core.stored_matrix import StoredMatrix
from modelflex.errors import UserError
from modelflex.execute import loading
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.generators import random_sequences
from modelflex.testing.native import run_python, stored_codes
from modelflex.testing.recipes import cached_case

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.native import Runtime, run_native

NUMBERS = {name: number for number, name in enumerate(KERNELS)}
X = np.linspace(-1, 1, 8)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(cached_case(0).program)


def unaligned(a: Array) -> Array:
    """The same array, beginning at an odd address."""
    memory = np.empty(a.nbytes + 1, np.uint8)
    start = 1 - memory.ctypes.data % 2
    moved = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    moved[:] = a
    return moved


# --- memory --------------------------------------------------------------------------------------
def test_arrays_between_addresses_of_their_type_are_refused(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="x lies between"):
        runtime.step(unaligned(X))
    with pytest.raises(ValueError, match="x lies between"):
        runtime.run(unaligned(X[None]))
    with pytest.raises(ValueError, match="out lies between"):
        runtime.step(X, unaligned(np.empty(runtime.outputs)))


def test_masked_arrays_are_refused_by_that_name(runtime: Runtime) -> None:
    """Not as an array of another kind: their buffer would do, with what the mask hides."""
    hidden = np.ma.array(np.zeros((3, 8)), mask=np.eye(3, 8))
    for call in (
        lambda: runtime.step(hidden[0]),
        lambda: runtime.run(hidden),
        lambda: runtime.step(np.zeros(8), np.ma.array(np.zeros(runtime.outputs))),
    ):
        with pytest.raises(ValueError, match="is a masked array; expected an array without a mask"):
            call()
    for data in ([hidden], hidden[None]):
        with pytest.raises(UserError, match="sequence 0 of the data is a masked array"):
            runtime.run_batch(data)
    with pytest.raises(UserError, match="masked array"):
        Sequences(hidden, np.array([3]))
    state = runtime.state
    slot = next(iter(next(iter(state.values()))))
    stage = next(iter(state))
    with pytest.raises(UserError, match="masked array"):
        runtime.state = {**state, stage: {**state[stage], slot: np.ma.array(state[stage][slot])}}


class Column:
    """As columns of pandas: what is called mask is a method, and there is no buffer."""

    def mask(self) -> None: ...


def test_what_merely_has_something_called_mask_is_told_what_it_lacks(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="x is no C-contiguous array"):
        runtime.step(Column())  # type: ignore[arg-type]


def test_batches_of_any_memory_are_taken() -> None:
    case = cached_case(0)
    wanted = run_native(case.program, case.data).outputs
    for x in (unaligned(case.data.x), np.asfortranarray(case.data.x), case.data.x.astype(">f4")):
        found = run_native(case.program, Sequences(x, case.data.lengths)).outputs
        np.testing.assert_array_equal(found, wanted)


def test_results_outlive_the_runtime_and_other_steps(runtime: Runtime) -> None:
    first = runtime.step(X)
    kept = first.copy()
    runtime.step(-X)
    state = runtime.state
    held = {s: {k: v.copy() for k, v in slots.items()} for s, slots in state.items()}
    runtime.run(np.tile(X, (9, 1)))
    del runtime
    gc.collect()
    np.testing.assert_array_equal(first, kept)
    for stage, slots in state.items():
        for slot, value in slots.items():
            np.testing.assert_array_equal(value, held[stage][slot])


@pytest.mark.parametrize("seed", range(8))
def test_weights_that_change_after_loading_change_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cached_case(seed)
    program = case.program
    if program.numeric != "integer":
        pytest.skip("floats have no stored codes")
    data = random_sequences(np.random.default_rng(seed), (5, 3), case.model.inputs)
    wanted = run_native(program, data)
    made: list[StoredMatrix] = []
    stored = loading.stored_matrix
    names = ("codes", "table", "multipliers", "index")

    def copied(*args: Any, **options: Any) -> StoredMatrix:
        matrix = stored(*args, **options)
        arrays = {n: None if (a := getattr(matrix, n)) is None else a.copy() for n in names}
        made.append(replace(matrix, **arrays))
        return made[-1]

    monkeypatch.setattr(loading, "stored_matrix", copied)
    shared = loading.Shared(program)
    for matrix in made:
        for name in names:
            array = getattr(matrix, name)
            if array is not None:
                array[...] = -1 if array.dtype == np.int8 else 255
    del made[:]
    gc.collect()
    found = run_native(shared, data)
    np.testing.assert_array_equal(found.outputs, wanted.outputs)


def test_out_may_be_the_input(runtime: Runtime) -> None:
    """All of x is read before anything is written, where one step is run."""
    memory = np.zeros(8 + runtime.outputs)
    memory[:8] = X
    wanted = Runtime(cached_case(0).program).step(X)
    overlapping = memory[4 : 4 + runtime.outputs]
    np.testing.assert_array_equal(runtime.step(memory[:8], overlapping), wanted)


def test_no_memory_for_a_result_is_an_exception() -> None:
    """In a process of its own: numpy.empty is looked up once, when the module is loaded."""
    code = """
import numpy as np
real, left = np.empty, True
def empty(*args, **options):
    if not left: raise MemoryError("none left")
    return real(*args, **options)
np.empty = empty
from modelflex.execute.native import Runtime
from modelflex.testing.native import run_python
from modelflex.testing.recipes import cached_case
runtime = Runtime(cached_case(0).program)
left = False
for call in (lambda: runtime.step(np.zeros(8)), lambda: runtime.run(np.zeros((3, 8)))):
    try:
        call()
    except MemoryError:
        print("refused")
"""
    assert run_python(code).split() == ["refused"] * 2


# --- objects and numbers --------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:nanobind")
def test_objects_that_were_never_made_are_refused() -> None:
    empty = native.Stream.__new__(native.Stream)
    for call in (
        lambda: empty.step(X),
        lambda: empty.get_state(),
        lambda: native.Plan.__new__(native.Plan).begin_stage(False),
        lambda: native.Stream(native.Plan.__new__(native.Plan), None),  # type: ignore[arg-type]
    ):
        with pytest.raises((TypeError, RuntimeError, ValueError)):
            call()


@pytest.mark.parametrize("threads", [0, -1, 1025, 1 << 70])
def test_numbers_of_threads(threads: int) -> None:
    case = cached_case(0)
    with pytest.raises(UserError, match="expected a number from 1 to 1024"):
        run_native(case.program, case.data, threads)


@pytest.mark.parametrize("given", [b"", b"\0", bytes(10_000)])
def test_raw_states_of_another_size_are_refused(runtime: Runtime, given: bytes) -> None:
    with pytest.raises(ValueError, match="another size"):
        runtime._stream.set_state(given)


def plan_of(rows: int = 1, weights: native.Weights | None = None) -> native.Plan:
    plan = native.Plan(weights or native.Weights(), True, rows, 512, 512)
    plan.begin_stage(False)
    return plan


def test_places_whose_sum_wraps_are_refused() -> None:
    """rows · stride is 2^64, or 0 for those who count in 64 bits."""
    with pytest.raises(ValueError, match="rows"):
        plan_of((1 << 25) + 1)
    plan = plan_of((1 << 20) - 1)
    for place in (
        (0, (1 << 40) - 4, 8),
        ((1 << 64) - 4, 0, 8),
        (1 << 64, 0, 8),
        (-4, 0, 8),
        (0, 0, (1 << 62)),
        (0, 0, 1.5),
        (0, 0),
        None,
    ):
        with pytest.raises((ValueError, TypeError)):
            plan.add_call(NUMBERS["relu"], -1, [place], [(64, 0, 8)], {}, True)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("source", "result", "fits"),
    [
        ((0, 64, 8), (0, 64, 8), True),  # in place
        ((0, 64, 8), (32, 64, 8), True),  # two slices of the rows of one buffer
        ((0, 64, 8), (256, 64, 8), True),
        ((0, 64, 8), (4, 64, 8), False),
        ((32, 64, 8), (60, 64, 8), False),  # into the next row
        ((60, 64, 8), (96, 64, 8), False),
        ((0, 64, 8), (156, 64, 8), False),
        ((0, 64, 8), (160, 64, 8), True),
        ((0, 0, 8), (28, 0, 8), False),
        ((0, 0, 8), (32, 0, 8), True),
        ((0, 32, 8), (32, 64, 8), False),
    ],
)
def test_results_lie_beside_what_is_read_or_where_it_lies(
    source: tuple[int, int, int], result: tuple[int, int, int], fits: bool
) -> None:
    plan = plan_of(3)
    if fits:
        plan.add_call(NUMBERS["relu"], -1, [source], [result], {}, True)
        return
    with pytest.raises(ValueError, match="partly where another"):
        plan.add_call(NUMBERS["relu"], -1, [source], [result], {}, True)


def ints(*values: int) -> Array:
    return np.array(values, np.int32)


BAD_NUMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "negative factor": ("rescale_i32", {"mu": ints(-1), "shift": 3}),
    "factor of 16 bits": ("rescale_i32", {"mu": ints(32768), "shift": 3}),
    "shift": ("rescale_i32", {"mu": ints(1), "shift": 63}),
    "factors that do not divide": ("rescale_i32", {"mu": ints(1, 1, 1), "shift": 3}),
    "no factors": ("rescale_i32", {"mu": ints(), "shift": 3}),
    "factors of another type": ("rescale_i32", {"mu": np.ones(1), "shift": 3}),
    "nothing": ("rescale_i32", {}),
    "a shift beyond all integers": ("rescale_i32", {"mu": ints(1), "shift": 1 << 80}),
    "a shift that is none": ("rescale_i32", {"mu": ints(1), "shift": "3"}),
    "short table": ("tanh", {"table": TANH_TABLE[:-1]}),
    "large table": ("tanh", {"table": TANH_TABLE + 2}),
    "negative table": ("sigmoid", {"table": TANH_TABLE - 1}),
    "breaks that fall": (
        "piecewise",
        {"breaks": ints(0, 9, 8), "values": ints(0, 0, 0), "slopes": ints(1, 1, 0), "centre": 0},
    ),
    "a height beyond 1": (
        "piecewise",
        {"breaks": ints(0, 2**30), "values": ints(0, 0), "slopes": ints(65536, 0), "centre": 0},
    ),
    "a number that the kernel does not know": ("relu", {"size": 8}),
    "numbers of another kernel": ("rescale_i32", {"mu": ints(1), "shift": 3, "bits": 8}),
    "a misspelt number": ("rescale_i32", {"mu": ints(1), "shft": 3}),
    "zeros to skip where there are none": ("add", {"skip_zeros": True}),
    "a slope at the end": (
        "piecewise",
        {"breaks": ints(0), "values": ints(0), "slopes": ints(1), "centre": 0},
    ),
}


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_numbers_out_of_range_are_refused(name: str) -> None:
    kernel, attrs = BAD_NUMBERS[name]
    places = [(0, 0, 8)] * (2 if kernel == "add" else 1)
    with pytest.raises(ValueError, match=r"a call|constant|table"):
        plan_of().add_call(NUMBERS[kernel], -1, places, [(64, 0, 8)], attrs, True)


def one_product() -> native.Weights:
    """The 3 × 8 matrix of zeros, codes of 8 bits."""
    weights = native.Weights()
    stored = stored_codes(np.zeros((3, 8), np.int8))
    weights.add_codes(stored, 8, 32, None, None, 8, 1)
    return weights


def delta(plan: native.Plan, size: int) -> None:
    attrs = {"block": 1, "overshoot": 0, "bits": 8, "thresholds": np.zeros(size, np.int32)}
    places = [(0, 0, size), (64, 0, size)], [(128, 0, size), (256, 0, size), (64, 0, size)]
    plan.add_call(NUMBERS["delta_encode"], 0, *places, attrs, False)


def linear(plan: native.Plan, size: int = 8, site: int = 0, out: int = 3) -> None:
    plan.add_call(NUMBERS["linear_i32"], site, [(0, 0, size)], [(64, 0, out)], {}, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda plan: delta(plan, 7),
        lambda plan: delta(plan, 9),
        lambda plan: linear(plan, 7),
        lambda plan: linear(plan, 8, 1),
        lambda plan: linear(plan, 8, 0, 4),
        lambda plan: plan.add_call(NUMBERS["linear_i64"], 0, [(0, 0, 8)], [(64, 0, 3)], {}, False),
        lambda plan: plan.add_call(NUMBERS["linear_f32"], 0, [(0, 0, 8)], [(64, 0, 3)], {}, False),
    ],
)
def test_calls_that_do_not_fit_their_product_are_refused(call: Callable[..., None]) -> None:
    plan = plan_of(weights=one_product())
    delta(plan, 8)
    linear(plan)
    with pytest.raises(ValueError, match=r"sizes|product"):
        call(plan)


def test_a_product_runs_once_or_at_every_step() -> None:
    """What it sees is kept by steps or by sequences, not both."""
    plan = plan_of(weights=one_product())
    linear(plan)
    plan.begin_stage(True)
    with pytest.raises(ValueError, match="either once or at every step"):
        linear(plan)


def float_stream(
    matrix: Array, bias: Array | None, taps: Array | None, entering: int
) -> native.Stream:
    """One product of floats that leaves out zeros."""
    weights = native.Weights()
    weights.add_floats(matrix, bias, taps, entering, 1)
    out = len(matrix) * (1 if taps is None else len(taps))

    def plan(rows: int) -> native.Plan:
        made = native.Plan(weights, False, rows, 64, rows * 2048)
        made.begin_stage(False)
        x, y = (64, 1024, entering), (576, 1024, out)
        made.add_call(NUMBERS["linear_f32"], 0, [x], [y], {"skip_zeros": True}, True)
        made.finish(x, y)
        return made

    return native.Stream(plan(1), plan(2))


@pytest.mark.parametrize("out", [3, 8, 64, 65, 100])
def test_columns_of_inputs_that_are_zero_are_not_read(out: int) -> None:
    """Of those that are read, none is NaN."""
    rng = np.random.default_rng(out)
    matrix = rng.normal(size=(out, 40)).astype(np.float32)
    bias = rng.normal(size=out).astype(np.float32)
    x = np.zeros((3, 40))
    x[0, 7], x[1, [3, 39]] = 1.0, (-0.5, 2.0)
    wanted = x @ matrix.T.astype(np.float64) + bias
    spoilt = matrix.copy()
    spoilt[:, ~x.any(axis=0)] = np.nan
    found = float_stream(spoilt, bias, None, 40).run(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_windows_of_zeros_are_not_read() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 24)).astype(np.float32)
    taps = np.array(
        [[p + i - 2 if p + i >= 2 else -1 for i in range(24)] for p in range(6)], np.int32
    )
    x = np.zeros(40)
    x[11] = 3.0
    seen = np.where(taps < 0, 0.0, x[taps])
    wanted = (seen @ matrix.T.astype(np.float64)).T.ravel()
    spoilt = matrix.copy()
    spoilt[:, ~seen.any(axis=0)] = np.nan
    found = float_stream(spoilt, None, taps, 40).step(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
