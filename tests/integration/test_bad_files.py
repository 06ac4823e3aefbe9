"""Models, data and quality functions of every wrong kind: one clear line, nothing executed."""

from __future__ import annotations

import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from .refusal import Spoil, edit, refused


# --- the model -----------------------------------------------------------------------------------
def model_json(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        change(values)
        path.write_text(json.dumps(values), encoding="utf-8")

    return spoil


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        values = safetensors.numpy.load(path.read_bytes())
        change(values)
        safetensors.numpy.save_file(values, path)

    return spoil


def cut(name: str, share: float) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return spoil


def hostile_header(header: str, size: int | None = None) -> Spoil:
    """A safetensors file whose header is `header`, or claims to have `size` bytes."""
    content = (len(header) if size is None else size).to_bytes(8, "little") + header.encode()
    return lambda folder: (folder / "model.safetensors").write_bytes(content)


def at_layer(number: int, **values: Any) -> Spoil:
    return model_json(lambda v: v["layers"][number].update(values))


HUGE = '{"head.w":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,8]}}'
MODELS: dict[str, tuple[Spoil, str]] = {
    "no file": (lambda f: (f / "model.json").unlink(), "there is no file"),
    "no tensors": (lambda f: (f / "model.safetensors").unlink(), "is no file"),
    "unknown suffix": (edit('"model.json"', '"modelflex.toml"'), "unknown type of file"),
    "no JSON": (cut("model.json", 0.7), "is not valid JSON"),
    "no object": (lambda f: (f / "model.json").write_text("[1]"), "holds a JSON list"),
    "NaN in JSON": (lambda f: (f / "model.json").write_text('{"a": NaN}'), "not valid JSON"),
    "deep JSON": (lambda f: (f / "model.json").write_text("[" * 99999), "model.json"),
    "schema": (model_json(lambda v: v.update(schema="modelflex.model/2")), "modelflex.model/1"),
    "no schema": (model_json(lambda v: v.pop("schema")), "has the schema None"),
    "unknown key": (model_json(lambda v: v.update(layer=1)), "unknown key 'layer'"),
    "no layers": (model_json(lambda v: v.update(layers=[])), "tensors that no layer uses"),
    "layers of another type": (model_json(lambda v: v.update(layers=3)), "layers is '3'"),
    "kind": (at_layer(0, kind="transformer"), "unsupported kind 'transformer'"),
    "kind of another type": (at_layer(0, kind=7), "kind is '7'"),
    "huge units": (at_layer(0, units=10**12), "units is 1000000000000"),
    "large units": (at_layer(0, units=2**31 - 1), "lstm0"),
    "negative units": (at_layer(0, units=-1), "units is -1"),
    "other units": (at_layer(0, units=17), "lstm0"),
    "units of another type": (at_layer(0, units="16"), "units is 16"),
    "reads": (at_layer(1, reads="first"), "'first'"),
    "reads of another type": (at_layer(1, reads=["last"]), "reads"),
    "output": (model_json(lambda v: v.update(output="probabilities")), "one of logits, values"),
    "output of another type": (model_json(lambda v: v.update(output=[])), "output"),
    "repeated names": (at_layer(1, name="lstm0"), "layer names repeat"),
    "truncated tensors": (cut("model.safetensors", 0.9), "can't be read as safetensors"),
    "empty tensors": (cut("model.safetensors", 0), "can't be read as safetensors"),
    "missing tensor": (tensors(lambda v: v.pop("head.w")), "tensor 'head.w' is missing"),
    "left over": (tensors(lambda v: v.update(more=np.ones(1, np.float32))), "no layer uses: more"),
    "NaN": (tensors(lambda v: v["head.w"].fill(np.nan)), "48 NaN"),
    "infinity": (tensors(lambda v: v["lstm0.w_h"].fill(np.inf)), "1024 infinite"),
    "integers": (tensors(lambda v: v.update({"head.w": np.ones((3, 16), np.int32)})), "int32"),
    "shape": (tensors(lambda v: v.update({"head.w": np.ones((16, 3), np.float32)})), "head.w"),
    "bias": (tensors(lambda v: v.update({"head.w.bias": np.ones(4, np.float32)})), "head.w"),
    "dimensions": (tensors(lambda v: v.update({"head.w": np.ones(48, np.float32)})), "matrix"),
    "hostile header": (hostile_header(HUGE), "can't be read as safetensors"),
    "hostile header size": (hostile_header("{}", 2**62), "can't be read as safetensors"),
    "header no object": (hostile_header("[]"), "can't be read as safetensors"),
    "all zero": (tensors(lambda v: [x.fill(0) for x in v.values()]), "zero"),
    "compressed already": (edit('"model.json"', '"study/best"'), "already compressed"),
    "reads of the configuration": (edit("[data]", 'reads = "first"\n[data]'), "model.reads"),
    "one logit": (edit("[data]", 'output = "logits:1"\n[data]'), "2 logits or more"),
    "output of the configuration": (edit("[data]", 'output = "text"\n[data]'), "model.output"),
}


@pytest.mark.parametrize(("spoil", "message"), MODELS.values(), ids=MODELS)
def test_models(folder: Path, capsys: Any, spoil: Spoil, message: str) -> None:
    spoil(folder)
    refused(capsys, message)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["model.pt", "model.pth"])
def test_pickles_are_never_executed(folder: Path, capsys: Any, name: str) -> None:
    pytest.importorskip("torch")
    (folder / name).write_bytes(pickle.dumps(Payload()))
    edit("model.json", name)(folder)
    refused(capsys, "can't be read as a state dict")
    assert not Path("executed").exists()


# --- the data ------------------------------------------------------------------------------------
def data(name: str = "validation", **changes: Callable[[np.ndarray], Any]) -> Spoil:
    """Change arrays of a file; a change that gives None leaves the array out."""

    def spoil(folder: Path) -> None:
        path = folder / f"{name}.npz"
        with np.load(path) as file:
            arrays = {key: file[key] for key in file.files}
        for key, change in changes.items():
            arrays[key] = change(arrays.get(key, np.zeros(1)))
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})

    return spoil


def put(position: Any, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[position] = value
        return array

    return change


def npz_of_pickle(folder: Path) -> None:
    objects = np.array([Payload(), None], dtype=object)
    np.savez(folder / "validation.npz", x=objects, allow_pickle=True)


def huge_npz(folder: Path) -> None:
    """An array that claims 10¹⁸ rows."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000000, 4), }"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with zipfile.ZipFile(folder / "validation.npz", "w") as file:
        file.writestr("x.npy", start)


DATA: dict[str, tuple[Spoil, str]] = {
    "no calibration": (lambda f: (f / "calibration.npz").unlink(), "data.calibration"),
    "no validation": (lambda f: (f / "validation.npz").unlink(), "data.validation"),
    "no test": (lambda f: (f / "test.npz").unlink(), "data.test"),
    "no npz": (lambda f: (f / "test.npz").write_text("x, y"), "is no .npz file"),
    "truncated": (cut("validation.npz", 0.5), "data.validation"),
    "pickle": (npz_of_pickle, "can't be read"),
    "huge": (huge_npz, "can't be read"),
    "unknown array": (data(labels=np.copy), "unknown array 'labels'"),
    "no x": (data(x=lambda x: None), "has no array x"),
    "no lengths": (data(lengths=lambda x: None), "has no lengths"),
    "no y": (data(y=lambda y: None), "has no targets y"),
    "NaN": (data(x=put((3, 1), np.nan)), "1 NaN"),
    "infinity": (data("calibration", x=put((3, 1), np.inf)), "1 infinite"),
    "infinity in test": (data("test", x=put((3, 1), -np.inf)), "1 infinite"),
    "texts": (data(x=lambda x: x.astype(str)), "real numbers"),
    "complex": (data(x=lambda x: x.astype(complex)), "real numbers"),
    "one dimension": (data(x=lambda x: x[:, 0]), "[ΣT, F]"),
    "features": (data(x=lambda x: x[:, :3]), "3 features"),
    "calibration features": (data("calibration", x=lambda x: x[:, :3]), "3 features"),
    "test features": (data("test", x=lambda x: x[:, :3]), "3 features"),
    "lengths": (data(lengths=lambda n: n[:-1]), "lengths sum to"),
    "lengths negative": (data(lengths=put(0, -3)), "lengths are -3"),
    "lengths huge": (data(lengths=put(0, 2**62)), "lengths are"),
    "lengths real": (data(lengths=lambda n: n.astype(float)), "lengths are float64"),
    "labels above": (data(y=put(0, 3)), "0 … 2"),
    "labels below": (data("test", y=put(0, -1)), "0 … 2"),
    "labels real": (data(y=lambda y: y + 0.5), "integer class numbers"),
    "labels too few": (data(y=lambda y: y[:-1]), "y has the shape"),
    "labels a step": (data(y=lambda y: np.zeros(8, int)), "y has the shape"),
    "task a step": (edit('"classification"', '"per_step"'), "the last step only"),
    "regression of logits": (edit('"classification"', '"regression"'), "output = 'values'"),
    "zero input": (data("calibration", x=np.zeros_like), "zero at every calibration step"),
    "x as a folder": (edit('"test.npz"', '"study"'), "there is no such file"),
}


@pytest.mark.parametrize(("spoil", "message"), DATA.values(), ids=DATA)
def test_data(folder: Path, capsys: Any, spoil: Spoil, message: str) -> None:
    spoil(folder)
    refused(capsys, message)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 'good'", "returned 'good'"),
        ("return float('nan')", "a finite number"),
        ("return outputs", "expected a number"),
        ("raise KeyError('label')", "KeyError"),
        ("return outputs[10**6]", "IndexError"),
    ],
)
def test_own_quality_that_fails(
    folder: Path, capsys: Any, body: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text(f"def quality(outputs, y, lengths):\n    {body}\n")
    monkeypatch.delitem(sys.modules, "own", raising=False)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    edit("[platform]", 'quality = "own:quality"\n[platform]')(folder)
    refused(capsys, message)


def test_own_quality_that_is_no_python(
    folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.py").write_text("def quality(:\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    edit("[platform]", 'quality = "broken:quality"\n[platform]')(folder)
    refused(capsys, "broken.py")
