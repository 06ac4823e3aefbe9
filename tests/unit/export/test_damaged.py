"""Artefacts with anything changed: one clear line, or a model that still runs; never another error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.program import build_program
from modelflex.core.storage import MODEL_JSON, MODEL_TENSORS
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.export.artefact import save_artefact
from modelflex.importers.models import load_model
from modelflex.testing.generators import Case, random_case

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 3, 5, 7, 16, 63, 2**31, 10**30, 0.5, "", "x", "dense", "circulant", "n_m",
    "levels", "signs", "power", "odd", [], [1], [0, 1], ["chain", 0, 1], ["sum", 0, 1], {},
    {"method": "delta"}, {"method": "delta", "density": 0.5},
)  # fmt: skip

case_of = cache(random_case)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def stored(folder: Path, seed: int) -> tuple[Case, dict[str, Any], dict[str, np.ndarray]]:
    """A compressed network with its JSON and tensors."""
    case, own = case_of(seed), folder / str(seed)
    if not own.exists():
        save_artefact(case.made.model, own, recipe=None, provenance={})
    tensors = safetensors.numpy.load_file(own / MODEL_TENSORS)
    return case, json.loads((own / MODEL_JSON).read_text("utf-8")), tensors


def check(folder: Path, case: Case, values: Any, tensors: dict[str, np.ndarray]) -> None:
    """Write, load and, if it loads, run; the only error is the user's, in one line."""
    (folder / MODEL_JSON).write_text(json.dumps(values), "utf-8")
    safetensors.numpy.save_file(tensors, folder / MODEL_TENSORS)
    try:
        with np.errstate(all="raise"):
            interpreter = Interpreter(build_program(load_model(folder)))
            outputs = interpreter.run(case.data).outputs
    except UserError as error:
        text = str(error)
    else:
        text = "" if np.isfinite(outputs).all() else "outputs\nthat are not finite"
    assert "\n" not in text


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything inside a JSON value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in pairs:
            yield from spots(below, (*path, key))


@given(st.integers(0, 11), st.data())
@settings(max_examples=300, deadline=None)
def test_any_value_of_the_description(folder: Path, seed: int, data: st.DataObject) -> None:
    case, values, tensors = stored(folder, seed)
    *path, last = data.draw(st.sampled_from(list(spots(values))))
    spot: Any = values
    for key in path:
        spot = spot[key]
    action = data.draw(st.sampled_from(("change", "remove", "swap")))
    if action == "change":
        spot[last] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
    elif action == "remove":
        del spot[last]
    else:
        other = data.draw(
            st.sampled_from(list(spot) if isinstance(spot, dict) else range(len(spot)))
        )
        spot[last], spot[other] = spot[other], spot[last]
    check(folder, case, values, tensors)


@given(st.integers(0, 11), st.data())
@settings(max_examples=300, deadline=None)
def test_any_tensor(folder: Path, seed: int, data: st.DataObject) -> None:
    case, values, tensors = stored(folder, seed)
    name = data.draw(st.sampled_from(sorted(tensors)))
    old = tensors[name]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**31)))
    kinds = (np.uint8, np.int8, np.int16, np.float32)
    changes = {
        "noise": lambda: np.frombuffer(rng.bytes(old.nbytes), old.dtype).reshape(old.shape),
        "zeros": lambda: np.zeros_like(old),
        "ones": lambda: np.full_like(old, -1 if old.dtype.kind == "i" else np.iinfo(old.dtype).max),
        "longer": lambda: np.concatenate([old, old[:1]]),
        "shorter": lambda: old[:-1],
        "another shape": lambda: old[None],
        "another type": lambda: old.astype(data.draw(st.sampled_from(kinds))),
    }
    made = changes[data.draw(st.sampled_from(sorted(changes)))]
    tensors[name] = np.ascontiguousarray(made())
    check(folder, case, values, tensors)
