"""Zeros left out: the same results, and only what is not 0 counted and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelflex.activities.delta import Delta
from modelflex.activities.nonzero import Nonzero
from modelflex.compress.choices import bias_carriers, choices
from modelflex.core.data import Sequences
from modelflex.core.extension import Fit
from modelflex.core.fixed import Scale
from modelflex.core.part import pack_bias
from modelflex.core.program import hoistable_sites
from modelflex.core.recipe import Activation, Choice, Recipe, Rule
from modelflex.core.tracer import Activity, Link
from modelflex.core.weight import Weight
from modelflex.formats.uniform import Uniform
from modelflex.structures.circulant import Circulant
from modelflex.structures.dense import Dense
from modelflex.testing.generators import make_fit, random_model, run_weight, weight_program


def make_weight(activity: Activity | None, block: int) -> Weight:
    rng = np.random.default_rng(0)
    link = Link(8, Scale.power_of_two(4), activity)
    fit: Fit = make_fit(rng.normal(size=(16, 8)), None, Uniform(8), link)
    weight: Weight = Circulant(block, "mean").fit_weight(fit)
    return weight.with_bias(pack_bias(rng.normal(size=16), weight.accumulator_scale(), 16))


@pytest.mark.parametrize("block", [1, 2, 4])
def test_results_are_those_of_the_full_product_and_zeros_are_not_counted(block: int) -> None:
    """Inputs after a ReLU: a code below half a step is 0, and its column is not read."""
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(size=(50, 8)), 0).astype(np.float32)
    data = Sequences(x, np.array([30, 20]))
    made, full = (run_weight(make_weight(a, block), data) for a in (Nonzero(), None))
    np.testing.assert_array_equal(made.outputs, full.outputs)
    active = units = 0
    for row in x.tolist():
        used = [int(np.floor(v * 16 + 0.5)) != 0 for v in row]
        active += sum(used)
        units += sum(any(used[k : k + block]) for k in range(0, 8, block))
    assert 0 < active < 400
    counts = made.profile.sites["w/0"]
    assert (counts.runs, counts.units, counts.active) == (50, units, active)


def test_one_column_of_a_one_hot_input_is_read() -> None:
    x = np.eye(8, dtype=np.float32)[np.arange(20) % 8]
    run = run_weight(make_weight(Nonzero(), 1), Sequences(x, np.array([20])))
    assert run.profile.sites["w/0"].units == 20


def test_it_keeps_nothing_and_may_be_hoisted() -> None:
    program = weight_program(make_weight(Nonzero(), 1), 8)
    assert not program.stages[0].graph.state
    assert hoistable_sites(program) == {"w/0"}
    assert hoistable_sites(weight_program(make_weight(Delta(0.1), 1), 8)) == frozenset()


@pytest.mark.parametrize(("other", "holder"), [(None, "layer0.w_x"), (Delta(0.1), "layer0.w_h")])
def test_a_bias_goes_where_it_is_read_once_a_sequence(other: Any, holder: str) -> None:
    model = random_model(np.random.default_rng(0), ["lstm"])

    def choice(activity: Activity | None) -> Choice:
        return Choice(Dense(), Uniform(4), Activation(8), activity)

    rules = (Rule("*.w_x", choice(Nonzero())), Rule("*", choice(other)))
    carriers = bias_carriers(model, choices(model, Recipe(rules)))
    assert carriers[holder] == ("layer0.w_x", "layer0.w_h")
