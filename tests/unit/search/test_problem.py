"""Digests of models: equal for what is stored alike, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model
from modelflex.core.part import Part
from modelflex.core.storage import read_weight, weight_tensors
from modelflex.core.weight import Matrix, Terms
from modelflex.search.problem import model_digest
from modelflex.testing.terms import LAYOUTS, as_integers, make_terms


def digest(weight: Terms) -> str:
    out, inputs = weight.shape
    return model_digest(Model("net", (Layer("head", "dense", inputs, out),), {"head.w": weight}))


def bumped(part: Part) -> Part:
    """The part with one of its numbers a little further."""
    codes = part.codes.copy()
    at = np.unravel_index(codes.size // 2, codes.shape)
    codes[at] = codes[at] + 1 if codes[at] <= 0 else codes[at] - 1
    return replace(part, codes=codes)


def moved(part: Part) -> Part | None:
    """The part with one number at another place; None where all places are taken."""
    if part.index is None:
        return None
    free = np.setdiff1d(np.arange(1 << part.index_bits), part.index[0])
    if not free.size:
        return None
    index: Array = part.index.copy()
    index[0, -1] = free[0]
    return replace(part, index=index)


def rescaled(part: Part) -> Part | None:
    if part.scale is None:
        return None
    scale = replace(part.scale, exponent=part.scale.exponent - 1)
    return replace(part, scale=scale)


def with_product(
    weight: Terms, which: str, change: Callable[[Part], Part | None], at: str
) -> Terms:
    product: Matrix = getattr(weight, which)
    old = getattr(product, at)
    new = None if old is None else change(old)
    return weight if new is None else replace(weight, **{which: replace(product, **{at: new})})


CHANGES: Mapping[str, Callable[[Terms], Terms]] = {
    "a number of v": lambda w: with_product(w, "v", bumped, "part"),
    "a number of u": lambda w: with_product(w, "u", bumped, "part"),
    "a bias of v": lambda w: with_product(w, "v", bumped, "own_bias"),
    "a bias": lambda w: with_product(w, "u", bumped, "own_bias"),
    "no bias of v": lambda w: replace(w, v=replace(w.v, own_bias=None)),
    "a place of v": lambda w: with_product(w, "v", moved, "part"),
    "scales of v": lambda w: with_product(w, "v", rescaled, "part"),
    "scales of u": lambda w: with_product(w, "u", rescaled, "part"),
    "a step between": lambda w: (
        w
        if w.u.link is None
        else replace(w, u=replace(w.u, link=replace(w.u.link, bits=w.u.link.bits - 1)))
    ),
}


@pytest.mark.parametrize("integers", [False, True])
@given(
    out=st.integers(1, 4),
    half=st.integers(2, 6),
    terms=st.integers(1, 4),
    groups=st.sampled_from((1, 2)),
    layout=st.sampled_from(sorted(LAYOUTS)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_terms_that_differ_have_other_digests(
    integers: bool, out: int, half: int, terms: int, groups: int, layout: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = make_terms(rng, out * groups, 2 * half, terms, groups, layout)
    weight = as_integers(rng, weight) if integers else weight
    found = {"itself": digest(weight)}
    for name, change in CHANGES.items():
        other = change(weight)
        if other is not weight:
            found[name] = digest(other)
    assert len(set(found.values())) == len(found), found
    tensors, entry = weight_tensors("head.w", weight)
    read = read_weight("head.w", entry, tensors, weight.gates)
    assert isinstance(read, Terms)
    assert digest(read) == found["itself"]


def test_layers_and_outputs_are_part_of_the_digest_and_names_are_not() -> None:
    weight = make_terms(np.random.default_rng(0), 4, 6, 2, 1)
    model = Model("net", (Layer("head", "dense", 6, 4),), {"head.w": weight})
    assert model_digest(replace(model, name="other", meta={"note": 1})) == model_digest(model)
    assert model_digest(replace(model, output="values")) != model_digest(model)
    layers = (Layer("head", "dense", 6, 4, "last"),)
    assert model_digest(replace(model, layers=layers)) != model_digest(model)
