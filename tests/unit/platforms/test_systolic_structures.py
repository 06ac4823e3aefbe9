"""Structures on the systolic platform: circulants, sparse layouts, chains and widths of operands."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.layout import expand
from modelflex.core.products import ProductRow
from modelflex.errors import UserError

from .systolic_by_hand import COLUMNS, ROWS, Hand, check, write_spec
from .systolic_rows import OPTIONS, cost, networks, one, platform, product, value

LAYOUTS = ("dense", "circulant", "row_sparse", "block_sparse", "n_m")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_spec(tmp_path_factory.mktemp("spec") / "small.toml")


def counted(spec: str, row: ProductRow, **options: Any) -> dict[str, float]:
    """Columns of a single row that runs at every step."""
    priced = platform(spec, **options)
    return {name: float(v[0]) for name, v in priced.price(one([row], 1.0)).items()}


@given(networks(LAYOUTS), OPTIONS, st.sampled_from(["expanded", "fft"]))
def test_figures_are_those_by_hand(
    spec: str, network: tuple[list[ProductRow], float], options: dict[str, Any], circulant: str
) -> None:
    options = {**options, "circulant": circulant}
    check(cost(spec, *network, **options), Hand(**options).totals(*network))


# --- block-circulant weights ---------------------------------------------------------------------
class CountingArray:
    """Real matrix products of integers, with the multiplications that they take."""

    def __init__(self) -> None:
        self.products = 0

    def __call__(self, matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
        self.products += matrix.size
        return matrix @ vector


@given(
    st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_products_by_fft_take_the_counted_multiplications(
    spec: str, p: int, q: int, b: int, seed: int
) -> None:
    """A block-circulant product by its spectra equals the expanded one, in as many multiplications."""
    rng = np.random.default_rng(seed)
    generators, x = rng.normal(size=(p, q, b)), rng.normal(size=q * b)
    multiply = CountingArray()
    w, v = np.fft.rfft(generators), np.fft.rfft(x.reshape(q, b))
    y = np.zeros((p, b // 2 + 1), complex)
    for number in range(b // 2 + 1):
        real, imaginary = w[:, :, number].real, w[:, :, number].imag
        if number in (0, b / 2):  # both spectra are real there
            y[:, number] = multiply(real, v[:, number].real)
            continue
        both = np.block([[real, -imaginary], [imaginary, real]])
        parts = multiply(both, np.concatenate([v[:, number].real, v[:, number].imag]))
        y[:, number] = parts[:p] + 1j * parts[p:]
    np.testing.assert_allclose(np.fft.irfft(y, b).ravel(), expand("circulant", generators) @ x)
    # 4-bit weights and 16-bit spectra: a product for every cycle and unit.
    row = product("w/0", p * b, q * b, layout="circulant", block=b, weight_bits=4)
    found = counted(spec, row, circulant="fft")
    assert found["terms"] * ROWS * COLUMNS == pytest.approx(multiply.products)


@given(
    st.integers(1, 20), st.integers(1, 20), st.sampled_from([2, 4, 8, 16]), st.booleans(), OPTIONS
)  # fmt: skip
def test_bins_are_swept_each_for_itself(
    spec: str, p: int, q: int, b: int, hoistable: bool, options: dict[str, Any]
) -> None:
    """With more block rows and columns than the array has: real and complex bins take other folds."""
    rows = [
        product(
            "w/0", p * b, q * b, layout="circulant", block=b, weight_bits=3, hoistable=hoistable
        )
    ]
    options = {**options, "circulant": "fft", "registers": True}
    check(cost(spec, rows, 7.5, **options), Hand(**options).totals(rows, 7.5))


def test_work_by_fft_falls_with_log_b_over_b(spec: str) -> None:
    """One block of b×b: 2b − 2 products and 5·b·log₂ b results of butterflies instead of b² products."""
    shares = []
    for b in (2**i for i in range(4, 13)):
        row = product("w/0", b, b, layout="circulant", block=b, weight_bits=4, activation_bits=16)
        fft, expanded = (counted(spec, row, circulant=c) for c in ("fft", "expanded"))
        assert expanded["terms"] * ROWS * COLUMNS == pytest.approx(b * b)
        results = (fft["elementwise_j"] - expanded["elementwise_j"]) / 1.5e-12
        assert results == pytest.approx(5 * b * math.log2(b))
        work = fft["terms"] * ROWS * COLUMNS + results
        shares.append(work / b**2 / (math.log2(b) / b))
    # The share over (log b)/b falls to the constant of the butterflies.
    assert all(less < more for more, less in pairwise(shares))
    assert 5 < shares[-1] < 5.2


@given(st.sampled_from(["os", "ws", "is"]), st.sampled_from([2, 3, 4, 6, 8]), st.booleans())
def test_blocks_divide_bytes_and_not_products(
    spec: str, dataflow: str, block: int, held: bool
) -> None:
    more = {"active": 0.5, "state_bytes": 8.0} if held else {}
    dense = product("w/0", 48, 24, **more)
    blocks = product("w/0", 48, 24, layout="circulant", block=block, **more)
    one_, other = (counted(spec, row, dataflow=dataflow) for row in (dense, blocks))
    assert other["dram_bytes"] == pytest.approx(one_["dram_bytes"] / block)
    assert other["cycles"] == one_["cycles"]
    assert other["arithmetic_j"] == one_["arithmetic_j"]
    saved = one_["dram_bytes"] - other["dram_bytes"]
    assert one_["sram_bytes"] - other["sram_bytes"] == pytest.approx(saved)


def test_expanding_a_generator_takes_a_register_a_weight(spec: str) -> None:
    dense = product("w/0", 12, 8, weight_bits=5)
    blocks = replace(dense, layout="circulant", block=4, units=2, unit_bytes=12 * 5 / 8)
    without, with_ = (counted(spec, row, registers=True) for row in (dense, blocks))
    assert with_["registers_j"] - without["registers_j"] == pytest.approx(12 * 8 * 5 * 2e-15)
    spectra = counted(spec, blocks, registers=True, circulant="fft")
    assert spectra["registers_j"] < with_["registers_j"]


def test_spectra_of_blocks_that_are_no_powers_of_two_are_refused(spec: str) -> None:
    row = product("w/0", 12, 12, layout="circulant", block=6)
    with pytest.raises(UserError, match="'fft' and there are blocks of 6") as caught:
        counted(spec, row, circulant="fft")
    assert len(str(caught.value).splitlines()) == 1
    assert counted(spec, row)["cycles"] > 0


# --- sparse layouts ------------------------------------------------------------------------------
@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_columns_of_a_sparse_product_work_on_their_own_terms(
    spec: str, m: int, quarters: int, seed: int
) -> None:
    """2 of 4 weights: the columns of the array, told one by one which inputs they take."""
    rng = np.random.default_rng(seed)
    k = 4 * quarters
    kept = [
        [4 * group + i for group in range(quarters) for i in rng.permutation(4)[:2]]
        for _ in range(m)
    ]
    row = product("w/0", m, k, layout="n_m", macs=sum(map(len, kept)), activation_bits=6)
    found = counted(spec, row)
    cycles = 0
    for first in range(0, m, COLUMNS):
        longest = max(len(terms) for terms in kept[first : first + COLUMNS])
        cycles += longest + ROWS + COLUMNS - 2
    assert found["cycles"] == cycles
    gathered = 6 / 8 * sum(map(len, kept))
    # 8-bit weights beside indices of 4 bits; sums of 3 bytes; 12 bytes a vector result.
    stored = sum(map(len, kept)) * 12 / 8
    assert found["dram_bytes"] == pytest.approx(stored)
    assert found["sram_bytes"] == pytest.approx(gathered + stored + 3 * m + 12 * (m + k))


def test_unequal_rows_are_taken_as_balanced(spec: str) -> None:
    """7 terms over 3 columns: the longest has 3."""
    row = product("w/0", 3, 8, layout="row_sparse", macs=7)
    assert counted(spec, row)["cycles"] == 3 + ROWS + COLUMNS - 2


def test_a_block_gathers_its_inputs_once(spec: str) -> None:
    """Half of 8×8 in blocks of 4: 32 terms, which 8 gathered inputs feed."""
    single = product("w/0", 8, 8, layout="row_sparse", macs=32)
    blocks = replace(single, layout="block_sparse", shared_rows=4)
    one_, other = (counted(spec, row) for row in (single, blocks))
    assert one_["sram_bytes"] - other["sram_bytes"] == 32 - 8
    assert one_["cycles"] == other["cycles"]


@given(st.integers(1, 12), st.integers(1, 12), st.sampled_from(["os", "ws", "is"]))
def test_a_full_sparse_product_takes_the_cycles_of_a_dense_one(
    spec: str, m: int, k: int, dataflow: str
) -> None:
    dense = product("w/0", m, k)
    sparse = product("w/0", m, k, layout="row_sparse", macs=m * k)
    one_, other = (counted(spec, row, dataflow=dataflow) for row in (dense, sparse))
    assert one_["cycles"] == other["cycles"]
    assert other["dram_bytes"] == pytest.approx(1.5 * one_["dram_bytes"])  # indices


# --- chains and widths ---------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), OPTIONS)
def test_a_chain_costs_what_its_links_cost(
    spec: str, m: int, k: int, rank: int, options: dict[str, Any]
) -> None:
    """Low rank, m×r by r×k, is two products; all are read from DRAM, the arithmetic decides."""
    options = {**options, "residency": "streamed", "dram_bandwidth": "unlimited"}
    links = [
        replace(product("w/0", rank, k), dense_macs=m * k),
        replace(product("w/1", m, rank), dense_macs=0),
    ]
    chain = cost(spec, links, 5.0, **options)
    apart = [cost(spec, [link], 5.0, **options) for link in links]
    for name in ("latency_s", "energy_j", "dram_bytes_per_step", "weight_bytes"):
        total = sum(value(getattr(c, name)) for c in apart)
        assert getattr(chain, name) == pytest.approx(total, rel=1e-12)
    assert chain.weight_bytes == rank * (m + k)
    assert set(chain.per_op) == {"w/0", "w/1"}
    # Operations are those of the dense product, whatever the rank.
    assert value(chain.gops) * value(chain.latency_per_step_s) == pytest.approx(
        2e-9 * m * k * options["batch"]
    )


@pytest.mark.parametrize("weight_bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("activation_bits", [2, 4, 8, 16])
def test_narrow_operands_share_a_unit(spec: str, weight_bits: int, activation_bits: int) -> None:
    """(8 ÷ b_a)·(8 ÷ b_w) terms a cycle, operands of at least 2 bits: BitFusion's throughput."""
    row = product("w/0", 6, 640, weight_bits=weight_bits, activation_bits=activation_bits)
    a_cycle = (8 / activation_bits) * (8 / max(weight_bits, 2))
    found = counted(spec, row)
    assert found["terms"] * ROWS * COLUMNS == pytest.approx(6 * 640 / a_cycle)
    assert found["cycles"] == 640 / a_cycle + ROWS + COLUMNS - 2
    assert found["dram_bytes"] == 6 * 640 * weight_bits / 8


def test_binary_and_ternary_weights_fill_the_brick(spec: str) -> None:
    """One bit is stored in half the bytes of two, and multiplied as two; ternary ones are of two."""
    binary, ternary = (
        counted(spec, product("w/0", 6, 64, weight_bits=b, activation_bits=2)) for b in (1, 2)
    )
    assert binary["cycles"] == ternary["cycles"]
    assert binary["arithmetic_j"] == ternary["arithmetic_j"]
    assert binary["dram_bytes"] == ternary["dram_bytes"] / 2


@given(
    st.tuples(*[st.integers(1, 16)] * 2), st.tuples(*[st.integers(1, 16)] * 2), st.sampled_from(LAYOUTS)
)  # fmt: skip
def test_wider_operands_never_cost_less(
    spec: str, some: tuple[int, int], others: tuple[int, int], layout: str
) -> None:
    block = 4 if layout == "circulant" else 1
    more = {} if layout in ("dense", "circulant") else {"macs": 12 * 8 // 2}
    more |= {"shared_rows": 4} if layout == "block_sparse" else {}
    narrow, wide = (
        counted(
            spec,
            product(
                "w/0", 12, 8, layout=layout, block=block, weight_bits=f(some[0], others[0]),
                activation_bits=f(some[1], others[1]), **more,
            ),
        )
        for f in (min, max)
    )  # fmt: skip
    for name, less in narrow.items():
        assert less <= wide[name] * (1 + 1e-12), name
