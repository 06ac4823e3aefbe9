"""What holds for whole networks under random recipes from the registries; `seed` draws the case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from modelflex.compress.choices import UNNAMED
from modelflex.core.cost import Cost
from modelflex.core.fixed import Array
from modelflex.core.platform import Platform
from modelflex.core.products import ProductTable, program_table
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.storage import MODEL_TENSORS
from modelflex.execute.interpret import Execution, Interpreter, run
from modelflex.execute.kernels import KERNELS, NUMPY_KERNELS
from modelflex.export.artefact import save_artefact
from modelflex.importers.models import load_model
from modelflex.search.pricing import Pricer
from modelflex.testing.generators import Case, random_case
from modelflex.testing.native import check_native

cached_case = lru_cache(maxsize=64)(random_case)


class TableKeeper(Platform):
    """A platform that keeps the table it is asked to price."""

    reference = "none: it prices nothing"
    table: ProductTable

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TableKeeper:
        return cls()

    @property
    def description(self) -> Mapping[str, Any]:
        return {}

    def price(self, table: ProductTable) -> Mapping[str, Array]:
        return {}

    def combine(
        self, table: ProductTable, columns: Mapping[str, Array], choices: Array
    ) -> dict[str, Array]:
        self.table = table
        return {}

    def cost(self, table: ProductTable) -> Cost:
        self.table = table
        return Cost()


@lru_cache(maxsize=64)
def executed(seed: int) -> Execution:
    """The run of a seed's compressed network over its data."""
    case = cached_case(seed)
    return run(case.program, case.data)


def footprint_table(case: Case, ran: Execution) -> ProductTable:
    """The table of a case's recipe from footprints, with the densities of its run."""
    keeper = TableKeeper()
    Pricer(case.model, case.stats, keeper, case.data.mean_length).cost(case.recipe, ran.profile)
    return keeper.table


def check_footprint(case: Case, ran: Execution) -> None:
    """The table from footprints equals the table from the program, column by column."""
    before = footprint_table(case, ran)
    after = program_table(case.program, ran.profile, case.model)
    assert before.steps == after.steps
    assert list(before["site"]) == list(after["site"])
    for name in after.columns:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    np.testing.assert_array_equal(before.row_start, after.row_start)


class RecipeSuite:
    """Contracts of whole networks."""

    def test_both_ways_of_pricing_agree(self, seed: int) -> None:
        """The table from footprints equals the table from the program, column by column."""
        check_footprint(cached_case(seed), executed(seed))

    def test_bytes_of_the_artefact_are_those_foretold(self, seed: int, tmp_path: Path) -> None:
        """Tensors of the saved artefact == model.weight_bytes == footprint."""
        case = cached_case(seed)
        folder = tmp_path / "best"
        save_artefact(case.made.model, folder, recipe=case.recipe, provenance={})
        tensors = safetensors.numpy.load_file(folder / MODEL_TENSORS)
        stored = sum(t.nbytes for t in tensors.values())
        foretold = footprint_table(case, executed(seed))["stored_bytes"].sum()
        assert stored == case.made.model.weight_bytes == foretold

    def test_priced_operations_are_the_counted_ones(self, seed: int) -> None:
        """MACs and fetched bytes of the table equal those worked out from the run's counters."""
        case, ran = cached_case(seed), executed(seed)
        table = footprint_table(case, ran)
        macs = dict(zip(table["site"], table["macs"] * table["active"], strict=True))
        fetched = 0.0
        for site, product in case.program.products.items():
            counts = ran.profile.sites[site]
            number, weight = int(site.rsplit("/")[-1]), case.made.model.weights[product.weight]
            columns, part = product.geometry.inputs, weight.parts[number]
            terms = part.codes.size
            if product.layout == "circulant":
                terms *= part.codes.shape[2]
            np.testing.assert_allclose(
                macs[site] * counts.runs, counts.active * terms / columns, rtol=1e-12
            )
            units = columns // product.geometry.block
            held = part.codes.size * part.bits
            held += 0 if part.index is None else part.index.size * part.index_bits
            read = counts.units * held / units / 8
            read += counts.runs * (part.side_bytes + weight.links[number].nbytes)
            last = number == len(weight.products) - 1
            bias = weight.bias.nbytes if weight.bias is not None and last else 0
            activity = None if product.link is None else product.link.activity
            once = activity is not None and activity.stateful
            read += bias * (case.data.count if once else counts.runs)
            fetched += read / case.data.steps
        np.testing.assert_allclose(table.fetch_bytes_per_step.sum(), fetched, rtol=1e-12)

    def test_native_kernels_equal_numpy(self, seed: int) -> None:
        """Outputs, states and counters of whole programs are the same with both sets of kernels."""
        case = cached_case(seed)
        numpy, native = (
            Interpreter(case.program, kernels).run(case.data)
            for kernels in (NUMPY_KERNELS, KERNELS)
        )
        np.testing.assert_array_equal(numpy.outputs, native.outputs)
        assert numpy.profile == native.profile
        for stage, slots in numpy.state.items():
            for slot, value in slots.items():
                np.testing.assert_array_equal(value, native.state[stage][slot])

    def test_native_executor_equals_the_interpreter(self, seed: int) -> None:
        """Batches, streams and chunks of compiled code: the interpreter's bits, counters and states."""
        case = cached_case(seed)
        check_native(case.program, case.data, executed(seed))

    def test_artefacts_load_back_bit_identical(self, seed: int, tmp_path: Path) -> None:
        """A saved and loaded model gives the same outputs, bit for bit."""
        case = cached_case(seed)
        folder = tmp_path / "best"
        save_artefact(case.made.model, folder, recipe=case.recipe, provenance={})
        again = load_model(folder)
        ran = Interpreter(build_program(again)).run(case.data)
        np.testing.assert_array_equal(ran.outputs, executed(seed).outputs)
        assert ran.profile == executed(seed).profile

    def test_recipes_survive_json(self, seed: int) -> None:
        """A recipe read back from its JSON is equal, has the same key and the same label."""
        recipe = cached_case(seed).recipe
        again = recipe_from_json(json.loads(json.dumps(recipe.to_json())))
        assert (again, again.key, again.label) == (recipe, recipe.key, recipe.label)
        assert again.naive.naive.key == again.naive.key

    def test_no_weight_is_skipped_in_silence(self, seed: int) -> None:
        """Coverage lists every weight; one that no rule names is stored in 16 bits, with the reason."""
        case = cached_case(seed)
        assert set(case.made.coverage) == set(case.model.weights)
        for name, reason in case.made.coverage.items():
            weight = case.made.model.weights[name]
            assert not weight.is_float
            if case.recipe.choice(name) is None:
                assert reason == UNNAMED
                assert (weight.parts[0].bits, weight.links[0].bits) == (16, 16)
            else:
                assert reason == ""

    def test_compression_is_deterministic(self, seed: int) -> None:
        """The same seed gives the same bits."""
        one, other = cached_case(seed).made.model, random_case(seed).made.model
        for name, weight in one.weights.items():
            np.testing.assert_array_equal(weight.dense(), other.weights[name].dense())
            np.testing.assert_array_equal(weight.bias_value(), other.weights[name].bias_value())
