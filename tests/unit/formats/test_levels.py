"""Multi-bit codes, codebooks, powers of two, ternary and binary weights against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.errors import UserError
from modelflex.formats.binary import Binary
from modelflex.formats.codebook import Codebook
from modelflex.formats.multibit import Multibit, least_squares_sizes, nearest_signs
from modelflex.formats.power_of_two import PowerOfTwo
from modelflex.formats.ternary import Ternary
from modelflex.formats.uniform import Uniform

NEAREST: list[Format] = [
    Binary("row", "nearest"),
    Ternary("row", "mse", "nearest"),
    Ternary("row", "mean", "nearest"),
    PowerOfTwo(3, "row", "mse", "nearest"),
    Codebook(2, "row", "kmeans", "nearest"),
    Codebook(3, "gate", "linear", "nearest"),
    Multibit(2, "row", "alternating", "nearest"),
    Multibit(3, "gate", "refined", "nearest"),
]
AWARE: list[Format] = [
    Binary(), Binary("gate"), Ternary(), Ternary("gate", "mean"), PowerOfTwo(3), PowerOfTwo(4, "tensor"),
    Codebook(2), Codebook(3, "row"), Multibit(2), Multibit(3, "gate", "greedy"), Uniform(2), Uniform(4),
]  # fmt: skip


def squared(config: Format, values: Array, gates: int = 1) -> float:
    return float(np.sum((config.encode(values, None, gates).value() - values) ** 2))


# --- closed forms and brute force ----------------------------------------------------------------
@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_binary_is_the_best_of_all_signs(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(1, 7))
    best = np.inf
    for signs in itertools.product((-1.0, 1.0), repeat=7):
        sign = np.array(signs)
        size = values[0] @ sign / 7  # least squares
        best = min(best, float(np.sum((values[0] - size * sign) ** 2)))
    assert squared(Binary("row", "nearest"), values) == pytest.approx(best, rel=1e-6)


@given(st.integers(0, 2**31))
@settings(max_examples=30)
def test_ternary_is_the_best_of_all_codes(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(1, 6)) ** 3
    best = float(np.sum(values**2))
    for chosen in itertools.product((-1.0, 0.0, 1.0), repeat=6):
        code = np.array(chosen)
        if code.any():
            size = values[0] @ code / (code @ code)
            best = min(best, float(np.sum((values[0] - size * code) ** 2)))
    assert squared(Ternary("row", "mse", "nearest"), values) == pytest.approx(best, rel=1e-3)


def test_ternary_rule_is_its_equation() -> None:
    values = np.random.default_rng(1).normal(size=(3, 40))
    part = Ternary("row", "mean", "nearest").encode(values, None, 1)
    for row, codes, size in zip(values, part.codes, part.row_scales(), strict=True):
        above = np.abs(row) > 0.7 * np.abs(row).mean()
        np.testing.assert_array_equal(codes, np.where(above, np.sign(row), 0))
        assert size == pytest.approx(np.abs(row[above]).mean(), rel=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 3))
@settings(max_examples=30)
def test_sizes_and_signs_of_multibit_codes_are_each_the_best(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    values, weights = rng.normal(size=(2, 9)), rng.uniform(0.1, 2, (2, 9))
    sizes = rng.normal(size=(2, bits))
    signs = nearest_signs(values, sizes)
    sums = np.array(list(itertools.product((-1.0, 1.0), repeat=bits))) @ sizes.T
    nearest = np.abs(values[None] - sums[:, :, None]).min(axis=0)
    np.testing.assert_allclose(np.abs(np.einsum("gk,gkn->gn", sizes, signs) - values), nearest)
    for row, found in enumerate(least_squares_sizes(values, weights, signs)):
        root = np.sqrt(weights[row])
        wanted = np.linalg.lstsq(signs[row].T * root[:, None], values[row] * root, rcond=None)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-8)


def best_clusters(values: Array, count: int) -> float:
    """The least squared error of `count` clusters in one dimension, over all cuts."""
    rising, least = np.sort(values), np.inf
    for cuts in itertools.combinations(range(1, rising.size), count - 1):
        pieces = np.split(rising, cuts)
        least = min(least, sum(float(np.sum((p - p.mean()) ** 2)) for p in pieces))
    return least


def test_kmeans_comes_near_the_best_clusters() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(40, 14))
    found = sum(squared(Codebook(2, "row", "kmeans", "nearest"), row[None]) for row in rows)
    best = sum(best_clusters(row, 4) for row in rows)
    assert best * 0.999 <= found <= best * 1.25
    assert found < 0.8 * sum(
        squared(Codebook(2, "row", "linear", "nearest"), r[None]) for r in rows
    )


def test_kmeans_finds_levels_that_are_there() -> None:
    rng = np.random.default_rng(5)
    levels = np.array([-1.0, -0.3, 0.2, 0.9])
    values = rng.choice(levels, size=(4, 60))
    part = Codebook(2, "tensor", "kmeans", "nearest").encode(values, None, 1)
    np.testing.assert_allclose(part.value(), values, atol=1 / 127)


@given(st.integers(0, 2**31), st.integers(2, 5))
@settings(max_examples=30)
def test_powers_of_two_are_the_nearest(seed: int, bits: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, 40)) ** 3
    part = PowerOfTwo(bits, "row", "max", "nearest").encode(values, None, 1)
    powers = 2.0 ** np.arange(2 ** (bits - 1) - 1)
    allowed = np.concatenate([-powers, [0.0], powers])
    for row, codes, step in zip(values, part.value(), part.row_scales(), strict=True):
        nearest = np.abs(row[:, None] - allowed * step).min(axis=1)
        np.testing.assert_allclose(np.abs(codes - row), nearest, atol=1e-9)


# --- published properties ------------------------------------------------------------------------
def test_alternating_beats_refined_beats_greedy() -> None:
    """Xu et al., table 1: the order holds for every number of bits."""
    values = np.random.default_rng(6).laplace(size=(64, 300))
    for bits in (2, 3, 4):
        greedy, refined, alternating = (
            squared(Multibit(bits, "row", fit, "nearest"), values)
            for fit in ("greedy", "refined", "alternating")
        )
        assert alternating < refined < greedy


def test_two_bits_are_about_a_sixteenth() -> None:
    """Xu et al., section 5: 2-bit weights take about 1/16 of float32, 3-bit ones 1/10.5."""
    values = np.random.default_rng(7).normal(size=(1200, 300))
    for bits, ratio in ((2, 16), (3, 10.5)):
        part = Multibit(bits, "gate").encode(values, None, 4)
        assert values.size * 4 / part.nbytes == pytest.approx(ratio, rel=0.03)


def test_normal_weights_lose_what_theory_says() -> None:
    """Max, Quantizing for minimum distortion, 1960, table I: the least error for a normal density is
    .3634 with 2 levels, .1175 with 4, .03454 with 8 (uniform: .1188, .03744); three levels: .1902.
    """
    values = np.random.default_rng(8).normal(size=(1, 200_000))
    for config, wanted in (
        (Binary("tensor", "nearest"), 0.3634),
        (Ternary("tensor", "mse", "nearest"), 0.1902),
        (Codebook(2, "tensor", "kmeans", "nearest"), 0.1175),
        (Codebook(3, "tensor", "kmeans", "nearest"), 0.03454),
        (Uniform(2, "tensor", "mse", "nearest"), 0.1188),
        (Uniform(3, "tensor", "mse", "nearest"), 0.03744),
    ):
        assert squared(config, values) / values.size == pytest.approx(wanted, rel=0.02)


# --- with data -----------------------------------------------------------------------------------
def correlated(rng: np.random.Generator, n: int) -> Array:
    z = rng.normal(size=(400, n)) @ (rng.normal(size=(n, n)) @ np.diag(np.geomspace(1, 0.05, n))).T
    return np.asarray(z.T @ z / 400)


@pytest.mark.parametrize("config", AWARE, ids=str)
def test_data_lower_the_error_of_the_products(config: Format) -> None:
    rng = np.random.default_rng(9)
    h = correlated(rng, 48)
    values = rng.normal(size=(16, 48))
    kind = type(config)
    plain = kind(**{**config.__dict__, "rounding": "nearest"})

    def lost(part_of: Format) -> float:
        e = part_of.encode(values, h, 4).value() - values
        return float(np.einsum("ri,ij,rj", e, h, e))

    assert lost(config) < 0.5 * lost(plain)


@pytest.mark.parametrize("config", [*NEAREST, *AWARE], ids=str)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 3), columns=st.integers(1, 9))
@settings(max_examples=12)
def test_every_shape_scale_and_degenerate_input_is_encoded(
    config: Format, seed: int, rows: int, columns: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4 * rows, columns)) * 10.0 ** rng.uniform(-7, 4)
    values[rng.random(4 * rows) < 0.4] = 0.0  # dead rows
    values[:, rng.random(columns) < 0.3] = 0.0
    z = rng.normal(size=(2, columns))  # few samples: singular
    z[:, rng.random(columns) < 0.3] = 0.0
    hessian = z.T @ z if rng.random() < 0.7 else None
    mask = rng.random(values.shape) < rng.choice([0.0, 0.5, 1.0]) if rng.random() < 0.7 else None
    part = config.encode(values, hessian, 4, mask)
    assert np.all(np.isfinite(part.value()))
    assert part.side_bytes == config.side_bytes(4 * rows, columns, 4)
    size = np.abs(values).max()
    assert np.abs(part.value()).max() <= max(30 * size, 1e-3)
    if mask is not None:
        assert not part.codes[~mask].any()


def test_rows_are_encoded_apart() -> None:
    """With row scales, a row's codes do not depend on the other rows."""
    rng = np.random.default_rng(10)
    h, values = correlated(rng, 20), rng.normal(size=(6, 20))
    for config in (Uniform(2), Multibit(2), Codebook(2, "row"), Ternary(), PowerOfTwo(3)):
        whole = config.encode(values, h, 1).codes
        np.testing.assert_array_equal(config.encode(values[:3], h, 1).codes, whole[:3])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Codebook(0), "1 … 5"),
        (lambda: Codebook(6), "1 … 5"),
        (lambda: Multibit(5), "1 … 4"),
        (lambda: PowerOfTwo(1), "2 … 5"),
        (lambda: Binary("gate").side_bytes(6, 4, 4), "equal size"),
    ],
)
def test_settings_that_are_refused(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]
