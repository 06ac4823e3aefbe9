"""What the loader proves of codes: products read none that are wider than what they are packed for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modelflex.core.plan import KERNELS
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.testing.native import stored_codes

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native

NUMBERS = {name: number for number, name in enumerate(KERNELS)}
X, CODES, SUMS, OTHER = 128, 192, 256, 320
SENT, CARRIED = 0, 64
Place = tuple[int, int, int]


def one_weight(bias: np.ndarray | None = None, bits: int = 32) -> native.Weights:
    """One product of one input of 8 bits by 1."""
    weights = native.Weights()
    stored = stored_codes(np.ones((1, 1), np.int8))
    weights.add_codes(stored, 8, bits, bias, None, 1, 1)
    return weights


class Maker:
    """A plan of one stage; every operand has one element."""

    def __init__(self, rows: int = 1) -> None:
        self.plan = native.Plan(one_weight(), True, rows, 128, 384)
        self.plan.begin_stage(False)

    def call(self, kernel: str, inputs: list[int], outputs: list[int], **attrs: Any) -> Maker:
        places = [[(at, 0, 1) for at in given] for given in (inputs, outputs)]
        site = 0 if kernel.startswith(("linear", "delta", "accumulate")) else -1
        self.plan.add_call(NUMBERS[kernel], site, *places, attrs, False)
        return self

    def quantize(self, bits: int, to: int = CODES) -> Maker:
        return self.call("quantize", [X], [to], mu=1, shift=0, bits=bits)

    def linear(self, source: int = CODES) -> Maker:
        return self.call("linear_i32", [source], [SUMS])

    def delta(self, bits: int, sent: int = SENT) -> Maker:
        """Differences at OTHER, their mask behind them."""
        attrs = {"block": 1, "overshoot": 0, "bits": bits, "thresholds": np.zeros(1, np.int32)}
        return self.call("delta_encode", [CODES, sent], [OTHER, OTHER + 64, sent], **attrs)

    def accumulate(self) -> Maker:
        inputs = [OTHER, OTHER + 64, CARRIED]
        return self.call("accumulate_i32", inputs, [CARRIED], mask_block=1)

    def finish(self, y: int = SUMS) -> native.Plan:
        self.plan.finish((X, 0, 1), (y, 0, 1))
        return self.plan


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.quantize(16).linear(),
        lambda m: m.quantize(9).linear(),
        lambda m: m.linear(),
        lambda m: m.linear(SENT),  # carried, by nobody made
        lambda m: m.quantize(8).call("relu", [X], [CODES]).linear(),
        lambda m: m.quantize(16).call("copy", [CODES], [OTHER], item_bytes=2).linear(OTHER),
        lambda m: m.quantize(8).call("copy", [CODES], [OTHER], item_bytes=1).linear(OTHER),
        lambda m: m.quantize(16).delta(16).accumulate(),
        lambda m: m.quantize(9).delta(8).accumulate(),
        lambda m: m.delta(8).accumulate(),
        lambda m: m.quantize(8).delta(8, OTHER + 32).accumulate(),  # sent is scratch
        lambda m: m.accumulate(),
        lambda m: m.quantize(8).delta(8).call("relu", [OTHER], [OTHER]).accumulate(),
        lambda m: m.quantize(8).delta(8).accumulate().quantize(9, SENT),
        lambda m: m.quantize(8).delta(8).accumulate().call("relu", [X], [SENT]),
    ],
)
def test_codes_that_may_be_too_wide_are_refused(make: Callable[[Maker], Maker]) -> None:
    """Instruction sets would differ: some keep 8 bits of them."""
    made = make(Maker())
    with pytest.raises(ValueError, match=r"codes|differences"):
        made.finish()


def test_what_later_rows_see_is_proven_too() -> None:
    """The second row reads codes that the first one replaced."""

    def plan(rows: int) -> native.Plan:
        made = Maker(rows)
        call = (NUMBERS["quantize"], -1, [(X, 0, 1)], [(CODES, 0, 1)])
        made.plan.add_call(*call, {"mu": 1, "shift": 0, "bits": 8}, True)
        return made.linear().quantize(16).finish()

    plan(1)
    with pytest.raises(ValueError, match="more bits"):
        plan(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.quantize(8).linear().finish(),
        lambda m: m.quantize(8).delta(8).accumulate().finish(CARRIED),
        lambda m: m.quantize(4).call("copy", [CODES], [OTHER], item_bytes=2).linear(OTHER).finish(),
    ],
)
def test_instruction_sets_agree(make: Callable[[Maker], native.Plan]) -> None:
    found = []
    try:
        for isa in (None, "portable"):
            native.limit_isa(isa)
            plan = make(Maker())
            stream = native.Stream(plan, plan)
            found.append([stream.step(np.array([x / 65536]))[0] for x in (300.0, -129.0, 5.0)])
    finally:
        native.limit_isa(None)
    assert found[0] == found[1]


def delta_plan(sent: int = 0, carried: int = 0) -> native.Plan:
    made = Maker().quantize(8).delta(8).accumulate()
    made.plan.add_slot((SENT, 0, 1), 2, np.int16(sent).tobytes())
    made.plan.add_slot((CARRIED, 0, 1), 4, np.int32(carried).tobytes())
    return made.finish(CARRIED)


def test_carried_values_begin_within_their_limits() -> None:
    """Weights of 8 bits: no sum of one product is beyond 128 * 128."""
    for sent, carried in ((128, 0), (-129, 0), (0, 16385), (0, -(1 << 31))):
        with pytest.raises(ValueError, match="first values of slots"):
            delta_plan(sent, carried)
    delta_plan(-128, 16384)


def test_a_state_that_no_step_leaves_is_refused() -> None:
    plan = delta_plan()
    stream = native.Stream(plan, plan)
    before = stream.get_state()
    for at, value in ((SENT, np.int16(128)), (CARRIED, np.int32(-16385))):
        state = bytearray(before)
        state[at : at + value.nbytes] = value.tobytes()
        with pytest.raises(ValueError, match="no step leaves"):
            stream.set_state(bytes(state))
    assert stream.get_state() == before
    stream.set_state(before)


def test_slots_that_share_memory_are_refused() -> None:
    made = Maker().plan
    made.add_slot((0, 0, 4), 4, None)
    with pytest.raises(ValueError, match="two slots"):
        made.add_slot((14, 0, 1), 2, None)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_bias_may_be_the_least_integer(bits: int) -> None:
    """Its magnitude has no int64; `make sanitize` sees it."""
    one_weight(np.array([-(1 << (bits - 1))], f"int{bits}"), bits)


def test_both_plans_of_a_stream_keep_to_one_state() -> None:
    weights = one_weight()

    def plan(codes: bool) -> native.Plan:
        made = Maker()
        made.plan = native.Plan(weights, True, 1, 128, 384)
        made.plan.begin_stage(False)
        return (made.quantize(8).delta(8) if codes else made.quantize(8)).finish()

    with pytest.raises(ValueError, match="keep to one state"):
        native.Stream(plan(True), plan(False))
