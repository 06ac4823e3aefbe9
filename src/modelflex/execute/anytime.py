"""Steps within limits: what they answer, and the terms of a program as compiled code takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.plan import Plan
from modelflex.core.program import Program
from modelflex.core.tracer import Product
from modelflex.errors import UserError

REFINE = ("refine_i32", "refine_i64", "refine_f32")


class Answer(NamedTuple):
    """What a step gave that had a limit.

    Attributes:
        y: the result [outputs].
        terms: weight → how many of its first terms were computed.
        operations: multiplications and additions of these terms.
        error: what the ladder says of the highest rung all of whose terms were computed: the mean
            divergence of such answers on pilot data; None without a ladder or below its first rung.
        late: whether the answer came at the deadline or after it.
    """

    y: Array
    terms: dict[str, int]
    operations: int
    error: float | None
    late: bool


def refinements(plan: Plan) -> dict[str, str]:
    """Site of U → site of V of every progressive product, in the order of the sites: their numbers."""
    found = {c.site: c.attrs["inner"] for c in plan.calls if c.kernel in REFINE}
    return {site: found[site] for site in plan.products if site in found}


def refine_attrs(plan: Plan, site: str, groups: int, sites: Mapping[str, int]) -> dict[str, Any]:
    """The attributes of a call of a refine kernel as numbers and int32 arrays."""
    found = refinements(plan)
    inner, outer = plan.products[found[site]], plan.products[site]
    attrs = {"inner": sites[inner.site], "groups": groups, "number": list(found).index(site)}
    if inner.rescale is None or outer.encode is None or outer.link is None:
        return attrs
    return attrs | {
        "mu": inner.rescale.mantissa.astype(np.int32),
        "shift": inner.rescale.shift,
        "code_mu": int(outer.encode.mantissa[0]),
        "code_shift": outer.encode.shift,
        "code_bits": outer.link.bits,
    }


def term_inputs(product: Product) -> tuple[Array, Array | None]:
    """V of floats: the numbers kept of each row [terms·groups, kept], and the numbers of their blocks
    (uint32, [terms·groups, blocks]); None where all are kept.
    """
    part = product.part
    values = np.ascontiguousarray(part.codes, np.float32)
    if part.index is None:
        return values, None
    index = np.repeat(part.index, values.shape[0] // part.index.shape[0], axis=0)
    return values, np.ascontiguousarray(index, np.uint32)


def term_outputs(product: Product) -> Array:
    """U of floats, a row for each term [terms, out]."""
    return np.ascontiguousarray(product.integers().T, np.float32)


def term_counts(program: Program) -> dict[str, int]:
    """Weight → how many terms it has, of every weight that has any, in the order of the products."""
    ops = (op for stage in program.stages for op in stage.graph.ops if op.kind == "refine")
    sites = {op.site for op in ops}
    made = (p for site, p in program.products.items() if site in sites)
    return {product.weight: product.geometry.inputs for product in made}


def check_terms(program: Program, terms: Mapping[str, int]) -> None:
    """Refuse numbers of terms that a program cannot use.

    Raises:
        UserError: a weight without terms, or no whole number from 0 on.
    """
    known = term_counts(program)
    if not isinstance(terms, Mapping):
        raise UserError(f"terms is {str(terms)[:30]}", "a mapping from weights to numbers")
    for weight, count in terms.items():
        if weight not in known:
            raise UserError(
                f"the weight '{weight}' has no terms", ", ".join(known) or "no terms are known"
            )
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
            raise UserError(f"'{weight}' is to use {str(count)[:30]} terms", "a number, 0 or more")
