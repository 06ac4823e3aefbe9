"""Instruction sets: the same bits on all, refused where the CPU has not got them, kept once loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.export.artefact import save_artefact
from modelflex.testing.native import run_python
from modelflex.testing.recipes import cached_case

if not HAVE_NATIVE:
    pytest.skip("the native kernels were not built", allow_module_level=True)

import modelflex._native as native
from modelflex.execute.native import Runtime


def test_a_cpu_without_the_instructions_gives_the_same_bits(tmp_path: Path) -> None:
    code = """
import hashlib, os
import numpy as np
import modelflex, modelflex._native as native
sums = []
for folder in sorted(os.listdir(os.environ["FOLDERS"])):
    runtime = modelflex.compile(os.path.join(os.environ["FOLDERS"], folder))
    x = np.random.default_rng(0).normal(size=(40, runtime.inputs))
    runtime.run(x)
    steps = np.stack([runtime.step(row) for row in x])
    sums.append(hashlib.sha256(steps.tobytes()).hexdigest())
print(native.isa(), *sums)
"""
    for seed in range(6):
        if cached_case(seed).program.numeric == "integer":
            model = cached_case(seed).made.model
            save_artefact(
                model, tmp_path / str(seed), recipe=cached_case(seed).recipe, provenance={}
            )
    best, *wanted = run_python(code, FOLDERS=str(tmp_path)).split()
    isa, *found = run_python(code, FOLDERS=str(tmp_path), MODELFLEX_ISA="portable").split()
    assert isa == "portable"
    assert best == native.isa()
    assert found == wanted
    assert wanted


def test_what_is_loaded_keeps_its_instruction_set() -> None:
    """σ and tanh of floats differ in their last bits between instruction sets."""
    floats = modelflex.compile(cached_case(0).model)
    xs = np.random.default_rng(0).normal(size=(50, 8))
    wanted = floats.run(xs)
    floats.reset()
    try:
        native.limit_isa("portable")
        np.testing.assert_array_equal(floats.run(xs), wanted)
        np.testing.assert_array_equal(floats.stream().run(xs), wanted)
    finally:
        native.limit_isa(None)


@pytest.mark.parametrize("name", ["mmx", "AVX2", " ", *({"avx512vnni", "neon"} - {native.isa()})])
def test_instruction_sets_that_are_not_here_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELFLEX_ISA", name)
    with pytest.raises(UserError, match=f"MODELFLEX_ISA is '{name}'"):
        Runtime(cached_case(0).program)
