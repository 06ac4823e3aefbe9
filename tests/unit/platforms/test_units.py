"""Arithmetic units against the figures of BitFusion's synthesis and a count of bricks."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic.units import UNITS, Unit, packed_terms, read_unit

NAMES = sorted(path.stem for path in UNITS.glob("*.toml"))
FUSION = [name for name in NAMES if name.startswith("fusion")]
FIXED = [name for name in NAMES if name.startswith("fixed")]


def terms_a_cycle(unit: Unit, weight_bits: int, activation_bits: int) -> Fraction:
    (numerator,), (denominator,) = unit.packing(
        np.array([weight_bits]), np.array([activation_bits])
    )
    return Fraction(int(numerator), int(denominator))


# Area µm², dynamic pJ a cycle, leakage µW: 4×4 arrays of systolic_array_synth.csv, divided by 16.
@pytest.mark.parametrize(
    ("name", "area", "energy", "leakage"),
    [
        ("fusion_8_2", 1734.6, 0.459, 59.3),
        ("fusion_16_2", 8831, 2.11, 295),
        ("fusion_4_2", 354.4, 0.118, 11.0),
        ("fixed_16", 1679, 0.603, 57.0),
        ("fixed_8", 510.7, 0.203, 16.1),
        ("fixed_4", 191.6, 0.0824, 5.3),
        ("fixed_2", 81.1, 0.0407, 1.7),
    ],
)
def test_units_are_those_of_the_synthesis(
    name: str, area: float, energy: float, leakage: float
) -> None:
    unit = read_unit(name)
    assert unit.area_m2 * 1e12 == pytest.approx(area, rel=1e-3)
    assert unit.energy_j * 1e12 == pytest.approx(energy)
    assert unit.leakage_w * 1e6 == pytest.approx(leakage, rel=0.03)


def test_every_shipped_unit_is_tested() -> None:
    assert len(NAMES) == len(FUSION) + len(FIXED) == 7


def test_the_area_of_bitfusions_core() -> None:
    # Its published run: 16×32 units, core .888 mm².
    assert 16 * 32 * read_unit("fusion_8_2").area_m2 * 1e6 == pytest.approx(0.888, abs=5e-4)


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "picojoules"),
    [(8, 8, 0.459), (8, 4, 0.2295), (4, 8, 0.2295), (4, 4, 0.11475), (2, 2, 0.02869)],
)
def test_energy_of_a_multiplication(
    weight_bits: int, activation_bits: int, picojoules: float
) -> None:
    unit = read_unit("fusion_8_2")
    energy = unit.energy_j / terms_a_cycle(unit, weight_bits, activation_bits)
    assert energy * 1e12 == pytest.approx(picojoules, rel=1e-3)


def test_16_bit_operands_take_four_cycles_on_the_8_bit_unit() -> None:
    unit = read_unit("fusion_8_2")
    assert unit.widths == (2, 4, 8, 16)
    assert terms_a_cycle(unit, 16, 16) == Fraction(1, 4)
    assert terms_a_cycle(unit, 9, 8) == Fraction(1, 2)
    assert terms_a_cycle(unit, 16, 2) == 2


@pytest.mark.parametrize(
    ("name", "width"), [("fusion_4_2", 4), ("fusion_8_2", 8), ("fusion_16_2", 16)]
)
def test_throughput_factor_of_bitfusion(name: str, width: int) -> None:
    """⌊w/b_w⌋·⌊w/b_a⌋ with b ≥ 2, rounded down to powers of two, up to the unit's own width."""
    unit = read_unit(name)
    for bits in itertools.product(range(1, width + 1), repeat=2):
        factors = [2 ** int(math.log2(width // max(2, b))) for b in bits]
        assert terms_a_cycle(unit, *bits) == math.prod(factors), bits


@pytest.mark.parametrize("width", [2, 4, 8, 16])
def test_a_fixed_unit_makes_passes(width: int) -> None:
    unit = read_unit(f"fixed_{width}")
    for w, a in itertools.product(range(1, 17), repeat=2):
        passes = math.ceil(w / width) * math.ceil(a / width)
        assert terms_a_cycle(unit, w, a) == Fraction(1, passes), (w, a)


def bricks_counted(unit: Unit, bits: int) -> int:
    """Bricks along one operand, counted one by one: doubled within the unit, then whole units."""
    bricks = 1
    while bricks * unit.brick_bits < bits:
        bricks = 2 * bricks if bricks < unit.bricks_per_side else bricks + unit.bricks_per_side
    return bricks


@given(
    st.sampled_from(NAMES),
    st.lists(
        st.tuples(st.integers(0, 5000), st.floats(0, 1), st.integers(1, 16), st.integers(1, 16)),
        min_size=1,
        max_size=8,
    ),
)
def test_packed_terms_against_counted_bricks(
    name: str, products: list[tuple[int, float, int, int]]
) -> None:
    unit = read_unit(name)
    columns = [np.array(column) for column in zip(*products, strict=True)]
    expected = []
    for k, active, w, a in products:
        bricks = bricks_counted(unit, w) * bricks_counted(unit, a)
        terms = math.ceil(k * active - 1e-9)
        expected.append(math.ceil(Fraction(terms * bricks, unit.bricks_per_side**2)))
    assert packed_terms(unit, *columns).tolist() == expected


def test_a_quotient_of_counters_is_the_whole_number_it_stands_for() -> None:
    # 49·(1/49) is 0.9999999999999999, and 0.1·3·10 lies above 3.
    k, active = np.array([49, 10]), np.array([1 / 49, 0.1 * 3])
    assert (k * active).tolist() != [1.0, 3.0]
    bits = np.array([8, 8])
    assert packed_terms(read_unit("fusion_8_2"), k, active, bits, bits).tolist() == [1, 3]


@pytest.mark.parametrize("name", NAMES)
def test_wider_operands_never_take_fewer_cycles(name: str) -> None:
    unit = read_unit(name)
    bits = np.arange(1, 17)
    numerator, denominator = unit.packing(bits[:, None], bits)
    assert numerator.shape == denominator.shape == (16, 16)
    rate = numerator / denominator
    assert (np.diff(rate, axis=0) <= 0).all()
    assert (rate == rate.T).all()
    assert (np.gcd(numerator, denominator) == 1).all()


def test_a_unit_of_ones_own(tmp_path: Path) -> None:
    text = (UNITS / "fusion_8_2.toml").read_text(encoding="utf-8")
    path = tmp_path / "own.toml"
    path.write_text(text.replace('value = 2\nunit = "bit"', 'value = 3\nunit = "bit"'))
    unit = read_unit(str(path))
    assert unit.widths == (3, 6, 12, 24)
    assert terms_a_cycle(unit, 5, 13) == Fraction(144, 6 * 24)
    path.write_text(text.replace('value = 4\nunit = "brick"', 'value = 3\nunit = "brick"'))
    with pytest.raises(UserError, match="bricks_per_side is 3; expected a power of two"):
        read_unit(str(path))


def test_unknown_units_are_refused() -> None:
    with pytest.raises(UserError, match=r"unknown spec 'fusion_82'.*did you mean 'fusion_8_2'"):
        read_unit("fusion_82")
