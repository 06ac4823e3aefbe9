"""Steps within limits: prefixes as the interpreter computes them, budgets, deadlines by virtual clocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.ladder import Ladder, Rung
from modelflex.core.layout import index_bits
from modelflex.core.model import Layer, Model
from modelflex.core.program import Program, build_program
from modelflex.core.weight import Terms
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.terms import as_integers, make_terms

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

from modelflex.execute.anytime import Answer
from modelflex.execute.native import FLOAT_TOLERANCE, Runtime, run_native

INPUTS, UNITS = 8, 4
COUNTS = {"a.w": 5, "b.w": 7}
X = np.random.default_rng(9).normal(size=(12, INPUTS)).astype(np.float32)


@cache
def stack(integer: bool, layout: str = "dense", groups: int = 4) -> Program:
    """Two layers with terms, and a head without."""
    rng = np.random.default_rng(1)
    weights: dict[str, Any] = {}
    layers = []
    for name, inputs in (("a", INPUTS), ("b", UNITS)):
        layers.append(Layer(name, "augmented_lstm", inputs, UNITS))
        terms = make_terms(rng, 4 * UNITS, inputs + UNITS, COUNTS[f"{name}.w"], groups, layout)
        weights[f"{name}.w"] = as_integers(rng, terms) if integer else terms
    return build_program(Model("", tuple(layers), weights, output="values"))


def interpreted(program: Program, steps: list[dict[str, int]]) -> Array:
    """Outputs of steps each with terms of its own."""
    state, outputs = None, []
    for x, terms in zip(X, steps, strict=False):
        one = Interpreter(program).run(Sequences(x[None], np.array([1])), state=state, terms=terms)
        state = one.state
        outputs.append(one.outputs[0])
    return np.array(outputs)


def agree(program: Program, found: Array, wanted: Array) -> None:
    if program.numeric == "integer":
        np.testing.assert_array_equal(found, wanted.astype(found.dtype))
    else:
        limit = FLOAT_TOLERANCE * np.maximum(1.0, np.abs(wanted))
        assert np.all(np.abs(found - wanted) <= limit)


# --- terms ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("integer", [False, True])
@given(
    st.sampled_from(("dense", "row_sparse", "block_sparse")),
    st.sampled_from((1, 2, 4)),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), min_size=1, max_size=len(X)),
)
@settings(max_examples=40, deadline=None)
def test_terms_that_vary_from_step_to_step(
    integer: bool, layout: str, groups: int, numbers: list[tuple[int, int]]
) -> None:
    program = stack(integer, layout, groups)
    steps = [{"a.w": a, "b.w": b} for a, b in numbers]
    runtime = Runtime(program)
    answers = [runtime.step(x, terms=terms) for x, terms in zip(X, steps, strict=False)]
    agree(program, np.array([answer.y for answer in answers]), interpreted(program, steps))
    for answer, terms in zip(answers, steps, strict=True):
        assert answer.terms == {w: min(n, COUNTS[w]) for w, n in terms.items()}
        assert not answer.late
        assert answer.error is None


def wide_terms(rng: np.random.Generator, width: int, groups: int, multipliers: bool) -> Terms:
    """Eight-bit terms of 120 inputs, of which rows keep blocks (0: all); codes with multipliers."""
    inputs, count, out = 120, 6, 4 * 12
    made = as_integers(rng, make_terms(rng, out, inputs, count, groups))
    v, u = made.v, made.u
    part = v.part
    if width:
        kept = inputs // width // 2
        index = np.sort(np.argsort(rng.random((count * groups, inputs // width)))[:, :kept], axis=1)
        codes = rng.integers(-127, 128, (count * groups, kept * width))
        bits = index_bits(inputs // width)
        part = replace(part, codes=codes, index=index, index_bits=bits)
    if multipliers:
        groups_of = 2 if part.codes.shape[1] % 2 == 0 else 1
        factors = rng.integers(1, 64, (part.codes.shape[0], groups_of))
        part = replace(part, multipliers=factors)
        part = replace(part, codes=(part.codes * part.group_factors()).astype(np.int32))
        outer = replace(u.part, multipliers=rng.integers(1, 64, (out, 3)))
        codes = (outer.codes * outer.group_factors()).astype(np.int32)
        u = replace(u, part=replace(outer, codes=codes))
    layout = {0: "dense", 1: "row_sparse"}.get(width, "block_sparse")
    return Terms(replace(v, part=part, layout=layout), u, groups)


@pytest.mark.parametrize("multipliers", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("width", [0, 1, 3, 8])
def test_integers_of_all_forms(width: int, groups: int, multipliers: bool) -> None:
    weight = wide_terms(np.random.default_rng(width + groups), width, groups, multipliers)
    layers = (Layer("a", "augmented_lstm", 108, 12),)
    program = build_program(Model("", layers, {"a.w": weight}, output="values"))
    x = np.random.default_rng(0).normal(size=(9, 108)).astype(np.float32)
    data = Sequences(x, np.array([9]))
    for terms in (0, 1, 3, 6):
        wanted = Interpreter(program).run(data, terms={"a.w": terms})
        np.testing.assert_array_equal(
            run_native(program, data, terms={"a.w": terms}).outputs, wanted.outputs
        )
    assert 0.05 < np.std(wanted.outputs) < 0.7  # gates that saturate hide differences


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("terms", [{}, {"b.w": 2}, {"a.w": 0, "b.w": 7}])
def test_batches_of_a_prefix_count_it(integer: bool, terms: dict[str, int]) -> None:
    program, data = stack(integer), Sequences(X, np.array([7, 5]))
    wanted = Interpreter(program).run(data, terms=terms)
    found = run_native(program, data, 2, terms=terms)
    agree(program, found.outputs, wanted.outputs)
    assert found.profile == wanted.profile
    if integer:
        assert run_native(program, data, capture=True, terms=terms).inputs == {}


@pytest.mark.parametrize(
    "terms", [5, {"a.w": -3}, {"a.w": 1.5}, {"a.w": "2"}, {"a.w": True}, {"c.w": 1}]
)
def test_batches_refuse_terms_that_are_no_counts_of_weights(terms: Any) -> None:
    program, data = stack(False), Sequences(X, np.array([7, 5]))
    for run in (Interpreter(program).run, Runtime(program).run_batch):
        with pytest.raises(UserError, match="terms"):
            run(data, terms=terms)


def test_what_is_no_ladder_is_refused() -> None:
    with pytest.raises(UserError, match="the ladder is a int"):
        Runtime(stack(False)).ladder = 5  # type: ignore[assignment]


@pytest.mark.parametrize("integer", [False, True])
def test_without_a_limit_all_terms_are_computed(integer: bool) -> None:
    program = stack(integer)
    runtime, other, third = (Runtime(program) for _ in range(3))
    for x in X:
        y = runtime.step(x)
        assert isinstance(y, np.ndarray)
        for answer in (
            other.step(x, terms=10**30),
            third.step(x, deadline_s=math.inf),
        ):
            assert isinstance(answer, Answer)
            np.testing.assert_array_equal(answer.y, y)
            assert answer.terms == COUNTS
    whole = runtime.stream()
    agree(program, whole.run(X), interpreted(program, [{}] * len(X)))


def test_one_number_is_for_every_weight_and_out_is_used() -> None:
    runtime, out = Runtime(stack(False)), np.empty(UNITS, np.float32)
    answer = runtime.step(X[0], out, terms=np.int64(6))
    assert answer.y is out
    assert answer.terms == {"a.w": 5, "b.w": 6}
    assert runtime.step(X[0], terms={"b.w": 1}).terms == {"a.w": 5, "b.w": 1}
    per_term = {"a.w": 4 * (2 * 12 + 1) + 2 * 16, "b.w": 4 * (2 * 8 + 1) + 2 * 16}
    assert answer.operations == 5 * per_term["a.w"] + 6 * per_term["b.w"]


# --- budgets -------------------------------------------------------------------------------------
@given(st.floats(0, 1e5))
@settings(max_examples=60, deadline=None)
def test_a_budget_is_kept_and_no_term_more_would_fit(budget: float) -> None:
    answer = Runtime(stack(True)).step(X[0], budget=budget)
    a, b = 4 * 25 + 32, 4 * 17 + 32
    assert answer.operations == answer.terms["a.w"] * a + answer.terms["b.w"] * b <= budget
    left = budget - answer.operations
    assert answer.terms["a.w"] == COUNTS["a.w"] or left < a
    assert answer.terms["b.w"] == COUNTS["b.w"] or left < b


def test_a_ladder_says_how_a_budget_is_spent_and_how_good_the_answer_is() -> None:
    runtime = Runtime(stack(False))
    rungs = [
        Rung({"a.w": a, "b.w": b}, a * 132 + b * 100, error, 0.0, 0.0, 0.0)
        for a, b, error in ((0, 0, 3.0), (0, 2, 1.0), (4, 2, 0.5), (5, 7, 0.0))
    ]
    runtime.ladder = Ladder("kl", 1000, 9, tuple(rungs))
    found = [runtime.step(X[0], budget=b) for b in (0, 199.9, 200, 700, 728, 1e9, math.inf)]
    assert [a.terms["a.w"] for a in found] == [0, 0, 0, 0, 4, 5, 5]
    assert [a.error for a in found] == [3.0, 3.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert runtime.step(X[0], terms={"a.w": 5, "b.w": 6}).error == 0.5
    assert runtime.stream().step(X[0], budget=200).terms == {"a.w": 0, "b.w": 2}
    with pytest.raises(UserError, match="weights with terms"):
        runtime.ladder = Ladder("kl", 1, 1, (Rung({"c.w": 1}, 1, 0.0, 0.0, 0.0, 0.0),))


# --- deadlines -----------------------------------------------------------------------------------
class Clock:
    """A virtual clock: each reading moves it by what `move` gives."""

    def __init__(self, move: Callable[[int], int]) -> None:
        self.now, self.readings, self.move = 10**6, 0, move

    def __call__(self) -> int:
        self.readings += 1
        self.now = max(0, self.now + self.move(self.readings))
        return self.now


@pytest.mark.parametrize("integer", [False, True])
@given(st.integers(0, 5000), st.integers(1, 700))
@settings(max_examples=40, deadline=None)
def test_no_term_begins_after_the_deadline(integer: bool, deadline: int, tick: int) -> None:
    """Each reading of the clock takes `tick` ns; a term begins only where the last was early enough."""
    program = stack(integer)
    runtime = Runtime(program)
    runtime.clock = clock = Clock(lambda _: tick)
    answer = runtime.step(X[0], deadline_s=deadline * 1e-9)
    begun = 10**6 + tick
    # One reading before every term and before giving up, one for the share of the first weight, the last.
    terms = sum(answer.terms.values())
    gave_up = sum(answer.terms[w] < n for w, n in COUNTS.items())
    assert clock.readings == 1 + 1 + terms + gave_up + 1
    last_begun = 10**6 + tick * (2 + terms + gave_up)
    assert terms == 0 or last_begun - gave_up * tick < begun + deadline + tick
    assert answer.late == (clock.now >= begun + deadline)
    agree(program, answer.y[None], interpreted(program, [dict(answer.terms)]))


@pytest.mark.parametrize(
    ("move", "terms"),
    [
        (lambda k: 0, COUNTS),  # stands still
        (lambda k: -1000, COUNTS),  # backwards
        (lambda k: 0 if k < 5 else 10**12, {"a.w": 2, "b.w": 0}),  # jumps ahead within the step
        (lambda k: 10**12, {"a.w": 0, "b.w": 0}),
        (lambda k: 10**18 if k == 3 else -(10**18), {"a.w": 0, "b.w": 7}),  # there and back
    ],
)
def test_clocks_that_jump_neither_loop_nor_break_the_state(
    move: Callable[[int], int], terms: dict[str, int]
) -> None:
    program = stack(True)
    runtime = Runtime(program)
    runtime.clock = Clock(move)
    answer = runtime.step(X[0], deadline_s=1e-6)
    assert answer.terms == terms
    runtime.clock = None
    after = runtime.step(X[1], terms=3)
    agree(
        program, np.array([answer.y, after.y]), interpreted(program, [terms, {"a.w": 3, "b.w": 3}])
    )


@pytest.mark.parametrize("deadline", [0, 0.0, -0.0, -1e-9, -1e300, -math.inf])
@pytest.mark.parametrize("virtual", [False, True])
def test_a_deadline_that_has_passed_gives_the_cheapest_answer(
    deadline: float, virtual: bool
) -> None:
    program = stack(False)
    runtime = Runtime(program)
    if virtual:
        runtime.clock = Clock(lambda _: 0)
    answer = runtime.step(X[0], deadline_s=deadline)
    assert answer.late
    assert answer.terms == {"a.w": 0, "b.w": 0}
    agree(program, answer.y[None], interpreted(program, [dict(answer.terms)]))


def test_time_is_shared_by_the_work_of_all_terms() -> None:
    """A clock that only the terms of the first weight use: it leaves the second its share."""
    runtime = Runtime(stack(True))
    runtime.clock = Clock(lambda _: 100)
    # Readings: entry, share; 1000 ns remain, of which a.w has 5·(4·12 + 16) of 320 + 7·(4·8 + 16) MACs.
    answer = runtime.step(X[0], deadline_s=1.1e-6)
    share = 320 / (320 + 336)
    assert answer.terms["a.w"] == math.ceil(share * 1000 / 100) - 1
    assert answer.terms["b.w"] > 0


def test_time_is_shared_as_the_ladder_climbs() -> None:
    """Where b.w tells more, it gets the time: once a step has shown how long terms take."""
    program = stack(True)
    rungs = [
        Rung({"a.w": a, "b.w": b}, a * 132 + b * 100, error, 0.0, 0.0, 0.0)
        for a, b, error in ((0, 0, 3.0), (0, 4, 1.0), (0, 7, 0.5), (5, 7, 0.0))
    ]
    found = {}
    for ladder in (None, Ladder("kl", 1000, 9, tuple(rungs))):
        runtime = Runtime(program)
        runtime.ladder, runtime.clock = ladder, Clock(lambda _: 100)
        first, second = (runtime.step(x, deadline_s=1e-6) for x in X[:2])
        found[ladder is not None] = first.terms, second.terms
        agree(
            program,
            np.array([first.y, second.y]),
            interpreted(program, [dict(first.terms), dict(second.terms)]),
        )
    assert found[True][0] == found[False][0]  # nothing is known yet
    # By the work of all terms, and by that of the rung (0, 7) and a tenth of what leads to (5, 7).
    assert found[False][1] == {"a.w": 4, "b.w": 3}
    assert found[True][1] == {"a.w": 0, "b.w": 7}


@given(st.integers(0, 3000), st.integers(1, 300), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_ladders_share_time_and_no_term_begins_after_the_deadline(
    deadline: int, tick: int, between: int, a: int
) -> None:
    program = stack(True)
    runtime = Runtime(program)
    rungs = [
        Rung({"a.w": min(a, n), "b.w": n - min(a, n)}, n, 1.0, 1.0, 1.0, 1.0)
        for n in range(0, 8, between)
    ]
    runtime.ladder = Ladder("kl", 1000, 9, (*rungs, Rung(COUNTS, 12, 0.0, 0.0, 0.0, 0.0)))
    runtime.clock = clock = Clock(lambda _: tick)
    done: list[dict[str, int]] = []
    for x in X[:3]:
        begun = clock.now + tick
        answer = runtime.step(x, deadline_s=deadline * 1e-9)
        done.append(dict(answer.terms))
        # Behind the reading before the last term lie those that say stop, and the last of all.
        stops = [answer.terms[w] < n for w, n in COUNTS.items()]
        begins = clock.now - tick * (1 + sum(stops[1 if answer.terms["b.w"] else 0 :]))
        assert sum(answer.terms.values()) == 0 or begins < begun + deadline
        agree(program, answer.y[None], interpreted(program, done)[-1:])


def test_real_deadlines_in_the_far_future_and_near() -> None:
    runtime = Runtime(stack(True))
    assert runtime.step(X[0], deadline_s=60.0).terms == COUNTS
    assert runtime.step(X[0], deadline_s=1e300).terms == COUNTS
    answer = runtime.step(X[0], deadline_s=1e-9)
    assert answer.late
    assert answer.terms == {"a.w": 0, "b.w": 0}
