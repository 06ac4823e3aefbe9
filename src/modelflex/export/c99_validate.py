"""Compiling an exported folder and comparing it with the interpreter, step by step."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE, Array, from_fx, to_fx
from modelflex.core.model import Model
from modelflex.core.program import Program, build_program
from modelflex.errors import UserError
from modelflex.export.c99 import changed_files, read_manifest
from modelflex.export.golden import TOLERANCE, golden, step_outputs

FLAGS: Final = ("-std=c99", "-pedantic", "-O2")
_COMPILERS: Final = ("cc", "gcc", "clang")
_MESSAGE = 400
TIMEOUT_S: Final = 600
"""Seconds for the compiler, and for the compiled code."""


@dataclass(frozen=True, eq=False)
class Validation:
    """What a comparison gave.

    Attributes:
        name: of the model.
        numeric: "integer" or "float".
        data: "golden vectors", or the name of a file.
        compiler: the command.
        lengths: int64 [N], steps of the sequences.
        found, expected: real outputs after every step [ΣT, K] of the compiled code and the interpreter.
        tolerance: of float programs, relative to the larger of 1 and the output; 0 for integers.
        nbytes: flash, ram, state and stack, as the folder's manifest states them.
        selftest: whether the folder's own self-test passed; None where it was not run.
    """

    name: str
    numeric: str
    data: str
    compiler: str
    lengths: Array
    found: Array
    expected: Array
    tolerance: float
    nbytes: Mapping[str, int]
    selftest: bool | None

    @property
    def errors(self) -> Array:
        """The largest error of a step, real, of floats relative to the larger of 1 and the output [ΣT]."""
        # A NaN of the compiled code must count as an error.
        difference = np.abs(self.found - self.expected)
        if self.numeric == "float":
            difference = difference / np.maximum(1.0, np.abs(self.expected))
        return np.where(np.isnan(difference), np.inf, difference).max(axis=1)

    @property
    def differing(self) -> Array:
        """Whether a step differs by more than the tolerance, bool [ΣT]."""
        return self.errors > self.tolerance

    @property
    def passed(self) -> bool:
        """Whether every step is as the interpreter computes it, and the self-test passed."""
        return self.selftest is not False and not bool(self.differing.any())

    @property
    def step_numbers(self) -> Array:
        """The number of each row's step in its sequence, from 0, int64 [ΣT]."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.arange(int(self.lengths.sum())) - np.repeat(starts, self.lengths)

    @property
    def error_by_step(self) -> Array:
        """The largest error at a step over all sequences, float64 [T_max]."""
        worst = np.zeros(int(self.lengths.max()))
        np.maximum.at(worst, self.step_numbers, self.errors)
        return worst

    def first_difference(self) -> tuple[int, int] | None:
        """(sequence, step) of the first step that differs, or None."""
        rows = np.flatnonzero(self.differing)
        if not rows.size:
            return None
        sequence = int(np.searchsorted(np.cumsum(self.lengths), rows[0], side="right"))
        return sequence, int(self.step_numbers[rows[0]])

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        first = self.first_difference()
        return {
            "model": self.name,
            "numeric": self.numeric,
            "data": self.data,
            "compiler": self.compiler,
            "passed": self.passed,
            "sequences": int(self.lengths.size),
            "steps": int(self.lengths.sum()),
            "outputs": int(self.expected.shape[1]),
            "differing_steps": int(self.differing.sum()),
            "largest_error": float(self.errors.max()),
            "tolerance": self.tolerance,
            "first_difference": None if first is None else {"sequence": first[0], "step": first[1]},
            "selftest": self.selftest,
            "bytes": dict(self.nbytes),
        }


def check_folder(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder whose files are as they were written.

    Raises:
        UserError: it is no export, or a file is missing or was altered.
    """
    manifest = read_manifest(folder)
    changed = changed_files(folder, manifest)
    if changed:
        raise UserError(
            f"{folder}: {changed[0]}", "the files as they were exported", "export the model again"
        )
    return manifest


def validate_c99(
    folder: Path, model: Model, data: Sequences | None, label: str, compiler: str | None
) -> Validation:
    """Compile an exported folder elsewhere, run it, and compare every step with the interpreter.

    Args:
        model: that of the folder.
        data: sequences; None for the golden vectors, and then the self-test must pass too.
        label: what the data are called.
        compiler: the command of the compiler; None for $CC, or the first that is found.

    Raises:
        UserError: the folder was altered, there is no compiler, or it or the program fails.
    """
    manifest = check_folder(folder)
    command = find_compiler(compiler)
    program = build_program(model)
    integer = program.numeric == "integer"
    if data is None:
        x = golden(model, program).inputs
        real = from_fx(x) if integer else x.astype(np.float64)
        sequences = Sequences(real, np.array([x.shape[0]]))
    else:
        sequences = data
        x = to_fx(data.x) if integer else data.x.astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="modelflex-") as name:
        work = Path(name)
        for file in manifest["files"]:
            if "/" not in file:
                shutil.copyfile(folder / file, work / file)
        build = _Build(work, command, manifest, program)
        passed = build.selftest() if data is None else None
        raw = build.run(x, sequences.lengths)
    return Validation(
        model.name,
        program.numeric,
        label,
        shlex.join(command),
        sequences.lengths,
        raw.astype(np.float64) / (FX_ONE if integer else 1),
        step_outputs(program, sequences),
        0.0 if integer else TOLERANCE,
        manifest["bytes"],
        passed,
    )


def find_compiler(compiler: str | None) -> list[str]:
    """The command of a C compiler.

    Raises:
        UserError: there is none.
    """
    named = compiler or os.environ.get("CC", "")
    try:
        candidates = [shlex.split(named)] if named.strip() else [[c] for c in _COMPILERS]
    except ValueError as error:
        raise UserError(f"the compiler is '{named}' ({error})", "a command") from None
    for command in candidates:
        if shutil.which(command[0]):
            return command
    raise UserError(
        f"skipped: there is no C compiler ({' or '.join(c[0] for c in candidates)})",
        "a compiler of C99",
        "install one, or name it with --cc or in CC",
    )


@dataclass(frozen=True)
class _Build:
    """A copy of an exported folder in which it is compiled."""

    folder: Path
    command: Sequence[str]
    manifest: Mapping[str, Any]
    program: Program

    @property
    def symbol(self) -> str:
        return str(self.manifest["symbol"])

    def selftest(self) -> bool:
        """Whether the folder's self-test passes."""
        done = self._run("selftest", f"{self.symbol}_selftest.c")
        if done.returncode not in (0, 1):
            raise UserError(f"the self-test ended with {done.returncode}", "0 or 1")
        return done.returncode == 0

    def run(self, x: Array, lengths: Array) -> Array:
        """Outputs after every step in the type of the device [ΣT, K]."""
        driver = _DRIVER.replace("@NAME@", self.symbol.upper()).replace("@name@", self.symbol)
        (self.folder / "modelflex_driver.c").write_text(driver, encoding="ascii")
        with (self.folder / "inputs").open("wb") as file:
            for rows in np.split(x, np.cumsum(lengths)[:-1]):
                file.write(np.uint32(rows.shape[0]).tobytes())
                file.write(np.ascontiguousarray(rows).tobytes())
        done = self._run("driver", "modelflex_driver.c", "inputs", "outputs")
        found = np.fromfile(self.folder / "outputs", x.dtype) if not done.returncode else x[:0]
        if found.size != x.shape[0] * self.program.outputs:
            raise UserError(
                f"the compiled code ended with {done.returncode} and {found.size} outputs",
                f"0 and {x.shape[0] * self.program.outputs}",
            )
        return found.reshape(x.shape[0], -1)

    def _run(self, name: str, main: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Compile the network with a main program, and run that."""
        tests = f"{self.symbol}_selftest.c"
        files = [f for f in self.manifest["files"] if f.endswith(".c") and f != tests]
        libraries = ["-lm"] if self.program.numeric == "float" else []
        command = [*self.command, *FLAGS, *sorted(files), main, "-o", name, *libraries]
        done = _execute(command, self.command[0], self.folder)
        if done.returncode:
            lines = done.stderr.splitlines()
            text = next((line for line in lines if "error" in line), "".join(lines[:1]))
            text = text or f"it says nothing and ends with {done.returncode}"
            raise UserError(
                f"'{shlex.join(self.command)}' does not compile the code: {text[:_MESSAGE]}",
                "a compiler of C99",
            )
        return _execute([str(self.folder / name), *arguments], "the code", self.folder)


def _execute(command: Sequence[str], what: str, folder: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{what} runs for more than {TIMEOUT_S} s", "an end") from None
    except OSError as error:
        raise UserError(f"{what} can't be run ({error.strerror})", "an executable") from None


_DRIVER: Final = """\
#include <stdio.h>

#include "@name@.h"

static @name@_instance net;
static @name@_real x[@NAME@_INPUTS], y[@NAME@_OUTPUTS];

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
    uint32_t steps;
    if (!out) {
        return 2;
    }
    @name@_init(&net);
    while (fread(&steps, sizeof steps, 1, in) == 1) {
        @name@_reset(&net);
        for (; steps; steps--) {
            if (fread(x, sizeof x, 1, in) != 1) {
                return 3;
            }
            @name@_step(&net, x, y);
            if (fwrite(y, sizeof y, 1, out) != 1) {
                return 4;
            }
        }
    }
    return fclose(out) ? 5 : 0;
}
"""
"""Reads sequences (a number of steps, then its inputs), writes the outputs of every step."""
