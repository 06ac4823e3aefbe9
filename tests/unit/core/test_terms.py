"""Terms: sums of rank-1 pieces of which a prefix is computed, against loops and chains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array, Scale
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.part import Part
from modelflex.core.program import build_program
from modelflex.core.storage import read_weight, weight_tensors
from modelflex.core.tracer import Tracer
from modelflex.core.weight import Chain, Matrix, Terms, float_weight
from modelflex.core.windows import pointwise
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.testing.generators import run_weight, weight_program
from modelflex.testing.terms import LAYOUTS, as_integers, make_terms


def by_loops(weight: Terms, terms: int) -> tuple[Array, Array]:
    """The matrix and the bias of the first terms, one rank-1 piece after another."""
    u, v, c = weight.u.dense(), weight.v.dense(), weight.v.bias_value()
    matrix, bias = np.zeros(weight.shape), weight.u.bias_value()
    rows = weight.shape[0] // weight.groups
    for n in range(terms):
        for g in range(weight.groups):
            here = slice(g * rows, (g + 1) * rows)
            matrix[here] += np.outer(u[here, n], v[n * weight.groups + g])
            bias[here] += u[here, n] * c[n * weight.groups + g]
    return matrix, bias


sizes = st.tuples(
    st.integers(1, 5),  # rows of a group
    st.integers(2, 12),  # half the inputs
    st.integers(1, 6),  # terms
    st.sampled_from((1, 2, 4)),  # groups
    st.sampled_from(sorted(LAYOUTS)),
    st.integers(0, 2**31),
)


def drawn(size: tuple[int, int, int, int, str, int]) -> tuple[np.random.Generator, Terms]:
    """Random terms of a drawn size."""
    rows, half, terms, groups, layout, seed = size
    rng = np.random.default_rng(seed)
    return rng, make_terms(rng, rows * groups, 2 * half, terms, groups, layout)


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_every_prefix_means_the_sum_of_its_pieces(
    size: tuple[int, int, int, int, str, int],
) -> None:
    _, weight = drawn(size)
    for terms in range(weight.count + 1):
        matrix, bias = by_loops(weight, terms)
        np.testing.assert_allclose(weight.prefix(terms), matrix, atol=1e-12)
        np.testing.assert_allclose(weight.prefix_bias(terms), bias, atol=1e-12)
    np.testing.assert_array_equal(weight.dense(), weight.prefix(weight.count))
    np.testing.assert_allclose(weight.bias_value(), bias, atol=1e-12)


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_the_interpreter_computes_a_prefix_and_counts_it(
    size: tuple[int, int, int, int, str, int],
) -> None:
    rng, weight = drawn(size)
    data = Sequences(rng.normal(size=(5, weight.shape[1])).astype(np.float32), np.array([3, 2]))
    program = weight_program(weight, weight.shape[1])
    for terms in range(weight.count + 1):
        found = Interpreter(program).run(data, terms={"w": terms})
        matrix, bias = by_loops(weight, terms)
        wanted = data.x @ matrix.T + bias
        np.testing.assert_allclose(found.outputs, wanted, rtol=1e-5, atol=1e-4)
        assert found.profile.sites["w/0"].units == found.profile.sites["w/1"].active == 5 * terms
    more = Interpreter(program).run(data, terms={"w": weight.count + 7})
    np.testing.assert_array_equal(more.outputs, run_weight(weight, data).outputs)


@given(sizes)
@settings(max_examples=60, deadline=None)
def test_in_integers_terms_are_a_chain_cut_short(
    size: tuple[int, int, int, int, str, int],
) -> None:
    rng, drawn_weight = drawn(size)
    weight = as_integers(rng, drawn_weight)
    data = Sequences(rng.normal(size=(6, weight.shape[1])).astype(np.float32), np.array([2, 4]))
    program = weight_program(weight, weight.shape[1])
    rows = weight.shape[0] // weight.groups
    for terms in range(1, weight.count + 1):
        found = Interpreter(program).run(data, terms={"w": terms}).outputs
        for g in range(weight.groups):
            wanted = run_weight(group_chain(weight, g, terms), data).outputs
            np.testing.assert_array_equal(found[:, g * rows : (g + 1) * rows], wanted)


def group_chain(weight: Terms, group: int, terms: int) -> Chain:
    """The first terms of one group of rows as an ordinary chain."""

    def pick(part: Part, rows: Array, columns: Array | slice) -> Part:
        assert part.scale is not None
        scale = Scale(part.scale.mantissa[rows], part.scale.exponent)
        index = None if part.index is None else part.index[rows]
        return Part(part.codes[rows][:, columns], 8, scale, index=index, index_bits=part.index_bits)

    v, u, rows = weight.v, weight.u, weight.shape[0] // weight.groups
    first = np.arange(terms) * weight.groups + group
    one = Matrix(pick(v.part, first, slice(None)), None, v.link, 1, v.layout, v.inputs)
    here = np.arange(group * rows, (group + 1) * rows)
    two = Matrix(pick(u.part, here, slice(terms)), None, u.link, 1, "dense", terms)
    one, two = (
        made.with_bias(replace(whole.own_bias, codes=whole.own_bias.codes[at]))
        for made, whole, at in ((one, v, first), (two, u, here))
        if whole.own_bias is not None
    )
    return Chain((one, two))


@given(sizes, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_stored_weight_is_read_as_it_was(
    size: tuple[int, int, int, int, str, int], integers: bool
) -> None:
    rng, weight = drawn(size)
    weight = as_integers(rng, weight) if integers else weight
    tensors, entry = weight_tensors("w", weight)
    assert sum(t.nbytes for t in tensors.values()) == weight.nbytes
    left = dict(tensors)
    read = read_weight("w", entry, left, weight.groups)
    assert isinstance(read, Terms)
    assert not left
    assert read.groups == weight.groups
    np.testing.assert_array_equal(read.dense(), weight.dense())
    np.testing.assert_array_equal(read.prefix_bias(1), weight.prefix_bias(1))


@pytest.mark.parametrize(
    "form",
    [["terms", 2, 0], ["terms", 0, 0, 1], ["terms", 3, 0, 1], ["terms", 2, 1, 0], ["chain", 0, 1]],
)
def test_a_form_that_does_not_fit_is_refused(form: list[object]) -> None:
    weight = make_terms(np.random.default_rng(0), 4, 6, 3, 2)
    tensors, entry = weight_tensors("w", weight)
    with pytest.raises(UserError):
        read_weight("w", {**entry, "form": form}, dict(tensors), 2)


def test_stored_numbers_that_are_not_finite_are_refused() -> None:
    weight = make_terms(np.random.default_rng(0), 4, 6, 3, 1, "row_sparse")
    for name in ("w/0", "w/1", "w/0.bias", "w/1.bias"):
        tensors, entry = weight_tensors("w", weight)
        tensors[name] = np.full_like(tensors[name], np.nan)
        with pytest.raises(UserError, match="NaN"):
            read_weight("w", entry, tensors, 1)


def test_terms_serve_a_recurrent_layer() -> None:
    """An augmented LSTM of terms equals one of the matrix that the prefix means, state and all."""
    rng = np.random.default_rng(3)
    weight = make_terms(rng, 16, 9, 5, 4)
    data = Sequences(rng.normal(size=(9, 5)).astype(np.float32), np.array([4, 5]))
    model = Model("m", (Layer("l", "augmented_lstm", 5, 4),), {"l.w": weight}, "values")
    for terms in (0, 2, 5):
        dense = float_weight(weight.prefix(terms), weight.prefix_bias(terms), 4)
        wanted = Interpreter(build_program(model.with_weights({"l.w": dense}))).run(data)
        found = Interpreter(build_program(check_model(model))).run(data, terms={"l.w": terms})
        np.testing.assert_allclose(found.outputs, wanted.outputs, atol=1e-6)


def test_maps_are_refused() -> None:
    weight = make_terms(np.random.default_rng(0), 4, 6, 3, 1)
    tracer = Tracer("float")
    with pytest.raises(UserError, match="positions"):
        weight.lower(tracer, "w", tracer.input("x", 12), windows=pointwise(6, 2))


@pytest.mark.parametrize("terms", [{"w": -1}, {"w": True}, {"w": "3"}, {"v": 2}])
def test_numbers_of_terms_that_make_no_sense_are_refused(terms: dict[str, int]) -> None:
    weight = make_terms(np.random.default_rng(0), 4, 6, 3, 1)
    data = Sequences(np.ones((2, 6), np.float32), np.array([2]))
    with pytest.raises(UserError):
        Interpreter(weight_program(weight, 6)).run(data, terms=terms)
