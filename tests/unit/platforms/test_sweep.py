"""Sweeps against the simulator called point by point, and against figures worked out by hand."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.platforms.systolic.points import one_point
from modelflex.platforms.systolic.simulate import simulate
from modelflex.platforms.systolic.sweep import SweepSummary, run_sweep
from modelflex.platforms.systolic.sweep_config import parse_sweep
from modelflex.platforms.systolic.workload import Convolution, Gemm, Workload

LSTM = Gemm("gates", 1, 4096, 1056)
MOVED = [
    f"{memory}_{name}"
    for memory in ("sram", "dram")
    for name in ("ifmap", "filter", "ofmap", "ofmap_reads")
]


def sweep(
    axes: dict[str, Any],
    layers: list[Workload] | None = None,
    chunk: int = 1000,
    **tables: Any,
) -> tuple[dict[str, Array], SweepSummary]:
    raw = {"workload": {"gemm": [[1, 1, 1]]}, "sweep": axes, **tables}
    parts: list[dict[str, Array]] = []
    found = run_sweep(parse_sweep(raw, Path()), layers or [LSTM], parts.append, chunk=chunk)
    assert all(len(values) <= chunk for part in parts for values in part.values())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, found


def some(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=most, unique=True)


sizes = st.integers(1, 40)
gemms = st.builds(Gemm, st.just("g"), sizes, sizes, sizes)
convolutions = st.builds(
    Convolution, st.just("c"), st.integers(5, 12), st.integers(5, 12), st.integers(1, 4),
    st.integers(1, 4), st.integers(1, 5), sizes, st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=25)
@given(
    axes=st.fixed_dictionaries(
        {
            "rows": some(sizes),
            "columns": some(sizes),
            "dataflow": some(st.sampled_from(["os", "ws", "is"])),
            "ifmap_kb": some(st.integers(1, 4), 2),
            "filter_kb": some(st.integers(1, 4), 2),
            "ofmap_kb": some(st.integers(1, 2), 2),
            "bandwidth": some(st.sampled_from([0, 0.5, 3, 16])),
        }
    ),
    layers=st.lists(gemms | convolutions, min_size=1, max_size=3),
    chunk=st.integers(1, 50),
)
def test_every_row_is_what_the_simulator_says_of_that_point(
    axes: dict[str, list[Any]], layers: list[Workload], chunk: int
) -> None:
    rows, found = sweep(axes, layers, chunk)
    points = math.prod(map(len, axes.values()))
    assert found.points == points == len(rows["fits"])
    assert found.infeasible == np.count_nonzero(~rows["fits"])
    for i in range(points):
        whole = {n: rows[n][i].item() for n in ("rows", "columns", *(a for a in axes if "kb" in a))}
        limit = rows["bandwidth"][i].item()
        point = one_point(whole, None if math.isinf(limit) else limit)
        ran = [simulate(rows["dataflow"][i].item(), layer.shape, point) for layer in layers]
        assert rows["fits"][i] == all(each["fits"].item() for each in ran)
        total = {
            name: sum(each[name].item() for each in ran)
            for name in ("cycles", "stall_cycles", *MOVED)
        }
        total["dram_bytes"] = sum(total[name] for name in MOVED if name.startswith("dram"))
        if not rows["fits"][i]:
            assert all(math.isnan(rows[name][i]) for name in total)
            continue
        assert {name: rows[name][i].item() for name in total} == total
        units = whole["rows"] * whole["columns"]
        macs = sum(math.prod(map(int, layer.shape[:3])) for layer in layers)
        share = 100 * macs / (total["cycles"] * units)
        assert rows["overall_utilization"][i] == pytest.approx(share)
        if len(layers) == 1:
            for name in ("mapping_utilization", "compute_utilization"):
                assert rows[name][i] == pytest.approx(ran[0][name].item())


def test_rows_are_the_grid_in_its_order() -> None:
    axes = {
        "array": ["4x8", "16x2"], "bits": [8, 2], "block": [1, 2], "density": [0.5, 1.0],
        "dataflow": ["is", "os"], "bandwidth": ["unlimited", 4, 2], "ifmap_kb": [9, 8],
        "filter_kb": [64, 65], "ofmap_kb": [7, 3],
    }  # fmt: skip
    rows, _ = sweep(axes, chunk=17)
    expected = list(
        itertools.product(
            ["is", "os"], [4.0, 2.0, math.inf], [(4, 8), (16, 2)], [9, 8], [64, 65], [7, 3],
            [8, 2], [1, 2], [0.5, 1.0],
        )
    )  # fmt: skip
    names = ["dataflow", "bandwidth", "rows", "columns", "ifmap_kb", "filter_kb", "ofmap_kb"]
    names += ["weight_bits", "activation_bits", "block", "density"]
    seen = list(zip(*(rows[name].tolist() for name in names), strict=True))
    assert seen == [
        (d, w, *array, i, f, o, b, b, *rest) for d, w, array, i, f, o, b, *rest in expected
    ]


@pytest.mark.parametrize("tables", [{}, {"chip": {"leakage": True}}])
def test_chunks_of_any_size_give_the_same(tables: dict[str, Any]) -> None:
    axes = {
        "rows": [4, 7, 32], "columns": {"from": 3, "to": 33, "step": 6}, "dataflow": ["ws", "os"],
        "filter_kb": [8, 64, 4096], "bandwidth": [0, 7], "bits": [3, 16], "density": [0.3, 1],
    }  # fmt: skip
    rows, found = sweep(axes, chunk=10**6, **tables)
    for chunk in (13, 100):
        same, again = sweep(axes, chunk=chunk, **tables)
        for name, values in rows.items():
            np.testing.assert_array_equal(same[name], values)
        assert again.best == found.best
        for kept in ("front", "least", "sample"):
            for name, values in getattr(found, kept).items():
                np.testing.assert_array_equal(getattr(again, kept)[name], values)


def test_memory_grows_with_the_chunk_not_with_the_grid() -> None:
    def peak(columns: int) -> int:
        axes = {
            "rows": {"from": 1, "to": 50, "step": 1},
            "columns": {"from": 1, "to": columns, "step": 1},
        }
        config = parse_sweep({"workload": {"gemm": [[1, 1, 1]]}, "sweep": axes}, Path())
        tracemalloc.start()
        run_sweep(config, [LSTM], lambda rows: None, chunk=1000)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    assert peak(1600) < 1.7 * peak(200)  # the map and the sample are bounded, but not yet full


# 32×32 units, os, all weights streamed: published settings at 16, 8, 4 and 2 bits, 200 MHz. The
# energies hold for DRAM at 4 pJ/bit, half of what the spec cites.
def test_published_latencies_and_energies_of_the_lstm_product() -> None:
    rows, _ = sweep({"bits": [16, 8, 4, 2], "filter_kb": [4096]}, chip={})
    np.testing.assert_allclose(1e3 * rows["latency_s"], [2.74, 0.72, 0.21, 0.08], atol=0.005)
    # The published model leaves results in SRAM.
    dram = rows["dram_j"] - rows["dram_ofmap"] * 8 * 8e-12
    energy = rows["energy_j"] - rows["dram_j"] + dram / 2
    np.testing.assert_allclose(1e6 * energy, [542, 209, 91, 43], rtol=0.01)


def test_cycles_and_energy_by_hand() -> None:
    rows, _ = sweep(
        {
            "rows": [8],
            "columns": [16],
            "bits": [4],
            "block": [2],
            "density": [0.5],
            "ofmap_kb": [1],
        },
        [Gemm("g", 3, 32, 100)],
        chip={"leakage": True},
    )
    row = {name: values.item() for name, values in rows.items()}
    groups = 13  # ⌈50 terms ÷ 4 a cycle⌉
    assert row["cycles"] == 2 * (groups + 8 + 16 - 2)
    # A group holds 4 terms of 4 bits: 2 bytes of inputs, 1 of weights in blocks of 2.
    # A result has 4 bytes.
    assert [row[f"sram_{n}"] for n in ("ifmap", "filter", "ofmap")] == [156, 32 * 13, 96 * 4]
    assert [row[f"dram_{n}"] for n in ("ifmap", "filter", "ofmap")] == [3 * 26, 32 * 13, 96 * 4]
    assert row["latency_s"] == pytest.approx(row["cycles"] / 200e6)
    assert row["arithmetic_j"] == pytest.approx(row["cycles"] * 128 * 0.459e-12)
    assert row["sram_j"] == pytest.approx((156 + 416 + 96 * 4) * 8 * 0.107e-12)
    assert row["dram_j"] == pytest.approx((78 + 416 + 96 * 4) * 8 * 8e-12)
    parts = (row[f"{part}_j"] for part in ("arithmetic", "sram", "dram", "leakage"))
    assert row["energy_j"] == pytest.approx(sum(parts))
    # Of units only: nobody chose a memory type.
    assert row["leakage_j"] == pytest.approx(128 * 59.3e-6 * row["latency_s"])
    assert row["edp_js"] == pytest.approx(row["energy_j"] * row["latency_s"])
    # Buffers of 1024 and 2048 KiB as 24 of CACTI's 128 KiB, and its row of 1 KiB.
    assert row["area_m2"] == pytest.approx(128 * 1734.552e-12 + 24 * 1.02522e-6 + 0.00882362e-6)


def test_energy_and_area_follow_the_buffers() -> None:
    axes = {"filter_kb": [64, 512, 4096], "ifmap_kb": [16, 256]}
    flat, _ = sweep(axes, chip={})
    priced, _ = sweep(axes, chip={"sram": "sram"})
    order = np.argsort(priced["filter_kb"] * 1000 + priced["ifmap_kb"])
    for name in ("area_m2", "sram_j"):
        assert (np.diff(priced[name][order].reshape(3, 2), axis=0) > 0).all()
    assert len(np.unique(flat["sram_j"])) == 1
    np.testing.assert_allclose(flat["area_m2"], priced["area_m2"])


def test_buffers_of_a_chosen_type_leak() -> None:
    """CACTI's rows of 4, 8 and 16 KiB: 7.30186, 13.6943 and 27.127 mW."""
    axes = {"ifmap_kb": [4], "filter_kb": [16], "ofmap_kb": [8], "rows": [2], "columns": [3]}
    rows, _ = sweep(axes, [Gemm("g", 2, 6, 9)], chip={"sram": "sram", "leakage": True})
    watts = 6 * 59.3e-6 + (7.30186 + 27.127 + 13.6943) * 1e-3
    assert rows["leakage_j"][0] == pytest.approx(watts * rows["latency_s"][0])


@settings(max_examples=40)
@given(
    gemm=gemms,
    block=st.integers(1, 8),
    weight_bits=st.integers(1, 16),
    activation_bits=st.integers(1, 16),
    density=st.floats(0.01, 1),
    dataflow=st.sampled_from(["os", "ws", "is"]),
    bandwidth=st.sampled_from([0, 0.25, 2, 32]),
)
def test_no_channel_is_faster_than_its_words(
    gemm: Gemm, block: int, weight_bits: int, activation_bits: int, density: float,
    dataflow: str, bandwidth: float,
) -> None:  # fmt: skip
    axes = {
        "rows": [4], "columns": [4], "block": [1, block][: 1 + (block > 1)], "density": [density],
        "weight_bits": [weight_bits], "activation_bits": [activation_bits],
        "dataflow": [dataflow], "bandwidth": [bandwidth],
    }  # fmt: skip
    rows, _ = sweep(axes, [gemm])
    if bandwidth:
        for words in ("dram_ifmap", "dram_filter", "dram_ofmap"):
            assert (rows["cycles"] >= rows[words] / bandwidth * (1 - 1e-12)).all()
    if block > 1:
        dense, circulant = rows["dram_filter"]
        divides = gemm.n % block == 0 and gemm.k % block == 0
        assert circulant == pytest.approx(dense / (block if divides else 1))
        assert np.diff(rows["cycles"] - rows["stall_cycles"]) == 0
        assert rows["cycles"][1] <= rows["cycles"][0]
    # All operands that are read at all are read once at least.
    kept = math.ceil(gemm.k * density - 1e-9)
    assert (rows["dram_ifmap"] >= gemm.m * kept * activation_bits / 8 - 1e-6).all()


def test_narrow_and_circulant_weights_fit_where_others_do_not() -> None:
    # Under os a fold needs K·C weights: 1056·32 bytes are 33 kB at 8 bits.
    rows, found = sweep({"filter_kb": [8, 9, 32, 33], "bits": [8, 2], "block": [1, 4]})
    fits = rows["fits"].reshape(4, 2, 2)
    by_hand = [
        [[1056 * 32 * bits / 8 / block <= 1024 * kb for block in (1, 4)] for bits in (8, 2)]
        for kb in (8, 9, 32, 33)
    ]
    np.testing.assert_array_equal(fits, by_hand)
    assert found.infeasible == np.count_nonzero(~np.array(by_hand)) == 5


def test_a_block_that_does_not_divide_a_layer_leaves_it_dense_and_is_told() -> None:
    rows, found = sweep({"block": [1, 4, 3]}, [Gemm("head", 1, 12, 100)])
    assert rows["dram_filter"].tolist() == [1200, 300, 1200]
    assert found.notes == ("layer head (12×100) stays dense where a block does not divide it: 3",)


def test_a_sweep_in_which_nothing_fits() -> None:
    rows, found = sweep({"filter_kb": [1, 2]}, chip={})
    assert not rows["fits"].any()
    assert found.infeasible == found.points == 2
    assert found.best == {}
    assert found.front == {}
    assert np.isnan(found.least["latency_s"]).all()


def test_layers_that_overflow_together_are_refused() -> None:
    large = Gemm("g", 2**17, 2**17, 2**17)
    with pytest.raises(UserError, match="overflow"):
        sweep({}, [large, large, large])


def test_progress_is_told_after_every_chunk() -> None:
    config = parse_sweep(
        {"workload": {"gemm": [[1, 1, 1]]}, "sweep": {"rows": [1, 2, 3], "dataflow": ["os", "ws"]}},
        Path(),
    )
    seen: list[tuple[int, int]] = []
    run_sweep(config, [LSTM], lambda rows: None, lambda *at: seen.append(at), chunk=2)
    assert seen == [(2, 6), (3, 6), (5, 6), (6, 6)]


def test_results_of_a_chip_need_the_room_and_the_time_of_their_width() -> None:
    """Partial sums of 4 bytes: 300 of them fit into 2 kB and not into 1 kB, and take longer to move."""
    axes = {"dataflow": ["ws"], "rows": [4], "columns": [1], "bits": [8], "ofmap_kb": [1, 2]}
    axes |= {"bandwidth": [0.25]}
    layers = [Gemm("g", 300, 1, 8)]
    plain, _ = sweep(axes, layers)
    priced, _ = sweep(axes, layers, chip={})
    assert plain["dram_ofmap_reads"].tolist() == [0, 0]
    assert priced["dram_ofmap_reads"].tolist() == [300 * 4, 0]
    assert priced["stall_cycles"][0] > 1.5 * plain["stall_cycles"][0]
