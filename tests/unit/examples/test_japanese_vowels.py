"""The JapaneseVowels example: its `.ts` reader, splits, scaling and exported weights."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.numpy

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "japanese_vowels"
SEEDS = sorted(
    int(p.parent.name.removeprefix("seed")) for p in EXAMPLE.glob("weights/*/split.json")
)

TINY = """\
# a comment: with, separators
@problemName Tiny
@timeStamps false
@dimensions 2
@equalLength false
@classLabel true b a
@data
1,2,3:10,20,30:a

# a comment between series
-4.5:1e1:b
"""


def load_prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("jv_prepare", EXAMPLE / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare = load_prepare()


@pytest.fixture(scope="module")
def official():
    return prepare.load_official()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.ts"
    path.write_text(text, encoding="utf-8")
    return path


def test_reader_reads_ragged_series_in_label_order_of_the_header(tmp_path):
    data = prepare.read_ts(write(tmp_path, TINY))
    np.testing.assert_array_equal(data.x, [[1, 10], [2, 20], [3, 30], [-4.5, 10]])
    np.testing.assert_array_equal(data.lengths, [3, 1])
    np.testing.assert_array_equal(data.y, [1, 0])
    assert data.y.dtype == np.int64


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@dimensions 2\n", "", "line 6: expected '@dimensions N'"),
        ("@dimensions 2", "@dimensions 3", "line 8: expected 3 dimensions"),
        ("@classLabel true b a\n", "", "expected '@classLabel true"),
        ("@timeStamps false", "@timeStamps true", "time stamps are not supported"),
        ("@data\n", "", "line 7: expected a header line"),
        (":a\n", ":c\n", "line 8: expected a label among b a, found 'c'"),
        ("10,20,30:a", "10,20,30", "line 8: expected 2 dimensions"),
        ("10,20,30", "10,20", "line 8: the dimensions differ in length"),
        ("-4.5", "NaN", "line 11: a value is NaN or infinite"),
        ("-4.5", "inf", "line 11: a value is NaN or infinite"),
        ("-4.5", "?", "line 11: a value is not a number"),
        ("-4.5", "", "line 11: a value is not a number"),
        (TINY[TINY.index("1,2,3") :], "", "no series after @data"),
    ],
)
def test_malformed_file_is_named_with_line_and_reason(tmp_path, old, new, message):
    assert old in TINY
    path = write(tmp_path, TINY.replace(old, new, 1))
    with pytest.raises(prepare.DataError) as caught:
        prepare.read_ts(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_binary_file_is_a_data_error(tmp_path):
    with pytest.raises(prepare.DataError, match=r"nowhere\.ts: cannot be read"):
        prepare.read_ts(tmp_path / "nowhere.ts")
    binary = tmp_path / "binary.ts"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(prepare.DataError, match=r"binary\.ts: cannot be read"):
        prepare.read_ts(binary)


def test_data_set_cut_at_a_line_end_is_noticed(tmp_path, monkeypatch):
    text = (prepare.data_folder() / "JapaneseVowels_TRAIN.ts").read_text(encoding="utf-8")
    (tmp_path / "JapaneseVowels_TRAIN.ts").write_text("\n".join(text.splitlines()[:-3]))
    monkeypatch.setattr(prepare, "data_folder", lambda: tmp_path)
    with pytest.raises(prepare.DataError, match="expected 270 series of 12 dimensions, found 267"):
        prepare.load_official()


def test_missing_wheel_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    assert prepare.main(["--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "pip install --no-deps aeon==1.6.0" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_official_data_are_those_the_source_describes(official):
    train, test = official
    assert np.bincount(train.y).tolist() == [30] * 9
    assert np.bincount(test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    for data in official:
        assert data.lengths.min() >= 7
        assert data.lengths.max() <= 29
        assert data.x.shape == (data.lengths.sum(), 12)


def test_take_keeps_frames_and_order():
    data = prepare.Ragged(np.arange(12.0).reshape(6, 2), np.array([1, 3, 2]), np.array([7, 8, 9]))
    part = data.take(np.array([2, 0]))
    np.testing.assert_array_equal(part.x, [[8, 9], [10, 11], [0, 1]])
    np.testing.assert_array_equal(part.lengths, [2, 1])
    np.testing.assert_array_equal(part.y, [9, 7])


def test_at_least_five_seeds_are_committed():
    assert len(SEEDS) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_split_holds_out_a_stratified_part_that_is_not_trained_on(seed, official):
    split = prepare.read_split(prepare.split_path(seed))
    assert split.seed == seed
    assert len(split.validation) >= 60
    assert not set(split.validation.tolist()) & set(split.train().tolist())
    assert len(split.train()) + len(split.validation) == 270
    assert np.bincount(official[0].y[split.validation]).tolist() == [7] * 9
    np.testing.assert_array_equal(
        split.validation, prepare.make_split(official[0], seed).validation
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_no_held_out_or_test_utterance_recurs_among_the_trained_ones(seed):
    parts = prepare.load_split(seed)

    def utterances(data):
        return {frames.tobytes() for frames in np.split(data.x, np.cumsum(data.lengths)[:-1])}

    trained = utterances(parts.train)
    assert not trained & utterances(parts.validation)
    assert not trained & utterances(parts.test)


@pytest.mark.parametrize("seed", SEEDS)
def test_scaling_is_that_of_the_training_frames_only(seed, official):
    split = prepare.read_split(prepare.split_path(seed))
    frames = []
    start = 0
    for index, length in enumerate(official[0].lengths):
        if index not in set(split.validation.tolist()):
            frames.extend(official[0].x[start : start + length])
        start += length
    np.testing.assert_allclose(split.mean, np.mean(frames, axis=0), rtol=1e-9)
    np.testing.assert_allclose(split.std, np.std(frames, axis=0), rtol=1e-9)


def test_splits_of_different_seeds_differ():
    held = {tuple(prepare.read_split(prepare.split_path(s)).validation.tolist()) for s in SEEDS}
    assert len(held) == len(SEEDS)


def test_scaling_does_not_follow_the_held_out_sequences(official):
    split = prepare.make_split(official[0], 0)
    ends = np.cumsum(official[0].lengths)
    shifted = official[0].x.copy()
    for index in split.validation:
        shifted[ends[index] - official[0].lengths[index] : ends[index]] += 1000
    again = prepare.make_split(official[0]._replace(x=shifted), 0)
    np.testing.assert_array_equal(split.mean, again.mean)
    np.testing.assert_array_equal(split.std, again.std)


def test_prepare_writes_what_load_split_returns(tmp_path, capsys):
    assert prepare.main(["--seed", str(SEEDS[0]), "--out", str(tmp_path)]) == 0
    for name, data in prepare.load_split(SEEDS[0])._asdict().items():
        with np.load(tmp_path / f"{name}.npz") as stored:
            assert stored["x"].dtype == np.float32
            np.testing.assert_array_equal(stored["x"], data.x.astype(np.float32))
            np.testing.assert_array_equal(stored["lengths"], data.lengths)
            np.testing.assert_array_equal(stored["y"], data.y)
            assert stored["lengths"].dtype == stored["y"].dtype == np.int64
    assert sorted(p.name for p in tmp_path.iterdir()) == ["test.npz", "train.npz", "validation.npz"]
    assert "207 sequences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "other/9"}, "schema 'other/9'"),
        ({"validation": [0, 0, 1]}, "distinct indices"),
        ({"validation": [0, 270]}, "distinct indices"),
        ({"validation": ["x"]}, "not a split file"),
        ({"mean": [0.0]}, "12 values"),
        ({"std": [0.0] * 12}, "positive"),
        ({"mean": [float("nan")] * 12}, "finite"),
    ],
)
def test_bad_split_file_is_a_data_error(tmp_path, change, message):
    fields = json.loads(prepare.split_path(SEEDS[0]).read_text(encoding="utf-8"))
    path = tmp_path / "split.json"
    path.write_text(json.dumps({**fields, **change}), encoding="utf-8")
    with pytest.raises(prepare.DataError, match=message):
        prepare.read_split(path)


def test_unknown_seed_names_the_known_ones(capsys):
    assert prepare.main(["--seed", "9999"]) == 2
    assert "seed0" in capsys.readouterr().err


@pytest.mark.parametrize("seed", SEEDS)
def test_committed_weights_reach_the_accuracy_they_state(seed):
    """The LSTM's equations in float64, one frame at a time, on the official test set."""
    folder = prepare.split_path(seed).parent
    meta = json.loads((folder / "model.json").read_text(encoding="utf-8"))["meta"]
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    assert {v.dtype for v in tensors.values()} == {np.dtype(np.float32)}
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    data = prepare.load_split(seed).test

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    n = len(data.y)
    starts = np.cumsum(data.lengths) - data.lengths
    h = np.zeros((n, 128))
    c = np.zeros((n, 128))
    for step in range(data.lengths.max()):
        alive = np.flatnonzero(step < data.lengths)
        x = data.x[starts[alive] + step]
        gates = x @ w["lstm0.w_x"].T + h[alive] @ w["lstm0.w_h"].T + w["lstm0.w_x.bias"]
        i, f, g, o = np.split(gates, 4, axis=1)
        c[alive] = sigmoid(f) * c[alive] + sigmoid(i) * np.tanh(g)
        h[alive] = sigmoid(o) * np.tanh(c[alive])
    accuracy = np.mean((h @ w["head.w"].T + w["head.w.bias"]).argmax(axis=1) == data.y)
    assert accuracy >= 0.95
    assert accuracy == pytest.approx(meta["scores"]["test"]["accuracy"], abs=1e-6)
