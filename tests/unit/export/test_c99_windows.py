"""Exported C99 of convolutions: the memory in which windows are gathered."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.planner import make_plan
from modelflex.core.program import build_program
from modelflex.core.recipe import Recipe
from modelflex.export.c99 import make_files
from modelflex.registry import LAYERS
from modelflex.testing.generators import random_inputs, random_layer_model, random_rules


@pytest.mark.parametrize("seed", range(6))
def test_memory_of_windows_is_part_of_the_plan(seed: int) -> None:
    """What a window sees: the inputs of the kernel, codes of 16 bits or differences of 32."""
    rng = np.random.default_rng(seed)
    model = random_layer_model(rng, "conv2d", LAYERS.get("conv2d").examples[0], "every")
    stats = calibrate(model, random_inputs(rng, (9, 14, 5), model))
    made = compress(model, Recipe(random_rules(rng, model)), stats).model
    program = build_program(made)
    ops = [op for stage in program.stages for op in stage.graph.ops]
    differences = {op.site for op in ops if op.kind == "accumulate"}
    wanted = max(
        product.geometry.inputs * (4 if site in differences else 2)
        for site, product in program.products.items()
        if product.windows is not None
    )
    plan = make_plan(program, alignment=8)
    assert plan.seen_bytes == -(-wanted // 8) * 8
    assert plan.ram_bytes == plan.state_bytes + plan.scratch_bytes + plan.seen_bytes
    found = make_files(made)[1]["bytes"]["ram"]
    assert plan.ram_bytes - 8 * len(plan.buffers) <= found <= plan.ram_bytes
    assert make_plan(build_program(model)).seen_bytes == 0
