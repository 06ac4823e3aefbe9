"""Outputs that are fed back: the interpreter, compiled code and files agree with the equations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program, hoistable_sites
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter, run
from modelflex.execute.native import HAVE_NATIVE, Runtime
from modelflex.export.artefact import save_artefact
from modelflex.export.onnx import export_onnx
from modelflex.export.onnx_sequence import sequence_graph
from modelflex.importers.models import load_model
from modelflex.testing.cells import stream
from modelflex.testing.generators import (
    Case,
    make_model,
    random_carrying_model,
    random_inputs,
    random_recipe,
    random_sequences,
)
from modelflex.testing.native import check_native
from modelflex.testing.oracle import run_integers, run_reals
from modelflex.testing.recipes import check_footprint

KINDS = (("lstm",), ("gru", "lstm"), ("lstm", "relu"), ("conv1d", "lstm", "lstm"), ("dense",))
"""Layers between the one that reads what is fed back and the head."""


def carrying(seed: int, kinds: tuple[str, ...] = ("lstm",), fed: int = 2) -> Model:
    return random_carrying_model(np.random.default_rng(seed), kinds, fed, alone=seed % 3 == 2)


def cases() -> list[tuple[Model, Model, Sequences]]:
    """(uncompressed, compressed, ragged data)."""
    made = []
    for seed, kinds in enumerate(KINDS * 2):
        rng = np.random.default_rng(seed)
        model = carrying(seed, kinds, (2, 5)[seed % 2])
        stats = calibrate(model, random_inputs(rng, (20, 10), model))
        small = compress(model, random_recipe(rng, model), stats).model
        made.append((model, small, random_inputs(rng, (12, 4, 1, 7), model)))
    return made


def test_a_step_by_hand() -> None:
    """One dense layer that reads its own last output: y_t = A·[x_t, y_(t−1)[1:]] + b."""
    rng = np.random.default_rng(0)
    model = make_model(rng, [Layer("layer", "dense", 3 + 2, 3, carries=2)])
    weight, x, y = model.weights["layer.w"], rng.normal(size=(6, 3)), np.zeros(3)
    wanted = []
    for row in x:
        y = weight.dense() @ np.concatenate([row, y[1:]]) + weight.bias_value()
        wanted.append(y)
    found = run(build_program(model), Sequences(x.astype(np.float32), np.array([6]))).outputs
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_float_programs_equal_the_equations() -> None:
    for model, _, data in cases():
        found = run(build_program(model), data)
        np.testing.assert_allclose(found.outputs, run_reals(model, data), rtol=1e-5, atol=1e-5)
        check_native(build_program(model), data, found)


def test_integer_programs_equal_plain_integers() -> None:
    """Bit for bit in the interpreter and in compiled code, counters too."""
    for _, model, data in cases():
        found, wanted = run(build_program(model), data), run_integers(model, data)
        check_native(build_program(model), data, found)
        assert (found.outputs * FX_ONE).tolist() == wanted.outputs
        for site, counts in wanted.counts.items():
            assert vars(found.profile.sites[site]) == vars(counts)


def test_steps_equal_the_sequence() -> None:
    for _, model, _ in cases():
        data = random_sequences(np.random.default_rng(9), (8, 8), model.inputs)
        interpreter = Interpreter(build_program(model))
        outputs, _ = stream(interpreter, data)
        np.testing.assert_array_equal(interpreter.run(data).outputs, outputs.reshape(16, -1))


@pytest.mark.skipif(not HAVE_NATIVE, reason="compiled code was not built")
def test_a_stream_goes_on_from_its_state() -> None:
    """State taken from one stream and given to another in the middle; reset forgets what is fed back."""
    for _, model, _ in cases():
        program = build_program(model)
        x = random_sequences(np.random.default_rng(3), (9,), model.inputs).x
        one, other = Runtime(program), Runtime(program)
        whole = one.run(x)
        one.reset()
        half = one.run(x[:4])
        other.state = one.state
        np.testing.assert_array_equal(whole, np.concatenate([half, other.run(x[4:])]))
        one.reset()
        np.testing.assert_array_equal(whole[:1], one.step(x[0])[None])


def test_both_ways_of_pricing_agree() -> None:
    for seed, kinds in enumerate(KINDS):
        rng = np.random.default_rng(seed)
        model = carrying(seed, kinds)
        stats = calibrate(model, random_inputs(rng, (20, 10), model))
        recipe, data = random_recipe(rng, model), random_inputs(rng, (9, 4), model)
        case = Case(model, stats, recipe, compress(model, recipe, stats), data)
        check_footprint(case, run(case.program, data))


def test_nothing_behind_what_is_fed_back_is_hoisted() -> None:
    """Only the layer before the carrying one can be computed for all steps at once."""
    assert hoistable_sites(build_program(carrying(0))) == {"before.w/0"}


def test_saved_and_loaded(tmp_path: Path) -> None:
    for number, (_, model, data) in enumerate(cases()):
        save_artefact(model, tmp_path / str(number), recipe=None, provenance={})
        again = load_model(tmp_path / str(number))
        assert again.layers == model.layers
        found, wanted = (run(build_program(m), data).outputs for m in (again, model))
        np.testing.assert_array_equal(found, wanted)


def test_onnx_has_the_outputs_that_are_fed_back_as_a_state(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    for number, (_, model, _) in enumerate(cases()[:4]):
        made = export_onnx(model, tmp_path / f"{number}.onnx")
        assert any(port.get("state") == "layer0/carried" for port in made["inputs"])
        assert made["checked"] is not None


def test_onnx_has_no_form_over_all_steps() -> None:
    model = carrying(0)
    with pytest.raises(UserError, match="feeds outputs back"):
        sequence_graph(model, build_program(model))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"carries": 6, "inputs": 14}, "carries 6 outputs"),
        ({"carries": -1}, "carries -1 outputs"),
        ({"carries": 3}, "has 10 inputs"),
        ({"carries": 10}, "carries 10 outputs"),
    ],
)
def test_sizes_that_do_not_fit(change: dict[str, Any], said: str) -> None:
    model = carrying(0)
    layers = (model.layers[0], replace(model.layers[1], **change), model.layers[2])
    with pytest.raises(UserError, match=said):
        check_model(replace(model, layers=layers))


def test_a_head_of_the_last_step_has_nothing_to_feed_back() -> None:
    model = carrying(0)
    last = replace(model.layers[-1], reads="last")
    with pytest.raises(UserError, match="'head' reads the last step only"):
        check_model(replace(model, layers=(*model.layers[:-1], last)))
