"""What every structure, number format and activity owes; `name` is its registered name.

Use: parametrise a subclass by the names of a registry (see the package's docstring).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from modelflex.core.extension import Format, Structure
from modelflex.core.fixed import FX_ONE, Array, Scale
from modelflex.core.part import FLOAT_BITS, Part, pack_bias
from modelflex.core.products import STATE_BYTES, bias_bits
from modelflex.core.recipe import read_config
from modelflex.core.storage import pack_codes, unpack_codes
from modelflex.core.tracer import Activity, Link
from modelflex.core.weight import Matrix, Weight
from modelflex.registry import ACTIVITIES, FORMATS, STRUCTURES, Registry
from modelflex.testing.generators import (
    all_configs,
    fits,
    integer_matrix,
    make_moments,
    random_sequences,
    run_weight,
    weight_program,
)
from modelflex.testing.oracle import Affine, Counts, fx

GATES = 4
SHAPES = ((16, 16), (48, 8), (4, 12), (32, 48))


class MethodSuite:
    """What the methods of all axes owe."""

    registry: Registry

    def test_reference_says_where_it_comes_from(self, name: str) -> None:
        """A method has a reference that is not empty."""
        assert self.registry.get(name).reference.strip()

    def test_search_range_names_fields_and_holds_accepted_values(self, name: str) -> None:
        """Keys of `search_range` are fields, no range is empty, and each value passes the checks."""
        kind = self.registry.get(name)
        assert kind.search_range
        assert set(kind.search_range) <= {f.name for f in dataclasses.fields(kind)}
        assert all(len(values) > 0 for values in kind.search_range.values())
        assert all_configs(kind)

    def test_configurations_survive_json(self, name: str) -> None:
        """A configuration read back from its JSON is equal."""
        kind = self.registry.get(name)
        for config in all_configs(kind):
            text = json.dumps(dataclasses.asdict(config))
            assert read_config(kind, json.loads(text), name) == config
            assert self.registry.name_of(type(config)) == name

    def test_naive_variant_needs_no_data_and_is_its_own(self, name: str) -> None:
        """`naive` gives a variant of the same method that is not data-aware and its own naive one."""
        for config in all_configs(self.registry.get(name)):
            naive = config.naive()
            assert type(naive) is type(config)
            assert naive.naive() == naive
            assert not getattr(naive, "data_aware", False)


class FormatSuite(MethodSuite):
    """What every number format owes."""

    registry = FORMATS

    def _cases(self, name: str) -> list[tuple[Format, Array, Array | None]]:
        rng = np.random.default_rng(0)
        spread = rng.normal(size=(40, 12))
        hessian = spread.T @ spread / 40
        values = rng.normal(size=(8, 12)) * np.exp(rng.normal(size=(8, 1)))
        some_zero = values * (np.arange(8) % 3 > 0)[:, None]
        arrays = [
            values,
            some_zero,
            np.zeros((8, 12)),
            values * 1e-6,
            values * 1e4,
            np.ones((8, 12)),
        ]
        return [
            (config, array, h)
            for config in all_configs(FORMATS.get(name))
            for array in arrays
            for h in (None, hessian)
        ]

    def test_codes_lie_on_their_grid(self, name: str) -> None:
        """Codes have the shape of the values and survive packing into the bits that are stated."""
        for config, values, hessian in self._cases(name):
            part = config.encode(values, hessian, GATES)
            assert part.codes.shape == values.shape
            assert part.bits == config.stored_bits
            packed = pack_codes(part)
            assert packed.nbytes == part.code_bytes
            back = unpack_codes(packed, part.codes.shape, part.bits, part.odd)
            assert np.array_equal(back, part.codes)

    def test_scales_are_counted_before_they_are_made(self, name: str) -> None:
        """`scale_count` tells the scales that `encode` stores; they are positive."""
        for config, values, hessian in self._cases(name):
            part = config.encode(values, hessian, GATES)
            assert part.scale is not None
            assert part.scale.mantissa.size == config.scale_count(values.shape[0], GATES)
            assert part.scale.mantissa.size * part.rows_per_scale == values.shape[0]
            assert part.scale.mantissa.min() >= 1

    def test_values_come_near(self, name: str) -> None:
        """Encoding is better than storing zeros by far at 8 and more bits, and never much worse."""
        for config, values, hessian in self._cases(name):
            error = config.encode(values, hessian, GATES).value() - values
            weighed = np.eye(values.shape[1]) if hessian is None else hessian
            lost, all_lost = (float(np.einsum("ri,ij,rj", e, weighed, e)) for e in (error, values))
            if config.stored_bits >= 8:
                assert lost <= 0.02 * all_lost + 1e-12 or np.all(values == 0)


class StructureSuite(MethodSuite):
    """What every structure of a single product owes, in every format."""

    registry = STRUCTURES

    def _weights(self, name: str) -> list[tuple[Structure, Format, Weight, Array]]:
        rng = np.random.default_rng(1)
        made = []
        formats = [f for kind in FORMATS.names() for f in all_configs(FORMATS.get(kind))]
        for number, config in enumerate(all_configs(STRUCTURES.get(name))):
            for shape in SHAPES:
                if not fits(config, shape):
                    continue
                matrix = rng.normal(size=shape)
                trace = rng.normal(size=(60, shape[1]))
                held = trace + 0.1 * rng.normal(size=trace.shape)
                seen = make_moments(matrix, trace, held) if config.data_aware else None
                for encode in formats[number % 3 :: 3]:
                    # Scales are shared by rows of the stored array, so its rows must divide.
                    if config.geometries(*shape)[-1][1].rows % GATES:
                        continue
                    link = Link(8, Scale.nearest(4 / 128))
                    weight = config.fit_weight(matrix, seen, encode, GATES, (link,))
                    units = weight.accumulator_scale()
                    bias = pack_bias(
                        rng.normal(size=shape[0]), units, bias_bits(encode.stored_bits)
                    )
                    made.append((config, encode, weight.with_bias(bias), matrix))
        assert made
        return made

    def test_lowered_equals_dense_exactly(self, name: str) -> None:
        """Executing `lower(w)` equals `dense(w)·x + bias` in Python integers, bit for bit."""
        rng = np.random.default_rng(2)
        for _, _, weight, matrix in self._weights(name):
            data = random_sequences(rng, (3, 1), matrix.shape[1])
            product = weight_program(weight, matrix.shape[1]).products["w/0"]
            affine = Affine(weight, product.geometry, Counts())
            wanted = [affine([fx(v) for v in row]) for row in data.x.tolist()]
            assert (run_weight(weight, data).outputs * FX_ONE).tolist() == wanted

    def test_float_lowering_equals_dense_to_rounding(self, name: str) -> None:
        """The same weight with float values and no link multiplies in floats."""
        rng = np.random.default_rng(3)
        for _, _, weight, matrix in self._weights(name):
            parts = tuple(Part(p.value().astype(np.float32), FLOAT_BITS) for p in weight.parts)
            bias = Part(weight.bias_value().astype(np.float32), FLOAT_BITS)
            floats = dataclasses.replace(weight, parts=parts, bias=bias, links=())
            data = random_sequences(rng, (5,), matrix.shape[1])
            wanted = data.x.astype(np.float64) @ floats.dense().T + floats.bias_value()
            np.testing.assert_allclose(run_weight(floats, data).outputs, wanted, rtol=0, atol=3e-4)

    def test_geometries_foretell_the_weight(self, name: str) -> None:
        """Codes, rows, sizes and layout are known before anything is compressed."""
        for config, encode, weight, matrix in self._weights(name):
            assert weight.shape == matrix.shape == weight.dense().shape
            assert isinstance(weight, Matrix)
            ((layout, geometry),) = config.geometries(*matrix.shape)
            product = weight_program(weight, matrix.shape[1]).products["w/0"]
            assert (product.layout, product.geometry) == (layout, geometry)
            assert geometry.codes == weight.parts[0].codes.size
            assert geometry.codes == geometry.units * geometry.unit_codes
            assert geometry.inputs == geometry.units * geometry.block
            assert geometry.rows == weight.parts[0].codes.shape[0]
            assert weight.parts[0].bits == encode.stored_bits

    def test_stands_for_the_matrix(self, name: str) -> None:
        """Every configuration is a projection: a matrix that it can hold comes back (16 bits)."""
        fine = FORMATS.get("uniform")(16, "row", "max", "nearest")
        for config, _, weight, _ in self._weights(name):
            again = config.naive().fit_weight(weight.dense(), None, fine, 1, weight.links)
            size = np.abs(weight.dense()).max(initial=1e-9)
            np.testing.assert_allclose(again.dense(), weight.dense(), rtol=0, atol=size * 1e-4)


class ActivitySuite(MethodSuite):
    """What every activity owes."""

    registry = ACTIVITIES

    def _weight(self, activity: Activity, bits: int, block: int) -> Weight:
        rng = np.random.default_rng(4)
        structure: Any = STRUCTURES.get("circulant")(block, "mean")
        encode = FORMATS.get("uniform")(4, "row", "max", "nearest")
        link = Link(bits, Scale.nearest(4 / 2 ** (bits - 1)), activity)
        weight: Weight = structure.fit_weight(rng.normal(size=(16, 8)), None, encode, 1, (link,))
        return weight.with_bias(pack_bias(rng.normal(size=16), weight.accumulator_scale(), 8))

    def _runs(self, name: str) -> list[tuple[Activity, Weight, Any, Any, Array, Array]]:
        data = random_sequences(np.random.default_rng(5), (60, 1, 25), 8)
        made = []
        for config in all_configs(ACTIVITIES.get(name)):
            activity = config.resolve(1.0)
            for bits, block in ((8, 1), (8, 4), (3, 2), (16, 1)):
                weight = self._weight(activity, bits, block)
                everything = dataclasses.replace(
                    weight, links=(dataclasses.replace(weight.links[0], activity=None),)
                )
                dense = run_weight(everything, data)
                step = weight.links[0].step
                codes = np.rint(dense.inputs["w/0"] / step).astype(np.int16)
                held, mask = activity.replay(codes, data.lengths, block, step)
                assert held.shape == mask.shape == codes.shape
                made.append((activity, weight, data, run_weight(weight, data), held, mask))
        return made

    def test_replay_is_what_runs(self, name: str) -> None:
        """The program multiplies the codes that `replay` foretells, and counts what it transmits."""
        for _, weight, data, run, held, mask in self._runs(name):
            np.testing.assert_array_equal(
                np.rint(run.inputs["w/0"] / weight.links[0].step), held.astype(np.float64)
            )
            counts = run.profile.sites["w/0"]
            block = weight_program(weight, 8).products["w/0"].geometry.block
            units = mask.reshape(data.steps, -1, block).any(axis=2).sum()
            assert (counts.runs, counts.units, counts.active) == (data.steps, units, mask.sum())

    def test_accumulator_is_bias_and_product_without_drift(self, name: str) -> None:
        """At every step the result is rescaled from bias + A·x̂ exactly, in Python integers."""
        for _, weight, data, run, _, _ in self._runs(name):
            geometry = weight_program(weight, 8).products["w/0"].geometry
            wanted = []
            rows = iter(data.x.tolist())
            for length in data.lengths.tolist():
                affine = Affine(weight, geometry, Counts())
                wanted += [affine([fx(v) for v in next(rows)]) for _ in range(length)]
            assert (run.outputs * FX_ONE).tolist() == wanted

    def test_a_neutral_setting_equals_the_dense_product(self, name: str) -> None:
        """Some setting in the search range changes no result; none changes the accumulated sum's law."""
        neutral = 0
        for _, weight, data, run, _, _ in self._runs(name):
            link = dataclasses.replace(weight.links[0], activity=None)
            dense = run_weight(dataclasses.replace(weight, links=(link,)), data)
            neutral += bool(np.array_equal(run.outputs, dense.outputs))
        assert neutral >= 1

    def test_state_is_declared(self, name: str) -> None:
        """`state_bytes` counts every state slot that lowering makes, in the portable widths."""
        for activity, weight, _, _, _, _ in self._runs(name):
            graph = weight_program(weight, 8).stages[0].graph
            kinds = [graph.values[slot.read] for slot in graph.state]
            wanted = sum(kind.size * STATE_BYTES[kind.dtype] for kind in kinds)
            assert activity.state_bytes(16, 8) == wanted

    def test_integer_matrix_is_what_multiplies(self, name: str) -> None:
        """The matrix that the checks above use equals the codes of the product, expanded."""
        weight = self._weight(all_configs(ACTIVITIES.get(name))[0], 8, 4)
        codes = weight.parts[0].codes
        matrix = integer_matrix(weight)
        for i in range(16):
            for k in range(8):
                assert matrix[i, k] == codes[i // 4, k // 4, (i - k) % 4]
