"""Expansion of grids into recipes."""

from __future__ import annotations

from typing import Any

import pytest

from modelflex.errors import UserError
from modelflex.search import space
from modelflex.search.space import is_data_aware, read_space

RULE = {"weights": "*", "format": {"method": "uniform", "bits": "$bits"}}


def grid(**changes: Any) -> dict[str, Any]:
    return {"vary": {"bits": [2, 4, 8]}, "rules": [RULE]} | changes


def test_a_grid_is_the_product_of_its_lists_in_order() -> None:
    rule = {
        "weights": "*.w_h",
        "structure": {"method": "circulant", "block": "$b"},
        "format": {"method": "uniform", "bits": "$q.w", "scales": "gate"},
        "activation": {"bits": "$q.x"},
        "activity": {"method": "delta", "threshold": "$theta"},
    }
    vary = {"q": [{"w": 2, "x": 8}, {"w": 4, "x": 4}], "b": [1, 4], "theta": [0.0, 0.5, 1.0]}
    found = read_space([grid(name="g", vary=vary, rules=[rule], recalibrate=2)])
    rows = []
    for entry in found:
        (made,) = entry.recipe.rules
        c = made.choice
        rows.append((c.format.bits, c.activation.bits, c.structure.block, c.activity.threshold))
        assert entry.space == "g"
        assert entry.recipe.recalibrate == 2
    assert rows == [
        (w, x, b, t) for w, x in ((2, 8), (4, 4)) for b in (1, 4) for t in (0.0, 0.5, 1.0)
    ]


def test_equal_recipes_stand_once_under_the_first_name() -> None:
    found = read_space([grid(name="one"), grid(name="two", vary={"bits": [8, 16]})])
    bits = [e.recipe.rules[0].choice.format.stored_bits for e in found]
    assert bits == [2, 4, 8, 16]
    assert [e.space for e in found] == ["one", "one", "one", "two"]


def test_whole_methods_and_rounds_may_vary() -> None:
    rules = [{"weights": "*", "format": "$form", "activity": "$held"}]
    vary = {
        "form": [{"method": "uniform", "bits": 3}],
        "held": ["none", {"method": "delta", "threshold": 0.1}],
        "rounds": [0, 1],
    }
    found = read_space([grid(vary=vary, rules=rules, recalibrate="$rounds")])
    assert [(e.recipe.rules[0].choice.activity is None, e.recipe.recalibrate) for e in found] == [
        (True, 0), (True, 1), (False, 0), (False, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grids", "part"),
    [
        (None, "at least one table"),
        ([], "at least one table"),
        ([3], "space[0] is 3"),
        ([grid(rule=[])], "unknown key 'rule'; expected a key; did you mean 'rules'"),
        ([grid(vary=[1])], "a table of lists"),
        ([grid(vary={"bits": []})], "vary.bits is []"),
        ([grid(vary={"bits": 4})], "vary.bits is 4"),
        ([grid(rules=[])], "rules is []"),
        ([grid(vary={})], "uses '$bits'"),
        ([grid(vary={"bit": [4]})], "did you mean 'bit'"),
        ([grid(vary={"bits": [4], "theta": [1]})], "vary.theta is never used"),
        ([grid(vary={"bits": [4], "b": [{"x": 1}]}, recalibrate="$b.y")], "a table with 'y'"),
        ([grid(vary={"bits": [4]}, recalibrate="$bits.x")], "a table with 'x' in vary.bits"),
        ([grid(recalibrate=-1)], "recalibrate is -1"),
        ([grid(recalibrate=True)], "recalibrate is True"),
        ([grid(vary={"bits": [4, 99]})], "uniform bits are 99"),
        ([grid(vary={"bits": ["4"]})], "'4'"),
        ([grid(rules=[{**RULE, "formt": 1}])], "did you mean 'format'"),
    ],
)
def test_grids_that_are_refused(grids: Any, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read_space(grids)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_recipes_are_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="at most 1000000"):
        read_space([grid(vary={"bits": list(range(1001)), "b": list(range(1000))})])
    monkeypatch.setattr(space, "MAX_RECIPES", 2)
    with pytest.raises(UserError, match="has 3 recipes"):
        read_space([grid()])


def test_labels_show_what_delta_does() -> None:
    held = [
        {"threshold": 0.1},
        {"density": 0.1},
        {"threshold": 0.1, "granularity": "block"},
        {"threshold": 0.1, "scaled": "norm"},
        {"threshold": 0.1, "overshoot": 0.5},
    ]
    rules = [{"weights": "*", "format": {"method": "uniform", "bits": 3}, "activity": "$held"}]
    vary = {"held": ["none", "nonzero", *({"method": "delta"} | values for values in held)]}
    ends = ["θ0.1", "d0.1", "θ0.1▪", "θ0.1∝", "θ0.1+0.5"]
    labels = [entry.recipe.label for entry in read_space([grid(vary=vary, rules=rules)])]
    assert labels == ["* 3b×8b", "* 3b×8b nonzero", *(f"* 3b×8b {end}" for end in ends)]


@pytest.mark.parametrize(
    ("removal", "rounding", "label"),
    [
        ("obs", "nearest", "lstm0 8 units by obs, * 3b×8b"),
        ("norm", "nearest", "lstm0 8 units by norm, * 3b×8b, naive"),
        ("random", "nearest", "lstm0 8 units by random, * 3b×8b, naive"),
        ("norm", "gptq", "lstm0 8 units by norm, * 3b×8b"),
    ],
)
def test_labels_show_how_units_go_and_whether_data_are_looked_at(
    removal: str, rounding: str, label: str
) -> None:
    form = {"method": "uniform", "bits": 3, "rounding": rounding}
    layers = [{"layers": "lstm0", "removal": {"method": removal, "units": 8}}]
    (made,) = read_space([{"rules": [{"weights": "*", "format": form}], "layers": layers}])
    assert made.recipe.label == label
    assert is_data_aware(made.recipe) == (not label.endswith("naive"))
    assert not is_data_aware(made.recipe.naive)
