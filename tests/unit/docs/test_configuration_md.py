"""docs/configuration.md: its example is a configuration, its tables name every method and option."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from modelflex.core.cost import COST_UNITS
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, REMOVALS, STRUCTURES, Registry
from modelflex.search.config import parse_config
from modelflex.search.space import read_space

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text("utf-8")
AXES = {
    "structure": STRUCTURES, "format": FORMATS, "activity": ACTIVITIES, "removal": REMOVALS,
    "nonlinearity": NONLINEARITIES,
}  # fmt: skip


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    block = re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert block
    config = parse_config(tomllib.loads(block[1]), tmp_path)
    assert config.data.draw.copies == 2
    recipes = [found.recipe for found in read_space(config.space)]
    assert len(recipes) == 6
    assert all(recipe.layers[0].removal and recipe.layers[0].nonlinearity for recipe in recipes)


@pytest.mark.parametrize(("axis", "registry"), AXES.items(), ids=AXES)
def test_every_method_stands_with_its_options(axis: str, registry: Registry) -> None:
    rows = re.findall(rf"^\| {axis} \| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE)
    assert sorted(name for name, _ in rows) == list(registry.names())
    for name, options in rows:
        written = dict(re.findall(r"`(\w+)`(?: = ([^,]+))?", options))
        fields = {f.name: f.default for f in dataclasses.fields(registry.get(name))}
        fields = {k: "" if v in (None, dataclasses.MISSING) else str(v) for k, v in fields.items()}
        assert written == fields, name


def test_every_field_of_cost_is_named() -> None:
    line = TEXT.partition("Fields of cost: ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", line)) == set(COST_UNITS)
