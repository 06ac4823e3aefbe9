"""Which products may run for all time steps at once: footprints and programs say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.products import ProductTable, program_table
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.execute.interpret import run
from modelflex.platforms.systolic import Systolic
from modelflex.registry import CELLS
from modelflex.search.pricing import Pricer
from modelflex.testing.generators import random_model, random_sequences
from modelflex.testing.recipes import TableKeeper

DELTA = {"method": "delta", "threshold": 0.2}


def recipe(activities: dict[str, bool], structure: dict[str, Any] | None = None) -> Any:
    """8 bits; `activities` says, by pattern, which weights are under delta."""
    rules = [
        {
            "weights": weights,
            "structure": structure or {"method": "dense"},
            "format": {"method": "uniform", "bits": 8, "scales": "tensor"},
            **({"activity": DELTA} if delta else {}),
        }
        for weights, delta in activities.items()
    ]
    return recipe_from_json({"schema": "modelflex.recipe/1", "rules": rules})


def hoistable(table: ProductTable) -> dict[str, bool]:
    """Of the products, by site."""
    return {
        str(site): bool(flag)
        for site, layout, flag in zip(
            table["site"], table["layout"], table["hoistable"], strict=True
        )
        if layout
    }


def both_ways(cells: Sequence[str], reads: str, chosen: Any) -> tuple[dict[str, bool], ...]:
    """From the footprints of a recipe before it is applied, and from the program it makes."""
    rng = np.random.default_rng(4)
    model = random_model(rng, cells, reads=reads)
    data = random_sequences(rng, (5, 3, 6), model.inputs)
    stats = calibrate(model, data)
    program = build_program(compress(model, chosen, stats).model)
    ran = run(program, data)
    measured, expected = TableKeeper(), TableKeeper()
    Pricer(model, stats, measured, data.mean_length).cost(chosen, ran.profile)
    Pricer(model, stats, expected, data.mean_length).cost(chosen)
    before = hoistable(expected.table)
    assert before == hoistable(measured.table)
    return before, hoistable(program_table(program, ran.profile, model))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("block", [1, 4])
def test_products_with_the_input_may_run_at_once(cell: str, block: int) -> None:
    """Of every layer, as the one below may have been through; those with the state may not."""
    structure = {"method": "circulant", "block": block}
    expected = {
        "layer0.w_x/0": True,
        "layer0.w_h/0": False,
        "layer1.w_x/0": True,
        "layer1.w_h/0": False,
        "head.w/0": True,
    }
    for found in both_ways([cell, cell], "every", recipe({"*": False}, structure)):
        assert found == expected


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_head_that_reads_the_last_step_has_no_steps_to_join(cell: str) -> None:
    expected = {"layer0.w_x/0": True, "layer0.w_h/0": False, "head.w/0": False}
    for found in both_ways([cell], "last", recipe({"*": False})):
        assert found == expected


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_delta_carries_state_from_step_to_step(cell: str) -> None:
    chosen = recipe({"layer0.*": True, "*": False})
    expected = {
        "layer0.w_x/0": False,
        "layer0.w_h/0": False,
        "layer1.w_x/0": True,
        "layer1.w_h/0": False,
        "head.w/0": True,
    }
    for found in both_ways([cell, cell], "every", chosen):
        assert found == expected


@pytest.mark.parametrize("cell", CELLS.names())
def test_what_hangs_on_the_past_is_told_by_changing_it(cell: str) -> None:
    """Two sequences that differ in the first step alone: what enters a product at the second one is
    the same if and only if it may run at once.
    """
    rng = np.random.default_rng(1)
    model = random_model(rng, [cell], reads="every")
    program = build_program(model)
    x = rng.normal(size=(4, model.inputs)).astype(np.float32)
    x[3] = x[1]
    data = Sequences(x, np.array([2, 2]))
    ran = run(program, data, capture=True)
    flags = hoistable(program_table(program, ran.profile, model))
    assert set(flags) == set(program.products)
    for site, flag in flags.items():
        if site.startswith("head"):
            continue  # it reads a layer's results, which are known once that layer is through
        seen = ran.inputs[site]
        assert np.array_equal(seen[1], seen[3]) == flag, site


def test_known_sequences_are_cheaper_by_the_products_that_run_at_once() -> None:
    """Two layers of LSTM from their program: fetched bytes of a step, weight by weight."""
    rng = np.random.default_rng(4)
    model = random_model(rng, ["lstm", "lstm"], reads="last")
    data = random_sequences(rng, (6, 6), model.inputs)
    chosen = recipe({"*": False})
    made = compress(model, chosen, calibrate(model, data)).model
    program = build_program(made)
    table = program_table(program, run(program, data).profile, made)
    streaming, sequence = (
        Systolic.from_config({"workload": w}).cost(table) for w in ("streaming", "sequence")
    )
    once = sum(made.weights[f"layer{i}.w_x"].nbytes for i in (0, 1))
    assert streaming.dram_bytes_per_step is not None
    assert sequence.dram_bytes_per_step == pytest.approx(
        streaming.dram_bytes_per_step - once * (1 - 1 / 6)
    )
