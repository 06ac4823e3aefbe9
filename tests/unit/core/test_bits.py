"""Packed codes against a loop over bits, on every grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.bits import pack_bits, pack_codes, unpack_bits, unpack_codes
from modelflex.core.fixed import Scale
from modelflex.core.part import SYMMETRIC, Grid, Part

TABLES = {
    "levels": lambda bits: np.arange(-(2**bits), 2**bits, dtype=np.int8).reshape(2, -1),
    "signs": lambda bits: np.array([[1, 2, 4, 8, 9, 10, 11, 12], [3, 5, 6, 7, 20, 40, 80, 100]])[
        :, :bits
    ].astype(np.int8),
}
"""Two tables each; of many bits some sums of signs are equal."""


def bits_of(value: int, bits: int) -> list[int]:
    return [(value >> i) & 1 for i in range(bits)]


def packed_slowly(values: list[int], bits: int) -> bytes:
    stream = [bit for value in values for bit in bits_of(value, bits)]
    stream += [0] * (-len(stream) % 8)
    return bytes(
        sum(bit << i for i, bit in enumerate(stream[k : k + 8])) for k in range(0, len(stream), 8)
    )


@st.composite
def values_of_bits(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 32))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), bits


@given(values_of_bits())
def test_packing_equals_a_loop_over_bits(case: tuple[list[int], int]) -> None:
    values, bits = case
    packed = pack_bits(np.array(values, np.uint32), bits)
    assert packed.tobytes() == packed_slowly(values, bits)
    assert unpack_bits(packed, len(values), bits).tolist() == values


@pytest.mark.parametrize("bits", range(2, 17))
def test_packing_across_chunks(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelflex.core.bits._CHUNK", 16)
    values = np.random.default_rng(bits).integers(0, 2**bits, 77)
    packed = pack_bits(values, bits)
    assert packed.tobytes() == packed_slowly(values.tolist(), bits)
    assert unpack_bits(packed, 77, bits).tolist() == values.tolist()


def every_grid() -> list[tuple[Grid, int]]:
    """Grids and bits that may be stored."""
    plain = [(SYMMETRIC, bits) for bits in (*range(2, 17), 32)]
    plain += [(Grid("odd"), bits) for bits in range(1, 9)]
    plain += [(Grid("power"), bits) for bits in range(2, 6)]
    return plain + [
        (Grid(kind, make(bits)), bits) for kind, make in TABLES.items() for bits in range(1, 7)
    ]


@pytest.mark.parametrize(("grid", "bits"), every_grid())
def test_every_grid_round_trips_in_its_bytes(grid: Grid, bits: int) -> None:
    rng = np.random.default_rng(bits)
    if bits == 32:  # too many levels to list
        codes = rng.integers(-(2**31) + 1, 2**31, (4, 5, 2))
        codes.flat[:2] = -(2**31) + 1, 2**31 - 1
    else:
        levels = grid.levels(bits)
        drawn = rng.integers(0, levels.shape[1], (4, 5, 2))
        drawn[[0, 2], 0, 0], drawn[[0, 2], 0, 1] = 0, levels.shape[1] - 1  # the ends of each table
        codes = np.stack([levels[i * len(levels) // 4][numbers] for i, numbers in enumerate(drawn)])
    part = Part(codes, bits, Scale.nearest(0.5), 4, grid)
    packed = pack_codes(part)
    assert packed.nbytes == part.code_bytes == (40 * bits + 7) // 8
    assert np.array_equal(unpack_codes(packed, (4, 5, 2), bits, grid), codes)


def test_numbers_of_grids_are_those_documented() -> None:
    """Two's complement; (code + 2^b − 1)/2; a power's exponent and sign; a bit for each plus."""
    cases = [
        (SYMMETRIC, 3, [0, 3, -1, -3], [0, 3, 7, 5]),
        (Grid("odd"), 3, [-7, -1, 1, 7], [0, 3, 4, 7]),
        (Grid("power"), 3, [0, 1, 4, -2], [0, 1, 3, 6]),
        (Grid("levels", np.array([[9, -4, 0, 2]], np.int8)), 2, [2, 0, -4, 9], [3, 2, 1, 0]),
        (Grid("signs", np.array([[3, 10]], np.int8)), 2, [-13, -7, 7, 13], [0, 1, 2, 3]),
    ]
    for grid, bits, codes, numbers in cases:
        part = Part(np.array([codes]), bits, Scale.nearest(1.0), 1, grid)
        assert pack_codes(part).tobytes() == packed_slowly(numbers, bits)


@pytest.mark.parametrize(
    ("code", "bits", "grid"),
    [
        (4, 3, SYMMETRIC),
        (-4, 3, SYMMETRIC),
        (2, 3, Grid("odd")),
        (9, 3, Grid("odd")),
        (3, 3, Grid("power")),
        (8, 3, Grid("power")),
        (1, 1, Grid("levels", np.array([[0, 2]], np.int8))),
        (0, 1, Grid("signs", np.array([[3]], np.int8))),
    ],
)
def test_codes_off_the_grid_are_refused(code: int, bits: int, grid: Grid) -> None:
    with pytest.raises(ValueError, match=f"not on the {grid.kind} grid of {bits} bits"):
        pack_codes(Part(np.array([[code]]), bits, Scale.nearest(1.0), 1, grid))


def test_a_code_that_is_no_multiple_of_its_multiplier_is_refused() -> None:
    with pytest.raises(ValueError, match="not on the symmetric grid"):
        pack_codes(
            Part(np.array([[4]]), 3, Scale.nearest(1.0), 1, multipliers=np.array([[3]], np.int32))
        )
