"""What the main job's benchmark may choose from, and its rules of choice: validation data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _seeds import Seed, Table

from modelflex.core.fixed import Array
from modelflex.core.recipe import Recipe
from modelflex.search.config import Config
from modelflex.search.driver import Driver, pick
from modelflex.search.space import SpaceRecipe, read_space
from modelflex.search.store import Store
from modelflex.search.workers import Workers

LOSS_POINTS, FETCH_RATIO, SIZE_RATIO = 1.0, 200.0, 40.0
AWARE, NAIVE, NAIVE_8 = (
    ("data-aware", "quantisation"),
    ("naive", "naive, finer"),
    ("naive, 8-bit activations",),
)


def naive_grid(name: str, bits: list[int], activation: int | str) -> dict[str, Any]:
    """The paper's methods over finer bits and thresholds."""
    form = {
        "method": "uniform", "bits": "$bits", "scales": "tensor", "clip": "max",
        "rounding": "nearest",
    }  # fmt: skip
    common = {"format": form, "activation": {"bits": activation}}
    x = {"method": "delta", "threshold": "$theta_x", "unit": "std"}
    h = {"method": "delta", "threshold": "$theta_h"}
    circulant = {"method": "circulant", "block": "$block", "fit": "mean"}
    return {
        "name": name,
        "vary": {
            "bits": bits,
            "block": [1, 2, 4],
            "theta_x": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
            "theta_h": [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
        },
        "rules": [
            {"weights": "*.w_x", "structure": {"method": "dense"}, "activity": x, **common},
            {"weights": "*.w_h", "structure": circulant, "activity": h, **common},
            {"weights": "head.*", "structure": {"method": "dense"}, **common},
        ],
    }


def read_recipes(config: Config) -> list[SpaceRecipe]:
    finer = naive_grid("naive, finer", [2, 3, 4, 5, 6, 8], "$bits")
    eight = naive_grid("naive, 8-bit activations", [2, 3, 4, 5, 6], 8)
    return read_space([*config.space, finer, eight])


def one_recipe(table: Table) -> int | None:
    """The data-aware recipe for all seeds."""
    allowed = (
        table.of(*AWARE)
        & (table.fetch_ratio.min(axis=1) >= FETCH_RATIO)
        & (table.size_ratio.min(axis=1) >= SIZE_RATIO)
        & (table.loss.mean(axis=1) <= LOSS_POINTS + 1e-9)
    )
    return table.least(table.divergence.mean(axis=1), allowed)


def fewest_bytes(table: Table, spaces: tuple[str, ...], value: Array, limit: float) -> int | None:
    """The recipe of these spaces that fetches least with a mean `value` within the limit."""
    allowed = table.of(*spaces) & (value.mean(axis=1) <= limit + 1e-9)
    return table.least(table.fetch.mean(axis=1), allowed)


def own_picks(seeds: list[Seed], config: Config, folder: Path, jobs: int) -> list[Recipe | None]:
    """What `modelflex search` picks for each seed."""
    picks = []
    for seed in seeds:
        space = read_space(config.space)
        driver = Driver(
            seed.problem, seed.pricer, space, config.limits, config.objective, seed.baseline
        )
        store = Store(folder / f"seed{seed.number}.sqlite")
        try:
            with Workers(seed.problem, jobs) as pool:
                driver.run(store, pool)
        finally:
            store.close()
        best = pick(driver.trials(seed.problem.seed, {}), config.objective)
        picks.append(None if best is None else best.recipe)
    return picks
