"""A network and data small enough to search in seconds, written as a user's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import modelflex
from modelflex.cli import main

GATES = {"lstm": 4, "gru": 3}

TOML = """\
[model]
path = "model.json"
[data]
calibration = "calibration.npz"
validation = "validation.npz"
test = "test.npz"
[task]
kind = "classification"
[platform]
name = "systolic"
[limits]
required_rate = "1 kHz"
[limits.max]
divergence = 0.5
weight_bytes = "3 kB"
[objective]
minimize = "weight_fetch_bytes_per_step"
[search]
workers = 1
[[space]]
name = "tiny"
recalibrate = 1
[space.vary]
bits = [2, 4, 8]
block = [1, 2]
[[space.rules]]
weights = "*.w_h"
structure = { method = "circulant", block = "$block" }
format = { method = "uniform", bits = "$bits", scales = "gate" }
activity = { method = "delta", threshold = 0.1, unit = "std" }
[[space.rules]]
weights = "*"
format = { method = "uniform", bits = "$bits" }
"""
HEAD = TOML[: TOML.index("[[space]]")]
"""All but the space."""
RULE = '[[space.rules]]\nweights = "*"\nformat = { method = "uniform", bits = 4 }\n'


def write_model(
    folder: Path,
    kinds: tuple[str, ...] = ("lstm",),
    units: int = 16,
    outputs: int = 3,
    reads: str = "last",
    output: str = "logits",
) -> Path:
    """A random network of 4 inputs: recurrent layers and a dense head, as model.json + safetensors."""
    rng = np.random.default_rng(0)
    layers: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}

    def tensor(name: str, *shape: int) -> None:
        tensors[name] = (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    inputs = 4
    for i, kind in enumerate(kinds):
        name, rows = f"{kind}{i}", GATES[kind] * units
        layers.append({"name": name, "kind": kind, "inputs": inputs, "units": units})
        tensor(f"{name}.w_x", rows, inputs)
        tensor(f"{name}.w_x.bias", rows)
        tensor(f"{name}.w_h", rows, units)
        if kind == "gru":
            tensor(f"{name}.w_h.bias", rows)
        inputs = units
    head = {"name": "head", "kind": "dense", "inputs": inputs, "units": outputs, "reads": reads}
    layers.append(head)
    tensor("head.w", outputs, inputs)
    tensor("head.w.bias", outputs)
    tensors["head.w"] *= 4  # clear answers
    description = {
        "schema": "modelflex.model/1",
        "name": "tiny",
        "layers": layers,
        "output": output,
    }
    path = folder / "model.json"
    path.write_text(json.dumps(description), encoding="utf-8")
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return path


def make_data(model: Path, count: int, seed: int) -> dict[str, np.ndarray]:
    """Ragged sequences whose targets are what the network says, every tenth one wrong."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, count)
    x = rng.standard_normal((int(lengths.sum()), 4)).astype(np.float32)
    outputs = modelflex.run(model, (x, lengths))
    y = outputs.argmax(axis=1)
    y[::10] = (y[::10] + 1) % outputs.shape[1]
    if json.loads(model.read_text(encoding="utf-8"))["output"] == "values":
        y = outputs + 0.1 * rng.standard_normal(outputs.shape)
    return {"x": x, "lengths": lengths, "y": y}


def write_project(folder: Path, toml: str = TOML, **network: Any) -> Path:
    """Model, data and configuration in `folder`; returns the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    model = write_model(folder, **network)
    for seed, (name, count) in enumerate((("calibration", 20), ("validation", 30), ("test", 40))):
        np.savez(folder / f"{name}.npz", **make_data(model, count, seed))  # type: ignore[arg-type]
    config = folder / "modelflex.toml"
    config.write_text(toml, encoding="utf-8")
    return config


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The configuration of a fresh tiny project."""
    return write_project(tmp_path / "project")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder without mistakes, and the study of a finished search in it."""
    config = write_project(
        tmp_path_factory.mktemp("sound") / "project", HEAD + "[[space]]\n" + RULE
    )
    with pytest.raises(SystemExit) as stop:
        main(["search", str(config), "--out", str(config.parent / "study"), "--json"])
    assert stop.value.code == 0
    return config.parent


@pytest.fixture
def folder(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sound project, which is also the current folder."""
    copy = shutil.copytree(sound, tmp_path / "project")
    monkeypatch.chdir(copy)
    return copy
