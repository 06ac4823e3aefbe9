"""How large the sums of a product can get: what is proven before a program may run."""

from __future__ import annotations

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.tracer import Product
from modelflex.errors import UserError

MAX_ACCUMULATOR = 1 << 47
"""A sum times an int16 multiplier must stay below 2⁶²."""


def sum_bound(product: Product, matrix: Array) -> int:
    """B of docs/arithmetic.md (*accumulate*): no partial sum of an integer product reaches it.

    Args:
        matrix: `product.integers()`.

    Raises:
        UserError: sums may be too large to be rescaled.
    """
    if product.link is None:
        raise ValueError("sums of floating-point numbers have no bound")
    bias = 0 if product.bias is None else int(np.abs(product.bias).max(initial=0))
    # Differences under delta are one bit wider than codes, so 2^b bounds both.
    bound = int(np.abs(matrix.astype(np.int64)).sum(axis=1).max()) * (1 << product.link.bits) + bias
    left = 0 if product.rescale is None else max(0, -product.rescale.shift)
    if bound << left >= MAX_ACCUMULATOR:
        raise UserError(
            f"the sums of '{product.site}' may reach {bound << left}",
            f"less than {MAX_ACCUMULATOR}",
            "use fewer bits or inputs",
        )
    return bound
