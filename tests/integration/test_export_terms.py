"""Exported steps within limits: the self-test, prefixes beside the runtime, deadlines by a counting clock."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.fixed import FX_ONE
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.core.weight import float_weight
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.export.c99 import export_c99
from modelflex.testing.terms import as_integers, make_terms

from .exported import (
    CC,
    CLANG,
    SANITIZERS,
    WARNINGS,
    compile_,
    run_selftest,
    sources,
)

if not HAVE_NATIVE or CC is None:
    pytest.skip("there is no C compiler", allow_module_level=True)

from modelflex.execute.native import FLOAT_TOLERANCE, Runtime

INPUTS, UNITS, COUNTS = 6, 4, (5, 7)
Clock = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)


def two_layers(integer: bool, layout: str = "dense", groups: int = 4) -> Model:
    """Two layers with terms; in floats a head without."""
    rng = np.random.default_rng(3)
    weights: dict[str, Any] = {}
    layers = []
    for name, inputs, count in (("a", INPUTS, COUNTS[0]), ("b", UNITS, COUNTS[1])):
        layers.append(Layer(name, "augmented_lstm", inputs, UNITS))
        terms = make_terms(rng, 4 * UNITS, inputs + UNITS, count, groups, layout)
        weights[f"{name}.w"] = as_integers(rng, terms) if integer else terms
    if not integer:
        layers.append(Layer("head", "dense", UNITS, 3, "last"))
        weights["head.w"] = float_weight(rng.normal(size=(3, UNITS)), np.zeros(3), 1)
    return Model("two layers", tuple(layers), weights, output="values")


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("layout", ["dense", "row_sparse", "block_sparse"])
def test_the_self_test_has_prefixes_and_deadlines(
    integer: bool, layout: str, tmp_path: Path
) -> None:
    folder = tmp_path / "c99"
    export_c99(two_layers(integer, layout, 2), folder, "net")
    options = [*WARNINGS, *SANITIZERS]
    for compiler in filter(None, (CC, CLANG)):
        run_selftest(folder, "net", compiler, *options, program=tmp_path / "test")


def test_the_self_test_sees_a_term_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "c99"
    export_c99(two_layers(True), folder, "net")
    kernel = folder / "net_refine.h"
    text = kernel.read_text()
    assert "b->used < b->limit" in text
    kernel.write_text(text.replace("b->used < b->limit", "b->used < b->limit + (b->limit == 1)"))
    with pytest.raises(AssertionError):
        run_selftest(folder, "net", str(CC), "-O1", program=tmp_path / "test")


@pytest.fixture(params=[False, True])
def library(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Runtime, Any, Any]:
    """Compiled functions, the runtime of the same model, an instance, the type of numbers."""
    model = two_layers(request.param)
    folder = tmp_path / "c99"
    manifest = export_c99(model, folder, "net")
    compile_("-O2", "-shared", "-fPIC", *sources(folder), "-lm", "-o", str(tmp_path / "net.so"))
    code = ctypes.CDLL(str(tmp_path / "net.so"))
    code.net_step_deadline.restype = code.net_step_budget.restype = ctypes.c_uint32
    instance = ctypes.create_string_buffer(manifest["bytes"]["ram"] + 64)
    code.net_init(instance)
    number = ctypes.c_int32 if request.param else ctypes.c_float
    return code, Runtime(build_program(model)), instance, number


def test_prefixes_and_deadlines_are_those_of_the_runtime(
    library: tuple[Any, Runtime, Any, Any],
) -> None:
    code, runtime, instance, number = library
    integer = number is ctypes.c_int32
    unit = FX_ONE if integer else 1
    rng = np.random.default_rng(0)
    for step in range(40):
        x = np.round(rng.normal(size=INPUTS) * 256) / 256
        given = (number * INPUTS)(*(int(v * unit) if integer else v for v in x))
        y = (number * runtime.outputs)()
        if step % 2:
            terms = [int(rng.integers(0, n + 3)) for n in COUNTS]
            used = code.net_step_budget(instance, given, y, (ctypes.c_uint32 * 2)(*terms))
            answer = runtime.step(x, terms=dict(zip(("a.w", "b.w"), terms, strict=True)))
        else:
            now, deadline = [0], int(rng.integers(0, 16))

            def clock(_: Any = None, now: list[int] = now) -> int:
                now[0] += 1
                return now[0]

            each = (ctypes.c_uint32 * 2)()
            used = code.net_step_deadline(
                instance, given, y, Clock(clock), None, ctypes.c_uint64(deadline), each
            )
            assert now[0] <= sum(COUNTS) + 3
            assert used == 0 or used < deadline
            answer = runtime.step(x, terms={"a.w": each[0], "b.w": each[1]})
        assert used == sum(answer.terms.values())
        found = np.array(y) / unit
        limit = 0 if integer else FLOAT_TOLERANCE * np.maximum(1.0, np.abs(answer.y))
        assert np.all(np.abs(found - answer.y) <= limit)
