"""Cycles, bytes, seconds and resources of FPGA engines, by hand and by following every term."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import Engine
from modelflex.platforms.fpga.operators import WORDS
from modelflex.platforms.fpga.resources import dense_resources, refine_resources

from .fpga_by_hand import dense_taken, refine_seconds, refine_taken, toy_file


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    return Chip.read(toy_file(tmp_path_factory.mktemp("fpga")))


def test_a_small_engine_by_hand(chip: Chip) -> None:
    """R 4, C 10, NZ 3, two terms, T_r 2, T_c 2, single precision at 100 MHz and 800 MB/s."""
    timing = Engine(chip, WORDS[32], 4, 10).refine(2, 2, 3, 2)
    assert timing.ops == 4 * 2 * (8 + 6 + 1) + 37 * 4 == 268
    # A term: 4 gates of 3 values, 3 indices, 4 rows and σ, 4 bytes each; c comes and goes.
    assert timing.bytes == 2 * 4 * 11 * 4 + 2 * 4 * 4 == 384
    # Two terms of max(⌈4/2⌉, ⌈3/2⌉) cycles, and 37·⌈4/2⌉ of the tail beside them.
    assert timing.cycles == 74
    assert timing.time_s == pytest.approx(740e-9)
    # Term: 176 bytes in 220 ns, which is longer than two cycles; then the last update, the tail, c.
    assert timing.latency_s == pytest.approx(2 * 220e-9 + 20e-9 + 740e-9 + 40e-9)
    assert timing.intensity == pytest.approx(268 / 384)
    assert not timing.memory_bound


def test_many_terms_wait_for_memory(chip: Chip) -> None:
    timing = Engine(chip, WORDS[32], 4, 10).refine(2, 2, 3, 1000)
    assert timing.time_s == pytest.approx((1000 * 176 + 32) / 800e6)
    assert timing.memory_bound


def test_terms_of_all_inputs_need_no_index(chip: Chip) -> None:
    engine = Engine(chip, WORDS[16], 4, 10)
    assert engine.term_bytes(10) == 4 * (10 + 4 + 1) * 2
    assert engine.term_bytes(9) == 4 * (9 + 9 + 4 + 1) * 2


def test_a_shared_vector_is_read_and_multiplied_once(chip: Chip) -> None:
    """The small engine with one v for all gates: 3 inputs are a single one for each unit."""
    timing = Engine(chip, WORDS[32], 4, 10, shared=True).refine(2, 1, 3, 2)
    assert timing.ops == 2 * (4 * 2 * 4 + 2 * 3 + 1) + 37 * 4
    assert timing.bytes == 2 * (3 + 3 + 1 + 16) * 4 + 2 * 4 * 4
    load_s = 23 * 4 / 800e6
    assert timing.latency_s == pytest.approx(2 * load_s + 20e-9 + 740e-9 + 40e-9)


def test_a_small_dense_engine_by_hand(chip: Chip) -> None:
    engine = Engine(chip, WORDS[16], 5, 9)
    timing = engine.dense(2, 4)
    assert timing.ops == 4 * 2 * 45 + 37 * 5
    assert timing.bytes == 4 * 45 * 2 + 2 * 5 * 2
    assert timing.cycles == max(3 * 3, 37 * 3)
    assert timing.latency_s == pytest.approx(max(90e-9, 360 / 800e6) + 1110e-9 + 20 / 800e6)
    assert engine.dense_ops == 360
    # Cut short after two rows, or after four inputs.
    assert engine.dense(2, 4, rows=2).bytes == 4 * 18 * 2 + 20
    assert engine.dense(2, 4, columns=4).bytes == 4 * 20 * 2 + 20


CASES = st.tuples(
    st.integers(1, 40), st.integers(2, 300), st.integers(1, 40), st.integers(1, 300),
    st.integers(1, 300), st.integers(1, 40), st.sampled_from((16, 32)), st.booleans(),
)  # fmt: skip


@given(CASES)
def test_seconds_follow_every_term(chip: Chip, case: tuple[int, ...]) -> None:
    rows, columns, row_tile, column_tile, nz, steps, bits, shared = case
    nz = min(nz, columns)
    engine = Engine(chip, WORDS[bits], rows, columns, bool(shared))
    timing = engine.refine(row_tile, column_tile, nz, steps)
    time_s, latency_s = refine_seconds(
        (rows, columns), (row_tile, column_tile), nz, steps, bits, 100e6, 800e6, bool(shared)
    )
    assert float(timing.time_s) == pytest.approx(time_s, rel=1e-12)
    assert float(timing.latency_s) == pytest.approx(latency_s, rel=1e-12)
    assert timing.latency_s >= timing.time_s
    roof = min(float(timing.compute_ops_per_s), float(timing.intensity) * 800e6)
    assert float(timing.ops_per_s) == pytest.approx(roof, rel=1e-12)


@given(CASES)
def test_resources_are_counted_unit_by_unit(chip: Chip, case: tuple[int, ...]) -> None:
    rows, columns, row_tile, column_tile, nz, _, bits, shared = case
    nz = min(nz, columns)
    tiles = (row_tile, column_tile)
    engine = Engine(chip, WORDS[bits], rows, columns, bool(shared))
    taken = refine_resources(engine, *tiles, nz)
    for name, expected in refine_taken((rows, columns), tiles, nz, bits, bool(shared)).items():
        assert getattr(taken, name) == expected, name
    taken = dense_resources(engine, *tiles)
    for name, expected in dense_taken((rows, columns), tiles, bits).items():
        assert getattr(taken, name) == expected, name


def test_large_inputs_are_in_block_rams(chip: Chip) -> None:
    """8320 words of 32 bits: 9 block RAMs, a copy for each two reads of each gate unit."""
    engine = Engine(chip, WORDS[32], 64, 8320)
    one, three = (int(refine_resources(engine, 64, t, 32).block_rams) for t in (1, 3))
    assert one == 4 * 2 * 9 + 16  # 16: the four DMA engines; tiles are small enough for LUTs
    assert three == 2 * 4 * 2 * 9 + 16


def test_arrays_of_designs_agree_with_each_alone(chip: Chip) -> None:
    engine = Engine(chip, WORDS[16], 12, 50)
    row_tile, column_tile = (a.ravel() for a in np.meshgrid([1, 5, 12], [1, 7, 20]))
    together = engine.refine(row_tile, column_tile, 20, 6)
    for i in range(row_tile.size):
        alone = engine.refine(int(row_tile[i]), int(column_tile[i]), 20, 6)
        for name, value in vars(alone).items():
            assert vars(together)[name][i] == value, name


def test_power_rises_by_decades_of_sparsity(chip: Chip) -> None:
    assert chip.power_w(1.0) == pytest.approx(2.0)
    assert chip.power_w(np.array([10.0, 100.0])) == pytest.approx([2.5, 3.0])


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (0, 10, "rows is 0; expected a whole number from 1"),
        (4, -1, "columns is -1"),
        (4, True, "columns is True"),
        (4, 2**16 + 1, "expected at most 65536, which an index of 16 bits can name"),
    ],
)
def test_nonsense_sizes_are_refused(chip: Chip, rows: int, columns: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Engine(chip, WORDS[16], rows, columns)


def test_chips_are_checked(tmp_path: Path) -> None:
    path = toy_file(tmp_path, dense_power=None)
    with pytest.raises(UserError, match="has power_per_decade only"):
        Chip.read(path)
    path = toy_file(tmp_path, dense_power=None, power_per_decade=None)
    assert np.isnan(Chip.read(path).power_w(4.0))
    for share in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(UserError, match="utilization is"):
            Chip.read(path, utilization=share)
    with pytest.raises(UserError, match="bandwidth is 0"):
        Chip.read(path, bandwidth="0 GB/s")
    assert Chip.read(path, bandwidth="2 GB/s").bandwidth == 2e9
