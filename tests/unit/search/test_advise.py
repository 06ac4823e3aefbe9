"""Advice on networks whose states are narrow, wide, slow or fast by construction."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress.choices import choices, reduced_layers
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.stats import Stats
from modelflex.core.weight import float_weight
from modelflex.registry import PLATFORMS
from modelflex.search.advise import Advice, advise, what_is_read
from modelflex.search.advised_space import advised_grids, default_grids
from modelflex.search.options import options_of
from modelflex.search.pricing import Pricer
from modelflex.search.space import read_space
from modelflex.testing.generators import random_model, random_sequences

UNITS = 64


def network(cells: tuple[str, ...] = ("lstm",), reads: str = "last") -> tuple[Model, Stats]:
    rng = np.random.default_rng(0)
    model = random_model(rng, cells, inputs=8, units=UNITS, reads=reads)
    return model, calibrate(model, random_sequences(rng, (50,) * 12, model.inputs))


def with_states(model: Model, stats: Stats, rank: int, slowness: float) -> Stats:
    """The same, as if the states lay in `rank` directions and moved by 1 − `slowness` at a step."""
    rng = np.random.default_rng(1)
    steps = stats.sequences.steps
    walk = rng.normal(size=(steps, rank))
    for t in range(1, steps):
        walk[t] = slowness * walk[t - 1] + np.sqrt(1 - slowness**2) * walk[t]
    states = (walk @ rng.normal(size=(rank, UNITS)) / np.sqrt(rank)).astype(np.float32)
    inputs = walk[:, :1] * np.ones((1, model.inputs), np.float32)
    sites = dict(stats.sites)
    for name, trace in (("layer0.w_h", states), ("layer0.w_x", inputs.astype(np.float32))):
        peak = float(np.abs(trace).max())
        sites[name] = replace(sites[name], trace=trace, std=float(trace.std()), peak=peak)
    return replace(stats, sites=sites)


def advice(rank: int, slowness: float) -> Advice:
    model, stats = network()
    return advise(model, with_states(model, stats, rank, slowness))


def test_narrow_slow_states_call_for_everything() -> None:
    found = advice(4, 0.999)
    assert found.avoid == {}
    assert {s.method for s in found.suggestions} == {
        "uniform",
        "obs",
        "circulant",
        "low_rank",
        "delta",
    }
    factors = [s.factor for s in found.suggestions]
    assert factors == sorted(factors, reverse=True)
    assert all(f > 1 for f in factors)
    quantised, removed = found.of("uniform"), found.of("obs")
    assert quantised is not None
    assert removed is not None
    assert quantised.settings["bits"] == 2
    assert quantised.factor == 16
    # 8 of 64 units: the numbers read a step, the head's once in 50 steps.
    assert removed.settings["units"] == {"layer0": 8}
    whole = 4 * 64 * (64 + 8) + 4 * 64 / 50
    assert removed.factor == pytest.approx(whole / (4 * 8 * (8 + 8) + 4 * 8 / 50))
    assert "4 hold 99 %" in found.states
    assert all(s.reason and s.source for s in found.suggestions)


def test_wide_fast_states_call_for_quantisation_only() -> None:
    found = advice(UNITS, 0.0)
    assert [s.method for s in found.suggestions] == ["uniform"]
    assert found.suggestions[0].settings["bits"] == 4
    assert set(found.avoid) == {"obs", "circulant", "low_rank", "delta"}


def test_delta_follows_the_share_of_inputs_that_move() -> None:
    slow, fast = advice(4, 0.9999).of("delta"), advice(4, 0.99).of("delta")
    assert slow is not None
    assert fast is not None
    assert slow.factor > 1.5 * fast.factor > 1.5


def test_without_data_only_sizes_speak() -> None:
    model, _ = network()
    found = advise(model, None)
    assert [s.method for s in found.suggestions] == ["uniform"]
    assert "unknown" in found.states
    json.dumps(found.to_json())


def symbols_model() -> tuple[Model, Sequences]:
    rng = np.random.default_rng(2)
    layers = (
        Layer("embed", "one_hot", 1, 11),
        Layer("gru0", "gru", 11, 16),
        Layer("head", "dense", 16, 11, "every"),
    )
    shapes = {n: s for layer in layers for n, s in layer.weight_shapes.items()}
    weights = {
        n: float_weight(rng.normal(size=s) / 4, rng.normal(size=s[0]), 3 if "gru" in n else 1)
        for n, s in shapes.items()
    }
    x: Array = rng.integers(0, 11, (300, 1)).astype(np.float32)
    return check_model(Model("text", layers, weights)), Sequences(x, np.full(10, 30))


def test_weights_are_sorted_by_what_they_read() -> None:
    reads = what_is_read(network(("lstm", "gru"))[0])
    assert reads.units == ("layer0.w_h", "layer1.w_x", "layer1.w_h")
    assert (reads.inputs, reads.symbols, reads.others) == (("layer0.w_x",), (), ("head.w",))
    assert what_is_read(network(reads="every")[0]).units == ("layer0.w_h", "head.w")
    reads = what_is_read(symbols_model()[0])
    assert (reads.symbols, reads.inputs) == (("gru0.w_x",), ())


@pytest.mark.parametrize("kind", ["last", "every", "deep", "symbols"])
def test_the_default_space_fits_every_kind_of_model(kind: str) -> None:
    if kind == "symbols":
        model, data = symbols_model()
        stats = calibrate(model, data)
    else:
        cells = ("lstm", "gru") if kind == "deep" else ("gru",)
        model, stats = network(cells, "every" if kind == "every" else "last")
    space = read_space(default_grids(model, stats))
    assert len({entry.recipe.label for entry in space}) == len(space) > 20
    assert "naive" in {entry.space for entry in space}
    platform: Any = PLATFORMS.get("systolic").from_config({"spec": "bitfusion_32x32"})
    pricer = Pricer(model, stats, platform, 30.0)
    pricer.price([entry.recipe for entry in space])  # refuses what does not fit
    for entry in space:
        chosen = choices(model, entry.recipe)
        held = [chosen[n].activity for n in what_is_read(model).symbols]
        assert held == [None] * len(held)


def test_a_space_holds_what_is_advised() -> None:
    model, stats = network()
    stats = with_states(model, stats, 4, 0.999)
    grids = advised_grids(model, advise(model, stats))
    assert [g["name"] for g in grids] == ["quantisation", "circulant", "low rank", "units", "naive"]
    space = read_space(grids)
    kept = {reduced_layers(model, e.recipe)[0].units for e in space if e.space == "units"}
    assert 8 in kept
    assert max(kept) < UNITS
    candidates, removals = options_of(model, [e.recipe for e in space if e.space != "naive"])
    assert set(candidates) == set(model.weights)
    assert {r.units for r in removals["layer0"]} == kept
    methods = {type(c.structure).__name__ for c in candidates["layer0.w_h"]}
    assert methods == {"Dense", "Circulant", "LowRank"}
    assert len(set(candidates["head.w"])) == len(candidates["head.w"])
