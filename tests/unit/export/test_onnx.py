"""ONNX by onnxruntime against the interpreter: outputs and state bit for bit, step by step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.bits import pack_bits
from modelflex.core.data import Sequences
from modelflex.core.graph import Op
from modelflex.core.model import Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import Recipe
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.export import onnx as exported
from modelflex.export.golden import step_outputs
from modelflex.export.onnx import export_onnx, export_onnx_sequence, onnx_file
from modelflex.export.onnx_check import check_onnx, run_onnx
from modelflex.export.onnx_graph import OnnxGraph, Port
from modelflex.export.onnx_ops import write_op
from modelflex.export.onnx_sequence import sequence_graph
from modelflex.export.onnx_step import step_graph
from modelflex.registry import LAYERS
from modelflex.testing.generators import (
    random_case,
    random_inputs,
    random_layer_model,
    random_model,
    random_rules,
)

onnx: Any = pytest.importorskip("onnx")
runtime: Any = pytest.importorskip("onnxruntime")

STEPS = 50
FLOAT_TOLERANCE = 1e-5


def assert_equal(model: Model, x: np.ndarray, tolerance: float = 0.0) -> None:
    """All outputs, and all state after the last step."""
    program = build_program(model)
    graph = step_graph(model, program)
    content = onnx_file(graph, "network")
    y, state = run_onnx(content, graph, x.astype(graph.inputs[0].dtype))
    data = Sequences(x, np.array([x.shape[0]]))
    np.testing.assert_allclose(y, step_outputs(program, data), rtol=tolerance, atol=tolerance)
    steps = tuple(stage for stage in program.stages if stage.mode == "step")
    wanted = Interpreter(replace(program, stages=steps)).run(data).state
    slots = {f"{s.name}/{slot.name}": (s.name, slot) for s in steps for slot in s.graph.state}
    assert state.keys() == slots.keys()
    for name, (stage, slot) in slots.items():
        reset = 0 if slot.init is None else slot.init  # states of the graph begin at 0
        last = wanted[stage][slot.name][0] - reset
        np.testing.assert_allclose(state[name], last, rtol=tolerance, atol=tolerance, err_msg=name)


def layer_model(kind: str, seed: int) -> tuple[Model, Model]:
    """A network of a layer of a kind that is no cell and a head: as trained, and compressed."""
    rng = np.random.default_rng(seed)
    sizes = LAYERS.get(kind).examples
    model = random_layer_model(rng, kind, sizes[seed % len(sizes)], "every")
    stats = calibrate(model, random_inputs(rng, (9, 14, 5), model))
    return model, compress(model, Recipe(random_rules(rng, model)), stats).model


def walk(model: Model, seed: int) -> np.ndarray:
    return random_inputs(np.random.default_rng(seed), (STEPS,), model).x


# --- results ---------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.sampled_from((1.0, 1.0, 30.0, 1e5)))
def test_integers_are_equal(seed: int, size: float) -> None:
    model = random_case(seed).made.model
    assert_equal(model, walk(model, seed) * np.float32(size))


@settings(max_examples=8)
@given(seed=st.integers(0, 10**6))
def test_floats_are_close(seed: int) -> None:
    model = random_case(seed).model
    assert_equal(model, walk(model, seed), FLOAT_TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", LAYERS.names())
def test_layers(kind: str, seed: int) -> None:
    trained, made = layer_model(kind, seed)
    x = walk(trained, seed)
    assert_equal(trained, x, FLOAT_TOLERANCE)
    assert_equal(made, x)


def test_operators_mean_the_same_elsewhere() -> None:
    """The reference implementation of the standard gives the same bits as onnxruntime."""
    from onnx.reference import ReferenceEvaluator

    model = random_case(3).made.model
    graph = step_graph(model, build_program(model))
    content = onnx_file(graph, "network")
    x = walk(model, 0)[:3].astype(np.float64)
    evaluator = ReferenceEvaluator(onnx.load_from_string(content))
    feed = {port.name: np.zeros((1, port.size), port.dtype) for port in graph.inputs[1:]}
    for y in run_onnx(content, graph, x)[0]:
        made, *after = evaluator.run(None, {"x": x[:1], **feed})
        np.testing.assert_array_equal(made[0], y)
        feed = {port.name: value for port, value in zip(graph.inputs[1:], after, strict=True)}
        x = x[1:]


# --- whole sequences -------------------------------------------------------------------------------
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), reads=st.sampled_from(("last", "every")))
def test_lstm_and_gru_over_all_steps(seed: int, reads: str) -> None:
    rng = np.random.default_rng(seed)
    kinds = [("lstm", "gru")[int(k)] for k in rng.integers(0, 2, 1 + seed % 3)]
    model = random_model(rng, kinds, inputs=5, units=6, reads=reads)
    program = build_program(model)
    graph, x = sequence_graph(model, program), walk(model, seed)
    made = [node.kind for node in graph.nodes if node.kind in ("LSTM", "GRU")]
    assert made == [kind.upper() for kind in kinds]
    y, state = run_onnx(onnx_file(graph, "network"), graph, x)
    data = Sequences(x, np.array([x.shape[0]]))
    wanted = step_outputs(program, data)
    if reads == "last":
        wanted = wanted[[STEPS // 3 - 1, STEPS - 1]]
    np.testing.assert_allclose(y, wanted, rtol=FLOAT_TOLERANCE, atol=FLOAT_TOLERANCE)
    steps = step_graph(model, program)
    after = run_onnx(onnx_file(steps, "network"), steps, x)[1]
    assert state.keys() == after.keys()
    for name, value in state.items():
        np.testing.assert_allclose(value, after[name], atol=FLOAT_TOLERANCE)
    assert [p.name for p in graph.outputs] == [p.name for p in steps.outputs]


@pytest.mark.parametrize("kind", ["dense", "relu", "embedding", "one_hot"])
def test_layers_that_read_one_step_work_on_all(kind: str, tmp_path: Path) -> None:
    model, _ = layer_model(kind, 0)
    report = export_onnx_sequence(model, tmp_path)
    assert report["inputs"][0]["shape"] == ["steps", model.inputs]
    assert report["outputs"][0]["shape"] == ["steps", 4]
    assert report["checked"]["steps"] == 64


@pytest.mark.parametrize("kind", ["conv1d", "conv2d"])
def test_layers_without_a_form_over_steps_are_refused(kind: str, tmp_path: Path) -> None:
    model, _ = layer_model(kind, 0)
    with pytest.raises(UserError, match=rf"\({kind}\) has no form over .*--format onnx$"):
        export_onnx_sequence(model, tmp_path)


def test_integers_have_no_operators_over_steps(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"computes in integers.*--format onnx$"):
        export_onnx_sequence(random_case(4).made.model, tmp_path)


# --- parts -----------------------------------------------------------------------------------------
def evaluate(graph: OnnxGraph, value: str, x: Sequence[int]) -> list[int]:
    """What a graph makes of its int64 input "x"."""
    kind = np.dtype(np.int64)
    graph.node("Identity", value, output="y")
    graph.inputs.append(Port("x", kind, len(x), None, ""))
    graph.outputs.append(Port("y", kind, len(x), None, ""))
    return run_onnx(onnx_file(graph, "part"), graph, np.array([x], np.int64))[0][0].tolist()


@given(a=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20), s=st.integers(1, 62))
@example([-(2**62), 2**62, -1, 0, 1, -3], 1)
@example([-(2**62), 2**62, -1, 0, 1, -(2**61)], 62)
def test_rounding_shift(a: list[int], s: int) -> None:
    graph = OnnxGraph()
    assert evaluate(graph, graph.rounding_shift("x", s), a) == [(v + 2 ** (s - 1)) >> s for v in a]


def test_left_shift() -> None:
    graph = OnnxGraph()
    assert evaluate(graph, graph.rounding_shift("x", -5), [-3, 0, 7]) == [-96, 0, 224]


@given(bits=st.integers(1, 16), count=st.integers(1, 40), seed=st.integers(0, 99))
def test_numbers_of_a_bit_stream(bits: int, count: int, seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 1 << bits, count)
    graph = OnnxGraph()
    value = graph.cast(graph.unpack(pack_bits(numbers, bits), count, bits), np.int64)
    value = graph.node("Add", "x", value)
    assert evaluate(graph, value, [0] * count) == numbers.tolist()


def test_constants_take_the_smallest_type() -> None:
    graph = OnnxGraph()
    for top, dtype in ((127, "int8"), (255, "uint8"), (256, "int16"), (1 << 31, "int64")):
        graph.constant(np.array([0, top]))
        assert list(graph.initialisers.values())[-1].dtype == dtype


# --- files -----------------------------------------------------------------------------------------
def test_report_and_bytes(tmp_path: Path) -> None:
    model = random_case(4).made.model
    one = export_onnx(model, tmp_path / "one.onnx")
    two = export_onnx(model, tmp_path / "folder")
    written = (tmp_path / "one.onnx").read_bytes()
    assert written == Path(two["file"]).read_bytes()
    assert Path(two["file"]) == tmp_path / "folder" / "random.onnx"
    assert one["bytes"]["file"] == len(written)
    assert one["bytes"]["weights"] == model.weight_bytes
    assert one["checked"] == {
        "onnxruntime": runtime.__version__,
        "steps": 64,
        "largest_error": 0.0,
    }
    graph = onnx.load_from_string(written).graph
    assert [port.name for port in graph.input] == [entry["name"] for entry in one["inputs"]]
    stored = sum(len(constant.raw_data) for constant in graph.initializer)
    assert stored == one["bytes"]["constants"] < len(written)
    assert export_onnx(model, tmp_path / "one.onnx") == one  # an earlier export is replaced


def test_codes_take_the_artefacts_bytes() -> None:
    model = random_case(11).made.model
    program = build_program(model)
    stored = [array.nbytes for array in step_graph(model, program).initialisers.values()]
    for product in program.products.values():
        least = product.part.code_bytes
        assert any(least <= nbytes < least + product.part.bits for nbytes in stored)


def renamed(model: Model, name: str, first: str) -> Model:
    """A network with another name, its first layer too."""
    old = model.layers[0].name
    layers = (replace(model.layers[0], name=first), *model.layers[1:])
    weights = {
        w.replace(f"{old}.", f"{first}.") if w.startswith(f"{old}.") else w: value
        for w, value in model.weights.items()
    }
    return check_model(replace(model, name=name, layers=layers, weights=weights))


def test_names_that_no_one_should_trust(tmp_path: Path) -> None:
    plain = random_model(np.random.default_rng(0), ["lstm", "gru"])
    model = renamed(plain, "../../etc/x\n\0", "y;rm -rf\n$(x) é")
    made = export_onnx(model, tmp_path / "out")
    assert Path(made["file"]) == tmp_path / "out" / "etc_x.onnx"
    names = [entry["name"] for entry in (*made["inputs"], *made["outputs"])]
    assert all(name.isidentifier() and name.isascii() for name in names)
    assert len(set(names)) == len(names)


def test_names_that_collide() -> None:
    rng = np.random.default_rng(0)
    model = renamed(random_model(rng, ["gru", "gru"]), "m", "layer1.")
    graph = step_graph(model, build_program(model))
    names = [port.name for port in (*graph.inputs, *graph.outputs)]
    assert len(set(names)) == len(names) == 6
    assert_equal(model, walk(model, 1), FLOAT_TOLERANCE)


@pytest.mark.parametrize(
    "first", ["layer1.h_next.", "layer1.h.next", "x", "y", "layer1_h_next_next"]
)
def test_names_of_states_and_of_those_after_collide(first: str) -> None:
    """Whichever comes first."""
    rng = np.random.default_rng(0)
    plain = renamed(random_model(rng, ["gru", "lstm"]), "m", first)
    slots = [replace(s, name=first) for s in build_program(plain).stages[0].graph.state]
    program = build_program(plain)
    traced = replace(program.stages[0].graph, state=tuple(slots))
    stages = (replace(program.stages[0], name="", graph=traced), *program.stages[1:])
    graph = step_graph(plain, replace(program, stages=stages))
    names = [port.name for port in (*graph.inputs, *graph.outputs)]
    assert len(set(names)) == len(names) == 8
    onnx_file(graph, "m")  # which checks it


# --- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize("content", [b"", b"not a model", "foreign"])
def test_nothing_foreign_is_replaced(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content == "foreign":
        graph = onnx.helper.make_graph([], "g", [], [])
        content = onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString()
    path.write_bytes(content)
    with pytest.raises(UserError, match="exists and is no export"):
        export_onnx(random_case(4).model, path)
    assert path.read_bytes() == content


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'modelflex\[onnx\]'"):
        export_onnx(random_case(4).model, tmp_path)


def test_without_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_onnx(random_case(4).model, tmp_path)["checked"] is None


def test_a_difference_is_found() -> None:
    model = random_case(4).made.model
    program = build_program(model)
    graph = step_graph(model, program)
    name = next(n.inputs[1] for n in graph.nodes if n.outputs == ("y",))
    graph.initialisers[name] = graph.initialisers[name] * 2
    with pytest.raises(UserError, match="other results than the interpreter at step"):
        check_onnx(onnx_file(graph, "m"), graph, model, program)


def test_a_graph_that_does_not_run() -> None:
    model = random_case(4).made.model
    program = build_program(model)
    graph = step_graph(model, program)
    with pytest.raises(UserError, match="does not run the graph"):
        check_onnx(b"no model", graph, model, program)


def test_what_the_checker_refuses_is_one_line() -> None:
    model = random_case(4).model
    graph = step_graph(model, build_program(model))
    graph.node("NoSuchOperator", "x", output="another")
    with pytest.raises(UserError, match="refuses the graph: No Op registered for NoSuchOperator"):
        onnx_file(graph, "m")


def test_an_unknown_primitive() -> None:
    program = build_program(random_case(4).made.model)
    with pytest.raises(UserError, match="no form of the primitive 'select'"):
        write_op(OnnxGraph(), program, Op(0, "select", (0,), (1,)), ["x"])


def test_too_large_for_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_case(4).model
    monkeypatch.setattr(exported, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"constants take \d+ bytes; expected at most 1000"):
        onnx_file(step_graph(model, build_program(model)), "m")


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="File name too long"):
        export_onnx(random_case(4).model, tmp_path / ("a" * 300))
    with pytest.raises(UserError, match="cannot write"):
        export_onnx(random_case(4).model, tmp_path / "file" / "model.onnx")
