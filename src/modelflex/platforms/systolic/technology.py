"""Energy, delay and area of the same circuit in another CMOS technology.

Stillmaker, Baas, Scaling equations for the accurate prediction of CMOS device performance from
180 nm to 7 nm, Integration 58, 2017, pp. 74–81: energy and delay are polynomials of the supply
voltage, one for each node; areas are a table of pairs.

Every row was taken from the table in the repository wromaszkan/nodeScale. A second transcription,
Accelergy-Project/accelergy-library-plug-in, agrees on all areas from 130 nm on and on the energies
of 130, 90, 65, 45 LP, 32 LP and 20 to 7 nm; the authors' corrigendum (2017-06) agrees on 65 nm and
32 nm. The other energies (180, 45 and 32 nm) and all delays rest on nodeScale alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError, nearest


class Node(NamedTuple):
    """One technology.

    Attributes:
        energy: a₂, a₁, a₀ of a₂·V² + a₁·V + a₀; only ratios have a meaning.
        delay: d₃, d₂, d₁, d₀ likewise.
        volts: lowest and highest supply voltage that is accepted. The transcriptions do not hold
            the fitted range, so this is the one in which the polynomials make sense: both are
            positive, energy rises and delay falls with the voltage (delay ripples by up to 11 %, at 32 nm).
    """

    energy: tuple[float, float, float]
    delay: tuple[float, float, float, float]
    volts: tuple[float, float]


NODES: Final[Mapping[str, Node]] = {
    "180": Node((0.0, 24.64, -17.98), (0.0, 97.09, -356.7, 406.5), (1.0, 1.8)),
    "130": Node((7.171, -6.709, 2.904), (-76.65, 334.9, -493.4, 275.8), (0.6, 1.3)),
    "90": Node((4.762, -4.781, 2.092), (-60.34, 262.5, -384.2, 210.9), (0.6, 1.3)),
    "65": Node((3.755, -4.398, 1.975), (-53.3, 230.4, -333.9, 178.6), (0.6, 1.3)),
    "45": Node((1.018, -0.3107, 0.1539), (-501.6, 1567.0, -1619.0, 566.1), (0.5, 1.0)),
    "45lp": Node((1.103, -0.362, 0.2767), (-285.7, 1239.0, -1795.0, 898.8), (0.5, 1.1)),
    "32": Node((0.8367, -0.4341, 0.1701), (-1047.0, 2982.0, -2797.0, 873.5), (0.5, 0.9)),
    "32lp": Node((0.9559, -0.7823, 0.471), (-325.9, 1374.0, -1922.0, 913.2), (0.5, 1.1)),
    "20": Node((0.373, -0.1582, 0.04104), (0.0, 34.63, -66.37, 41.15), (0.5, 0.9)),
    "16": Node((0.2958, -0.1241, 0.03024), (0.0, 24.8, -47.52, 28.87), (0.5, 0.9)),
    "14": Node((0.2363, -0.09675, 0.02239), (-40.66, 109.2, -100.6, 35.92), (0.5, 0.9)),
    "10": Node((0.2068, -0.09311, 0.02375), (-34.95, 93.65, -85.99, 30.4), (0.5, 0.9)),
    "7": Node((0.1776, -0.09097, 0.02447), (-28.58, 76.6, -70.26, 24.69), (0.5, 0.9)),
}
"""Nodes in nm; from 45 nm down the high-performance transistors unless named "lp"."""

BETWEEN: Final[Mapping[str, tuple[tuple[str, float], ...]]] = {
    "28": (("32", 2 / 3), ("20", 1 / 3)),
}
"""Nodes that were not fitted → their neighbours, weighted linearly in nm: (28 − 20)/(32 − 20) of 32.

This is no published figure but an estimate.
"""

_AREA_NODES: Final = ("180", "130", "90", "65", "45", "32", "20", "16", "14", "10", "7")
_AREA: Final = np.array(
    [
        [1, 0.34, 0.15, 0.08, 0.053, 0.025, 0.011, 0.01, 0.0093, 0.0055, 0.0032],
        [2.9, 1, 0.44, 0.23, 0.16, 0.072, 0.033, 0.03, 0.027, 0.016, 0.0092],
        [6.6, 2.3, 1, 0.53, 0.35, 0.16, 0.075, 0.067, 0.061, 0.036, 0.021],
        [12, 4.3, 1.9, 1, 0.66, 0.31, 0.14, 0.13, 0.12, 0.068, 0.039],
        [19, 6.4, 2.8, 1.5, 1, 0.46, 0.21, 0.19, 0.17, 0.1, 0.059],
        [40, 14, 6.1, 3.3, 2.2, 1, 0.46, 0.41, 0.38, 0.22, 0.13],
        [88, 30, 13, 7.1, 4.7, 2.2, 1, 0.89, 0.82, 0.48, 0.28],
        [99, 34, 15, 7.9, 5.3, 2.4, 1.1, 1, 0.91, 0.54, 0.31],
        [110, 37, 16, 8.7, 5.8, 2.7, 1.2, 1.1, 1, 0.59, 0.34],
        [180, 63, 28, 15, 9.8, 4.5, 2.1, 1.9, 1.7, 1, 0.58],
        [320, 110, 48, 25, 17, 7.8, 3.6, 3.2, 2.9, 1.7, 1],
    ]
)
"""Published factors [from, to], rounded to two digits: a way and back differs from 1 by up to 4 %."""


class Factors(NamedTuple):
    """What a value is multiplied by; `energy` and `delay` have the voltages' broadcast shape."""

    energy: Array
    delay: Array
    area: float


def scale(node_from: str, v_from: Array | float, node_to: str, v_to: Array | float) -> Factors:
    """Factors from one technology and supply voltage to another.

    Energy is that of switching, not leakage. The area of "45lp" and "32lp" is taken as that of the
    high-performance node, and does not depend on the voltage.

    Args:
        node_from, node_to: names in `NODES` or `BETWEEN`, such as "45".
        v_from, v_to: supply voltages in volts, broadcast.

    Raises:
        UserError: an unknown node, or a voltage outside its range.
    """
    before, after = _polynomials(node_from, v_from), _polynomials(node_to, v_to)
    return Factors(after[0] / before[0], after[1] / before[1], _area(node_from, node_to))


def _neighbours(node: str) -> tuple[tuple[str, float], ...]:
    if node in NODES:
        return ((node, 1.0),)
    if node not in BETWEEN:
        raise UserError(
            f"unknown technology node '{node}'", "a node in nm", nearest(node, [*NODES, *BETWEEN])
        )
    return BETWEEN[node]


def _polynomials(node: str, volts: Array | float) -> tuple[Array, Array]:
    """Energy and delay of a node, in the units of the fit."""
    v = np.asarray(volts, float)
    parts = [(NODES[name], share) for name, share in _neighbours(node)]
    low = max(part.volts[0] for part, _ in parts)
    high = min(part.volts[1] for part, _ in parts)
    outside = ~((v >= low) & (v <= high))
    if outside.any():
        raise UserError(
            f"the supply voltage at {node} nm is {np.extract(outside, v)[0]:g} V",
            f"{low:g} to {high:g} V",
        )
    energy = sum(share * np.polyval(part.energy, v) for part, share in parts)
    delay = sum(share * np.polyval(part.delay, v) for part, share in parts)
    return np.asarray(energy), np.asarray(delay)


def _area(node_from: str, node_to: str) -> float:
    """The published factor of the pair; a node in between has the weighted area of its neighbours."""
    if node_from == node_to:
        return 1.0
    if node_from in BETWEEN:
        return 1 / _area(node_to, node_from)
    row = _AREA[_AREA_NODES.index(node_from.removesuffix("lp"))]
    return float(
        sum(
            share * row[_AREA_NODES.index(name.removesuffix("lp"))]
            for name, share in _neighbours(node_to)
        )
    )
