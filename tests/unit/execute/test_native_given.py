"""What users give a runtime beside single steps: batches of arrays, threads, and attempts to copy it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import modelflex
from modelflex.core.data import Sequences
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.execute.native import Runtime
from modelflex.testing.recipes import cached_case

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)


@pytest.fixture
def runtime() -> Runtime:
    return modelflex.compile(cached_case(0).made.model)


def test_a_batch_takes_arrays_as_they_are(runtime: Runtime) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(n, 8)) for n in (3, 5, 1)]
    data = Sequences(np.concatenate(parts), np.array([3, 5, 1]))
    wanted = runtime.run_batch(data).outputs
    for given in (parts, tuple(parts), iter(parts), [part.tolist() for part in parts]):
        np.testing.assert_array_equal(runtime.run_batch(given, threads=2).outputs, wanted)
    block = np.stack([parts[1], parts[1]])
    found = runtime.run_batch(block, np.int64(1)).outputs
    np.testing.assert_array_equal(found, runtime.run_batch([parts[1]] * 2).outputs)


NO_SEQUENCES: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a path": "data.npz",
    "a mapping": {"x": np.zeros((3, 8)), "lengths": np.array([3])},
    "no sequence": [],
    "one sequence": np.zeros((3, 8)),
    "one step": np.zeros(8),
    "a scalar": np.array(1.0),
    "other features": [np.zeros((3, 7))],
    "uneven features": [np.zeros((3, 8)), np.zeros((3, 7))],
    "an empty sequence": [np.zeros((0, 8))],
    "x and lengths": (np.zeros((3, 8)), np.array([3])),
    "uneven rows": [[[0.0] * 8, [0.0] * 7]],
    "texts": [[["a"] * 8]],
    "objects": [np.zeros((3, 8), object)],
    "records": [np.zeros((3, 8), [("a", "f4")]), np.zeros((3, 8))],
}


@pytest.mark.parametrize("name", NO_SEQUENCES)
def test_what_is_no_batch_is_refused(runtime: Runtime, name: str) -> None:
    with pytest.raises(UserError, match="; expected"):
        runtime.run_batch(NO_SEQUENCES[name])


@pytest.mark.parametrize("threads", ["2", 2.0, None, True, [1], 0, 1025])
def test_threads_are_a_number(runtime: Runtime, threads: Any) -> None:
    with pytest.raises(UserError, match=r"threads is .*from 1 to 1024"):
        runtime.run_batch(np.zeros((1, 2, 8)), threads=threads)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_runtime_is_not_copied(runtime: Runtime, how: Callable[[Any], Any]) -> None:
    """A copy would share the stream, and so the state."""
    with pytest.raises(TypeError, match=r"stream\(\).*compile the model there"):
        how(runtime)
