"""What every recurrent cell and layer owes; `name` is its registered name."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE, Array
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe, Rule
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Execution, Interpreter, run
from modelflex.registry import ACTIVITIES, CELLS, FORMATS, LAYERS, STRUCTURES
from modelflex.search.ranges import fits
from modelflex.testing.generators import (
    Case,
    random_config,
    random_inputs,
    random_layer_model,
    random_model,
    random_recipe,
    random_sequences,
)
from modelflex.testing.native import check_native
from modelflex.testing.oracle import run_integers, run_reals
from modelflex.testing.recipes import check_footprint

FLOAT_TOLERANCE = 1e-5


class CellSuite:
    """What every recurrent cell owes, in stacks of one and two layers."""

    def _models(self, name: str) -> list[tuple[Model, Model, Sequences]]:
        """(uncompressed, compressed, data)."""
        made = []
        for seed in range(4):
            rng = np.random.default_rng(seed)
            model = random_model(
                rng, [name] * (1 + seed % 2), reads=("last", "every")[seed // 2 % 2], units=8
            )
            stats = calibrate(model, random_sequences(rng, (20, 10), 8))
            small = compress(model, random_recipe(rng, model), stats).model
            made.append((model, small, random_sequences(rng, (30, 4, 1, 11), 8)))
        return made

    def test_says_what_it_is(self, name: str) -> None:
        """A reference, states, row groups that divide the weights, additive weights that exist."""
        cell = CELLS.get(name)
        assert cell.reference.strip()
        assert cell.states
        shapes = cell.shapes(5, 12)
        assert set(cell.gates) == set(shapes)
        assert set(cell.additive) <= set(shapes)
        for weight, (rows, _) in shapes.items():
            assert rows % cell.gates[weight] == 0

    def test_float_program_equals_the_equations(self, name: str) -> None:
        """The traced float program equals the cell's equations run step by step in float64."""
        for model, _, data in self._models(name):
            floats = run(build_program(model), data)
            wanted = run_reals(model, data)
            np.testing.assert_allclose(floats.outputs, wanted, rtol=0, atol=FLOAT_TOLERANCE)
            check_native(build_program(model), data, floats)

    def test_integer_program_equals_plain_integers(self, name: str) -> None:
        """The batched interpreter equals the equations in Python integers, bit for bit, counters too."""
        for _, model, data in self._models(name):
            found = run(build_program(model), data)
            wanted = run_integers(model, data)
            check_native(build_program(model), data, found)
            assert (found.outputs * FX_ONE).tolist() == wanted.outputs
            for site, counts in wanted.counts.items():
                assert vars(found.profile.sites[site]) == vars(counts)

    def test_streaming_equals_the_whole_sequence(self, name: str) -> None:
        """Steps fed one at a time with the carried state give the same result, bit for bit."""
        for _, model, _ in self._models(name):
            data = random_sequences(np.random.default_rng(9), (12, 12, 12), 8)
            interpreter = Interpreter(build_program(model))
            whole = interpreter.run(data)
            outputs, last = stream(interpreter, data)
            if model.per_step:
                np.testing.assert_array_equal(whole.outputs.reshape(3, 12, -1), outputs)
            else:
                np.testing.assert_array_equal(whole.outputs, outputs[:, -1])
            for stage, slots in whole.state.items():
                for slot, value in slots.items():
                    np.testing.assert_array_equal(value, last.state[stage][slot])

    def test_ragged_batches_equal_single_sequences(self, name: str) -> None:
        """A sequence's result does not depend on what lies beside it in the batch."""
        for _, model, data in self._models(name):
            interpreter = Interpreter(build_program(model))
            alone = [interpreter.run(data.take(np.array([i]))).outputs for i in range(data.count)]
            np.testing.assert_array_equal(interpreter.run(data).outputs, np.concatenate(alone))

    def test_additive_biases_may_be_merged(self, name: str) -> None:
        """Moving the biases of `additive` weights to one of them leaves the outputs as they are."""
        cell = CELLS.get(name)
        if len(cell.additive) < 2:
            return
        rng = np.random.default_rng(3)
        model = random_model(rng, [name], reads="every", units=8)
        data = random_sequences(rng, (10,), 8)
        names = [f"layer0.{w}" for w in cell.additive]
        shape = model.weights[names[0]].shape
        apart, merged = {}, {}
        biases = [rng.normal(size=shape[0]) for _ in names]
        for i, full in enumerate(names):
            old = model.weights[full]
            apart[full] = float_weight(old.dense(), biases[i], old.gates)
            total = np.sum(biases, axis=0) if i == 0 else None
            merged[full] = float_weight(old.dense(), total, old.gates)
        one, other = (run_reals(model.with_weights(w), data) for w in (apart, merged))
        np.testing.assert_allclose(one, other, rtol=0, atol=FLOAT_TOLERANCE)


class LayerSuite:
    """What every layer without recurrence owes, at each of its example sizes."""

    def _models(self, name: str) -> list[tuple[Model, Model, Sequences]]:
        """(uncompressed, compressed, data): the layer and what reads it, under two recipes each."""
        made = []
        for seed, sizes in enumerate((*LAYERS.get(name).examples, *LAYERS.get(name).examples)):
            rng = np.random.default_rng(seed)
            reads = ("every", "last")[seed % 2]
            model = random_layer_model(rng, name, sizes, reads)
            stats = calibrate(model, random_inputs(rng, (20, 10), model))
            small = compress(model, random_recipe(rng, model), stats).model
            made.append((model, small, random_inputs(rng, (9, 4, 1, 6), model)))
        return made

    def test_says_what_it_is(self, name: str) -> None:
        """A reference, and examples that state every option of its kind that must be."""
        layer = LAYERS.get(name)
        assert layer.reference.strip()
        assert layer.examples
        for sizes in layer.examples:
            assert set(sizes.options) <= set(layer.options)
            assert all(sizes.options.get(o, d) is not None for o, d in layer.options.items())

    def test_float_program_equals_the_equations(self, name: str) -> None:
        """The traced float program equals the layer's equations in float64, to rounding."""
        for model, _, data in self._models(name):
            floats = run(build_program(model), data)
            wanted = run_reals(model, data)
            np.testing.assert_allclose(floats.outputs, wanted, rtol=0, atol=FLOAT_TOLERANCE)
            check_native(build_program(model), data, floats)

    def test_integer_program_equals_plain_integers(self, name: str) -> None:
        """The batched interpreter equals the equations in Python integers, bit for bit, counters too."""
        for _, model, data in self._models(name):
            found, wanted = run(build_program(model), data), run_integers(model, data)
            check_native(build_program(model), data, found)
            assert (found.outputs * FX_ONE).tolist() == wanted.outputs
            for site, counts in wanted.counts.items():
                assert vars(found.profile.sites[site]) == vars(counts)

    def test_streaming_equals_the_whole_sequence(self, name: str) -> None:
        """Steps fed one at a time with the carried state give the same result, bit for bit."""
        for _, model, _ in self._models(name):
            data = random_inputs(np.random.default_rng(9), (7, 7), model)
            interpreter = Interpreter(build_program(model))
            whole, (outputs, _) = interpreter.run(data).outputs, stream(interpreter, data)
            wanted = outputs.reshape(whole.shape) if model.per_step else outputs[:, -1]
            np.testing.assert_array_equal(whole, wanted)

    def test_ragged_batches_equal_single_sequences(self, name: str) -> None:
        """A sequence's result does not depend on what lies beside it in the batch."""
        for _, model, data in self._models(name):
            interpreter = Interpreter(build_program(model))
            alone = [interpreter.run(data.take(np.array([i]))).outputs for i in range(data.count)]
            np.testing.assert_array_equal(interpreter.run(data).outputs, np.concatenate(alone))

    def test_every_method_takes_its_weights(self, name: str) -> None:
        """Each structure, format and activity: equal to plain integers, counters too, and priced right."""
        for number, sizes in enumerate(LAYERS.get(name).examples):
            rng = np.random.default_rng(number)
            model = random_layer_model(rng, name, sizes, "every")
            stats = calibrate(model, random_inputs(rng, (20, 10), model))
            data = random_inputs(rng, (5, 3), model)
            own = [(n, w.shape) for n, w in model.weights.items() if n.startswith("layer0.")]
            for weight, choice in [(n, c) for n, shape in own for c in _each_method(rng, shape)]:
                recipe = Recipe((Rule(weight, choice),))
                case = Case(model, stats, recipe, compress(model, recipe, stats), data)
                found, wanted = run(case.program, data), run_integers(case.made.model, data)
                assert (found.outputs * FX_ONE).tolist() == wanted.outputs
                for site, counts in wanted.counts.items():
                    assert vars(found.profile.sites[site]) == vars(counts)
                check_footprint(case, found)
                check_native(case.program, data, found)

    def test_both_ways_of_pricing_agree(self, name: str) -> None:
        """Rows from footprints equal rows from the program, for compressed and float networks."""
        for seed, sizes in enumerate(LAYERS.get(name).examples):
            rng = np.random.default_rng(seed)
            model = random_layer_model(rng, name, sizes, "every")
            stats = calibrate(model, random_inputs(rng, (20, 10), model))
            recipe = random_recipe(rng, model)
            data = random_inputs(rng, (9, 4), model)
            made = compress(model, recipe, stats)
            case = Case(model, stats, recipe, made, data)
            check_footprint(case, run(case.program, data))


def _each_method(rng: np.random.Generator, shape: tuple[int, int]) -> list[Choice]:
    """Every structure that fits a weight, every format and every activity, each with others drawn."""
    structures = [
        config
        for kind in STRUCTURES.names()
        if (config := _fitting(rng, STRUCTURES.get(kind), shape)) is not None
    ]
    formats = [random_config(rng, FORMATS.get(kind)) for kind in FORMATS.names()]
    activities = [random_config(rng, ACTIVITIES.get(kind)) for kind in ACTIVITIES.names()]
    count = max(map(len, (structures, formats, activities)))
    return [
        Choice(
            structures[number % len(structures)],
            formats[(number + number // len(structures)) % len(formats)],
            Activation(8),
            (None, *activities)[number % (1 + len(activities))],
        )
        for number in range(2 * count)
    ]


def _fitting(rng: np.random.Generator, kind: Any, shape: tuple[int, int]) -> Any:
    """A configuration that takes a weight of `shape`, or None where none of some draws does."""
    drawn = (random_config(rng, kind) for _ in range(20))
    return next((config for config in drawn if fits(config, shape)), None)


def stream(interpreter: Interpreter, data: Sequences) -> tuple[Array, Execution]:
    """Run sequences of equal length one step at a time: outputs [N, T, K] and the last execution."""
    steps = int(data.lengths[0])
    x = data.x.reshape(data.count, steps, -1)
    ones = np.ones(data.count, np.int64)
    run = interpreter.run(Sequences(x[:, 0], ones))
    outputs = [run.outputs]
    for t in range(1, steps):
        run = interpreter.run(Sequences(x[:, t], ones), state=run.state)
        outputs.append(run.outputs)
    return np.stack(outputs, axis=1), run
