"""The closed forms against SCALE-Sim 3.0.0, a cycle-by-cycle count and hand arithmetic."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from modelflex.platforms.systolic.closed_forms import Dataflow, cycles, folds, sweeps

M, K, N = 1, 1056, 4096
ONE_PRODUCT = (np.array([M]), np.array([N]), np.array([K]), 32, 32)

# What SCALE-Sim 3.0.0 prints (CALC mode, 1/2/1 MB) for M=1, K=1056, N=4096 on 32×32:
# cycles, SRAM accesses of ifmap, filter, ofmap.
SCALE_SIM: dict[Dataflow, tuple[int, int, int, int]] = {
    "os": (143_103, 135_168, 4_325_376, 12_288),
    "ws": (401_279, 135_168, 4_325_376, 135_168),
    "is": (138_269, 1_056, 4_325_376, 135_168),
}
DATAFLOWS = list(SCALE_SIM)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_cycles_are_those_of_scale_sim_without_its_off_by_one(dataflow: Dataflow) -> None:
    assert cycles(dataflow, *ONE_PRODUCT).tolist() == [SCALE_SIM[dataflow][0] + 1]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_sram_accesses_are_those_of_scale_sim_without_its_surplus(dataflow: Dataflow) -> None:
    cut = folds(dataflow, *ONE_PRODUCT)
    swept = sweeps(dataflow, cut)
    surplus = cut.rows * cut.columns * (32 + 32) if dataflow == "os" else 0
    counted = (M * K * swept.ifmap, K * N * swept.filter, M * N * swept.ofmap_writes + surplus)
    assert tuple(int(c[0]) for c in counted) == SCALE_SIM[dataflow][1:]


def fold_by_fold(dataflow: str, m: int, n: int, k: int, rows: int, columns: int) -> list[int]:
    """[cycles, ifmap, filter, ofmap writes, ofmap reads], visiting every fold and its operands.

    Written from what a fold does: which words enter and leave the array while it is on it.
    """
    count = [0, 0, 0, 0, 0]
    along = {"os": (m, n), "ws": (k, n), "is": (k, m)}[dataflow]
    starts = itertools.product(range(0, along[0], rows), range(0, along[1], columns))
    for row, column in starts:
        r, c = min(rows, along[0] - row), min(columns, along[1] - column)
        if dataflow == "os":
            # Each of r rows of A and c columns of B passes once; skewed in and drained.
            moved = (k + rows + columns - 2, r * k, c * k, r * c, 0)
        else:
            # r×c stationary words enter first; then the other operand passes, and sums leave.
            passing = m if dataflow == "ws" else n
            stationary, moving = r * c, r * passing
            sums = c * passing
            reads = moving, stationary
            ifmap, filter_words = reads if dataflow == "ws" else reads[::-1]
            again = sums if row > 0 else 0
            moved = (rows + passing + rows + columns - 2, ifmap, filter_words, sums, again)
        count = [a + b for a, b in zip(count, moved, strict=True)]
    return count


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_closed_forms_equal_a_count_fold_by_fold(dataflow: Dataflow) -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        m, n, k = (int(v) for v in rng.integers(1, 70, 3))
        rows, columns = (int(v) for v in rng.integers(1, 20, 2))
        sizes = (np.array([m]), np.array([n]), np.array([k]), rows, columns)
        swept = sweeps(dataflow, folds(dataflow, *sizes))
        closed = [
            cycles(dataflow, *sizes),
            m * k * swept.ifmap,
            k * n * swept.filter,
            m * n * swept.ofmap_writes,
            m * n * swept.ofmap_reads,
        ]
        assert [int(c[0]) for c in closed] == fold_by_fold(dataflow, m, n, k, rows, columns)


def test_a_product_without_terms_takes_no_cycles() -> None:
    for dataflow in DATAFLOWS:
        assert cycles(dataflow, np.array([1]), np.array([64]), np.array([0]), 32, 32) == 0
