"""Sparse structures: what they keep and store, what the data-aware ones gain, bad input."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.extension import Moments
from modelflex.core.fixed import Scale
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.products import Density, footprint
from modelflex.core.recipe import Activation, Choice
from modelflex.core.sparsity import Sparse
from modelflex.core.storage import read_weight, weight_tensors
from modelflex.core.tracer import Link
from modelflex.core.weight import Chain, Matrix
from modelflex.errors import UserError
from modelflex.formats.uniform import Uniform
from modelflex.structures.block_sparse import BlockSparse
from modelflex.structures.circulant_plus_sparse import CirculantPlusSparse
from modelflex.structures.n_m import NM
from modelflex.structures.row_sparse import RowSparse
from modelflex.testing.generators import make_fit, make_moments

FINE = Uniform(16, "row", "max", "nearest")
LINK = Link(8, Scale.nearest(0.01))
STRUCTURES: tuple[Sparse, ...] = (
    RowSparse(density=0.25), BlockSparse(density=0.25, block_rows=2), NM(n=1, m=4),
)  # fmt: skip


def fitted(structure: Sparse, matrix: np.ndarray, seen: Moments | None, form: Any = FINE) -> Matrix:
    return structure.fit_weight(make_fit(matrix, seen, form, LINK))


def index_of(weight: Matrix) -> np.ndarray:
    assert weight.part.index is not None
    return weight.part.index


def correlated(rng: np.random.Generator, steps: int, n: int) -> np.ndarray:
    """Inputs that share causes, a few of them much larger than the others."""
    size = np.where(np.arange(n) % 10 == 0, 5.0, 1.0)
    return (rng.normal(size=(steps, n // 2)) @ rng.normal(size=(n // 2, n)) / 4
            + 0.3 * rng.normal(size=(steps, n))) * size  # fmt: skip


# --- what is kept --------------------------------------------------------------------------------
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 30), st.floats(0.02, 1))
def test_every_row_keeps_equally_many(seed: int, out: int, inputs: int, density: float) -> None:
    """Load balance (ESE, section 4): the processing elements that share out rows end together."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(out, inputs)) + 3 * rng.choice([-1, 1], size=(out, inputs))
    made = fitted(RowSparse(density=density, score="magnitude", refit="none"), matrix, None)
    kept = max(1, round(density * inputs))
    assert np.count_nonzero(made.dense(), axis=1).tolist() == [kept] * out
    for row in range(out):
        largest = np.sort(np.argsort(np.abs(matrix[row]))[inputs - kept :])
        np.testing.assert_array_equal(index_of(made)[row], largest)
        np.testing.assert_allclose(made.dense()[row, largest], matrix[row, largest], rtol=1e-3)


def test_blocks_stand_where_the_index_says() -> None:
    matrix = np.random.default_rng(1).normal(size=(6, 12))
    structure = BlockSparse(
        density=0.5, block_rows=3, block_columns=4, score="magnitude", refit="none"
    )
    made = fitted(structure, matrix, None)
    assert made.part.codes.shape == (6, 8)  # 1.5 of 3 blocks: 2
    for r, blocks in enumerate(index_of(made).tolist()):
        dropped = ({0, 1, 2} - set(blocks)).pop()
        sums = [np.sum(matrix[3 * r : 3 * r + 3, 4 * q : 4 * q + 4] ** 2) for q in range(3)]
        assert dropped == int(np.argmin(sums))
        assert not made.dense()[3 * r : 3 * r + 3, 4 * dropped : 4 * dropped + 4].any()


@pytest.mark.parametrize(
    ("n", "m", "bits"), [(2, 4, 4), (1, 4, 8), (2, 8, 2), (4, 4, 4), (1, 1, 8)]
)
def test_n_of_m_takes_the_published_bits(n: int, m: int, bits: int) -> None:
    """n·(b + log₂ m) bits for m weights: 2:4 stores 8-bit weights in 62.5 % (Mishra et al., 2021)."""
    made = fitted(NM(n=n, m=m), np.random.default_rng(0).normal(size=(16, 64)), None, Uniform(bits))
    stored = 16 * 64 // m * n * (bits + (m - 1).bit_length()) // 8
    assert made.part.code_bytes + made.part.index_bytes == stored
    assert np.count_nonzero(made.dense().reshape(-1, m), axis=1).max() <= n


# --- what data bring -----------------------------------------------------------------------------
def errors(structures: list[Sparse], seed: int, form: Any = FINE) -> list[float]:
    """Share of the products' energy that is lost, by structure, of held-out inputs."""
    rng = np.random.default_rng(seed)
    inputs = correlated(rng, 1500, 80)
    z, unseen = inputs[:1000], inputs[1000:]
    matrix = rng.normal(size=(32, 80))
    seen = make_moments(matrix, z, z)
    lost = [unseen @ (fitted(s, matrix, seen, form).dense() - matrix).T for s in structures]
    return [float(np.sum(e**2) / np.sum((unseen @ matrix.T) ** 2)) for e in lost]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("base", [RowSparse(density=0.5), BlockSparse(density=0.5), NM(n=2, m=4)])
def test_scores_rank_as_published(base: Sparse, seed: int) -> None:
    """Output error at 50 %: SparseGPT < Wanda < magnitude (of blocks the first two are equals, for
    their numbers go together); each is better with its values refitted.
    """
    scores: list[Any] = ["sparsegpt", "wanda", "magnitude"]
    plain = errors([replace(base, score=s, refit="none") for s in scores], seed)
    refitted = errors([replace(base, score=s) for s in scores], seed)
    assert plain[0] < (1.1 if isinstance(base, BlockSparse) else 0.8) * plain[1]
    assert plain[1] < 0.7 * plain[2]
    assert all(better < 0.8 * before for better, before in zip(refitted, plain, strict=True))


@pytest.mark.parametrize("base", STRUCTURES)
def test_refit_in_few_bits_beats_the_naive_twin(base: Sparse) -> None:
    aware = errors([base], 5, Uniform(4))[0]
    naive = errors([base.naive()], 5, Uniform(4).naive())[0]
    assert aware < 0.5 * naive


@pytest.mark.parametrize("base", STRUCTURES)
def test_refit_goes_for_what_the_original_network_gives(base: Sparse) -> None:
    """The inputs differ from the original's: no change of the kept values predicts W·z_o better."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(8, 16))
    z = correlated(rng, 300, 16)
    seen = make_moments(matrix, z, z + rng.normal(size=z.shape))
    made = fitted(replace(base, ridge=0.0), matrix, seen)
    damped = seen.cov_z + 0.01 * np.mean(np.diag(seen.cov_z)) * np.eye(16)
    wanted = seen.cov_tz + matrix @ (damped - seen.cov_z)
    slope = made.dense() @ damped - wanted
    scale = np.abs(wanted).max()
    assert np.abs(slope[made.dense() != 0]).max() < 1e-3 * scale
    assert np.abs(slope).max() > 0.05 * scale


# --- storage -------------------------------------------------------------------------------------
CASES = (
    *STRUCTURES,
    RowSparse(density=1.0),
    NM(n=1, m=1),
    BlockSparse(density=1, block_columns=16),
)


def stored(structure: Sparse, bits: int = 3) -> tuple[Matrix, dict[str, Any], dict[str, Any]]:
    matrix = np.random.default_rng(4).normal(size=(8, 16))
    weight = fitted(structure, matrix, None, Uniform(bits))
    return weight, *weight_tensors("w", weight)


@pytest.mark.parametrize("structure", CASES)
@pytest.mark.parametrize("bits", [2, 4, 5, 16])
def test_stored_and_read_again(structure: Sparse, bits: int) -> None:
    weight, tensors, entry = stored(structure, bits)
    sizes = sum(t.nbytes for t in tensors.values())
    assert sizes == weight.nbytes
    again = read_weight("w", entry, tensors, 1)
    assert not tensors
    np.testing.assert_array_equal(again.dense(), weight.dense())
    np.testing.assert_array_equal(again.products[0].part.index, weight.part.index)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("fault", ["twice", "cut", "missing", "bits", "shape", "layout", "inputs"])
def test_damaged_indices_are_refused(structure: Sparse, fault: str) -> None:
    several = {"n": 2} if isinstance(structure, NM) else {"density": 0.4}
    _, tensors, entry = stored(replace(structure, **several))
    product = entry["products"][0]
    part = product["part"]
    if fault == "twice":
        tensors["w/0.index"][:] = 0
    elif fault == "cut":
        tensors["w/0.index"] = tensors["w/0.index"][:-1]
    elif fault == "missing":
        del tensors["w/0.index"]
    elif fault == "bits":
        part["index_bits"] += 1
        size = int(np.prod(part["index_shape"])) * part["index_bits"]
        tensors["w/0.index"] = np.zeros((size + 7) // 8, np.uint8)
    elif fault == "shape":
        part["index_shape"] = part["index_shape"][::-1]
    elif fault == "layout":
        product["layout"] = "dense"
    elif fault == "inputs":
        product["inputs"] = 13
    with pytest.raises(UserError) as caught:
        read_weight("w", entry, tensors, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("structure", "matrix"),
    [
        (RowSparse(density=0.3), (4, 10)),
        (BlockSparse(density=0.3, block_rows=2, block_columns=2), (4, 10)),
        (NM(n=1, m=5), (4, 10)),
    ],
)
def test_places_out_of_range_are_refused(structure: Sparse, matrix: tuple[int, int]) -> None:
    """Spans of 10 and 5 leave numbers of 4 and 3 bits that name no place."""
    values = np.random.default_rng(3).normal(size=matrix)
    tensors, entry = weight_tensors("w", fitted(structure, values, None))
    tensors["w/0.index"][0] = 255
    with pytest.raises(UserError, match="places below"):
        read_weight("w", entry, tensors, 1)


def test_a_small_file_that_means_a_huge_matrix_is_refused() -> None:
    """A long intermediate result: 2¹⁸ columns, of which each of 2¹⁰ rows keeps one."""
    first = fitted(RowSparse(density=1.0, score="magnitude", refit="none"), np.ones((4, 4)), None)
    wide = replace(first.part, codes=np.ones((2**18, 1), np.int32), index=np.zeros((2**18, 1), int))
    codes = np.ones((2**10, 1), np.int32)
    long = replace(first.part, codes=codes, index=np.zeros((2**10, 1), int))
    chain = Chain((replace(first, part=wide), replace(first, part=long, inputs=2**18)))
    layer = Layer("head", "dense", 4, 2**10)
    with pytest.raises(UserError, match="has a matrix of 1024×262144"):
        check_model(Model("m", (layer,), {"head.w": chain}))


# --- bad input -----------------------------------------------------------------------------------
@pytest.mark.parametrize("base", STRUCTURES)
@pytest.mark.parametrize("score", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("bits", [2, 8])
def test_poor_data_and_dead_units_give_finite_weights(base: Sparse, score: Any, bits: int) -> None:
    """One sample, constant inputs, dead rows and columns, moments of zero."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(8, 16))
    matrix[3], matrix[:, 5] = 0, 0
    z = correlated(rng, 30, 16)
    z[:, 7] = 1.0
    for trace in (z, z[:1], np.zeros((3, 16))):
        seen = make_moments(matrix, trace, trace)
        made = fitted(replace(base, score=score), matrix, seen, Uniform(bits))
        assert np.all(np.isfinite(made.dense()))
        assert made.part.codes.size == base.plan(8, 16)[0].geometry.codes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RowSparse(density=0.0), "density is 0.0"),
        (lambda: RowSparse(density=float("nan")), "density is nan"),
        (lambda: RowSparse(density=1.01), "density is 1.01"),
        (lambda: BlockSparse(density=-1), "density is -1"),
        (lambda: BlockSparse(block_rows=0), "blocks are 0×4"),
        (lambda: BlockSparse(block_rows=1, block_columns=1), "blocks are 1×1"),
        (lambda: NM(n=5, m=4), "5 of 4"),
        (lambda: NM(n=0, m=4), "0 of 4"),
        (lambda: NM(ridge=float("inf")), "ridge is inf"),
        (lambda: RowSparse(ridge=-1), "ridge is -1"),
        (lambda: NM(n=1, m=3).plan(8, 8), "1 of 3 weights are kept in rows of 8"),
        (lambda: BlockSparse().plan(8, 6), "do not divide"),
        (lambda: fitted(BlockSparse(), np.ones((8, 6)), None), "do not divide"),
        (lambda: fitted(NM(), np.eye(8), None, Uniform(4, group=2)), "scales groups of columns"),
    ],
)
def test_wrong_settings_are_told_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("structure", [RowSparse(density=0.5), CirculantPlusSparse(4, 0.5)])
def test_groups_of_columns_are_refused_before_anything_is_compressed(structure: Any) -> None:
    choice = Choice(structure, Uniform(4, group=2), Activation(8))
    densities = [Density()] * len(structure.plan(8, 8))
    with pytest.raises(UserError, match="scales groups of columns"):
        footprint(
            "w", (8, 8), choice, gates=1, has_bias=False, runs_per_step=1.0, densities=densities,
            hoistable=False,
        )  # fmt: skip
