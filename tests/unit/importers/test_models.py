"""ModelFlex's own files: a sound folder, and every way in which one can be unsound."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from modelflex.core.model import Layer, Model, check_model
from modelflex.errors import UserError
from modelflex.importers.models import load_model

EXAMPLE = Path(__file__).parents[3] / "examples" / "japanese_vowels" / "weights" / "seed0"
DESCRIPTION: dict[str, Any] = {
    "schema": "modelflex.model/1",
    "name": "small",
    "layers": [
        {"name": "gru0", "kind": "gru", "inputs": 2, "units": 4},
        {"name": "head", "kind": "dense", "inputs": 4, "units": 3, "reads": "last"},
    ],
}


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {"gru0.w_x": (12, 2), "gru0.w_h": (12, 4), "gru0.w_h.bias": (12,), "head.w": (3, 4)}
    return {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}


def write(folder: Path, description: Any = None, tensors: Any = None) -> Path:
    (folder / "model.json").write_text(json.dumps(description or DESCRIPTION))
    safetensors.numpy.save_file(tensors or arrays(), folder / "model.safetensors")
    return folder


def test_the_example_loads_from_its_folder_and_from_both_files() -> None:
    for path in (EXAMPLE, EXAMPLE / "model.json", EXAMPLE / "model.safetensors"):
        model = load_model(path)
        assert (model.inputs, model.outputs, model.per_step) == (12, 9, False)
        assert model.numeric == "float"
        assert model.weight_bytes == 4 * (512 * 12 + 512 * 128 + 512 + 9 * 128 + 9)
        assert model.meta["seed"] == 0
    assert load_model(EXAMPLE, name="mine").name == "mine"


def test_gates_biases_and_links_to_files(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    write(real)
    (tmp_path / "link").symlink_to(real)
    model = load_model(tmp_path / "link")
    assert {n: w.gates for n, w in model.weights.items()} == {
        "gru0.w_x": 3,
        "gru0.w_h": 3,
        "head.w": 1,
    }
    assert np.array_equal(model.weights["gru0.w_h"].bias_value(), arrays()["gru0.w_h.bias"])


def layer(number: int, **changes: Any) -> dict[str, Any]:
    layers = [dict(entry) for entry in DESCRIPTION["layers"]]
    layers[number] |= changes
    return {**DESCRIPTION, "layers": layers}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ([1], "holds a JSON list"),
        (
            {**DESCRIPTION, "schema": "modelflex.model/2"},
            "'modelflex.model/2'; expected 'modelflex",
        ),
        ({**DESCRIPTION, "shema": 1}, "unknown key 'shema'.* did you mean 'schema'"),
        ({**DESCRIPTION, "name": 3}, "name is '3'"),
        ({**DESCRIPTION, "output": "probabilities"}, "one of logits, values"),
        ({**DESCRIPTION, "output": "logits:"}, "one of logits, values, logits:K"),
        ({**DESCRIPTION, "output": "logits:1"}, "'logits:1'; expected 2 logits or more"),
        ({**DESCRIPTION, "output": "logits:4"}, "at most 3 logits, its outputs"),
        ({**DESCRIPTION, "output": "values:2"}, "one of logits, values, logits:K"),
        ({**DESCRIPTION, "meta": []}, "meta"),
        ({**DESCRIPTION, "weights": {}}, "has no 'gru0.w_x'"),
        ({**DESCRIPTION, "layers": [1]}, r"layers\[0\] has no 'name'"),
        (
            layer(0, kind="transformer"),
            "unsupported kind 'transformer'; expected one of augmented_lstm, gru",
        ),
        (layer(0, name="../x"), "the name '../x'"),
        (layer(0, unit=3), "unknown key 'unit'"),
        (layer(0, units=10**9, inputs=10**9), "expected 1000000000"),
        (layer(0, units=10**100), "1 … 2³¹ − 1"),
        (layer(0, units=True), "units is True"),
        (layer(0, inputs=0), "inputs is 0"),
        (layer(1, name="gru0"), "layer names repeat"),
        (layer(1, units=10**9), "'head.w' is 3×4; expected 1000000000×4"),
        (layer(1, inputs=5), "'head' has 5 inputs; expected 4"),
        (layer(1, reads="first"), "'first'; expected one of every, last"),
        (layer(1, reads=["last"]), "one of every, last"),
    ],
)
def test_descriptions_that_are_refused(tmp_path: Path, description: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_model(write(tmp_path, description))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gru0.w_x": None}, "'gru0.w_x' is missing"),
        ({"gru0.w_x": np.ones((12, 3), np.float32)}, "12×3; expected 12×2"),
        ({"gru0.w_h.bias": np.ones(4, np.float32)}, r"shape \(4,\); expected \(12,\)"),
        ({"head.w": np.full((3, 4), np.nan, np.float32)}, "'head.w' holds 12 NaN"),
        ({"head.w": np.ones((3, 4), np.int8)}, "of type int8"),
        ({"extra": np.ones(1, np.float32)}, "no layer uses: extra"),
    ],
)
def test_tensors_that_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    tensors = {n: t for n, t in {**arrays(), **changes}.items() if t is not None}
    with pytest.raises(UserError, match=message):
        load_model(write(tmp_path, None, tensors))


def circulant_layers(count: int, b: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """(description, tensors): layers of one b×b circulant block, b/2 bytes each."""
    tensors: dict[str, Any] = {}
    layers, weights = [], {}
    part = {"shape": [1, 1, b], "bits": 4, "grid": "symmetric", "rows_per_scale": 1}
    link = {"bits": 8, "mantissa": 1, "exponent": 7, "activity": None}
    product = {"layout": "circulant", "inputs": b, "part": part, "link": link}
    for name in (f"wide{i}" for i in range(count)):
        layers.append({"name": name, "kind": "dense", "inputs": b, "units": b})
        weights[f"{name}.w"] = {
            "numeric": "integer",
            "form": 0,
            "products": [product],
            "bias": None,
        }
        tensors[f"{name}.w/0.codes"] = np.zeros(b // 2, np.uint8)
        tensors[f"{name}.w/0.mantissa"] = np.ones(1, np.int16)
        tensors[f"{name}.w/0.exponent"] = np.zeros(1, np.int8)
    return {**DESCRIPTION, "layers": layers, "weights": weights}, tensors


def test_a_small_file_that_means_a_huge_matrix_is_refused(tmp_path: Path) -> None:
    """One circulant block of 10⁶ rows is 10⁶ codes, but 10¹² numbers when it is written out."""
    with pytest.raises(UserError, match=r"'wide0\.w' has a matrix of 1000000×1000000; expected"):
        load_model(write(tmp_path, *circulant_layers(1, 10**6)))


def test_a_small_file_that_means_many_large_matrices_is_refused(tmp_path: Path) -> None:
    """Matrices of 2²⁶ numbers in 4 kB each: three are a network, four are more than 2²⁸ with results."""
    b = 1 << 13
    model = load_model(write(tmp_path, *circulant_layers(3, b)))
    assert model.weight_bytes < 3 * b
    with pytest.raises(
        UserError, match=r"means 2685\d{5} numbers .*'wide3'; expected at most 2684"
    ):
        load_model(write(tmp_path, *circulant_layers(4, b)))


def test_a_file_of_floats_and_integers_is_refused(tmp_path: Path) -> None:
    description, tensors = circulant_layers(2, 4)
    description["weights"]["wide1.w"] = {"numeric": "float"}
    tensors = {n: t for n, t in tensors.items() if n.startswith("wide0")}
    tensors["wide1.w"] = np.ones((4, 4), np.float32)
    with pytest.raises(UserError, match=r"of 'small' are integers and some floats: wide1\.w"):
        load_model(write(tmp_path, description, tensors))


def safetensors_of(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: struct.pack("<Q", 2**62) + whole[8:],
        lambda whole: b"\x80\x04\x95" + whole,  # the beginning of a pickle
        lambda whole: safetensors_of(
            {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"1234"
        ),
        lambda whole: safetensors_of(
            {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"1234"
        ),
    ],
)
def test_spoilt_files_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path) / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match="can't be read as safetensors"):
        load_model(tmp_path)


def test_types_without_a_counterpart_are_named(tmp_path: Path) -> None:
    path = write(tmp_path) / "model.safetensors"
    header = {"head.w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    path.write_bytes(safetensors_of(header, b"1234"))
    with pytest.raises(UserError, match=r"'head\.w' of .* is of type BF16"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "there is no file"),
        ("empty", r"there is no file '.*model\.json'"),
        ("model.onnx", "unknown type of file"),
        ("alone/model.json", "is no file; expected a safetensors file"),
    ],
)
def test_paths_that_are_refused(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.json").write_text(json.dumps(DESCRIPTION))
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / source)


def test_a_head_beside_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a head was given for a file"):
        load_model(write(tmp_path), head=object())


def test_more_layers_than_anyone_stacks_are_refused() -> None:
    layers = tuple(Layer(f"d{i}", "dense", 1, 1) for i in range(4097))
    with pytest.raises(UserError, match="has 4097 layers; expected at most 4096"):
        check_model(Model("deep", layers, {}, "values"))
