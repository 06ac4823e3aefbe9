"""What every structure, number format and activity owes; `name` is its registered name.

Use: parametrise a subclass by the names of a registry (see the package's docstring).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from modelflex.core.bits import pack_codes, unpack_codes
from modelflex.core.extension import Format, Structure
from modelflex.core.fixed import FX_ONE, Array, Scale
from modelflex.core.part import pack_bias
from modelflex.core.products import STATE_BYTES, bias_bits
from modelflex.core.recipe import read_config
from modelflex.core.tracer import Activity, InputSite, Link
from modelflex.core.weight import Matrix, Sum, Weight
from modelflex.registry import ACTIVITIES, FORMATS, STRUCTURES, Registry
from modelflex.search.ranges import fits
from modelflex.testing.generators import (
    all_configs,
    as_floats,
    integer_matrix,
    make_fit,
    make_moments,
    random_sequences,
    run_weight,
    weight_program,
)
from modelflex.testing.oracle import Affine, Counts, affine, fx

GATES = 4
SHAPES = ((16, 16), (48, 8), (4, 12), (32, 48))
FORMAT_SHARE = 12
"""Of so many formats one is tried with each configuration of a structure and each shape."""


class MethodSuite:
    """What the methods of all axes owe."""

    registry: Registry
    naive_of_the_same_method = True

    def test_reference_says_where_it_comes_from(self, name: str) -> None:
        """A method has a reference that is not empty."""
        assert self.registry.get(name).reference.strip()

    def test_search_range_names_fields_and_holds_accepted_values(self, name: str) -> None:
        """Keys of `search_range` are fields, no range is empty, and each value passes the checks."""
        kind = self.registry.get(name)
        fields = {f.name for f in dataclasses.fields(kind)}
        assert kind.search_range or not fields
        assert set(kind.search_range) <= fields
        assert all(len(values) > 0 for values in kind.search_range.values())
        assert all_configs(kind)

    def test_configurations_survive_json(self, name: str) -> None:
        """A configuration read back from its JSON is equal."""
        assert self.registry.name_of(self.registry.get(name)) == name
        for config in all_configs(self.registry.get(name)):
            text = json.dumps(dataclasses.asdict(config))
            assert read_config(type(config), json.loads(text), name) == config

    def test_naive_variant_needs_no_data_and_is_its_own(self, name: str) -> None:
        """`naive` gives a variant (of the same method) that is not data-aware and its own naive one."""
        for config in all_configs(self.registry.get(name)):
            naive = config.naive()
            assert type(naive) is type(config) or not self.naive_of_the_same_method
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
            back = unpack_codes(packed, part.codes.shape, part.bits, part.grid)
            assert np.array_equal(back * part.group_factors(), part.codes)
            assert part.grid.kind == config.grid_kind

    def test_side_bytes_are_counted_before_they_are_made(self, name: str) -> None:
        """`side_bytes` tells the scales and tables that `encode` stores; scales are positive."""
        for config, values, hessian in self._cases(name):
            part = config.encode(values, hessian, GATES)
            assert part.scale is not None
            assert part.side_bytes == config.side_bytes(values.shape[0], values.shape[1], GATES)
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

    def test_masked_codes_are_zero(self, name: str) -> None:
        """Where the mask is false the code is 0, whatever the grid; the others lie on it."""
        rng = np.random.default_rng(6)
        for config, values, hessian in self._cases(name):
            mask = rng.random(values.shape) < 0.5
            part = config.encode(values, hessian, GATES, mask)
            assert not part.codes[~mask].any()
            levels = part.codes // part.group_factors()
            rows = part.grid.levels(part.bits)
            table = np.repeat(rows, values.shape[0] // rows.shape[0], axis=0)
            on_grid = (levels[:, :, None] == table[:, None, :]).any(axis=2)
            assert on_grid[mask].all()


class StructureSuite(MethodSuite):
    """What every structure owes, in every format."""

    registry = STRUCTURES

    def _weights(self, name: str) -> list[tuple[Structure, Format, Weight, Array]]:
        rng = np.random.default_rng(1)
        made = []
        formats = [f for kind in FORMATS.names() for f in all_configs(FORMATS.get(kind))]
        kinds = all_configs(STRUCTURES.get(name))
        cases = [(config, shape) for config in kinds for shape in SHAPES if fits(config, shape)]
        share = min(len(cases), FORMAT_SHARE)  # every format meets the structure somewhere
        for number, (config, shape) in enumerate(cases):
            matrix = rng.normal(size=shape)
            trace = rng.normal(size=(60, shape[1]))
            held = trace + 0.1 * rng.normal(size=trace.shape)
            seen = make_moments(matrix, trace, held) if config.data_aware else None
            for encode in formats[number % share :: share]:
                # Scales are shared by rows of the stored array, so its rows must divide.
                if any(p.geometry.rows % GATES for p in config.plan(*shape) if p.gated):
                    continue
                link = Link(8, Scale.nearest(4 / 128))
                weight = config.fit_weight(make_fit(matrix, seen, encode, link, GATES, trace))
                units = weight.accumulator_scale()
                bias = pack_bias(rng.normal(size=shape[0]), units, bias_bits(encode.stored_bits))
                made.append((config, encode, weight.with_bias(bias), matrix))
        assert made
        return made

    def test_lowered_equals_dense_exactly(self, name: str) -> None:
        """Executing `lower(w)` equals `dense(w)·x + bias` in Python integers, bit for bit."""
        rng = np.random.default_rng(2)
        for _, _, weight, matrix in self._weights(name):
            data = random_sequences(rng, (1, 1, 1), matrix.shape[1])
            products = weight_program(weight, matrix.shape[1]).products
            wanted = []
            for row in data.x.tolist():  # each as a sequence of its own
                counts = {site: Counts() for site in products}
                wanted.append(affine(weight, products, counts, "w")([fx(v) for v in row]))
            assert (run_weight(weight, data).outputs * FX_ONE).tolist() == wanted

    def test_float_lowering_equals_dense_to_rounding(self, name: str) -> None:
        """The same weight with float values and no link multiplies in floats."""
        rng = np.random.default_rng(3)
        for _, _, weight, matrix in self._weights(name):
            floats = as_floats(weight)
            data = random_sequences(rng, (5,), matrix.shape[1])
            wanted = data.x.astype(np.float64) @ floats.dense().T + floats.bias_value()
            np.testing.assert_allclose(run_weight(floats, data).outputs, wanted, rtol=0, atol=3e-4)

    def test_geometries_foretell_the_weight(self, name: str) -> None:
        """Codes, rows, sizes and layout are known before anything is compressed."""
        for config, encode, weight, matrix in self._weights(name):
            assert weight.shape == matrix.shape == weight.dense().shape
            products = weight_program(weight, matrix.shape[1]).products
            planned = config.plan(*matrix.shape)
            assert len(planned) == len(weight.products) == len(products)
            for number, (plan, part) in enumerate(zip(planned, weight.parts, strict=True)):
                product, geometry = products[f"w/{number}"], plan.geometry
                assert (product.layout, product.geometry) == (plan.layout, geometry)
                assert geometry.codes == part.codes.size
                assert geometry.codes == geometry.units * geometry.unit_codes
                assert geometry.inputs == geometry.units * geometry.block
                assert geometry.rows == part.codes.shape[0]
                assert (geometry.index_bits + 7) // 8 == part.index_bytes
                assert part.bits == encode.stored_bits
                wide = part.codes.size // part.codes.shape[0]
                gates = GATES if plan.gated else 1
                assert part.side_bytes == encode.side_bytes(geometry.rows, wide, gates)

    def test_stands_for_the_matrix(self, name: str) -> None:
        """Every configuration is a projection: a matrix that it can hold comes back (16 bits).

        Of a sum, what each term can hold: many sums make the same matrix, and which terms a given
        one is made of is a combinatorial problem that no structure has to solve.
        """
        fine = FORMATS.get("uniform")(16, "row", "max", "nearest")
        for config, _, weight, _ in self._weights(name):
            for term in weight.terms if isinstance(weight, Sum) else (weight,):
                problem = make_fit(term.dense(), None, fine, weight.links[0])
                again = config.naive().fit_weight(problem)
                size = np.abs(term.dense()).max(initial=1e-9)
                np.testing.assert_allclose(again.dense(), term.dense(), rtol=0, atol=size * 1e-4)


class ActivitySuite(MethodSuite):
    """What every activity owes."""

    registry = ACTIVITIES

    def _weight(self, activity: Activity | None, bits: int, block: int) -> Matrix:
        rng = np.random.default_rng(4)
        structure: Any = STRUCTURES.get("circulant")(block, "mean")
        encode = FORMATS.get("uniform")(4, "row", "max", "nearest")
        link = Link(bits, Scale.nearest(4 / 2 ** (bits - 1)), activity)
        weight: Matrix = structure.fit_weight(
            make_fit(rng.normal(size=(16, 8)), None, encode, link)
        )
        return weight.with_bias(pack_bias(rng.normal(size=16), weight.accumulator_scale(), 8))

    def _runs(self, name: str) -> list[tuple[Activity, Matrix, Any, Any, Array, Array]]:
        data = random_sequences(np.random.default_rng(5), (60, 1, 25), 8)
        made = []
        for config in all_configs(ACTIVITIES.get(name)):
            for bits, block in ((8, 1), (8, 4), (3, 2), (16, 1)):
                everything = self._weight(None, bits, block)
                dense, link = run_weight(everything, data), everything.links[0]
                codes = np.rint(dense.inputs["w/0"] / link.step).astype(np.int16)
                norms = np.linalg.norm(everything.dense(), axis=0)
                seen = InputSite(codes, data.lengths, link.step, 1.0, norms, block, bits)
                activity = config.resolve(seen)
                held_link = dataclasses.replace(
                    link, activity=activity, thresholds=activity.thresholds(seen)
                )
                weight = dataclasses.replace(everything, link=held_link)
                held, mask = activity.replay(codes, data.lengths, block, held_link)
                assert held.shape == mask.shape == codes.shape
                stored = 0 if held_link.thresholds is None else held_link.thresholds.size
                assert stored == config.threshold_count(8, block)
                assert activity.resolved
                assert activity.resolve(seen) == activity
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
            link = dataclasses.replace(weight.links[0], activity=None, thresholds=None)
            dense = run_weight(dataclasses.replace(weight, link=link), data)
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
        weight = self._weight(None, 8, 4)
        codes = weight.parts[0].codes
        matrix = integer_matrix(weight)
        for i in range(16):
            for k in range(8):
                assert matrix[i, k] == codes[i // 4, k // 4, (i - k) % 4]
