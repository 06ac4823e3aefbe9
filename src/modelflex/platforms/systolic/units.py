"""Arithmetic units of an array: how many pairs of operands one multiplies a cycle, and at what cost.

A unit is a square of bricks. Neighbouring bricks fuse into operands of twice, four times, … their
width (Sharma et al., Bit Fusion: Bit-Level Dynamically Composable Architecture for Accelerating
Deep Neural Networks, ISCA 2018): 4×4 bricks of 2 bits make one 8×8-bit product a cycle, or sixteen
of 2×2 bits. A unit of fixed precision is a single brick.

Assumptions: an operand narrower than a brick, so a 1-bit or a ternary one, fills the whole brick.
One wider than the unit takes several passes, ⌈bits ÷ width⌉ for each operand; a fixed unit is taken
to have the shift and the wide accumulator that this needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.spec import Spec, SpecField, find_spec, read_spec
from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import ceil_div

UNITS: Final = Path(__file__).resolve().parents[1] / "units"

FIELDS: Final[Mapping[str, SpecField]] = {
    "brick_width": SpecField("bit", "count"),
    "bricks_per_side": SpecField("brick", "count"),
    "energy": SpecField("J/cycle"),
    "leakage": SpecField("W"),
    "area": SpecField("nm²", "count"),
}
"""The constants of a unit; areas are whole nm² because specs count what has no SI prefix."""

WIDEST_BITS: Final = 16
"""Operands up to this width can be priced on every unit, in passes if need be."""

_SQUARE_METRES_PER_NM2: Final = 1e-18
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Unit:
    """An arithmetic unit, read from a spec.

    Attributes:
        spec: the constants with their sources.
        brick_bits: operand width of one brick.
        bricks_per_side: bricks along each operand.
        energy_j: dynamic energy of a cycle, whatever the operands.
        leakage_w, area_m2: of one unit.
    """

    spec: Spec
    brick_bits: int
    bricks_per_side: int
    energy_j: float
    leakage_w: float
    area_m2: float

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Operand widths, ascending; others are rounded up to the next one."""
        whole = self.brick_bits * self.bricks_per_side
        fused = [self.brick_bits << i for i in range(self.bricks_per_side.bit_length())]
        passes = range(2, -(-WIDEST_BITS // whole) + 1)
        return (*fused, *(whole * n for n in passes))

    def container(self, bits: Array) -> Array:
        """The operand width that holds `bits`; the widest one where none does."""
        widths = np.array(self.widths)
        return widths[np.searchsorted(widths, np.minimum(bits, widths[-1]))]

    def packing(self, weight_bits: Array, activation_bits: Array) -> tuple[Array, Array]:
        """Terms of a dot product a cycle, as whole numbers (numerator, denominator) without
        common divisor: (16, 1) for 2×2 bits on the 8/2-bit unit, (1, 4) for 16×16.

        Args:
            weight_bits, activation_bits: operand widths, broadcast.
        """
        bricks = self.container(weight_bits) * self.container(activation_bits)
        whole = (self.brick_bits * self.bricks_per_side) ** 2
        common = np.gcd(whole, bricks)
        return np.asarray(whole // common), np.asarray(bricks // common)


def read_unit(name: str) -> Unit:
    """The unit of a shipped spec, or of the .toml file at the path `name`.

    Raises:
        UserError: an unknown name, a broken spec, bricks that cannot be fused in twos.
    """
    spec = read_spec(find_spec(UNITS, name), "unit", FIELDS)
    side = int(spec["bricks_per_side"])
    if side & (side - 1):
        raise UserError(
            f"unit '{spec.name}': bricks_per_side is {side}", "a power of two, such as 1 or 4"
        )
    return Unit(
        spec,
        brick_bits=int(spec["brick_width"]),
        bricks_per_side=side,
        energy_j=spec["energy"],
        leakage_w=spec["leakage"],
        area_m2=spec["area"] * _SQUARE_METRES_PER_NM2,
    )


def packed_terms(
    unit: Unit, k: Array, active: Array, weight_bits: Array, activation_bits: Array
) -> Array:
    """Terms of the inner dimension as the array sees them: ⌈⌈K·active⌉ ÷ packing⌉.

    Args:
        unit: what multiplies.
        k: inner dimension of the product.
        active: share of its terms that are computed.
        weight_bits, activation_bits: operand widths.
    """
    # A measured share is a quotient of counters: its product with K may lie a rounding error above
    # the whole number it stands for.
    terms = np.ceil(k * active - _ROUNDING).astype(np.int64)
    numerator, denominator = unit.packing(weight_bits, activation_bits)
    return ceil_div(terms * denominator, numerator)
