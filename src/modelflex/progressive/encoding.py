"""Terms in integers, for networks that compute in integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from modelflex.compress.links import inner_link
from modelflex.core.extension import Format
from modelflex.core.fixed import Array
from modelflex.core.part import Part, pack_bias
from modelflex.core.recipe import Activation
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix, Terms
from modelflex.registry import FORMATS

INPUT: Final = Activation(8)
BETWEEN: Final = Activation(16)
"""Codes of v_n·x + c_n share one step, though the later of them are much the smaller."""
BIAS_BITS: Final = 16


def in_integers(weight: Terms, sample: Array, bits: int) -> Terms:
    """The same terms in codes of `bits` bits, with 8-bit inputs and 16 bits in between.

    Columns of U get the length 1 before, so that the rows of V, which have scales of their own, carry
    how much a term matters.

    Args:
        weight: in floats.
        sample: inputs that it sees [n, in].
    """
    form: Format = FORMATS.get("uniform")(bits, "row", "max", "nearest")
    u = weight.u.dense()
    length = np.maximum(np.linalg.norm(u, axis=0), 1e-30)
    factors = np.repeat(length, weight.groups)[:, None]
    values = weight.v.part.codes.astype(np.float64) * factors
    offset = weight.v.bias_value() * factors[:, 0]
    outer = inner_link(INPUT, sample)
    v = _encoded(replace(weight.v, part=replace(weight.v.part, codes=values)), form, outer, offset)
    # What enters U is what the codes of V make of the inputs.
    between = sample @ v.dense().T + v.bias_value()
    scaled = replace(weight.u, part=replace(weight.u.part, codes=u / length))
    inner = inner_link(BETWEEN, between)
    return Terms(v, _encoded(scaled, form, inner, weight.u.bias_value()), weight.groups)


def _encoded(matrix: Matrix, form: Format, link: Link, bias: Array) -> Matrix:
    """A product in codes, with a bias in units of its accumulator."""
    stored: Part = form.encode(matrix.part.codes, None, 1)
    old = matrix.part
    made = replace(
        matrix,
        part=replace(stored, index=old.index, index_bits=old.index_bits),
        own_bias=None,
        link=link,
    )
    return made.with_bias(pack_bias(bias, made.accumulator_scale(), BIAS_BITS))
