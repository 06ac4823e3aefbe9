"""The spoken digits' and Shakespeare's splits, and the exported weights that are committed."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def load(folder: str) -> ModuleType:
    path = EXAMPLES / folder / "prepare.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_prepare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


digits, shakespeare = load("spoken_digits"), load("shakespeare")


def clips():
    """50 clips of each of 6 speakers and 10 digits: number in its group, speaker."""
    index = np.tile(np.arange(50), 60)
    return index, np.repeat(np.arange(6), 500)


def test_official_split_of_the_digits():
    index, speakers = clips()
    split = digits.split_indices(index, speakers, None)
    assert {name: rows.size for name, rows in split.items()} == {
        "train": 2400,
        "validation": 300,
        "test": 300,
    }
    assert index[split["test"]].max() == 4
    assert set(index[split["validation"]]) == {5, 6, 7, 8, 9}
    np.testing.assert_array_equal(np.sort(np.concatenate([*split.values()])), np.arange(3000))


def test_a_held_out_speaker_is_heard_in_the_test_only():
    index, speakers = clips()
    split = digits.split_indices(index, speakers, 4)
    np.testing.assert_array_equal(split["test"], np.arange(2000, 2500))
    assert not set(split["train"]) & set(split["validation"])
    for name in ("train", "validation"):
        assert 4 not in speakers[split[name]]


@given(n=st.integers(2, 60), length=st.integers(1, 20), seed=st.integers(0, 9))
def test_cut_text_predicts_every_character_but_the_first(n, length, seed):
    codes = np.random.default_rng(seed).integers(0, 65, n)
    data = shakespeare.cut(codes, length)
    np.testing.assert_array_equal(data.x[:, 0], codes[:-1])
    np.testing.assert_array_equal(data.y, codes[1:])
    assert data.x.shape == (n - 1, 1)
    assert data.lengths.sum() == n - 1
    assert (data.lengths[:-1] == length).all()
    assert 1 <= data.lengths[-1] <= length


def test_shakespeare_is_split_by_position():
    codes = np.arange(1000)
    split = shakespeare.split_codes(codes)
    assert [part.size for part in split.values()] == [900, 50, 50]
    np.testing.assert_array_equal(np.concatenate([*split.values()]), codes)


def test_calibration_text_is_of_the_training_text_without_overlap():
    codes = np.arange(200 * 700 + 90)
    data = shakespeare.calibration(codes)
    assert (data.count, data.steps) == (500, 100_000)
    assert np.unique(data.y).size == 100_000
    np.testing.assert_array_equal(data.y, data.x[:, 0] + 1)


@pytest.mark.parametrize("module", [digits, shakespeare])
def test_missing_data_end_the_command_with_one_line(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MODELFLEX_DATA", str(tmp_path))
    assert module.main(["--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no data file")
    assert "MODELFLEX_DATA" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_other_text_is_not_taken_for_shakespeare(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELFLEX_DATA", str(tmp_path))
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be")
    with pytest.raises(UserError, match="5 characters"):
        shakespeare.load_codes()


COMMITTED = [
    *sorted((EXAMPLES / "shakespeare" / "weights").glob("seed0/model.json")),
    *sorted((EXAMPLES / "japanese_vowels" / "weights").glob("gru_seed[0-2]/model.json")),
]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parts[-4]}-{path.parts[-2]}")
def test_committed_tensors_fit_their_layers(path):
    description = json.loads(path.read_text())
    tensors = safetensors.numpy.load_file(path.with_suffix(".safetensors"))
    expected = {}
    for layer in description["layers"]:
        name, inputs, units = layer["name"], layer["inputs"], layer["units"]
        gates = {"lstm": 4, "gru": 3}.get(layer["kind"])
        if gates:
            expected[f"{name}.w_x"] = (gates * units, inputs)
            expected[f"{name}.w_h"] = (gates * units, units)
            expected[f"{name}.w_x.bias"] = (gates * units,)
        if layer["kind"] == "gru":
            expected[f"{name}.w_h.bias"] = (gates * units,)
        if layer["kind"] == "dense":
            expected[f"{name}.w"], expected[f"{name}.w.bias"] = (units, inputs), (units,)
    assert {name: value.shape for name, value in tensors.items()} == expected
    assert all(np.isfinite(value).all() for value in tensors.values())
