"""The exploration against a loop over all designs."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.fpga import explore as module
from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import Engine
from modelflex.platforms.fpga.explore import (
    Objective,
    explore,
    explore_deadline,
    explore_dense,
    refine_design,
    time_of,
)
from modelflex.platforms.fpga.operators import WORDS

from .fpga_by_hand import dense_taken, refine_seconds, refine_taken, toy_file, toy_fits


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    return Chip.read(toy_file(tmp_path_factory.mktemp("fpga")))


def by_loop(
    shape: tuple[int, int], nz: int, steps: int, bits: int, objective: Objective
) -> tuple[int, tuple[int, int] | None]:
    """(designs that fit, tiles of the best)."""
    fitting, best = 0, None
    for row_tile in range(1, shape[0] + 1):
        for column_tile in range(1, nz + 1):
            tiles = (row_tile, column_tile)
            taken = refine_taken(shape, tiles, nz, bits)
            if not toy_fits(taken):
                continue
            fitting += 1
            seconds = refine_seconds(shape, tiles, nz, steps, bits, 100e6, 800e6)
            # Rounded: of equally fast ones the smaller counts.
            key = (
                round(seconds[get_args(Objective).index(objective)] * 1e15),
                taken["dsp_slices"],
                taken["block_rams"],
                *tiles,
            )
            best = key if best is None or key < best else best
    return fitting, None if best is None else best[3:]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 24), st.integers(2, 90), st.integers(1, 40), st.integers(1, 200),
    st.sampled_from((16, 32)), st.sampled_from(get_args(Objective)),
)  # fmt: skip
def test_the_best_is_that_of_a_loop(
    chip: Chip, rows: int, columns: int, nz: int, steps: int, bits: int, objective: Objective
) -> None:
    nz = min(nz, columns)
    found = explore(Engine(chip, WORDS[bits], rows, columns), [nz], [steps], objective)
    fitting, tiles = by_loop((rows, columns), nz, steps, bits, objective)
    assert (found.designs, found.feasible) == (rows * nz, fitting)
    ((kept, count, design),) = found.best
    assert (kept, count) == (nz, steps)
    if tiles is None:
        assert design is None
        return
    assert design is not None
    seconds = refine_seconds((rows, columns), tiles, nz, steps, bits, 100e6, 800e6)
    assert (design.time_s, design.latency_s) == pytest.approx(seconds, rel=1e-12)
    assert (design.row_tile, design.column_tile) == tiles
    taken = refine_taken((rows, columns), tiles, nz, bits)
    assert design.dsp_slices == taken["dsp_slices"]
    assert design.block_rams == taken["block_rams"] / 2
    assert design.energy_j == pytest.approx(design.power_w * design.time_s)


def test_pieces_of_the_space_make_no_difference(
    chip: Chip, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(chip, WORDS[32], 24, 90)
    whole = explore(engine, [30, 7], [3, 50]), explore_dense(engine)
    monkeypatch.setattr(module, "BLOCK", 17)
    assert (explore(engine, [30, 7], [3, 50]), explore_dense(engine)) == whole


def test_a_grid_is_each_of_its_points(chip: Chip) -> None:
    engine = Engine(chip, WORDS[16], 16, 80)
    grid = explore(engine, [10, 80, 3], [1, 20])
    alone = [explore(engine, [nz], [n]) for nz in (10, 80, 3) for n in (1, 20)]
    assert grid.best == tuple(one.best[0] for one in alone)
    assert grid.designs == sum(one.designs for one in alone) == 16 * 93 * 2
    assert grid.feasible == sum(one.feasible for one in alone)


@pytest.mark.parametrize("bits", [16, 32])
def test_the_best_dense_engine_is_that_of_a_loop(chip: Chip, bits: int) -> None:
    rows, columns = 12, 40
    best: Any = None
    for row_tile in range(1, rows + 1):
        for column_tile in range(1, columns + 1):
            taken = dense_taken((rows, columns), (row_tile, column_tile), bits)
            if toy_fits(taken):
                tiles = -(-rows // row_tile), -(-columns // column_tile)
                cycles = max(tiles[0] * tiles[1], 37 * tiles[0])
                moved = 4 * rows * columns * bits // 8 + 2 * rows * bits // 8
                seconds = max(cycles / 100e6, moved / 800e6)
                key = (
                    round(seconds * 1e15), taken["dsp_slices"], taken["block_rams"], row_tile, column_tile
                )  # fmt: skip
                best = key if best is None or key < best else best
    design = explore_dense(Engine(chip, WORDS[bits], rows, columns))
    assert design is not None
    assert (design.row_tile, design.column_tile) == best[3:]
    assert design.time_s == pytest.approx(best[0] * 1e-15)
    assert (design.nz, design.steps) == (None, None)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12), st.integers(2, 40), st.integers(1, 30), st.integers(1, 60),
    st.floats(0.2, 1.8), st.sampled_from((16, 32)),
)  # fmt: skip
def test_a_deadline_allows_the_terms_of_a_loop(
    chip: Chip, rows: int, columns: int, nz: int, steps: int, share: float, bits: int
) -> None:
    """Adding terms one by one until the latency of none of the designs keeps the deadline."""
    nz, shape = min(nz, columns), (rows, columns)
    middle = (-(-rows // 2), -(-nz // 2))
    deadline_s = share * refine_seconds(shape, middle, nz, steps, bits, 100e6, 800e6)[1]
    fitting = [
        (r, c)
        for r in range(1, rows + 1)
        for c in range(1, nz + 1)
        if toy_fits(refine_taken(shape, (r, c), nz, bits))
    ]
    most = 0
    while any(
        refine_seconds(shape, tiles, nz, most + 1, bits, 100e6, 800e6)[1] <= deadline_s
        for tiles in fitting
    ):
        most += 1
    engine = Engine(chip, WORDS[bits], rows, columns)
    found = explore_deadline(engine, [nz], deadline_s)
    assert (found.designs, found.feasible) == (rows * nz, len(fitting))
    ((_, terms, design),) = found.best
    assert terms == most
    assert (design is None) == (most == 0)
    if design is not None:
        assert design.latency_s <= deadline_s
        assert design.steps == most


def test_a_deadline_that_is_kept_to_the_point(chip: Chip) -> None:
    """The latency of n terms as the deadline allows n, whatever rounding does."""
    engine = Engine(chip, WORDS[16], 16, 80)
    for steps in range(1, 200):
        latency_s = float(engine.refine(4, 3, 20, steps).latency_s)
        assert engine.terms_within(4, 3, 20, latency_s) == steps
        assert engine.terms_within(4, 3, 20, latency_s * (1 - 1e-12)) == steps - 1
    assert engine.terms_within(4, 3, 20, 1e9) == 2**20


@pytest.mark.parametrize("deadline_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_deadline_that_is_no_time_is_refused(chip: Chip, deadline_s: float) -> None:
    with pytest.raises(UserError, match="deadline is"):
        explore_deadline(Engine(chip, WORDS[16], 16, 80), [3], deadline_s)


def test_a_design_serves_other_workloads(chip: Chip) -> None:
    engine = Engine(chip, WORDS[16], 16, 80)
    design = refine_design(engine, 20, 5, 4, 3)
    assert time_of(engine, design, 20, 5) == design.time_s
    times = time_of(engine, design, [20, 10, 10], [6, 6, 300])
    assert times.shape == (3,)
    for seconds, nz, steps in zip(times, (20, 10, 10), (6, 6, 300), strict=True):
        assert seconds == pytest.approx(
            refine_seconds((16, 80), (4, 3), nz, steps, 16, 100e6, 800e6)[0]
        )


@pytest.mark.parametrize(
    ("nz", "steps", "message"),
    [
        ([81], [3], r"nz is 81; expected a whole number from 1 to 80, the columns \(80\)"),
        ([0], [3], "nz is 0"),
        ([3], [0], "steps is 0"),
        ([3], [float("nan")], "steps is nan"),
        ([2.5], [3], r"nz is 2\.5"),
        ([], [3], "nz is empty"),
        ([3], [], "steps is empty"),
        ([80], [*range(1, 300_000)], "designs; expected at most 300,000,000"),
    ],
)
def test_nonsense_is_refused(chip: Chip, nz: list[Any], steps: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        explore(Engine(chip, WORDS[16], 16, 80), nz, steps)


def test_nothing_fits(tmp_path: Any) -> None:
    tiny = Chip.read(toy_file(tmp_path, dsp_slices=(3, "slice")))
    engine = Engine(tiny, WORDS[16], 16, 80)
    found = explore(engine, [4], [3])
    assert (found.feasible, found.best) == (0, ((4, 3, None),))
    assert explore_dense(engine) is None
