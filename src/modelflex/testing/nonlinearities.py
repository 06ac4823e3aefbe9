"""What every nonlinearity owes; `name` is its registered name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.extension import Nonlinearity
from modelflex.core.fixed import FX_ONE, INT32_MAX, INT32_MIN, Array
from modelflex.core.graph import Op
from modelflex.core.products import stage_row
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.execute.interpret import run
from modelflex.execute.kernels import KERNELS, NUMPY_KERNELS
from modelflex.export.artefact import save_artefact
from modelflex.importers.models import load_model
from modelflex.registry import FORMATS, NONLINEARITIES, STRUCTURES
from modelflex.testing.generators import all_configs, random_model, random_sequences
from modelflex.testing.methods import MethodSuite
from modelflex.testing.oracle import Integers, run_integers

REALS: dict[str, Callable[[float], float]] = {
    "tanh": math.tanh,
    "sigmoid": lambda x: 0.5 + 0.5 * math.tanh(x / 2),
}
TAIL = 24 * FX_ONE


def _inputs(config: Nonlinearity, function: str) -> Array:
    """Ends of fx, all breaks with their neighbours, and random numbers of all sizes."""
    rng, table = np.random.default_rng(6), config.table(function)
    breaks = np.zeros(0) if table is None else table.breaks[:: 1 + table.segments // 200]
    near = (breaks[:, None] + np.arange(-1, 2)).ravel()
    drawn = np.exp(rng.uniform(0, math.log(TAIL), 600))
    ends = [INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX]
    return np.unique(np.concatenate([ends, near, -near, drawn, -drawn]).astype(np.int32))


def _op(config: Nonlinearity, function: str) -> Op:
    table = config.table(function)
    if table is None:
        return Op(0, function, (0,), (1,))
    return Op(0, "piecewise", (0,), (1,), attrs={"table": table})


class NonlinearitySuite(MethodSuite):
    """What every nonlinearity owes."""

    registry = NONLINEARITIES

    def test_kernels_equal_plain_integers(self, name: str) -> None:
        """Both sets of kernels equal the definition in Python integers, bit for bit."""
        for config in all_configs(NONLINEARITIES.get(name)):
            for function in REALS:
                v, op = _inputs(config, function), _op(config, function)
                wanted = getattr(Integers(config), function)(v.tolist())
                for kernels in (NUMPY_KERNELS, KERNELS):
                    assert kernels.elementwise(op, [v]).tolist() == wanted

    def test_stays_within_the_stated_error(self, name: str) -> None:
        """No input's error is above `max_error`, which is no looser than ten times what is seen."""
        for config in all_configs(NONLINEARITIES.get(name)):
            for function, real in REALS.items():
                v = _inputs(config, function)
                found = NUMPY_KERNELS.elementwise(_op(config, function), [v]) / FX_ONE
                error = max(abs(y - real(x / FX_ONE)) for x, y in zip(v, found, strict=True))
                assert error <= config.max_error(function) <= 10 * error

    def test_is_a_squashing_function(self, name: str) -> None:
        """It never decreases, rest stays rest, and the ends are not reached: |h| < 1 in an LSTM."""
        for config in all_configs(NONLINEARITIES.get(name)):
            for function, (low, rest) in {"tanh": (-FX_ONE, 0), "sigmoid": (0, 1 << 15)}.items():
                v = _inputs(config, function)
                y = NUMPY_KERNELS.elementwise(_op(config, function), [v])
                assert np.diff(y).min() >= 0
                assert y[v == 0].tolist() == [rest]
                assert low < y.min()
                assert y.max() < FX_ONE

    def test_networks_compute_with_it(self, name: str, tmp_path: Path) -> None:
        """A network equals its equations in Python integers, is priced as before, and loads back."""
        rng = np.random.default_rng(2)
        model, data = random_model(rng, ["lstm"], units=8), random_sequences(rng, (9, 4), 8)
        stats = calibrate(model, data)
        wide = FORMATS.get("uniform")(8, "row", "max", "nearest")
        rules = (Rule("*", Choice(STRUCTURES.get("dense")(), wide, Activation())),)
        plain = compress(model, Recipe(rules), stats).model
        exact, tables, changed = run(build_program(plain), data).outputs, False, False
        for number, config in enumerate(all_configs(NONLINEARITIES.get(name))):
            recipe = Recipe(rules, layers=(LayerRule("*", nonlinearity=config),))
            made = compress(model, recipe, stats).model
            found = run(build_program(made), data).outputs
            assert (found * FX_ONE).tolist() == run_integers(made, data).outputs
            tables |= config.table("tanh") is not None
            changed |= not np.array_equal(found, exact)
            for layer, before in zip(made.layers, plain.layers, strict=True):
                assert stage_row((layer,), 5) == stage_row((before,), 5)
            save_artefact(made, tmp_path / str(number), recipe=recipe, provenance={})
            again = load_model(tmp_path / str(number))
            assert again.layers == made.layers
            np.testing.assert_array_equal(run(build_program(again), data).outputs, found)
        assert changed == tables

    def test_tables_take_bytes(self, name: str) -> None:
        """Some bytes are stated, and no more than four bytes of each kind for each segment."""
        for config in all_configs(NONLINEARITIES.get(name)):
            tables = [config.table(function) for function in REALS]
            segments = sum(257 if table is None else table.segments for table in tables)
            assert 0 < config.table_bytes <= 12 * segments
