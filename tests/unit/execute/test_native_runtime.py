"""The native runtime: bad input raises and changes nothing, streams are apart, threads agree.

That its results are the interpreter's is a contract of all cells, layers and recipes.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import modelflex
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.program import Program, build_program
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.generators import random_sequences
from modelflex.testing.native import run_python
from modelflex.testing.recipes import cached_case

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute import loading
from modelflex.execute.loading import Shared
from modelflex.execute.native import Runtime, execute, run_native


@pytest.fixture
def runtime() -> Runtime:
    return modelflex.compile(cached_case(0).made.model)


def readonly(a: Array) -> Array:
    a.setflags(write=False)
    return a


BAD_INPUTS: dict[str, Any] = {
    "too short": np.zeros(7, np.float32),
    "too long": np.zeros(9, np.float32),
    "empty": np.zeros(0, np.float32),
    "a matrix": np.zeros((1, 8), np.float32),
    "a scalar": np.float32(0.0),
    "integers": np.zeros(8, np.int32),
    "half": np.zeros(8, np.float16),
    "complex": np.zeros(8, np.complex64),
    "objects": np.zeros(8, object),
    "records": np.zeros(8, [("a", "f4")]),
    "another byte order": np.zeros(8, ">f4" if np.little_endian else "<f4"),
    "gaps": np.zeros(16, np.float32)[::2],
    "backwards": np.zeros(8, np.float32)[::-1],
    "NaN": np.array([0, 0, np.nan, 0, 0, 0, 0, 0], np.float32),
    "infinity": np.array([0, 0, 0, 0, 0, 0, 0, -np.inf]),
    "a mask": np.ma.array(np.zeros(8, np.float32), mask=[0, 0, 0, 1, 0, 0, 0, 0]),
    "a list": [0.0] * 8,
    "a text": "12345678",
    "bytes": bytes(32),
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_bad_input_raises_and_changes_nothing(runtime: Runtime, name: str) -> None:
    runtime.step(np.full(8, 0.5))
    before = runtime.state
    with pytest.raises((ValueError, TypeError), match=r"x |expected"):
        runtime.step(BAD_INPUTS[name])
    if isinstance(BAD_INPUTS[name], np.ndarray) and BAD_INPUTS[name].ndim == 1:
        with pytest.raises(ValueError, match="x "):
            runtime.run(BAD_INPUTS[name][None])
    after = runtime.state
    for stage, slots in before.items():
        for slot, value in slots.items():
            np.testing.assert_array_equal(value, after[stage][slot])


def test_bad_results_raise(runtime: Runtime) -> None:
    x, size = np.zeros(8, np.float32), runtime.outputs
    for out in (
        np.zeros(size + 1, np.float32),
        np.zeros(size),
        np.zeros((1, size), np.float32),
        readonly(np.zeros(size, np.float32)),
        np.zeros(2 * size, np.float32)[::2],
        [0.0] * size,
    ):
        with pytest.raises(ValueError, match="out "):
            runtime.step(x, out)
    with pytest.raises(ValueError, match="x is"):
        runtime.run(np.zeros((0, 8), np.float32))
    with pytest.raises(ValueError, match="out "):
        runtime.run(np.zeros((3, 8), np.float32), np.zeros((5, size + 1), np.float32))


def test_results_have_the_type_of_the_input_and_lie_in_out(runtime: Runtime) -> None:
    x = np.linspace(-1, 1, 8)
    exact = runtime.step(x)
    runtime.reset()
    out = np.empty(runtime.outputs, np.float32)
    assert runtime.step(x.astype(np.float32), out=out) is out
    assert exact.dtype == np.float64
    np.testing.assert_array_equal(exact * 65536, np.rint(exact * 65536))
    np.testing.assert_array_equal(out, exact.astype(np.float32))


def test_large_inputs_saturate_as_in_the_interpreter() -> None:
    case = cached_case(1)
    x = np.array([[1e30, -1e30, 32768, -32768, 32767.99999, 2.0**-17, -(2.0**-17), 3 * 2.0**-17]])
    data = Sequences(x.astype(np.float32), np.array([1]))
    wanted = Interpreter(case.program).run(data).outputs
    np.testing.assert_array_equal(execute(case.program, data).outputs, wanted)
    np.testing.assert_array_equal(Runtime(case.program).step(data.x[0].astype(float)), wanted[0])


def test_arrays_of_the_model_may_change_or_go_afterwards() -> None:
    """The runtime has copies of all it needs."""
    program = build_program(cached_case(2).made.model)
    x = np.linspace(-1, 1, 8)
    wanted = Runtime(program).step(x)
    runtime = Runtime(program)
    step = runtime.step
    del runtime
    for product in program.products.values():
        if product.bias is not None:
            product.bias[:] = 0
    np.testing.assert_array_equal(step(x), wanted)


def test_plans_are_made_once_for_all_streams_and_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    case = cached_case(3)
    runtime = Runtime(case.program)
    wanted = runtime.run_batch(case.data).outputs

    def no_more(*_: Any, **__: Any) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr(loading, "make_plan", no_more)
    monkeypatch.setattr(loading, "load_plan", no_more)
    x = np.linspace(-1, 1, 8)
    np.testing.assert_array_equal(runtime.stream().step(x), runtime.step(x))
    np.testing.assert_array_equal(runtime.stream().run(x[None]), runtime.stream().run(x[None]))
    np.testing.assert_array_equal(runtime.run_batch(case.data).outputs, wanted)


def test_what_was_stepped_goes_on_in_a_run_with_more_memory(runtime: Runtime) -> None:
    xs = np.random.default_rng(0).normal(size=(9, 8))
    steps = np.stack([runtime.step(x) for x in xs])
    runtime.reset()
    for x in xs[:4]:
        runtime.step(x)
    rest = runtime.run(xs[4:])
    np.testing.assert_array_equal(rest, steps[4:] if runtime.plan.per_step else steps[-1])


def test_streams_share_weights_but_no_state(runtime: Runtime) -> None:
    xs = random_sequences(np.random.default_rng(0), (6,), 8).x
    other = runtime.stream()
    alone = np.stack([runtime.step(x) for x in xs])
    runtime.reset()
    mixed = []
    for x in xs:
        mixed.append(runtime.step(x))
        other.step(x + 1)
    np.testing.assert_array_equal(np.stack(mixed), alone)


def test_threads_give_the_same_results() -> None:
    """Streams in threads at once, and batches on any number of threads."""
    case = cached_case(3)
    shared = Shared(case.program)
    data = random_sequences(np.random.default_rng(1), [30, 1, 7, 30, 12] * 9, 8)
    one = run_native(shared, data)
    for threads in (2, 3, 64):
        more = run_native(shared, data, threads)
        np.testing.assert_array_equal(one.outputs, more.outputs)
        assert one.profile == more.profile
    x = data.x.astype(np.float64)
    wanted = Runtime(shared).run(x)
    found: dict[int, Array] = {}

    def work(number: int) -> None:
        found[number] = Runtime(shared).run(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in found.values():
        np.testing.assert_array_equal(result, wanted)


def test_the_first_steps_may_be_made_by_threads_at_once() -> None:
    """In a process of its own, as what is looked up once must not be looked up by one of them."""
    code = """
import faulthandler, sys, threading
import numpy as np
from modelflex.execute.native import Runtime
from modelflex.testing.recipes import cached_case
runtime = Runtime(cached_case(0).program)
streams = [runtime] + [runtime.stream() for _ in range(7)]
barrier = threading.Barrier(len(streams))
def first(stream):
    barrier.wait()
    stream.step(np.zeros(8, np.float32))
    print("done")
sys.setswitchinterval(1e-6)
faulthandler.dump_traceback_later(60, exit=True)
threads = [threading.Thread(target=first, args=(s,)) for s in streams]
for t in threads: t.start()
for t in threads: t.join()
"""
    assert run_python(code).count("done") == 8


def test_one_stream_in_two_threads_never_mixes(runtime: Runtime) -> None:
    """Calls either run alone or raise; nothing else happens."""
    x, errors = np.zeros((4000, 8)), []

    def work() -> None:
        for _ in range(20):
            try:
                runtime.run(x)
            except RuntimeError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("another thread" in error for error in errors)
    runtime.step(x[0])


def spoiled(state: dict[str, dict[str, Array]], stage: str, slot: str, value: Any) -> Any:
    return {**state, stage: {**state[stage], slot: value}}


def _has_sums(program: Program, site: str) -> bool:
    """Whether a product of the program carries its sum."""
    names = {slot.name for stage in program.stages for slot in stage.graph.state}
    return f"{site}.m" in names


def test_a_state_of_another_model_is_refused() -> None:
    programs = (cached_case(seed).program for seed in range(1, 40, 2))  # of two layers
    delta = next(p for p in programs if _has_sums(p, "layer0.w_x/0"))
    runtime = Runtime(delta)
    runtime.run(random_sequences(np.random.default_rng(0), (9,), 8).x)
    state = runtime.state
    h = state["layer0"]["h"]
    bad = [
        {},
        {**state, "more": {}},
        {**state, "layer0": {}},
        {**state, "layer0": None},
        spoiled(state, "layer0", "h", h[:-1]),
        spoiled(state, "layer0", "h", h.astype(np.int64)),
        spoiled(state, "layer0", "h", h[None]),
        spoiled(state, "layer0", "h", h.byteswap().view(h.dtype.newbyteorder())),
        spoiled(state, "layer0", "h", h.astype(object)),
        spoiled(state, "layer0", "h", None),
        spoiled(state, "layer0", "layer0.w_x/0.m", state["layer0"]["layer0.w_x/0.m"] + 1),
        spoiled(state, "layer0", "layer0.w_x/0.sent", np.full(8, 32767, np.int16)),
        Runtime(cached_case(0).program).state,
    ]
    for given in bad:
        with pytest.raises(UserError):
            runtime.state = given
        for slot, value in state["layer0"].items():
            np.testing.assert_array_equal(runtime.state["layer0"][slot], value)
    runtime.state = state


def test_data_of_other_features_are_refused() -> None:
    data = random_sequences(np.random.default_rng(0), (3,), 5)
    with pytest.raises(UserError, match="5 features; expected 8"):
        execute(cached_case(0).program, data)
    spoilt = random_sequences(np.random.default_rng(0), (3,), 8)
    spoilt.x[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        run_native(cached_case(0).program, spoilt)


def test_floats_beyond_float32_are_refused_and_change_nothing() -> None:
    floats = modelflex.compile(cached_case(0).model)
    x = np.linspace(-1, 1, 8)
    expected = floats.stream().step(x)
    for call in (floats.step, lambda x: floats.run(x[None])):
        with pytest.raises(ValueError, match="beyond float32"):
            call(np.full(8, 1e300))
    assert np.array_equal(floats.step(x), expected)


@pytest.mark.parametrize("per_step", [True, False])
def test_floats_that_overflow_are_an_error_that_changes_nothing(per_step: bool) -> None:
    """A large x makes every h about 1, and their weighted sum infinite."""
    gates = np.repeat([0.0, -1.0, 1.0], 4)  # r, z, n
    weights = {
        "g.w_x": float_weight(np.tile(gates[:, None], 3), None, 3),
        "g.w_h": float_weight(np.zeros((12, 4)), None, 3),
        "d.w": float_weight(np.full((2, 4), 3e38), None, 1),
    }
    reads = "every" if per_step else "last"
    layers = (Layer("g", "gru", 3, 4), Layer("d", "dense", 4, 2, reads=reads))
    stream = modelflex.compile(Model("large", layers, weights, "values"))
    quiet, loud = np.zeros((4, 3)), np.array([[0, 0, 0], [0, 0, 0], [9.0, 9, 9], [0, 0, 0]])
    wanted = stream.stream().run(quiet)
    with np.errstate(all="ignore"), pytest.raises(UserError, match="not finite"):
        stream.run_batch(Sequences(loud.astype(np.float32), np.array([4])))
    with pytest.raises(ValueError, match="at step 2" if per_step else "results are not finite"):
        stream.run(loud)
    for call in (stream.step, lambda x, out: stream.run(x[None], out)):
        out = np.zeros((1, 2) if per_step and call != stream.step else 2)
        with pytest.raises(ValueError, match="results are not finite; expected"):
            call(loud[2], out)
    np.testing.assert_array_equal(stream.run(quiet), wanted)
    for values in stream.state.values():
        assert all(np.all(np.isfinite(value)) for value in values.values())


def test_results_over_inputs_that_are_still_to_be_read_are_refused() -> None:
    weight = float_weight(np.eye(3, dtype=np.float32), None, 1)
    model = Model("same", (Layer("d", "dense", 3, 3),), {"d.w": weight}, "values")
    rows = np.zeros((6, 3), np.float32)
    with pytest.raises(ValueError, match="shares memory"):
        modelflex.compile(model).run(rows[:-1], rows[1:])


def test_arguments_of_a_step(runtime: Runtime) -> None:
    """They may be named; what is missing, given twice or unknown is refused."""
    x = np.ones(runtime.inputs)
    states, results = runtime.state, []
    for args, named in (
        ((x,), {}),
        ((), {"out": None, "x": x}),
        ((x, np.empty(runtime.outputs)), {}),
    ):
        runtime.state = states
        results.append(runtime.step(*args, **named))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    y = np.empty(runtime.outputs)
    bad: list[tuple[tuple[Array, ...], dict[str, Array]]] = [
        ((), {}), ((), {"out": y}), ((x, y, y), {}), ((x,), {"x": x}), ((x, y), {"out": y}),
        ((x,), {"y": y}),
    ]  # fmt: skip
    for args, named in bad:
        with pytest.raises(TypeError, match="step takes x and, if wanted, out"):
            runtime.step(*args, **named)
    with pytest.raises((TypeError, RuntimeError)):
        vars(native.Stream)["step"].__get__(5)


def test_a_plan_that_leaves_its_memory_is_refused() -> None:
    """The loader proves every call; nothing is left to the calls themselves."""
    weights = native.Weights()
    for inputs, outputs in (
        ([(0, 0, 8)], [(1024 - 28, 0, 8)]),  # beyond the end
        ([(2, 0, 8)], [(64, 0, 8)]),  # between two elements
        ([(0, 0, 8)], [(64, 0, 9)]),  # of another size
        ([(0, 0, 0)], [(64, 0, 0)]),
        ([], [(64, 0, 8)]),
        ([(0, 0, 8), (0, 0, 8)], [(64, 0, 8)]),
        ([(0, 1 << 39, 8)], [(64, 0, 8)]),
    ):
        plan = native.Plan(weights, True, 4, 512, 512)
        plan.begin_stage(False)
        with pytest.raises(ValueError, match="operand"):
            plan.add_call(15, -1, inputs, outputs, {}, True)
    plan = native.Plan(weights, True, 1, 512, 512)
    with pytest.raises(ValueError, match="belong to a stage"):
        plan.add_call(15, -1, [(0, 0, 8)], [(64, 0, 8)], {}, True)
    plan.begin_stage(False)
    for kernel in (-1, 25, 1, 1 << 30):
        with pytest.raises((ValueError, TypeError)):
            plan.add_call(kernel, 0, [(0, 0, 8)], [(64, 0, 8)], {}, True)
    with pytest.raises(ValueError, match="finished"):
        native.Stream(plan, plan)
