"""Whole sequences, batches and residency on the systolic platform, against a model by hand."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.cost import COST_UNITS
from modelflex.core.products import ProductRow, make_table
from modelflex.platforms.systolic import Systolic

from .systolic_by_hand import SRAM, Hand, check, write_spec
from .systolic_rows import (
    OPTIONS,
    cost,
    elementwise,
    networks,
    one,
    platform,
    product,
    products,
    value,
)

Network = tuple[list[ProductRow], float]
Options = dict[str, Any]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_spec(tmp_path_factory.mktemp("spec") / "small.toml")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_spec(tmp_path_factory.mktemp("spec") / "roomy.toml", sram_capacity=(1, "MB"))


@settings(max_examples=300, deadline=None)
@given(networks(), OPTIONS)
def test_figures_are_those_by_hand(spec: str, network: Network, options: Options) -> None:
    check(cost(spec, *network, **options), Hand(**options).totals(*network))


def test_many_recipes_at_once_equal_one_by_one(spec: str) -> None:
    rng = np.random.default_rng(2)
    steps, choices = 9.5, 12
    groups = [
        [
            product(
                f"w{weight}/0", int(rng.integers(1, 40)), int(rng.integers(1, 40)),
                weight_bits=int(rng.integers(1, 17)), hoistable=weight == 0,
                active=1.0 if weight == 0 else float(rng.uniform(0.1, 1)),
                state_bytes=0.0 if weight == 0 else 30.0,
            )
        ]
        for weight in range(3)
        for _ in range(choices)
    ]  # fmt: skip
    groups.append([elementwise(20, 8, 12.0)])
    table = make_table(groups, steps)
    picks = rng.integers(0, choices, (5000, 3)) + choices * np.arange(3)
    matrix = np.column_stack([picks, np.full(len(picks), 3 * choices)])
    kinds = set()
    for residency in ("streamed", "fit", "partial"):
        options: Options = {"residency": residency, "workload": "sequence", "batch": 3}
        priced = platform(spec, **options)
        totals = priced.combine(table, priced.price(table), matrix)
        for recipe in rng.integers(0, len(matrix), 30):
            rows = [groups[c][0] for c in matrix[recipe]]
            alone = priced.cost(one(rows, steps))
            kinds.add(alone.residency)
            for name in COST_UNITS:
                assert totals[name][recipe] == pytest.approx(getattr(alone, name), rel=1e-12)
    assert kinds == {"streamed", "fit", "partial"}


# --- whole sequences -----------------------------------------------------------------------------
def test_the_input_product_of_a_known_sequence_is_one_product() -> None:
    """100 steps of 4096×32 at 8 bits on 32×32 units: 4 folds down, 128 across of 32 + 62 cycles."""
    row = product("lstm0.w_x/0", 4096, 32, hoistable=True)
    streaming, sequence = (
        Systolic.from_config({"workload": w}).cost(one([row], 100.0))
        for w in ("streaming", "sequence")
    )
    assert streaming.resources["array_cycles_per_step"] == 128 * 94
    assert sequence.resources["array_cycles_per_step"] == pytest.approx(4 * 128 * 94 / 100)
    assert streaming.dram_bytes_per_step == 4096 * 32
    assert sequence.dram_bytes_per_step == pytest.approx(4096 * 32 / 100)
    assert sequence.weight_fetch_bytes_per_step == pytest.approx(4096 * 32 / 100)
    # 100·32 of 4·32 rows times all columns and terms, of four folds of 94 cycles.
    assert sequence.resources["array_utilization"] == pytest.approx(100 / 128 * 32 / 94)
    # The results of 99 steps wait, in 4 bytes each.
    assert sequence.resources["sram_bytes"] == 99 * 4096 * 4


def test_products_that_hang_on_state_run_step_by_step() -> None:
    row = product("lstm0.w_h/0", 128, 32)
    costs = [
        Systolic.from_config({"workload": w}).cost(one([row], 100.0))
        for w in ("streaming", "sequence")
    ]
    assert asdict(costs[0]) == asdict(costs[1])


@given(networks(), OPTIONS)
def test_a_sequence_of_one_step_is_a_stream(spec: str, network: Network, options: Options) -> None:
    rows = [replace(row, runs_per_step=1.0) for row in network[0]]
    streaming, sequence = (
        cost(spec, rows, 1.0, **{**options, "workload": w}) for w in ("streaming", "sequence")
    )
    assert asdict(streaming) == asdict(sequence)


@given(networks(), OPTIONS, st.integers(1, 40))
def test_knowing_the_sequence_is_never_dearer(
    roomy: str, network: Network, options: Options, steps: int
) -> None:
    """While all results can wait in SRAM; registers apart, as more of the array's edge is filled."""
    rows = [row for row in network[0] if row.runs_per_step == 1]
    options = {**options, "registers": False}
    streaming, sequence = (
        cost(roomy, rows, float(steps), **{**options, "workload": w})
        for w in ("streaming", "sequence")
    )
    for name in ("latency_s", "energy_j", "weight_fetch_bytes_per_step", "dram_bytes_per_step"):
        assert value(getattr(sequence, name)) <= value(getattr(streaming, name)) * (1 + 1e-12)


@given(networks(), OPTIONS, st.data())
def test_longer_sequences_cost_more(
    spec: str, network: Network, options: Options, data: st.DataObject
) -> None:
    rows = [row for row in network[0] if row.runs_per_step == 1]
    less, more = sorted(data.draw(st.tuples(*[st.floats(1, 200)] * 2)))
    short, long = (cost(spec, rows, steps, **options) for steps in (less, more))
    for name in ("latency_s", "energy_j"):
        assert value(getattr(short, name)) <= value(getattr(long, name)) * (1 + 1e-9)


def test_results_that_do_not_fit_wait_in_dram(spec: str) -> None:
    """Sums of 3 bytes: 24·(T − 1) + 8 bytes of state fit 2000 up to T = 84."""
    rows = [product("w/0", 8, 4, hoistable=True), elementwise(4, state=8.0)]
    fits, spills = (cost(spec, rows, steps, workload="sequence") for steps in (84.0, 85.0))
    assert fits.dram_bytes_per_step == pytest.approx(32 / 84)
    assert fits.resources["sram_bytes"] == 8 + 83 * 24
    # Every waiting byte is written and read once a sequence.
    assert spills.dram_bytes_per_step == pytest.approx((32 + 2 * 84 * 24) / 85)
    assert spills.resources["sram_bytes"] == 8
    assert spills.energy_breakdown_j["dram"] == pytest.approx((32 + 2 * 84 * 24) / 85 * 16e-12)


# --- batches -------------------------------------------------------------------------------------
@given(networks(), OPTIONS)
def test_a_batch_of_one_is_the_default(spec: str, network: Network, options: Options) -> None:
    without = {name: v for name, v in options.items() if name != "batch"}
    assert asdict(cost(spec, *network, **without)) == asdict(
        cost(spec, *network, **{**options, "batch": 1})
    )


@given(networks(), OPTIONS)
def test_a_batch_is_never_dearer_than_its_sequences_alone(
    spec: str, network: Network, options: Options
) -> None:
    """Streamed weights, all inputs sent: their readers are shared and nothing is lost."""
    rows = [replace(row, active=1.0, density=1.0) for row in network[0]]
    options = {
        **options, "residency": "streamed", "workload": "streaming", "registers": False,
    }  # fmt: skip
    batch = options["batch"]
    alone = cost(spec, rows, network[1], **{**options, "batch": 1})
    together = cost(spec, rows, network[1], **options)
    assert value(together.energy_j) <= value(alone.energy_j) * (1 + 1e-12)
    assert value(together.latency_s) <= batch * value(alone.latency_s) * (1 + 1e-12)
    assert value(together.latency_s) >= value(alone.latency_s) * (1 - 1e-12)
    assert value(together.throughput_steps_per_s) >= value(alone.throughput_steps_per_s) * (
        1 - 1e-12
    )


@given(networks(), st.integers(2, 50))
def test_weights_are_read_once_for_a_batch(spec: str, network: Network, batch: int) -> None:
    """Without delta exactly once; under delta for every input that one of the sequences sends."""
    alone, together = (cost(spec, *network, batch=b) for b in (1, batch))
    first, all_ = (value(c.weight_fetch_bytes_per_step) for c in (alone, together))
    if all(row.density == 1 for row in network[0]):
        assert all_ == pytest.approx(first, rel=1e-12)
    assert first * (1 - 1e-12) <= all_ <= batch * first * (1 + 1e-12)
    assert together.state_bytes == alone.state_bytes


def test_inputs_of_a_batch_are_sent_by_one_sequence_or_another(spec: str) -> None:
    """Two sequences that send a half: three quarters of the columns, by an exhaustive count."""
    row = product("w/0", 8, 8, active=0.5, state_bytes=4.0)
    sent = [(a, b) for a in (0, 1) for b in (0, 1)]
    union = sum(a or b for a, b in sent) / len(sent)
    together = cost(spec, [row], 10.0, batch=2)
    assert together.dram_bytes_per_step == pytest.approx(union * 64)
    assert value(together.weight_fetch_bytes_per_step) == pytest.approx(union * 64)


# --- residency -----------------------------------------------------------------------------------
@given(networks(), OPTIONS)
def test_partial_residency_lies_between(spec: str, network: Network, options: Options) -> None:
    streamed, partial, fit = (
        cost(spec, *network, **{**options, "residency": r}) for r in ("streamed", "partial", "fit")
    )
    if fit.residency == "fit":
        assert asdict(partial) == asdict(fit)
    for name in ("latency_s", "energy_j", "dram_bytes_per_step"):
        low, mid, high = (value(getattr(c, name)) for c in (partial, fit, streamed))
        assert low <= mid * (1 + 1e-12)
        assert mid <= high * (1 + 1e-12)
    if partial.residency == "partial":
        assert partial.resources["sram_bytes"] == pytest.approx(SRAM)


def test_a_part_of_the_weights_stays(spec: str) -> None:
    """2500 bytes beside 200 of state: 1800 stay, 28 % come over the bus at every step."""
    rows = [product("w/0", 50, 50), elementwise(1, state=200.0)]
    partial = cost(spec, rows, 10.0, residency="partial")
    assert partial.residency == "partial"
    assert partial.dram_bytes_per_step == pytest.approx(700)
    assert partial.resources["sram_bytes"] == SRAM
    assert partial.weight_fetch_bytes_per_step == 2500
    # The state of two sequences takes room twice.
    assert cost(spec, rows, 10.0, residency="partial", batch=2).dram_bytes_per_step == (
        pytest.approx(900)
    )


def test_waiting_results_take_the_room_of_weights(spec: str) -> None:
    """1600 bytes of weights fit beside 384 of waiting results (T = 17), not beside 408 (T = 18).

    The results pass the bus twice: 816 bytes a sequence are fewer than 1600 of weights that run once,
    1632 (T = 35) are not.
    """
    rows = [product("a/0", 8, 200, hoistable=True)]
    both, weights, results = (
        cost(spec, rows, steps, residency="fit", workload="sequence")
        for steps in (17.0, 18.0, 35.0)
    )
    assert [c.residency for c in (both, weights, results)] == ["fit", "fit", "streamed"]
    assert [c.resources["sram_bytes"] for c in (both, weights, results)] == [1984, 1600, 816]
    assert both.dram_bytes_per_step == 0
    assert weights.dram_bytes_per_step == pytest.approx(816 / 18)
    assert results.dram_bytes_per_step == pytest.approx(1600 / 35)


def test_weights_of_every_step_stay_where_results_do_not_fit(spec: str) -> None:
    """1000 bytes that are read at every step stay in 2000; 2400 bytes of results wait in DRAM."""
    rows = [product("a/0", 8, 1, hoistable=True), product("b/0", 31, 32)]
    found = cost(spec, rows, 101.0, residency="fit", workload="sequence")
    assert found.residency == "fit"
    assert found.resources["sram_bytes"] == 8 + 31 * 32
    assert found.dram_bytes_per_step == pytest.approx(2 * 2400 / 101)


@given(products("w/0"), OPTIONS, st.lists(st.integers(1, 60), min_size=2, max_size=2))
def test_less_room_streams_more(
    spec: str, row: ProductRow, options: Options, states: list[int]
) -> None:
    less, more = (
        cost(
            spec, [row, elementwise(1, state=40.0 * s)], 9.0, **{**options, "residency": "partial"}
        )
        for s in sorted(states)
    )
    assert value(less.dram_bytes_per_step) <= value(more.dram_bytes_per_step) * (1 + 1e-12)


def test_options_hold_for_the_step_in_which_everything_is_sent(spec: str) -> None:
    row = product("w/0", 16, 16, active=0.25, state_bytes=8.0)
    whole = replace(row, active=1.0, density=1.0)
    options = {"workload": "sequence", "batch": 3, "residency": "partial", "leakage": True}
    found, expected = (cost(spec, [r], 6.0, **options) for r in (row, whole))
    assert found.resources["worst_step_latency_s"] == expected.latency_per_step_s
    assert found.resources["worst_step_energy_j"] == expected.energy_per_step_j
