"""The native executor against the interpreter; nothing is checked where it was not built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.program import Program
from modelflex.core.stored_matrix import StoredMatrix
from modelflex.execute.interpret import Execution, Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.execute.native import FLOAT_TOLERANCE, Runtime, run_native


def check_native(program: Program, data: Sequences, wanted: Execution) -> None:
    """Batches, streams and pieces of sequences give outputs, counters and states of the interpreter.

    Args:
        wanted: the interpreter's run of the program over `data`.
    """
    if not HAVE_NATIVE:
        return
    same = _equal if program.numeric == "integer" else _close
    runtime = Runtime(program)
    capture = program.numeric == "integer"
    batch = run_native(program, data, threads=2, capture=capture)
    if capture:
        for site, seen in Interpreter(program).run(data, capture=True).inputs.items():
            _equal(batch.inputs[site], seen)
    same(batch.outputs, wanted.outputs)
    assert batch.profile == wanted.profile
    for stage, slots in wanted.state.items():
        assert list(batch.state[stage]) == list(slots)
        for slot, value in slots.items():
            same(batch.state[stage][slot], value)
    for number in (0, data.count - 1):
        one = data.take(np.array([number]))
        x = one.x.astype(np.float64)
        rows = wanted.outputs[number]
        if program.per_step:
            last = int(data.lengths[: number + 1].sum())
            rows = wanted.outputs[last - len(x) : last]
        _check_stream(runtime, x, rows, program.per_step, same)
        for stage, values in runtime.state.items():
            for slot, value in values.items():
                same(value, wanted.state[stage][slot][number])


def _check_stream(
    runtime: Runtime, x: Array, wanted: Array, per_step: bool, same: Callable[[Array, Array], None]
) -> None:
    """Steps, one call, and two calls with the carried state between them."""
    runtime.reset()
    steps = np.stack([runtime.step(row) for row in x])
    same(steps if per_step else steps[-1], wanted)
    middle = len(x) // 2
    if middle:
        runtime.reset()
        first = runtime.run(x[:middle])
        other = runtime.stream()
        other.state = runtime.state
        rest = other.run(x[middle:])
        same(np.concatenate([first, rest]) if per_step else rest, wanted)
    runtime.reset()
    same(runtime.run(x), wanted)


def _equal(found: Array, wanted: Array) -> None:
    np.testing.assert_array_equal(found, wanted)


def _close(found: Array, wanted: Array) -> None:
    error = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
    assert error.max(initial=0.0) <= FLOAT_TOLERANCE


def stored_codes(codes: Array) -> StoredMatrix:
    """A dense matrix of 8-bit codes [out, inputs] as it is stored."""
    out, inputs = codes.shape
    return StoredMatrix(
        codes=codes.astype(np.int8).view(np.uint8).ravel(),
        table=None,
        multipliers=None,
        index=None,
        out=out,
        inputs=inputs,
        rows=out,
        row_codes=inputs,
        block=1,
        kept=0,
        block_rows=1,
        rows_per_table=out,
        groups=0,
        bits=8,
        grid="symmetric",
        layout="dense",
        index_bits=0,
        by_columns=False,
    )


def run_python(code: str, **variables: str) -> str:
    """What a process of its own prints, with further variables in its environment; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
