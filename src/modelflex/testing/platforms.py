"""What every platform owes; `name` is its registered name."""

from __future__ import annotations

import dataclasses

import numpy as np

from modelflex.core.cost import COST_UNITS
from modelflex.core.products import program_table
from modelflex.registry import PLATFORMS
from modelflex.search.limits import optimistic_values
from modelflex.search.pricing import Pricer, baseline_cost
from modelflex.search.problem import run_network
from modelflex.search.targets import ready_platform
from modelflex.testing.generators import random_recipe
from modelflex.testing.recipes import cached_case, executed


class PlatformSuite:
    """What every platform owes with its default options."""

    def test_says_what_it_assumes(self, name: str) -> None:
        """A reference, and a description for the report."""
        assert PLATFORMS.get(name).reference.strip()
        assert ready_platform(name, {}).description

    def test_many_recipes_cost_what_each_costs_alone(self, name: str) -> None:
        """`combine` over many recipes equals `cost` of one; costs are finite and not negative."""
        case = cached_case(0)
        rng = np.random.default_rng(0)
        recipes = [random_recipe(rng, case.model) for _ in range(8)]
        pricer = Pricer(case.model, case.stats, ready_platform(name, {}), 7.0)
        expected, low, high = pricer.price(recipes)
        assert set(expected) <= set(COST_UNITS)
        for i, recipe in enumerate(recipes):
            cost = pricer.cost(recipe)
            for field, values in expected.items():
                alone = getattr(cost, field)
                assert (alone is None) == bool(np.isnan(values[i])), field
                if alone is not None:
                    np.testing.assert_allclose(values[i], alone, rtol=1e-9, err_msg=field)
                    assert np.isfinite(alone)
                    assert alone >= 0
        least, most = (optimistic_values(low, high, kind) for kind in ("max", "min"))
        for field, values in expected.items():
            known = ~np.isnan(values)
            slack = 1e-9 * np.abs(values[known]) + 1e-15
            assert np.all(least[field][known] <= values[known] + slack), field
            assert np.all(most[field][known] >= values[known] - slack), field

    def test_measured_recipes_cost_what_their_programs_cost(self, name: str) -> None:
        """Pricing by footprint and counters equals pricing the program itself, breakdowns included."""
        platform = ready_platform(name, {})
        for seed in range(4):
            case, ran = cached_case(seed), executed(seed)
            pricer = Pricer(case.model, case.stats, platform, case.data.mean_length)
            cost = pricer.cost(case.recipe, ran.profile)
            table = program_table(case.program, ran.profile, case.model)
            assert dataclasses.asdict(cost) == dataclasses.asdict(platform.cost(table))
            assert cost.weight_bytes == case.made.model.weight_bytes
            if cost.energy_breakdown_j and cost.energy_per_step_j is not None:
                total = sum(cost.energy_breakdown_j.values())
                np.testing.assert_allclose(total, cost.energy_per_step_j, rtol=1e-9)

    def test_the_uncompressed_network_has_a_cost(self, name: str) -> None:
        """Float weights are priced or not (None), but their bytes are always known."""
        case = cached_case(1)
        _, profile = run_network(case.model, case.data)
        cost = baseline_cost(case.model, profile, ready_platform(name, {}))
        assert cost.weight_bytes == case.model.weight_bytes
        assert cost.weight_fetch_bytes_per_step is not None
