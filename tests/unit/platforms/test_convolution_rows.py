"""A product at many positions is priced as a product of that many input vectors, fetched once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.products import ProductRow
from modelflex.platforms.roofline import Roofline
from modelflex.platforms.systolic.closed_forms import array_cycles, folds
from modelflex.platforms.systolic.runs import Runs, runs
from modelflex.platforms.systolic.workload import Convolution

from .systolic_rows import one, platform, product


def at_positions(row: ProductRow, positions: int, map_size: int) -> ProductRow:
    return replace(
        row,
        positions=positions,
        map_size=map_size,
        macs=row.macs * positions,
        dense_macs=row.dense_macs * positions,
    )


def counted(row: ProductRow, **options: Any) -> Runs:
    chip = platform("bitfusion_32x32", workload="streaming", **options)
    return runs(one([row], 4.0), chip.chip, chip.config)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.sampled_from(["os", "ws", "is"])
)
def test_positions_count_as_the_inputs_of_a_batch(m: int, k: int, p: int, dataflow: str) -> None:
    row = product("l.w/0", m, k, fixed_bytes=5.0)
    conv = counted(at_positions(row, p, p * k), dataflow=dataflow, batch=1)
    batch = counted(row, dataflow=dataflow, batch=p)
    for name in Runs._fields:
        np.testing.assert_allclose(getattr(conv, name), getattr(batch, name), err_msg=name)


def test_cycles_are_those_of_the_convolution_layer() -> None:
    layer = Convolution("c", 12, 10, 3, 3, 2, 8, 2, 1)
    row = at_positions(product("c.w/0", layer.n, layer.k), layer.m, 12 * 10 * 2)
    for dataflow in ("os", "ws", "is"):
        found = counted(row, dataflow=dataflow, batch=1)
        chip = platform("bitfusion_32x32", dataflow=dataflow).chip
        sizes = (np.array(size) for size in (layer.m, layer.n, layer.k))
        f = folds(dataflow, *sizes, chip.rows, chip.columns)
        assert found.cycles.tolist() == [array_cycles(f)]
        assert found.fetch_bytes.tolist() == [layer.n * layer.k]
        assert found.results.tolist() == [layer.m * layer.n + 12 * 10 * 2]


def test_the_roofline_computes_every_position_and_reads_the_kernel_once() -> None:
    spec = Roofline.from_config({"spec": "cortex_m7"})
    row = product("c.w/0", 16, 30, fixed_bytes=5.0)
    once, often = (spec.price(one([r], 4.0)) for r in (row, at_positions(row, 7, 7 * 30)))
    np.testing.assert_allclose(often["compute_s"], 7 * once["compute_s"], rtol=1e-12)
    np.testing.assert_array_equal(often["fetch_bytes"], once["fetch_bytes"])
    overlapping = spec.price(one([at_positions(row, 7, 40)], 4.0))
    saved = often["compute_s"] - overlapping["compute_s"]
    results = (7 * 30 - 40) / (spec.spec["vector_rate"] * spec.spec["clock"])
    np.testing.assert_allclose(saved, results, rtol=1e-9)
