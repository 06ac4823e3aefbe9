"""What the tests of compiled exports share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.model import Model
from modelflex.core.recipe import Recipe
from modelflex.progressive.refining import Refinement, Refiner
from modelflex.registry import LAYERS
from modelflex.testing.generators import (
    random_carrying_model,
    random_inputs,
    random_layer_model,
    random_rules,
)

CC = shutil.which("cc") or shutil.which("gcc")
CLANG = shutil.which("clang")

WARNINGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def layer_model(kind: str, seed: int) -> Model:
    """A compressed network of one layer of a kind that is no cell, and a head."""
    rng = np.random.default_rng(seed)
    model = random_layer_model(rng, kind, LAYERS.get(kind).examples[0], "every")
    stats = calibrate(model, random_inputs(rng, (9, 14, 5), model))
    return compress(model, Recipe(random_rules(rng, model)), stats).model


def carrying_model(seed: int) -> Model:
    """A compressed network whose outputs are fed back to its cells."""
    rng = np.random.default_rng(seed)
    model = random_carrying_model(rng, ("gru", "lstm"), 3)
    stats = calibrate(model, random_inputs(rng, (9, 14, 5), model))
    return compress(model, Recipe(random_rules(rng, model)), stats).model


def refined_carrying_model(seed: int) -> Model:
    """A network in terms whose outputs are fed back to its LSTM."""
    rng = np.random.default_rng(seed)
    model = random_carrying_model(rng, ("lstm",), 2)
    return Refiner(model, random_inputs(rng, (9, 14, 5), model)).refined(Refinement())


def sources(folder: Path) -> list[str]:
    """All sources but the self-test."""
    return [str(p) for p in sorted(folder.glob("*.c")) if not p.name.endswith("_selftest.c")]


def compile_(*arguments: str, compiler: str | None = None, folder: Path | None = None) -> None:
    command = [str(compiler or CC), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


def run_selftest(folder: Path, symbol: str, *command: str, program: Path, run: str = "") -> None:
    """Compile the self-test of an export, run it, by an emulator if one is named; it must pass in silence."""
    files = [*sources(folder), str(folder / f"{symbol}_selftest.c")]
    compile_(*command[1:], *files, "-o", str(program), "-lm", compiler=command[0])
    started = [run, str(program)] if run else [str(program)]
    done = subprocess.run(started, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{symbol}: 64 steps, 0 outputs differ\n"
