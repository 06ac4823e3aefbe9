"""Random terms for tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelflex.core.fixed import Scale
from modelflex.core.layout import index_bits
from modelflex.core.part import FLOAT_BITS, Part, pack_bias
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix, Terms

LAYOUTS = {"dense": 1, "row_sparse": 1, "block_sparse": 2}


def make_part(rng: np.random.Generator, rows: int, columns: int, layout: str) -> Part:
    """A float part [rows, columns] of a layout; a sparse one keeps half of the places."""
    if layout == "dense":
        return Part(rng.normal(size=(rows, columns)).astype(np.float32), FLOAT_BITS)
    width = LAYOUTS[layout]
    places = columns // width
    kept = max(1, places // 2)
    index = np.sort(np.argsort(rng.random((rows, places)))[:, :kept], axis=1)
    values = rng.normal(size=(rows, kept * width)).astype(np.float32)
    return Part(values, FLOAT_BITS, index=index, index_bits=index_bits(places))


def make_terms(
    rng: np.random.Generator, out: int, inputs: int, terms: int, groups: int, layout: str = "dense"
) -> Terms:
    """Random terms with a bias in floats, of which a recurrent network makes no chaos."""
    offset = Part(rng.normal(size=terms * groups).astype(np.float32), FLOAT_BITS)
    v = Matrix(make_part(rng, terms * groups, inputs, layout), offset, None, 1, layout, inputs)
    bias = Part(rng.normal(size=out).astype(np.float32), FLOAT_BITS)
    part = make_part(rng, out, terms, "dense")
    part = replace(part, codes=part.codes * np.float32(0.3 / np.sqrt(terms * inputs)))
    u = Matrix(part, bias, None, groups, "dense", terms)
    return Terms(v, u, groups)


def as_integers(rng: np.random.Generator, weight: Terms) -> Terms:
    """Terms of the same sizes in 8-bit codes, with 8-bit inputs and 8 bits in between, and biases."""

    def product(matrix: Matrix, step: float) -> Matrix:
        codes = rng.integers(-127, 128, matrix.part.codes.shape)
        scale = Scale.nearest(np.full(codes.shape[0], rng.uniform(0.004, 0.01)))
        part = Part(codes, 8, scale, index=matrix.part.index, index_bits=matrix.part.index_bits)
        link = Link(8, Scale.nearest(np.array([step])))
        made = Matrix(part, None, link, matrix.row_groups, matrix.layout, matrix.inputs)
        bias = np.asarray(rng.normal(size=codes.shape[0]))
        return made.with_bias(pack_bias(bias, made.accumulator_scale(), 16))

    return Terms(product(weight.v, 0.03), product(weight.u, 0.05), weight.groups)
