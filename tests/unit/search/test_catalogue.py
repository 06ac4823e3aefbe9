"""The recipes of a comparison: all methods, on whatever layers a network has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.compress.choices import gates
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.stats import Stats
from modelflex.core.weight import float_weight
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, REMOVALS, STRUCTURES
from modelflex.search.catalogue import Catalogue, labels, words
from modelflex.search.ranges import configurations, fits, one_at_a_time, spread
from modelflex.search.space import SpaceRecipe
from modelflex.testing.generators import random_inputs

NETWORKS = {
    "two cells": [
        Layer("gru0", "gru", 40, 40),
        Layer("lstm1", "lstm", 40, 36),
        Layer("head", "dense", 36, 5, "last"),
    ],
    "symbols": [
        Layer("embed", "one_hot", 1, 36),
        Layer("lstm0", "lstm", 36, 40),
        Layer("head", "dense", 40, 36),
    ],
    "embedded": [
        Layer("embed", "embedding", 1, 12, "every", {"symbols": 40}),
        Layer("gru0", "gru", 12, 32),
        Layer("head", "dense", 32, 40),
    ],
    "convolutions": [
        Layer("conv", "conv1d", 12, 33, "every", {"kernel": 3}),
        Layer("relu", "relu", 33, 33),
        Layer("lstm0", "lstm", 33, 32),
        Layer("head", "dense", 32, 4, "last"),
    ],
    "no state": [Layer("below", "dense", 40, 36), Layer("head", "dense", 36, 4)],
    "tiny": [Layer("lstm0", "lstm", 3, 2), Layer("head", "dense", 2, 3, "last")],
}


@cache
def network(name: str) -> tuple[Model, Stats, list[SpaceRecipe]]:
    rng = np.random.default_rng(0)
    blank = Model(name, tuple(NETWORKS[name]), {})
    shapes = {n: s for layer in blank.layers for n, s in layer.weight_shapes.items()}
    weights = {
        n: float_weight(rng.normal(0.0, shapes[n][1] ** -0.5, shapes[n]), None, count)
        for n, count in gates(blank).items()
    }
    model = check_model(blank.with_weights(weights))
    stats = calibrate(model, random_inputs(rng, (9, 14, 5), model))
    return model, stats, Catalogue(model, rounds=0).recipes()


def families(entries: Sequence[SpaceRecipe], kind: str) -> set[str]:
    return {e.space.removeprefix(f"{kind}: ") for e in entries if e.space.startswith(f"{kind}: ")}


def test_every_registered_method_has_a_family() -> None:
    entries = network("two cells")[2]
    assert families(entries, "format") == set(FORMATS.names())
    assert families(entries, "structure") == set(STRUCTURES.names()) - {"dense"}
    assert families(entries, "activity") == set(ACTIVITIES.names())
    assert families(entries, "removal") == set(REMOVALS.names())
    assert families(entries, "nonlinearity") == set(NONLINEARITIES.names())
    assert families(entries, "hybrid") == {"dense", "units", "circulant", "low_rank"}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_recipe_is_there_once_with_its_naive_twin_and_a_label_of_its_own(name: str) -> None:
    entries = network(name)[2]
    keys = [entry.recipe.key for entry in entries]
    assert len(set(keys)) == len(keys)
    assert {entry.recipe.naive.key for entry in entries} <= set(keys)
    named = [(entry.space, entry.recipe.label) for entry in entries]
    assert len(set(named)) == len(named)
    for _, label in named:
        assert label.count("naive") <= 1
        assert "None" not in label
        assert "none" not in label


@pytest.mark.parametrize("name", NETWORKS)
def test_every_family_compresses_whatever_layers_there_are(name: str) -> None:
    model, stats, entries = network(name)
    for family in {entry.space for entry in entries}:
        own = [entry for entry in entries if entry.space == family]
        for entry in (own[0], own[-1]):
            made = compress(model, entry.recipe, stats)
            # Layers without weights or functions aside, nothing is left as it was.
            assert not any(made.coverage.values()), (entry.space, made.coverage)


def test_a_pattern_chooses_families_with_all_their_twins() -> None:
    model, _, entries = network("two cells")
    chosen = Catalogue(model, rounds=0).recipes("removal: obs")
    keys = {entry.recipe.key for entry in chosen}
    assert {entry.space for entry in chosen} == {"removal: obs"}
    assert {e.recipe.key for e in entries if e.space == "removal: obs"} < keys
    assert {entry.recipe.naive.key for entry in chosen} <= keys
    assert Catalogue(model).recipes("obs") == []
    assert set(Catalogue(model).families) == {entry.space for entry in entries}


def test_without_units_to_remove_there_are_no_removals() -> None:
    entries = network("no state")[2]
    assert not families(entries, "removal")
    assert "units" not in families(entries, "hybrid")
    assert families(entries, "format") == set(FORMATS.names())


@pytest.mark.parametrize(("name", "hot"), [("symbols", "lstm0.w_x"), ("embedded", "embed.w")])
def test_weights_of_symbols_stay_dense_and_without_activity(name: str, hot: str) -> None:
    """One column of them is fetched anyway."""
    dense = STRUCTURES.get("dense")
    moved = set()
    for entry in network(name)[2]:
        choice = entry.recipe.choice(hot)
        assert choice is not None
        assert isinstance(choice.structure, dense)
        assert choice.activity is None
        other = entry.recipe.choice("lstm0.w_h" if name == "symbols" else "gru0.w_h")
        assert other is not None
        moved.add((type(other.structure), other.activity is None))
    assert len(moved) > len(STRUCTURES.names())


def test_what_runs_once_a_sequence_has_no_activity_and_kernels_have_one() -> None:
    delta = ACTIVITIES.get("delta")
    entries = [e for e in network("convolutions")[2] if e.space == "activity: delta"]
    for entry in entries:
        once, kernel = entry.recipe.choice("head.w"), entry.recipe.choice("conv.w")
        assert once is not None
        assert kernel is not None
        assert once.activity is None
        assert isinstance(kernel.activity, delta)


def test_small_weights_keep_the_dense_structure() -> None:
    assert not families(network("tiny")[2], "structure")
    dense = STRUCTURES.get("dense")
    for entry in network("two cells")[2]:
        head = entry.recipe.choice("head.w")  # of 5 outputs
        assert head is not None
        assert isinstance(head.structure, dense)


def test_a_structure_that_stores_as_many_numbers_is_no_structure() -> None:
    blocks = [e.recipe.label for e in network("two cells")[2] if e.space == "structure: circulant"]
    assert any(label.startswith("blocks of 2,") for label in blocks)
    assert not any(label.startswith("blocks of 1,") for label in blocks)


def test_units_that_stay_are_shares_of_every_layer() -> None:
    kept = {
        tuple(rule.removal.units for rule in entry.recipe.layers if rule.removal is not None)
        for entry in network("two cells")[2]
        if entry.space == "removal: obs" and "50 %" in entry.recipe.label
    }
    assert kept == {(20, 18)}


# --- ranges and words ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Method:
    """A method with an interval, numbers and words."""

    depth: float = 0.0
    bits: int = 2
    fit: str = "plain"
    aside: int = 7

    search_range = {"depth": (0.0, 1.0), "bits": (2, 3), "fit": ("plain", "least_squares")}

    def naive(self) -> Method:
        return Method(self.depth, self.bits)


def test_a_range_is_spread_over_its_interval() -> None:
    assert spread((0.0, 1.0)) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert spread((1, 2)) == (1, 2)
    assert spread((None, 0.5)) == (None, 0.5)
    assert spread((0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)


def test_configurations_are_the_product_of_the_ranges() -> None:
    wanted = {
        Method(depth, bits, fit)
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0)
        for bits in (2, 3)
        for fit in ("plain", "least_squares")
    }
    made = configurations(Method)
    assert len(made) == 20
    assert set(made) == wanted


def test_one_at_a_time_changes_the_first_field_and_one_other() -> None:
    made = one_at_a_time(Method)
    assert len(made) == 15
    assert set(made) == {c for c in configurations(Method) if c.bits == 2 or c.fit == "plain"}


def test_words_say_what_varies() -> None:
    config = Method(0.25, 3, "least_squares")
    assert words(config) == "depth 0.25, 3 bits, least squares"
    assert labels(config, "rest") == (
        "depth 0.25, 3 bits, least squares, rest",
        "depth 0.25, 3 bits, plain, rest",
    )


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [
        (ACTIVITIES.get("delta"), {"threshold": 0.5, "unit": "std"}, "Δ 0.5 σ"),
        (
            ACTIVITIES.get("delta"),
            {"threshold": 0.5, "granularity": "block", "scaled": "norm", "overshoot": 0.5},
            "Δ 0.5, by block, scaled by norm, overshoot 0.5",
        ),
        (STRUCTURES.get("low_rank"), {"share": 0.1}, "10 % of the numbers, whitened"),
        (FORMATS.get("uniform"), {"bits": 3, "scales": "row"}, "3 bits, scale a row"),
    ],
)
def test_words_of_methods(method: type, fields: dict[str, object], said: str) -> None:
    assert words(method(**fields)) == said


def test_a_structure_fits_where_its_block_divides() -> None:
    circulant = STRUCTURES.get("circulant")
    assert fits(circulant(block=4), (8, 12))
    assert not fits(circulant(block=4), (8, 10))
