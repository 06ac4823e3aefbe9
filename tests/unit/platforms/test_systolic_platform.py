"""The systolic platform against a scalar model written apart from it, and what a Cost owes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.cost import COST_UNITS
from modelflex.core.products import ProductRow, ProductTable, make_table, single_recipe
from modelflex.errors import UserError
from modelflex.platforms.systolic import Systolic
from modelflex.registry import PLATFORMS

TIMES_AND_ENERGIES = (
    "latency_s", "energy_j", "latency_per_step_s", "energy_per_step_j", "throughput_steps_per_s",
    "power_w", "gops", "gops_per_w", "bandwidth_bytes_per_s",
)  # fmt: skip


def product(
    site: str = "l.w_h/0",
    m: int = 4096,
    k: int = 1056,
    bits: int = 8,
    activation_bits: int | None = None,
    block: int = 1,
    density: float = 1.0,
    runs_per_step: float = 1.0,
    extra: float = 0.0,
    reset: float = 0.0,
    state: float = 0.0,
) -> ProductRow:
    return ProductRow(
        site=site, layout="dense" if block == 1 else "circulant", m=m, k=k, block=block,
        weight_bits=bits, activation_bits=bits if activation_bits is None else activation_bits,
        macs=m * k, stored_bytes=math.ceil(m * k // block * bits / 8) + extra + reset,
        units=k // block, unit_bytes=m * bits / 8, fixed_bytes=extra, reset_bytes=reset,
        runs_per_step=runs_per_step, density=density, density_low=density / 2, active=density,
        active_low=density / 2, state_bytes=state, dense_macs=m * k,
    )  # fmt: skip


def elementwise(results: int, runs_per_step: float = 1.0, state: float = 0.0) -> ProductRow:
    row = product("l/elementwise", results, 0, 0, runs_per_step=runs_per_step, state=state)
    return replace(row, layout="", macs=0, dense_macs=0, stored_bytes=0.0)


def random_row(rng: np.random.Generator, site: str, runs_per_step: float = 1.0) -> ProductRow:
    block = int(rng.choice([1, 2, 4]))
    held = bool(rng.integers(2))
    return product(
        site,
        m=block * int(rng.integers(1, 80)),
        k=block * int(rng.integers(1, 80)),
        bits=int(rng.integers(2, 17)),
        activation_bits=int(rng.integers(2, 17)),
        block=block,
        density=float(rng.uniform(0.05, 1)) if held else 1.0,
        runs_per_step=runs_per_step,
        extra=float(rng.integers(0, 50)),
        reset=float(rng.integers(1, 50)) if held else 0.0,
        state=float(rng.integers(1, 500)) if held else 0.0,
    )


T = 15.5
"""Steps of the test tables; what runs once an inference has 1/T runs a step."""


def random_table(seed: int, choices: int, weights: int = 4) -> tuple[ProductTable, np.ndarray]:
    """(table, choices of each weight [weights, choices]); the last weight runs once, then one row
    of elementwise work that all recipes share."""
    rng = np.random.default_rng(seed)
    groups = []
    for weight in range(weights):
        runs = 1.0 if weight < weights - 1 else 1 / T
        for c in range(choices):
            links = int(rng.integers(1, 3))
            sites = [f"w{weight}/{c}/{link}" for link in range(links)]
            groups.append([random_row(rng, site, runs) for site in sites])
    groups.append([elementwise(640, state=1024.0)])
    return make_table(groups, T), np.arange(weights * choices).reshape(weights, choices)


def by_hand(platform: Systolic, rows: list[dict[str, float]], fit: bool) -> dict[str, float]:
    """Totals of one recipe in plain Python, from the published figures and the documentation."""
    dataflow = platform.config.dataflow
    side, clock, bus = 32, 200e6, 12.8e9
    stored = sum(r["stored_bytes"] for r in rows)
    state = sum(r["state_bytes"] for r in rows)
    streamed = not (fit and stored + state <= 4 * 2**20)
    step = {"s": 0.0, "bytes": 0.0, "j": 0.0, "ops": 0.0}
    once = dict(step)
    fetched = 0.0
    for r in rows:
        n, k = int(r["m"]), int(r["k"])
        cycles = traffic = 0.0
        fetch = r["units"] * r["unit_bytes"] * r["density"] + r["fixed_bytes"]
        if k > 0:
            w, a = (
                next(c for c in (2, 4, 8, 16) if c >= r[f"{name}_bits"])
                for name in ("weight", "activation")
            )
            terms = math.ceil(math.ceil(k * r["active"] - 1e-9) * w * a / 64)
            down, across = math.ceil(terms / side), math.ceil(n / side)
            if dataflow == "os":
                cycles, reads, sums = across * (terms + 2 * side - 2), across, 1
            elif dataflow == "ws":
                cycles, reads, sums = down * across * (1 + 3 * side - 2), across, 2 * down - 1
            else:
                cycles, reads, sums = down * (n + 3 * side - 2), 1, 2 * down - 1
            traffic = k * r["active"] * r["activation_bits"] / 8 * reads + n * 4 * sums
            traffic += fetch + 2 * r["state_bytes"]
        vector = n + k
        if k > 0 and r["state_bytes"] > 0:
            vector *= 2  # delta compares every input and accumulates every result
        traffic += 12 * vector
        joules = cycles * 1024 * 0.459e-12 + vector * 3.2e-12 + traffic * 8 * 0.107e-12
        phase, runs = (step, 1.0) if r["runs_per_step"] == 1 else (once, 1.0)
        dram = fetch if streamed else 0.0
        phase["s"] += runs * (cycles + math.ceil(vector / 32)) / clock
        phase["bytes"] += runs * dram
        phase["j"] += runs * (joules + dram * 8 * 8e-12)
        phase["ops"] += runs * 2 * r["dense_macs"]
        once["bytes"] += r["reset_bytes"] if streamed else 0.0
        once["j"] += r["reset_bytes"] * 8 * (0.107e-12 + (8e-12 if streamed else 0.0))
        fetched += fetch * r["runs_per_step"] + r["reset_bytes"] / T
    latency = max(step["s"], step["bytes"] / bus)
    return {
        "latency_s": T * latency + max(once["s"], once["bytes"] / bus),
        "energy_j": T * step["j"] + once["j"],
        "latency_per_step_s": latency,
        "energy_per_step_j": step["j"],
        "throughput_steps_per_s": 1 / latency,
        "power_w": step["j"] / latency,
        "gops": step["ops"] / latency / 1e9,
        "gops_per_w": step["ops"] / step["j"] / 1e9,
        "weight_bytes": stored,
        "state_bytes": state,
        "weight_fetch_bytes_per_step": fetched,
        "macs_per_step": sum(r["macs"] * r["active"] * r["runs_per_step"] for r in rows),
        "dram_bytes_per_step": step["bytes"],
        "bandwidth_bytes_per_s": step["bytes"] / step["s"],
        "coverage": 1.0,
    }


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
@pytest.mark.parametrize("residency", ["streamed", "fit"])
def test_100_000_recipes_at_once_equal_one_by_one(dataflow: str, residency: str) -> None:
    table, numbers = random_table(7, 50)
    rng = np.random.default_rng(3)
    picks = rng.integers(0, numbers.shape[1], (100_000, numbers.shape[0]))
    choices = np.column_stack([*(numbers[w][picks[:, w]] for w in range(len(numbers))),
                               np.full(len(picks), numbers.size)])  # fmt: skip
    platform = Systolic.from_config({"dataflow": dataflow, "residency": residency})
    totals = platform.combine(table, platform.price(table), choices)
    assert set(totals) == set(COST_UNITS)
    for recipe in rng.integers(0, len(choices), 40):
        spans = [(table.row_start[c], table.row_start[c + 1]) for c in choices[recipe]]
        rows = [
            {n: v[i] for n, v in table.columns.items() if v.dtype.kind in "if"}
            for start, end in spans
            for i in range(start, end)
        ]
        expected = by_hand(platform, rows, fit=residency == "fit")
        assert {n: v[recipe] for n, v in totals.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("bits", "milliseconds", "microjoules"),
    [(16, 2.74, 542), (8, 0.72, 209), (4, 0.21, 91), (2, 0.08, 43)],
)
def test_the_papers_gate_product(bits: int, milliseconds: float, microjoules: float) -> None:
    """Latency and energy of a step with quantisation alone, DRAM at 4 pJ/bit."""
    platform = Systolic.from_config(
        {"dram_energy_per_bit": "4 pJ/bit", "dram_bandwidth": "unlimited"}
    )
    cost = platform.cost(make_table([[product(bits=bits)]], 1.0))
    assert cost.latency_per_step_s is not None
    assert cost.energy_per_step_j is not None
    assert round(cost.latency_per_step_s * 1e3, 2) == milliseconds
    # The published figures are rounded or cut to whole µJ.
    assert cost.energy_per_step_j * 1e6 == pytest.approx(microjoules, abs=1)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_streaming_moves_each_weight_once(dataflow: str) -> None:
    """SCALE-Sim's DRAM count of the filter: 4,325,376 words in every dataflow (M = 1)."""
    platform = Systolic.from_config({"dataflow": dataflow})
    cost = platform.cost(make_table([[product()]], 1.0))
    assert cost.dram_bytes_per_step == 4_325_376
    assert cost.weight_fetch_bytes_per_step == 4_325_376


recipes = st.builds(
    lambda seed, weights: random_table(seed, 1, weights)[0],
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
)
configs = st.fixed_dictionaries(
    {
        "dataflow": st.sampled_from(["os", "ws", "is"]),
        "residency": st.sampled_from(["streamed", "fit"]),
        "dram_bandwidth": st.sampled_from(["10 MB/s", "12.8 GB/s", "unlimited"]),
        "leakage": st.booleans(),
    }
)


@settings(deadline=None, max_examples=60)
@given(recipes, configs)
def test_breakdowns_sum_to_totals(table: ProductTable, config: dict[str, object]) -> None:
    cost = Systolic.from_config(config).cost(table)
    if cost.latency_per_step_s is None:
        pytest.fail("a recipe of narrow operands was not priced")
    sums = {
        name: sum(op[name] for op in cost.per_op.values())
        for name in ("latency_s", "energy_j", "inference_latency_s", "inference_energy_j")
    }
    assert sums["latency_s"] == pytest.approx(cost.latency_per_step_s)
    assert sums["energy_j"] == pytest.approx(cost.energy_per_step_j)
    assert sums["inference_latency_s"] == pytest.approx(cost.latency_s)
    assert sums["inference_energy_j"] == pytest.approx(cost.energy_j)
    assert sum(cost.energy_breakdown_j.values()) == pytest.approx(cost.energy_per_step_j)
    assert set(cost.per_op) == set(table["site"])


@settings(deadline=None, max_examples=60)
@given(st.data(), configs)
def test_cost_grows_with_density_and_bits(data: st.DataObject, config: dict[str, object]) -> None:
    size = st.integers(1, 300)
    m, k = data.draw(size), data.draw(size)
    bits = sorted(data.draw(st.tuples(*[st.integers(2, 16)] * 2)))
    density = sorted(data.draw(st.tuples(*[st.floats(0, 1)] * 2)))
    platform = Systolic.from_config({**config, "residency": "streamed"})
    less, more = (
        platform.cost(make_table([[product(m=m, k=k, bits=b, density=d)]], T))
        for b, d in zip(bits, density, strict=True)
    )
    for name in ("latency_per_step_s", "energy_per_step_j", "weight_fetch_bytes_per_step"):
        assert getattr(less, name) <= getattr(more, name) * (1 + 1e-12)


def test_the_optimistic_end_is_never_dearer() -> None:
    table, _ = random_table(11, 1)
    platform = Systolic.from_config({})
    expected, low = platform.cost(table), platform.cost(table.optimistic())
    assert low.energy_per_step_j is not None
    assert expected.energy_per_step_j is not None
    assert low.energy_per_step_j < expected.energy_per_step_j


def test_float_products_are_not_priced_but_their_bytes_are_known() -> None:
    rows = [[product("a/0", m=8, k=8, bits=32)], [product("b/0", m=8, k=24)], [elementwise(16)]]
    table = make_table(rows, T)
    cost = Systolic.from_config({}).cost(table)
    for name in TIMES_AND_ENERGIES:
        assert getattr(cost, name) is None
    assert cost.weight_bytes == 8 * 8 * 4 + 8 * 24
    assert cost.weight_fetch_bytes_per_step == cost.weight_bytes
    assert cost.coverage == 0.75
    assert cost.unpriced is not None
    assert cost.unpriced.startswith("1 of 3 rows have operands wider than 16 bits: compress")
    assert Systolic.from_config({}).cost(make_table(rows[1:], T)).unpriced is None
    assert (cost.per_op, cost.energy_breakdown_j, cost.bound) == ({}, {}, None)


def test_an_unpriced_choice_leaves_the_others_alone() -> None:
    rows = [[product("a/0", bits=32)], [product("a/0", bits=8)]]
    platform = Systolic.from_config({})
    table = make_table(rows, T)
    totals = platform.combine(table, platform.price(table), np.array([[0], [1]]))
    alone = platform.cost(make_table(rows[1:], T))
    assert np.isnan(totals["energy_j"][0])
    assert totals["energy_j"][1] == pytest.approx(alone.energy_j)


def test_residency_is_decided_by_what_fits() -> None:
    # 2048 columns of 2 KiB fill the 4 MiB exactly; one more byte, even of state, does not fit.
    full = product(m=2048, k=2048, bits=8)
    fits = make_table([[full]], T)
    over = make_table([[full], [elementwise(1, state=1.0)]], T)
    platform = Systolic.from_config({"residency": "fit"})
    inside, outside = platform.cost(fits), platform.cost(over)
    assert (inside.residency, outside.residency) == ("fit", "streamed")
    assert inside.dram_bytes_per_step == 0.0
    assert inside.energy_breakdown_j["dram"] == 0.0
    assert outside.dram_bytes_per_step == 2048 * 2048
    assert inside.resources["sram_bytes"] == 4 * 2**20
    assert outside.resources["sram_bytes"] == 1.0
    streamed = Systolic.from_config({}).cost(fits)
    assert streamed.residency == "streamed"
    assert streamed.dram_bytes_per_step == 2048 * 2048


def test_the_slower_of_arithmetic_and_dram_decides() -> None:
    table = make_table([[product()]], T)
    slow = Systolic.from_config({"dram_bandwidth": "1 GB/s"}).cost(table)
    assert slow.bound == "memory"
    assert slow.latency_per_step_s == pytest.approx(4_325_376 / 1e9)
    fast = Systolic.from_config({"dram_bandwidth": "unlimited"}).cost(table)
    assert fast.bound == "compute"
    assert fast.bandwidth_bytes_per_s is not None
    required = Systolic.from_config({"dram_bandwidth": f"{fast.bandwidth_bytes_per_s!r} B/s"})
    assert required.cost(table).latency_per_step_s == pytest.approx(fast.latency_per_step_s)


def test_leakage_is_counted_where_asked_for() -> None:
    table = make_table([[product()]], T)
    without, with_ = (Systolic.from_config({"leakage": x}).cost(table) for x in (False, True))
    assert without.energy_per_step_j is not None
    assert with_.energy_per_step_j is not None
    assert with_.latency_per_step_s is not None
    leaked = with_.energy_per_step_j - without.energy_per_step_j
    assert leaked == pytest.approx(1024 * 59.3e-6 * with_.latency_per_step_s)
    assert "leakage" not in without.energy_breakdown_j


def test_a_recipe_with_work_only_once_an_inference_has_no_step() -> None:
    cost = Systolic.from_config({}).cost(make_table([[product(runs_per_step=1 / T)]], T))
    assert cost.throughput_steps_per_s is None
    assert cost.weight_fetch_bytes_per_step == pytest.approx(4_325_376 / T)


def test_an_unknown_layout_is_refused() -> None:
    table = make_table([[replace(product(), layout="tetrahedral")]], T)
    with pytest.raises(UserError, match="cannot price the layout 'tetrahedral'"):
        Systolic.from_config({}).price(table)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"residence": "fit"}, "unknown key 'residence'.*did you mean 'residency'"),
        ({"residency": "partly"}, "platform.residency is 'partly'"),
        ({"dataflow": "rs"}, "platform.dataflow is 'rs'"),
        ({"spec": "bitfusion_32x23"}, "unknown spec.*did you mean 'bitfusion_32x32'"),
        ({"spec": "/nowhere/chip.toml"}, "cannot read the spec /nowhere/chip.toml"),
        ({"dram_energy_per_bit": "4 pJ"}, r"dram_energy_per_bit is '4 pJ'; expected .*per bit"),
        ({"dram_energy_per_bit": "4 pW/bit"}, "unknown unit 'pW'"),
        ({"dram_energy_per_bit": 4}, "dram_energy_per_bit is 4"),
        ({"dram_bandwidth": "-1 GB/s"}, "dram_bandwidth is -1e"),
        ({"dram_bandwidth": "infinite"}, "dram_bandwidth is 'infinite'"),
    ],
)
def test_bad_options_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Systolic.from_config(config)


def test_it_is_registered_and_says_what_it_assumes() -> None:
    platform = PLATFORMS.get("systolic").from_config({"dram_energy_per_bit": "4 pJ/bit"})
    description = platform.description
    assert description["constants"]["dram_energy"]["si"] == pytest.approx(4e-12)
    assert (
        description["constants"]["dram_energy"]["source"] == "set by platform.dram_energy_per_bit"
    )
    assert description["residency"] == "streamed"
    assert description["assumptions"]


def test_one_recipe_is_the_one_row_case() -> None:
    table, _ = random_table(5, 1)
    platform = Systolic.from_config({"residency": "fit"})
    totals = platform.combine(table, platform.price(table), single_recipe(table))
    cost = platform.cost(table)
    assert {n: getattr(cost, n) for n in COST_UNITS} == {n: float(v[0]) for n, v in totals.items()}
