"""Exported C for other machines: results, sizes and stack as stated; every format under sanitizers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.export.c99 import export_c99
from modelflex.export.c99_text import STACK_BYTES
from modelflex.export.golden import STEPS, golden
from modelflex.registry import ACTIVITIES, FORMATS, NONLINEARITIES, STRUCTURES
from modelflex.testing.generators import (
    make_model,
    random_case,
    random_config,
    random_inputs,
)

from .exported import (
    CC,
    CLANG,
    SANITIZERS,
    WARNINGS,
    compile_,
    layer_model,
    run_selftest,
    sources,
)

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler on the PATH")

MODELS = {
    "recipe": cache(lambda: random_case(3).made.model),
    "float": cache(lambda: random_case(3).model),
    "conv2d": cache(lambda: layer_model("conv2d", 1)),
}


def found(*programs: str) -> None:
    """Skip where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on the PATH")


# --- every structure x format, with nonlinearities and activities in turn ------------------------
def matrix_model(structure: str, seed: int) -> Model:
    """LSTM, GRU, a layer that reads every step and a head: a weight for each format."""
    number = STRUCTURES.names().index(structure)
    rng = np.random.default_rng(seed)
    sizes = (("a", "lstm", 16), ("b", "gru", 32), ("c", "dense", 32), ("head", "dense", 16))
    inputs, layers = 16, []
    for name, kind, units in sizes:
        reads = "last" if name == "head" and number % 2 else "every"
        layers.append(Layer(name, kind, inputs, units, reads))
        inputs = units
    model = make_model(rng, layers)
    rules = []
    for i, (weight, form) in enumerate(zip(model.weights, FORMATS.names(), strict=True)):
        made = random_config(rng, STRUCTURES.get(structure))
        held = [None, random_config(rng, ACTIVITIES.get("delta")), ACTIVITIES.get("nonzero")()]
        codes = random_config(rng, FORMATS.get(form))
        activation = Activation((8, 6, 12)[i % 3], "max")
        rules.append(Rule(weight, Choice(made, codes, activation, held[(i + number) % 3])))
    functions = NONLINEARITIES.names()
    tables = [
        LayerRule(name, None, random_config(rng, NONLINEARITIES.get(functions[(i + number) % 5])))
        for i, name in enumerate("ab")
    ]
    stats = calibrate(model, random_inputs(rng, (30, 20), model))
    return compress(model, Recipe(tuple(rules), layers=tuple(tables)), stats).model


def distinct_outputs(model: Model) -> int:
    """Of the golden vectors; a coarse network may send the same few all the time."""
    return int(np.unique(golden(model, build_program(model)).outputs, axis=0).shape[0])


@pytest.mark.parametrize("structure", STRUCTURES.names())
def test_every_format_of_a_structure(structure: str, tmp_path: Path) -> None:
    models = (matrix_model(structure, seed) for seed in range(20))
    model = next(model for model in models if distinct_outputs(model) > STEPS / 4)
    symbol = export_c99(model, tmp_path / "c")["symbol"]
    for compiler in filter(None, (CC, CLANG)):
        program = tmp_path / "selftest"
        run_selftest(
            tmp_path / "c", symbol, compiler, *WARNINGS, *SANITIZERS, "-O0", program=program
        )


# --- other machines --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("machine", ["aarch64", "s390x"])  # s390x has big-endian numbers
def test_other_machines_give_the_same(machine: str, name: str, tmp_path: Path) -> None:
    compiler, emulator = f"{machine}-linux-gnu-gcc", f"qemu-{machine}-static"
    found(compiler, emulator)
    symbol = export_c99(MODELS[name](), tmp_path / "c")["symbol"]
    command = compiler, *WARNINGS, "-O2", "-static"
    run_selftest(tmp_path / "c", symbol, *command, program=tmp_path / "selftest", run=emulator)


TARGETS = {
    "this machine": (str(CC),),
    "AArch64": ("aarch64-linux-gnu-gcc",),
    "Cortex-M4": ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard"),
    "Cortex-M0": ("arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb"),
}
NODE = re.compile(r'node: \{ title: "([^"]+)" label: "[^"]*?(?:\\n(\d+) bytes \(([a-z,]+)\))?"')
EDGE = re.compile(r'edge: \{ sourcename: "([^"]+)" targetname: "([^"]+)"')


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Sequence[str]:
    """The command of a compiler."""
    command: Sequence[str] = TARGETS[request.param]
    found(command[0])
    return command


def exported_in(folder: Path, name: str) -> str:
    """A model's sources, straight in a folder; its symbol."""
    symbol = str(export_c99(MODELS[name](), folder)["symbol"])
    (folder / f"{symbol}_selftest.c").unlink()
    return symbol


def compiled(target: Sequence[str], folder: Path, *options: str) -> None:
    names = [Path(file).name for file in sources(folder)]
    compile_(*target[1:], *WARNINGS, *options, "-c", *names, compiler=target[0], folder=folder)


@pytest.mark.parametrize("name", MODELS)
def test_stated_sizes_are_those_of_the_compiler(
    name: str, target: Sequence[str], tmp_path: Path
) -> None:
    symbol = exported_in(tmp_path, name)
    capitals = symbol.upper()
    text = "\n".join(
        f"typedef char size_{i}[{condition} ? 1 : -1];"
        for i, condition in enumerate(
            (
                f"sizeof({symbol}_instance) == {capitals}_RAM_BYTES",
                f"sizeof((({symbol}_instance *)0)->state) <= {capitals}_STATE_BYTES",
            )
        )
    )
    (tmp_path / "check.c").write_text(f'#include "{symbol}.h"\n{text}\n')
    compiled(target, tmp_path, "-O2", "-fno-pic")
    tool = target[0].removesuffix("gcc").removesuffix("cc")
    if shutil.which(f"{tool}size") is None:
        pytest.skip(f"no {tool}size on the PATH")
    objects = sorted(p.name for p in tmp_path.glob("*.o"))
    lines = subprocess.run(
        [f"{tool}size", *objects], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    sizes = {line.split()[-1]: [int(n) for n in line.split()[:3]] for line in lines}
    assert all(size[1:] == [0, 0] for size in sizes.values()), "global variables"
    stated = re.search(rf"{capitals}_FLASH_BYTES (\d+)", (tmp_path / f"{symbol}.h").read_text())
    assert stated is not None
    padding = 32 * (tmp_path / f"{symbol}_weights.h").read_text().count("extern const")
    assert int(stated[1]) <= sizes[f"{symbol}_weights.o"][0] <= int(stated[1]) + padding


class Frames:
    """Frames of all functions and who calls whom, as the compiler states them."""

    def __init__(self, folder: Path) -> None:
        self.frames: dict[str, int] = {}
        self.calls: dict[str, set[str]] = {}
        for path in folder.glob("*.ci"):
            for name, nbytes, kind in NODE.findall(path.read_text()):
                if nbytes:
                    assert kind in ("static", "dynamic,bounded"), (name, kind)
                    self.frames[name] = int(nbytes)
            for source, target in EDGE.findall(path.read_text()):
                self.calls.setdefault(source, set()).add(target)

    def depth(self, name: str, above: tuple[str, ...] = ()) -> int:
        """Bytes of the deepest chain of calls; recursion fails."""
        assert name not in above, f"{name} calls itself"
        inner = (self.depth(n, (*above, name)) for n in self.calls.get(name, ()))
        return self.frames.get(name, 0) + max(inner, default=0)


@pytest.mark.parametrize("level", ["-O0", "-O2", "-Os"])
def test_the_stated_stack_is_a_bound(target: Sequence[str], level: str, tmp_path: Path) -> None:
    """Not only of the kernels that this network calls, but of all in the same files."""
    symbol = exported_in(tmp_path, "recipe")
    try:
        compiled(target, tmp_path, level, "-fcallgraph-info=su")
    except AssertionError:
        pytest.skip("the compiler states no stack usage")
    frames = Frames(tmp_path)
    kernels = [name for name in frames.frames if name.startswith(f"{symbol}_mf_")]
    assert f"{symbol}_mf_accumulate_windows_i64" in kernels
    stages = [f for name, f in frames.frames.items() if name.startswith(f"{symbol}.c:stage_")]
    step = frames.frames[f"{symbol}_step"] + max(stages, default=0)
    deepest = step + max(frames.depth(name) for name in kernels)
    assert frames.depth(f"{symbol}_step") <= deepest
    assert 64 < deepest <= STACK_BYTES
    assert max(frames.depth(f"{symbol}_{name}") for name in ("init", "reset")) <= STACK_BYTES
