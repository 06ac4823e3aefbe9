"""Recipes and the reading of method configurations."""

from __future__ import annotations

from typing import Any

import pytest

from modelflex.core.recipe import SCHEMA, Activation, Recipe, Rule, read_config, recipe_from_json
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES, CELLS, FORMATS, STRUCTURES, Registry

Uniform = FORMATS.get("uniform")
RULE = {"weights": "*", "format": {"method": "uniform", "bits": 4}}


def document(**changes: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "rules": [RULE]} | changes


def with_rule(**changes: Any) -> dict[str, Any]:
    return document(rules=[RULE | changes])


def test_defaults() -> None:
    recipe = recipe_from_json(document())
    (rule,) = recipe.rules
    assert rule.choice.structure == STRUCTURES.get("dense")()
    assert rule.choice.format == Uniform(4)
    assert rule.choice.activation == Activation(8, "max")
    assert rule.choice.activity is None
    assert (recipe.recalibrate, recipe.label) == (0, "")
    for spelling in (None, "none"):
        assert recipe_from_json(with_rule(activity=spelling)) == recipe
    assert recipe_from_json(with_rule(structure="dense")) == recipe


def test_labels_are_no_part_of_the_identity() -> None:
    one, other = (recipe_from_json(document(label=label)) for label in ("a", "b"))
    assert one == other
    assert one.key == other.key
    assert one.key != recipe_from_json(document(recalibrate=1)).key


def test_the_order_of_rules_is_part_of_the_identity() -> None:
    fine = {"weights": "*.w_h", "format": {"method": "uniform", "bits": 8}}
    one, other = (recipe_from_json(document(rules=r)) for r in ([fine, RULE], [RULE, fine]))
    assert one.key != other.key
    assert one.choice("l.w_h").format.stored_bits == 8
    assert other.choice("l.w_h").format.stored_bits == 4


def test_patterns_mind_the_case() -> None:
    rule = Rule("*.w_h", recipe_from_json(document()).rules[0].choice)
    assert Recipe((rule,)).choice("l.W_H") is None


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([], "not a JSON object"),
        ({"rules": []}, "schema None"),
        (document(schema="modelflex.recipe/2"), "'modelflex.recipe/2'"),
        (document(rounds=1), "unknown key 'rounds'"),
        (document(recalibrate=True), "recalibrate is True"),
        (document(recalibrate=1.5), "recalibrate is 1.5"),
        (document(recalibrate=101), "recalibrate is 101"),
        (document(rules=[]), "rules is []"),
        (document(rules=[1]), "rules[0] is 1"),
        (document(rules=[{"weights": "*"}]), "rules[0] has no format"),
        (document(rules=[{"format": "uniform"}]), "rules[0].weights is None"),
        (with_rule(weights=""), "rules[0].weights is ''"),
        (with_rule(wieghts="*"), "did you mean 'weights'"),
        (with_rule(format="uniforn"), "unknown format 'uniforn'; expected one of the formats; did"),
        (with_rule(activity="detla"), "unknown activity 'detla'; expected one of the activities;"),
        (with_rule(format="uniform"), "rules[0].format has no bits; expected bits = …"),
        (with_rule(format={"bits": 4}), "rules[0].format"),
        (with_rule(format={"method": "uniform", "bits": 17}), "2 … 16"),
        (with_rule(format={"method": "uniform", "bits": 4.5}), "rules[0].format.bits is 4.5"),
        (with_rule(format={"method": "uniform", "bits": "4"}), "rules[0].format.bits is '4'"),
        (with_rule(format={"method": "uniform", "bits": True}), "rules[0].format.bits is True"),
        (
            with_rule(format={"method": "uniform", "bits": 4, "scale": "row"}),
            "did you mean 'scales'",
        ),
        (
            with_rule(format={"method": "uniform", "bits": 4, "scales": "column"}),
            "expected 'tensor', ",
        ),
        (with_rule(structure={"method": "circulant", "block": 0}), "circulant block is 0"),
        (with_rule(structure=["dense"]), 'a table such as { method = "block_sparse" }'),
        (with_rule(activation=8), "rules[0].activation is 8"),
        (with_rule(activation={"bits": 1}), "activation bits are 1"),
        (with_rule(activity={"method": "delta"}), "threshold"),
        (with_rule(activity={"method": "delta", "threshold": -1.0}), "delta threshold is -1.0"),
        (with_rule(activity={"method": "delta", "threshold": float("nan")}), "threshold"),
        (with_rule(activity={"method": "delta", "threshold": float("inf")}), "threshold"),
    ],
)
def test_documents_that_are_refused(values: Any, part: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_from_json(values)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_whole_numbers_serve_as_real_ones() -> None:
    found = read_config(ACTIVITIES.get("delta"), {"threshold": 1}, "x")
    assert (found.threshold, type(found.threshold)) == (1.0, float)


def test_registries_name_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown cell 'lstn'.*did you mean 'lstm'"):
        CELLS.get("lstn")
    with pytest.raises(KeyError, match="int is not a registered format"):
        FORMATS.name_of(int)


def test_registries_refuse_two_of_a_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "plugins_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from modelflex.registry import Registry\nHERE = Registry('x', __name__)\n"
    )
    (package / "one.py").write_text("from plugins_of_a_test import HERE\nHERE.register('a')(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    registry: Registry = importlib.import_module("plugins_of_a_test").HERE
    assert registry.names() == ("a",)
    assert list(registry.items()) == [("a", 1)]
    with pytest.raises(ValueError, match="are named 'a'"):
        registry.register("a")(2)


def test_a_plugin_that_fails_to_load_raises(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_plugins"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "bad.py").write_text("raise RuntimeError('broken plug-in')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeError, match="broken plug-in"):
        Registry("thing", "broken_plugins").names()
