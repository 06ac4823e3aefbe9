"""What every removal of hidden units owes; `name` is its registered name."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.compress.choices import may_lose_units
from modelflex.core.fixed import FX_ONE, Array
from modelflex.core.recipe import LayerRule, Recipe
from modelflex.execute.interpret import run
from modelflex.registry import CELLS, REMOVALS
from modelflex.testing.generators import (
    Case,
    all_configs,
    draw,
    random_model,
    random_rules,
    random_sequences,
)
from modelflex.testing.methods import MethodSuite
from modelflex.testing.oracle import run_integers
from modelflex.testing.recipes import check_footprint

SPARE = 3


class RemovalSuite(MethodSuite):
    """What every removal owes."""

    registry = REMOVALS
    naive_of_the_same_method = False

    def _problems(self, name: str) -> list[tuple[Any, Array, Array]]:
        """(configuration, outgoing weights, covariance) of correlated, repeated, dead and idle units."""
        rng = np.random.default_rng(0)
        made = []
        for config in all_configs(REMOVALS.get(name)):
            n = config.units + SPARE
            outgoing, states = rng.normal(size=(24, n)), rng.normal(size=(3 * n, n))
            few = np.cov(states[:3].T)
            states[:, 0], states[:, 1] = states[:, 2], 0.0
            idle = outgoing * (np.arange(n) > 0)
            cov = np.cov(states.T)
            for own in ((outgoing, cov), (idle, cov), (outgoing, few), (outgoing, 0 * cov)):
                made.append((config, *own))
        return made

    def test_keeps_as_many_units_as_it_says(self, name: str) -> None:
        """Their numbers increase and are those of units; all stay where as many are wanted."""
        for config, outgoing, covariance in self._problems(name):
            with np.errstate(all="raise"):
                kept = config.kept(outgoing, covariance, 0)
            assert kept.shape == (config.units,)
            assert np.all(np.diff(kept) > 0)
            assert kept[0] >= 0
            assert kept[-1] < outgoing.shape[1]
            every = slice(0, config.units)
            all_of_them = config.kept(outgoing[:, every], covariance[every, every], 0)
            assert all_of_them.tolist() == list(range(config.units))

    def test_the_same_problem_has_the_same_answer(self, name: str) -> None:
        """Twice the same units, and the arguments stay as they are."""
        for config, outgoing, covariance in self._problems(name):
            before = outgoing.copy(), covariance.copy()
            kept = [config.kept(outgoing, covariance, 1).tolist() for _ in range(2)]
            assert kept[0] == kept[1]
            np.testing.assert_array_equal(outgoing, before[0])
            np.testing.assert_array_equal(covariance, before[1])

    def test_the_naive_variant_keeps_as_many_without_data(self, name: str) -> None:
        """It keeps as many units, and the same ones whatever the data are."""
        for config, outgoing, covariance in self._problems(name):
            naive = config.naive()
            assert naive.units == config.units
            other = np.eye(len(covariance)) + covariance[::-1, ::-1]
            one, two = (naive.kept(outgoing, c, 0).tolist() for c in (covariance, other))
            assert one == two

    def test_networks_run_and_are_priced_without_the_units(self, name: str) -> None:
        """In every cell whose units can go: sizes as foretold, results equal to plain integers, both
        prices equal.
        """
        for number, kind in enumerate(CELLS.names()):
            rng = np.random.default_rng(number)
            model = random_model(rng, [kind, kind], reads="every")
            if CELLS.get(kind).augments is not None:
                assert not may_lose_units(model, "layer0")
                continue
            stats = calibrate(model, random_sequences(rng, (20, 15), 8))
            config = next(c for c in all_configs(REMOVALS.get(name)) if c.units == 8)
            layers = (LayerRule("layer*", draw(rng, (config, config.naive()))),)
            recipe = Recipe(random_rules(rng, model, layers), 1, layers=layers)
            data = random_sequences(rng, (9, 4), 8)
            case = Case(model, stats, recipe, compress(model, recipe, stats), data)
            found, wanted = run(case.program, data), run_integers(case.made.model, data)
            assert (found.outputs * FX_ONE).tolist() == wanted.outputs
            assert [layer.units for layer in case.made.model.layers] == [8, 8, 4]
            check_footprint(case, found)
