"""Choice of places, SparseGPT's compensation and the refit against loops over single numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.gptq import damping
from modelflex.core.sparsity import (
    Blocks,
    NOfM,
    Pattern,
    break_even_density,
    choose_kept,
    kept_columns,
    refit_kept,
    sparsegpt,
)
from modelflex.errors import UserError


@pytest.mark.parametrize(("bits", "index"), [(12, 4), (4, 4), (2, 7), (8, 2), (1, 9)])
def test_break_even_density_is_where_all_codes_take_as_much(bits: int, index: int) -> None:
    """ESE's 12-bit weights with 4-bit indices: worth it below 3 of 4 weights (Han et al., 2017)."""
    numbers = 10080
    even = break_even_density(bits, index)
    for kept in range(0, numbers + 1, 7):
        smaller = kept * (bits + index) < numbers * bits
        assert smaller == (kept / numbers < even - 1e-12)
    if (bits, index) == (12, 4):
        assert even == 0.75


# --- places --------------------------------------------------------------------------------------
seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 5))
def test_blocks_of_the_largest_sums_are_kept(
    seed: int, rows: int, width: int, block_rows: int, blocks: int
) -> None:
    """Against every set of as many blocks of a block row: none has a larger sum of scores."""
    out, inputs = block_rows * rows, blocks * width
    rng = np.random.default_rng(seed)
    scores = rng.random((out, inputs))
    share = rng.uniform(0.01, 1)
    mask = Blocks(share, rows, width).choose(scores, np.zeros((out, 0), bool))
    kept = max(1, round(share * blocks))
    for r in range(block_rows):
        band = np.s_[r * rows : (r + 1) * rows]
        sums = [scores[band, q * width : (q + 1) * width].sum() for q in range(blocks)]
        most = max(
            sum(sums[q] for q in some) for some in itertools.combinations(range(blocks), kept)
        )
        assert scores[band][mask[band]].sum() == pytest.approx(most)
        assert mask[band].sum() == kept * rows * width


@given(seeds, st.integers(1, 5), st.integers(1, 4), st.integers(1, 5), st.data())
def test_n_of_m_keeps_the_largest_of_each_group(
    seed: int, out: int, groups: int, m: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, m))
    scores = np.random.default_rng(seed).random((out, groups * m))
    mask = NOfM(n, m).choose(scores, np.zeros((out, 0), bool))
    for row, group in itertools.product(range(out), range(groups)):
        some = np.s_[row, group * m : (group + 1) * m]
        assert sorted(scores[some])[-n:] == sorted(scores[some][mask[some]])


@given(seeds)
def test_wanda_scores_by_what_removal_alone_costs(seed: int) -> None:
    """|w|·‖x‖ squared is the error of dropping one weight, where nothing makes up for it."""
    rng = np.random.default_rng(seed)
    matrix, x = rng.normal(size=(3, 6)), rng.normal(size=(40, 6)) * rng.exponential(size=6)
    mask, _ = choose_kept(matrix, x.T @ x, Blocks(0.5), "wanda")
    for row in range(3):
        cost = [float(np.sum((x[:, j] * matrix[row, j]) ** 2)) for j in range(6)]
        assert sorted(np.argsort(cost)[3:]) == np.flatnonzero(mask[row]).tolist()


# --- SparseGPT -----------------------------------------------------------------------------------
def one_by_one(
    matrix: np.ndarray, hessian: np.ndarray, pattern: Pattern, chunk: int
) -> tuple[np.ndarray, np.ndarray]:
    """SparseGPT by the definition: each removal solves for the columns still free, row by row.

    The cost of a column is the least error of removing it while those before it stand still.
    """
    out, n = matrix.shape
    h = hessian + damping(hessian) * np.eye(n)
    width = pattern.width
    sizes = [sum(hessian[j, j] for j in range(g, g + width)) for g in range(0, n, width)]
    groups = sorted(range(n // width), key=lambda g: -sizes[g])
    order = [g * width + i for g in groups for i in range(width)]
    h, w = h[np.ix_(order, order)], matrix[:, order].copy()
    mask = np.zeros((out, n), bool)
    for start in range(0, n, chunk):
        end = min(start + chunk, n)
        cost = np.empty((out, n - start))
        for j in range(start, n):
            least = 1 / np.linalg.inv(h[j:, j:])[0, 0]
            cost[:, j - start] = w[:, j] ** 2 * least
        mask[:, start:end] = pattern.choose(cost, mask[:, :start])[:, : end - start]
        for row, j in itertools.product(range(out), range(start, end)):
            if not mask[row, j]:
                rest = np.s_[j + 1 :]
                w[row, rest] += np.linalg.solve(h[rest, rest], h[rest, j]) * w[row, j]
                w[row, j] = 0
    back = np.argsort(order)
    return mask[:, back], w[:, back]


@pytest.mark.parametrize(
    ("pattern", "chunk"),
    [(Blocks(0.3), 64), (Blocks(0.3), 5), (Blocks(0.5, 2, 3), 6), (NOfM(2, 4), 8), (NOfM(1, 3), 3)],
)
def test_sparsegpt_against_solving_for_the_free_columns(
    pattern: Pattern, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelflex.core.sparsity.CHUNK", chunk)
    rng = np.random.default_rng(chunk)
    x = rng.normal(size=(60, 12)) @ rng.normal(size=(12, 12))
    matrix = rng.normal(size=(6, 12))
    mask, values = sparsegpt(matrix, x.T @ x / 60, pattern)
    wanted_mask, wanted = one_by_one(matrix, x.T @ x / 60, pattern, chunk)
    np.testing.assert_array_equal(mask, wanted_mask)
    np.testing.assert_allclose(values, wanted, atol=1e-9)
    assert not values[~mask].any()


@given(seeds, st.floats(0.05, 1), st.sampled_from([1, 2]), st.sampled_from([1, 2, 4]))
def test_sparsegpt_keeps_equally_many_in_every_row(
    seed: int, share: float, rows: int, width: int
) -> None:
    """Also where what a row keeps of a chunk hangs on its own numbers."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 160)) * rng.exponential(size=160)
    mask, values = sparsegpt(rng.normal(size=(4, 160)), x.T @ x, Blocks(share, rows, width))
    kept = max(1, round(share * (160 // width))) * width
    assert mask.sum(axis=1).tolist() == [kept] * 4
    assert np.all(np.isfinite(values))


# --- refit ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("numbers", [1 << 24, 40])
@pytest.mark.parametrize("rows", [1, 3])
def test_refit_is_least_squares_on_the_kept_inputs(
    rows: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against NumPy's least squares for every row alone, on the data themselves."""
    monkeypatch.setattr("modelflex.core.sparsity.SOLVED_NUMBERS", numbers)
    rng = np.random.default_rng(rows)
    z, t = rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(50, 9))
    mask = Blocks(0.4, rows).choose(rng.random((9, 8)), np.zeros((9, 0), bool))
    found = refit_kept(z.T @ z, t.T @ z, mask, rows)
    for row in range(9):
        best, *_ = np.linalg.lstsq(z[:, mask[row]], t[:, row], rcond=None)
        np.testing.assert_allclose(found[row, mask[row]], best, atol=1e-9)
    assert not found[~mask].any()


def test_kept_columns_of_a_mask() -> None:
    mask = np.array([[1, 0, 1, 0], [0, 0, 1, 1]], bool)
    assert kept_columns(mask).tolist() == [[0, 2], [2, 3]]


def test_patterns_that_do_not_divide_are_refused() -> None:
    for pattern in (Blocks(0.5, 3, 2), Blocks(0.5, 2, 5), NOfM(2, 5)):
        with pytest.raises(UserError, match=r"divide|rows of 8") as caught:
            pattern.geometry(8, 8)
        assert "\n" not in str(caught.value)
