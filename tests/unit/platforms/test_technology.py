"""Technology scaling against the worked example of its authors, and against physics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic.technology import BETWEEN, NODES, scale

NAMES = sorted([*NODES, *BETWEEN])


def volts_of(node: str) -> tuple[float, float]:
    parts = [NODES[n].volts for n in ([node] if node in NODES else [n for n, _ in BETWEEN[node]])]
    return max(low for low, _ in parts), min(high for _, high in parts)


def test_the_worked_example_65_nm_to_32_nm() -> None:
    # By hand: (0.8367·0.81 − 0.4341·0.9 + 0.1701) / (3.755·1.69 − 4.398·1.3 + 1.975) = 0.1755.
    factors = scale("65", 1.3, "32", 0.9)
    assert float(factors.energy) == pytest.approx(0.1755, abs=1e-4)
    assert factors.area == 0.31


@pytest.mark.parametrize(
    ("source", "target", "area"),
    [
        ("65", "45", 0.66), ("45", "32", 0.46), ("45", "20", 0.21), ("45", "16", 0.19),
        ("32", "20", 0.46), ("65", "16", 0.13), ("45lp", "32lp", 0.46), ("16", "65", 7.9),
    ],
)  # fmt: skip
def test_published_areas(source: str, target: str, area: float) -> None:
    v = (volts_of(source)[1], volts_of(target)[1])
    assert scale(source, v[0], target, v[1]).area == area


def test_45_nm_to_28_nm_lies_between_its_neighbours() -> None:
    # Energies of the fit by hand: 45 at 1.0 V .8612, 32 at .9 V .4571, 20 at .9 V .2008;
    # two thirds and one third of the latter: .3717.
    factors = scale("45", 1.0, "28", 0.9)
    assert float(factors.energy) == pytest.approx(0.3717 / 0.8612, abs=1e-4)
    assert factors.area == pytest.approx((2 * 0.46 + 0.21) / 3)
    assert float(scale("28", 0.9, "45", 1.0).energy * factors.energy) == pytest.approx(1.0)


@pytest.mark.parametrize("node", NAMES)
def test_within_its_range_a_node_behaves_physically(node: str) -> None:
    low, high = volts_of(node)
    v = np.linspace(low, high, 200)
    factors = scale(node, high, node, v)
    assert factors.energy[-1] == factors.delay[-1] == factors.area == 1.0
    assert (np.diff(factors.energy) > 0).all()
    assert (factors.energy > 0).all()
    assert (factors.delay > 0).all()
    # Slower at any lower voltage, but for a ripple of the cubic fit.
    assert (factors.delay <= 1.12 * np.minimum.accumulate(factors.delay)).all()


def test_newer_nodes_are_smaller_and_switch_on_less_energy() -> None:
    names = ["180", "130", "90", "65", "45", "32", "28", "20", "16", "14", "10", "7"]
    for old, new in itertools.pairwise(names):
        factors = scale(old, volts_of(old)[1], new, volts_of(new)[1])
        assert factors.energy < 1, (old, new)
        assert factors.area < 1, (old, new)


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(NAMES), st.data())
def test_factors_of_a_chain_multiply(a: str, b: str, c: str, data: st.DataObject) -> None:
    v = {n: data.draw(st.floats(*volts_of(n)), label=n) for n in {a, b, c}}
    direct = scale(a, v[a], c, v[c])
    first, second = scale(a, v[a], b, v[b]), scale(b, v[b], c, v[c])
    assert np.isclose(first.energy * second.energy, direct.energy)
    assert np.isclose(first.delay * second.delay, direct.delay)
    # The published areas are rounded to two digits.
    assert first.area * second.area == pytest.approx(direct.area, rel=0.15)


def test_voltages_broadcast() -> None:
    factors = scale("65", np.array([[1.0], [1.2]]), "32", np.array([0.7, 0.8, 0.9]))
    assert factors.energy.shape == factors.delay.shape == (2, 3)
    assert factors.energy[1, 2] == scale("65", 1.2, "32", 0.9).energy


@pytest.mark.parametrize(
    ("node", "volts", "message"),
    [
        ("22", 0.9, "unknown technology node '22'"),
        ("32hp", 0.9, "unknown technology node '32hp'.*did you mean '32"),
        ("65", 1.31, "at 65 nm is 1.31 V; expected 0.6 to 1.3 V"),
        ("65", 0.0, "at 65 nm is 0 V"),
        ("65", float("nan"), "at 65 nm is nan V"),
        ("28", 1.0, "at 28 nm is 1 V; expected 0.5 to 0.9 V"),
    ],
)
def test_unknown_nodes_and_voltages_are_refused(node: str, volts: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scale("90", 1.2, node, volts)
    with pytest.raises(UserError, match=message):
        scale(node, np.array([volts]), "90", 1.2)
