"""Sequences from files, arrays and iterables; data that do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.model import Layer, Model
from modelflex.errors import UserError
from modelflex.importers.data import check_task, load_sequences

X = np.arange(18.0).reshape(6, 3)
LENGTHS = np.array([1, 3, 2])
Y = np.array([0, 2, 1])
STEPS = np.array([0, 1, 2, 2, 1, 0])
ITEMS = [X[:1], X[1:4], X[4:]]


def npz(path: Path, **values: Any) -> Path:
    np.savez(path / "data.npz", **values)
    return path / "data.npz"


def test_all_ways_to_give_the_same_data_agree(tmp_path: Path) -> None:
    expected = load_sequences(Sequences(X.astype(np.float32), LENGTHS, Y)).digest
    for source in (
        npz(tmp_path, x=X, lengths=LENGTHS, y=Y),
        str(tmp_path / "data.npz"),
        {"x": X, "lengths": LENGTHS.tolist(), "y": Y.tolist()},
        (X, LENGTHS, Y),
        (X, LENGTHS, Y.astype(np.int32)),
        list(zip(ITEMS, Y, strict=True)),
        ((x.tolist(), int(y)) for x, y in zip(ITEMS, Y, strict=True)),
        tuple(zip(ITEMS, Y, strict=True)),
    ):
        found = load_sequences(source)
        assert found.x.dtype == np.float32
        assert found.digest == expected


def test_without_targets() -> None:
    for source in ((X, LENGTHS), ITEMS, tuple(ITEMS), {"x": X, "lengths": LENGTHS}):
        found = load_sequences(source)
        assert found.y is None
        assert found.lengths.tolist() == [1, 3, 2]
        assert np.array_equal(found.x, X)


def test_targets_a_step_and_rows_of_targets() -> None:
    steps = load_sequences(list(zip(ITEMS, np.split(STEPS, [1, 4]), strict=True)))
    assert steps.y is not None
    assert steps.y.tolist() == STEPS.tolist()
    rows = load_sequences([(x, [0.5, 1.5]) for x in ITEMS])
    assert rows.y is not None
    assert rows.y.tolist() == [[0.5, 1.5]] * 3


def test_sequences_of_one_length() -> None:
    cube = X.reshape(2, 3, 3)
    for source in (cube, {"x": cube}):
        found = load_sequences(source)
        assert found.lengths.tolist() == [3, 3]
        assert np.array_equal(found.x, X)
    for y, shape in (
        (np.zeros(2, int), (2,)),
        (np.zeros((2, 3)), (6,)),
        (np.zeros((2, 4)), (2, 4)),
    ):
        found = load_sequences((cube, y))
        assert found.y is not None
        assert found.y.shape == shape


def spoilt(value: float) -> Any:
    x = X.copy()
    x[2, 1] = value
    return x


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((spoilt(np.nan), LENGTHS), "data: x holds 1 NaN and 0 infinite of 18"),
        ((spoilt(1e39), LENGTHS), "data: x holds 0 NaN and 1 infinite"),
        ((X, LENGTHS, np.array([0.0, np.nan, 1.0])), "y holds 1 NaN"),
        ((X, [1, 3, 3]), "lengths sum to 7; expected 6"),
        ((X, [0, 3, 3]), "lengths are 0 … 3"),
        ((X, [-1, 3, 4]), "lengths are -1 … 4"),
        ((X, [2**62] * 4 + [6]), "lengths are 6 … "),
        ((X, [1.0, 5.0]), "lengths are float64"),
        ({"x": X}, "no lengths"),
        ({"x": X, "lengths": []}, "integers"),
        ((np.ma.array(X), LENGTHS), "data: x is a masked array"),
        (np.ma.array(X.reshape(2, 3, 3)), "data: x is a masked array"),
        ((X, LENGTHS, np.ma.array(Y, mask=[0, 1, 0])), "data: y is a masked array"),
        ([X, np.ma.array(X)], r"data\[1\] is a masked array"),
        ({"x": X, "lengths": LENGTHS, "Y": Y}, "unknown array 'Y'"),
        ({"lengths": LENGTHS}, "no array x"),
        ({"x": X.reshape(2, 3, 3), "lengths": LENGTHS}, "3 dimensions and there are lengths"),
        ({"x": X[:, 0], "lengths": LENGTHS}, r"shape \(6,\).* use x\[:, None\]"),
        ({"x": X[:0], "lengths": LENGTHS}, "not empty"),
        ({"x": X.astype(object), "lengths": LENGTHS}, "of type object"),
        ({"x": X.astype(complex), "lengths": LENGTHS}, "of type complex128"),
        ({"x": [["a", "b"]], "lengths": [1]}, "of type <U1"),
        ((X, LENGTHS, np.zeros(4)), r"shape \(4,\); expected 3 rows"),
        ((X, LENGTHS, np.zeros((3, 2, 2))), "y has the shape"),
        ((X, LENGTHS, [[0], [1, 2], [3]]), "data: y is no array"),
        ([], "data is empty"),
        ([X, X[:, :2]], r"data\[1\] has the shape \(6, 2\); expected \[T, 3\]"),
        ([X, X[:0]], r"data\[1\] has the shape \(0, 3\)"),
        ([X[0], X[1]], r"data\[0\] has the shape \(3,\)"),
        ([(X, 1), X], "with and without targets"),
        ([(X, 1, 2)], "with and without targets"),
        ([(X, [1.0, 2.0]), (X, [1.0])], "targets of the shapes"),
        (3, "data is a int"),
        ("nowhere.npz", "no such file"),
    ],
)
def test_data_that_are_refused(source: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_sequences(source)
    assert "\n" not in str(caught.value)


def test_files_that_are_refused(tmp_path: Path) -> None:
    whole = npz(tmp_path, x=X, lengths=LENGTHS).read_bytes()
    objects = npz(tmp_path, x=np.array([{"a": 1}]), lengths=LENGTHS).read_bytes()
    contents = {
        "pickle": (pickle.dumps(X), "is no .npz file"),
        "empty": (b"", "is no .npz file"),
        "truncated": (whole[:-30], "is no .npz file|can't be read"),
        "spoilt": (whole[:200] + b"\xff" * 20 + whole[220:], "can't be read"),
        "objects": (objects, "can't be read .*allow_pickle"),
    }
    for name, (content, message) in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_sequences(path)


def test_files_that_unpack_to_too_much_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, x=np.zeros((100_000, 10), np.float32), lengths=[100_000])
    assert bomb.stat().st_size < 10_000
    assert load_sequences(bomb).steps == 100_000
    surplus = npz(tmp_path, x=X, lengths=LENGTHS, weights=X)
    monkeypatch.setattr("modelflex.importers.data.NPZ_BYTES", 1_000_000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(UserError, match=r"unpacks to 4000\d+ bytes; expected at most 1000000"):
        load_sequences(bomb)
    with pytest.raises(UserError, match="unknown array 'weights'"):
        load_sequences(surplus)


def model(per_step: bool, outputs: int = 3, output: str = "logits", inputs: int = 3) -> Model:
    head = Layer("head", "dense", 4, outputs, "every" if per_step else "last")
    return Model("m", (Layer("gru0", "gru", inputs, 4), head), {}, output)


def data(y: Any) -> Sequences:
    return load_sequences((X, LENGTHS) if y is None else (X, LENGTHS, y))


@pytest.mark.parametrize(
    ("y", "network", "task", "shape"),
    [
        (Y, model(False), "classification", (3,)),
        (STEPS, model(True), "per_step", (6,)),
        (STEPS, model(True), "next_symbol", (6,)),
        (np.ones(3), model(False, 1, "values"), "regression", (3, 1)),
        (np.ones((3, 2)), model(False, 2, "values"), "regression", (3, 2)),
        (np.ones((6, 2)), model(True, 2, "values"), "regression", (6, 2)),
    ],
)
def test_targets_in_the_form_of_the_task(y: Any, network: Model, task: str, shape: Any) -> None:
    found = check_task(data(y), network, task).y
    assert found is not None
    assert found.shape == shape
    assert found.dtype == (np.float64 if task == "regression" else np.int64)


def test_without_a_task_targets_are_dropped() -> None:
    assert check_task(data(Y), model(False), "none").y is None


@pytest.mark.parametrize(
    ("y", "network", "task", "message"),
    [
        (Y, model(False, inputs=4), "classification", "3 features; expected 4"),
        (Y, model(False), "clasification", "did you mean 'classification'"),
        (Y, model(True), "classification", "outputs at every step"),
        (STEPS, model(False), "per_step", "the last step only"),
        (None, model(False), "classification", "no targets y"),
        (STEPS, model(False), "classification", r"shape \(6,\); expected \(3,\)"),
        (Y, model(True), "next_symbol", r"shape \(3,\); expected \(6,\)"),
        (Y.astype(float), model(False), "classification", "of type float64"),
        (Y + 1, model(False), "classification", "classes 1 … 3; expected 0 … 2"),
        (Y - 1, model(False), "classification", "classes -1 … 1"),
        (
            Y,
            model(False, 4, "logits:2"),
            "classification",
            "expected 0 … 1 for the model's 2 logits",
        ),
        (np.ones(3), model(False, 4, "logits:2"), "regression", "output is 'logits:2'"),
        (np.ones(3), model(False, 1), "regression", "output = 'values'"),
        (np.ones(3), model(False, 2, "values"), "regression", r"expected \(3, 2\)"),
        (np.ones((3, 2)), model(True, 2, "values"), "regression", r"expected \(6, 2\)"),
    ],
)
def test_tasks_that_do_not_fit(y: Any, network: Model, task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_task(data(y), network, task)
