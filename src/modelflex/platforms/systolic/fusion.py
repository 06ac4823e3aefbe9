"""BitFusion units: a unit multiplies as many pairs of narrow operands at once as its bricks allow.

Sharma et al., Bit Fusion: Bit-Level Dynamically Composable Architecture for Accelerating Deep
Neural Networks, ISCA 2018. A unit holds 16 bricks of 2×2 bits: one 8×8 product, or sixteen 2×2
products a cycle; 16-bit operands take several cycles.
"""

from __future__ import annotations

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.closed_forms import ceil_div

CONTAINERS = np.array([2, 4, 8, 16])
"""Operand widths of the unit; others are rounded up to the next one."""
MAX_BITS = 16

_ROUNDING = 1e-9


def container(bits: Array) -> Array:
    """The operand width that holds `bits` ≤ 16."""
    return CONTAINERS[np.searchsorted(CONTAINERS, np.minimum(bits, MAX_BITS))]


def packed_terms(k: Array, active: Array, weight_bits: Array, activation_bits: Array) -> Array:
    """Terms of the inner dimension as the array sees them: ⌈⌈K·active⌉ / packing⌉.

    A unit packs g = (8/b_w)·(8/b_a) terms a cycle: ¼, 1, 4, 16 for 16, 8, 4, 2 bits on both sides.

    Args:
        k: inner dimension of the product.
        active: share of its terms that are computed.
        weight_bits, activation_bits: operand widths, at most 16.
    """
    # A measured share is a quotient of counters: its product with K may lie a rounding error above
    # the whole number it stands for.
    terms = np.ceil(k * active - _ROUNDING).astype(np.int64)
    bricks = container(weight_bits).astype(np.int64) * container(activation_bits)
    return ceil_div(terms * bricks, 64)
