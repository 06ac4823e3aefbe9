"""Artefacts: bit-identical results after loading, exact bytes, nothing foreign replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.extension import Cell
from modelflex.core.fixed import Scale
from modelflex.core.held import with_activity
from modelflex.core.ladder import Ladder, Rung, read_ladder
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.part import pack_bias
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, Recipe, Rule, recipe_from_json
from modelflex.core.stats import Trace
from modelflex.core.tracer import Link
from modelflex.core.weight import Weight, float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.export import artefact
from modelflex.export.artefact import save_artefact
from modelflex.importers.models import load_model
from modelflex.registry import ACTIVITIES, FORMATS, STRUCTURES
from modelflex.testing.generators import make_fit

INPUTS, UNITS, OUTPUTS = 8, 16, 4


def network(kinds: list[str]) -> tuple[Layer, ...]:
    layers = [
        Layer(f"{kind}{i}", kind, UNITS if i else INPUTS, UNITS) for i, kind in enumerate(kinds)
    ]
    return (*layers, Layer("head", "dense", UNITS, OUTPUTS, "last"))


def compressed(rng: Any, shape: tuple[int, int], gates: int, choice: dict[str, Any]) -> Weight:
    matrix, bias = rng.normal(0, 0.3, shape), rng.normal(0, 0.5, shape[0])
    encode = FORMATS.get("uniform")(choice["bits"], choice["scales"], "max", "nearest")
    structure = STRUCTURES.get("dense")()
    if choice["block"] > 1:
        structure = STRUCTURES.get("circulant")(choice["block"], "mean")
    link = Link(choice["link"], Scale.nearest(4 / 2 ** choice["link"]))
    if choice["theta"] is not None:
        kind = ACTIVITIES.get("delta")
        activity = kind(choice["theta"], choice["granularity"], scaled=choice["scaled"])
        seen, norms = Trace.of(rng.normal(size=(20, shape[1]))), np.linalg.norm(matrix, axis=0)
        link = with_activity(link, activity, seen, norms, choice["block"])
    weight: Weight = structure.fit_weight(make_fit(matrix, None, encode, link, gates))
    if not choice["bias"]:
        return weight
    return weight.with_bias(pack_bias(bias, weight.accumulator_scale(), choice["bias"]))


def integer_model(kinds: list[str], seed: int, choices: list[dict[str, Any]]) -> Model:
    rng = np.random.default_rng(seed)
    weights: dict[str, Weight] = {}
    for layer in network(kinds):
        gates = layer.plugin.gates if isinstance(layer.plugin, Cell) else {}
        for name, shape in layer.weight_shapes.items():
            choice = choices[len(weights) % len(choices)]
            weights[name] = compressed(rng, shape, gates.get(name.split(".")[1], 1), choice)
    return check_model(Model("random", network(kinds), weights, "logits", {"note": "ü"}))


def data() -> Sequences:
    x = np.random.default_rng(1).standard_normal((20, INPUTS)).astype(np.float32)
    return Sequences(x, np.array([12, 1, 7]))


def outputs(model: Model) -> Any:
    return run(build_program(model), data()).outputs


CHOICES = st.fixed_dictionaries(
    {
        "bits": st.integers(2, 16),
        "scales": st.sampled_from(["tensor", "gate", "row"]),
        "block": st.sampled_from([1, 2, 4]),
        "link": st.integers(2, 16),
        "theta": st.sampled_from([None, 0.0, 0.1]),
        "granularity": st.sampled_from(["element", "block"]),
        "scaled": st.sampled_from(["none", "norm"]),
        "bias": st.sampled_from([0, 8, 16, 32]),
    }
)
KINDS = st.lists(st.sampled_from(["lstm", "gru"]), min_size=1, max_size=2)


@settings(max_examples=60, deadline=None)
@given(KINDS, st.integers(0, 2**31), st.lists(CHOICES, min_size=1, max_size=3))
def test_loading_gives_back_the_same_bits_in_the_stated_bytes(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    seed: int,
    choices: list[dict[str, Any]],
) -> None:
    folder = tmp_path_factory.mktemp("artefact") / "best"
    model = integer_model(kinds, seed, choices)
    save_artefact(model, folder, recipe=None, provenance={"seed": seed})
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert sum(t.nbytes for t in tensors.values()) == model.weight_bytes
    again = load_model(folder)
    assert again.weight_bytes == model.weight_bytes
    assert (again.layers, again.meta, again.numeric) == (model.layers, model.meta, "integer")
    assert np.array_equal(outputs(again), outputs(model))
    for name, weight in model.weights.items():
        assert np.array_equal(again.weights[name].dense(), weight.dense())
        for one, other in zip(again.weights[name].links, weight.links, strict=True):
            assert one.activity == other.activity
            assert np.array_equal(one.thresholds, other.thresholds)


def small(bits: int = 3, kinds: tuple[str, ...] = ("lstm",)) -> Model:
    choice = {"bits": bits, "scales": "gate", "block": 4, "link": 8, "theta": 0.1, "bias": 16}
    return integer_model(list(kinds), 0, [{**choice, "granularity": "block", "scaled": "norm"}])


def recipe() -> Recipe:
    uniform = FORMATS.get("uniform")(bits=3)
    choice = Choice(STRUCTURES.get("circulant")(4), uniform, Activation(8))
    return Recipe((Rule("*", choice),), 2, "a label")


LADDER = Ladder(
    "kl", 9, 4, (Rung({"w": 0}, 0, 2.0, 1.5, 3.0, 4.0), Rung({"w": 2}, 8, 0.0, 0.0, 0.0, 0.0))
)
"""Of any model: the artefact keeps it as it is."""


def test_the_folder_holds_recipe_and_provenance(tmp_path: Path) -> None:
    save_artefact(
        small(), tmp_path / "a" / "best", recipe=recipe(), provenance={"seed": 7}, ladder=LADDER
    )
    best = tmp_path / "a" / "best"
    assert sorted(p.name for p in best.iterdir()) == sorted(artefact.FILES)
    assert read_ladder(best / "ladder.json", {"w": 2}) == LADDER
    assert recipe_from_json(json.loads((best / "recipe.json").read_text())) == recipe()
    assert json.loads((best / "provenance.json").read_text()) == {"seed": 7}
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["best"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        save_artefact(
            small(), tmp_path / name, recipe=recipe(), provenance={"seed": 7}, ladder=LADDER
        )
    for file in artefact.FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_float_model_survives_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {
        name: float_weight(rng.standard_normal(shape), rng.standard_normal(shape[0]), 1)
        for layer in network(["gru"])
        for name, shape in layer.weight_shapes.items()
    }
    model = check_model(Model("floats", network(["gru"]), weights, "logits:3"))
    save_artefact(model, tmp_path / "best", recipe=None, provenance={})
    again = load_model(tmp_path / "best")
    assert again.weight_bytes == model.weight_bytes
    assert again.output == "logits:3"
    assert np.array_equal(outputs(again), outputs(model))


def test_an_artefact_is_replaced_as_a_whole(tmp_path: Path) -> None:
    best = tmp_path / "best"
    best.mkdir()  # empty folders may be filled
    save_artefact(small(3), best, recipe=recipe(), provenance={})
    link = tmp_path / "link"
    link.symlink_to(best)
    save_artefact(small(4, ("gru",)), link, recipe=None, provenance={})
    assert link.is_symlink()
    assert [layer.kind for layer in load_model(best).layers] == ["gru", "dense"]
    assert not (best / "recipe.json").exists()


def foreign_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.json").write_text('{"schema": "modelflex.model/1"}')
    (folder / "thesis.tex").write_text("years of work")


def foreign_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.json").write_text('{"format": "other"}')


@pytest.mark.parametrize("make", [foreign_files, foreign_model, Path.touch])
def test_foreign_folders_stay_untouched(tmp_path: Path, make: Any) -> None:
    best = tmp_path / "best"
    make(best)
    before = {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")}
    with pytest.raises(UserError, match="is no saved model"):
        save_artefact(small(), best, recipe=None, provenance={})
    assert {p: p.is_file() and p.read_bytes() for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("writes", range(5))
def test_a_run_killed_while_writing_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    best = tmp_path / "best"
    save_artefact(small(3), best, recipe=recipe(), provenance={})
    before = {p.name: p.read_bytes() for p in best.iterdir()}
    calls = iter(range(writes))

    def fsync(_: int) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("modelflex.core.files.os.fsync", fsync)
    if writes < 4:
        with pytest.raises(KeyboardInterrupt):
            save_artefact(small(4), best, recipe=recipe(), provenance={})
        assert {p.name: p.read_bytes() for p in best.iterdir()} == before
        assert [p.name for p in tmp_path.iterdir()] == ["best"]
        calls = iter(range(4))
    save_artefact(small(4), best, recipe=recipe(), provenance={})  # clears what the other left
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert load_model(best).weights["lstm0.w_x"].parts[0].bits == 4


def test_a_run_interrupted_between_renamings_leaves_the_earlier_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best, rename = tmp_path / "best", Path.rename
    save_artefact(small(3), best, recipe=None, provenance={})
    before = {p.name: p.read_bytes() for p in best.iterdir()}

    def interrupted(path: Path, target: Path) -> None:
        if path.name == ".best.new":
            raise KeyboardInterrupt
        rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_artefact(small(4), best, recipe=None, provenance={})
    assert {p.name: p.read_bytes() for p in best.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def test_a_path_that_can_not_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        save_artefact(small(), tmp_path / ("a" * 300), recipe=None, provenance={})
