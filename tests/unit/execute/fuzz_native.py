"""Damaged artefacts and random plans given to the native runtime; run by test_native_fuzz.py.

    python fuzz_native.py artefacts|plans FIRST COUNT

Every case ends in results or in UserError or ValueError. The exit code is 1 with a traceback after any other
exception, and that of the signal after a crash; the last line of the output then names the case.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import modelflex
import modelflex._native as native
from modelflex.core.fixed import TANH_TABLE, Array
from modelflex.core.plan import KERNELS
from modelflex.core.program import Program, build_program
from modelflex.core.stored_matrix import stored_matrix
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.execute.native import Runtime, run_native
from modelflex.export.artefact import save_artefact
from modelflex.testing.generators import random_sequences
from modelflex.testing.native import stored_codes
from modelflex.testing.recipes import cached_case

REFUSED = (UserError, ValueError)
LENGTHS = (5, 1, 3)
NAMES = list(KERNELS)
CODES = ("linear_i", "delta_encode", "accumulate")


# --- artefacts -------------------------------------------------------------------------------------
def cut(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def flip(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(len(content), size=1 + rng.integers(8)):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(rng: np.random.Generator, content: bytes) -> bytes:
    start = int(rng.integers(len(content)))
    size = int(rng.integers(1, 33))
    return content[:start] + rng.bytes(size) + content[start + size :]


def insert(rng: np.random.Generator, content: bytes) -> bytes:
    start = int(rng.integers(len(content)))
    return content[:start] + rng.bytes(int(rng.integers(1, 9))) + content[start:]


NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    9,
    16,
    255,
    256,
    65535,
    2**31 - 1,
    2**31,
    2**32,
    2**63,
    2**64,
    0.5,
    1e300,
)


def change_number(rng: np.random.Generator, content: bytes) -> bytes:
    """Another number, or nothing, in place of one number of the description."""
    values = json.loads(content)
    found: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(child, (dict, list)):
                visit(child)
            elif isinstance(child, (int, float)):
                found.append((node, key))

    visit(values)
    node, key = found[int(rng.integers(len(found)))]
    node[key] = rng.choice(np.array([*NUMBERS, None], object))
    return json.dumps(values).encode()


def change_tensor(rng: np.random.Generator, content: bytes) -> bytes:
    """Random bytes, or the same extreme byte everywhere, in a tensor of the right type and shape."""
    tensors = safetensors.numpy.load(content)
    name = sorted(tensors)[int(rng.integers(len(tensors)))]
    array = np.ascontiguousarray(tensors[name])
    memory = np.frombuffer(rng.bytes(array.nbytes), np.uint8).copy()
    if rng.random() < 0.5:
        memory[:] = rng.choice([0, 127, 128, 255])
    if memory.size and rng.random() < 0.5:  # the rest as it was
        keep = np.ones(memory.size, bool)
        keep[rng.integers(memory.size)] = False
        memory[keep] = array.reshape(-1).view(np.uint8)[keep]
    tensors[name] = memory.view(array.dtype).reshape(array.shape)
    return safetensors.numpy.save(tensors)


DAMAGES: dict[str, list[Callable[[np.random.Generator, bytes], bytes]]] = {
    "model.json": [cut, flip, overwrite, insert, *[change_number] * 6],
    "model.safetensors": [cut, flip, flip, overwrite, insert, *[change_tensor] * 6],
}


def damaged_artefact(seed: int) -> None:
    """What is still a model gives the interpreter's bits; the rest is refused."""
    rng = np.random.default_rng(seed)
    case = cached_case(seed % 24)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "best"
        save_artefact(case.made.model, folder, recipe=case.recipe, provenance={})
        name = ("model.json", "model.safetensors")[int(rng.integers(2))]
        damage = DAMAGES[name][int(rng.integers(len(DAMAGES[name])))]
        path = folder / name
        path.write_bytes(damage(rng, path.read_bytes()))
        try:
            model = modelflex.load(folder)
            run_everything(build_program(model), model.inputs, rng)
        except REFUSED:
            pass


def run_everything(program: Program, inputs: int, rng: np.random.Generator) -> None:
    data = random_sequences(rng, LENGTHS, inputs)
    runtime = Runtime(program)
    steps = [runtime.step(row) for row in data.x.astype(np.float64)[:4]]
    runtime.reset()
    runtime.run(data.x)
    found = run_native(program, data, threads=2)
    if program.numeric == "integer":
        wanted = Interpreter(program).run(data)
        np.testing.assert_array_equal(found.outputs, wanted.outputs)
        if program.per_step:
            np.testing.assert_array_equal(steps[: LENGTHS[0]], wanted.outputs[:4])


# --- plans -----------------------------------------------------------------------------------------
TAKES = {
    "quantize": ("mu", "shift", "bits"),
    "linear": ("skip_zeros",),
    "delta_encode": ("thresholds", "block", "overshoot", "bits"),
    "accumulate": ("mask_block",),
    "rescale": ("mu", "shift"),
    "sigmoid": ("table",),
    "tanh": ("table",),
    "piecewise": ("breaks", "values", "slopes", "centre"),
    "copy": ("item_bytes",),
    "refine": (
        *("inner", "groups", "number"),
        *("mu", "shift", "code_mu", "code_shift", "code_bits"),
    ),
}
"""Attributes of kernels, by what their names begin with."""
HOSTILE = (-1, 0, 1, 2**16, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64)


def number(rng: np.random.Generator, most: int) -> int:
    """Mostly of a plan's size, sometimes beyond all of them."""
    if rng.random() < 0.03:
        return int(rng.choice(np.array(HOSTILE, object)))
    return int(rng.integers(most + 1))


def place(rng: np.random.Generator, memory: int, rows: int) -> tuple[int, int, int]:
    """Aligned to 8 and within the memory, more often than not."""
    step = 1 if rng.random() < 0.1 else 8
    size = (8, 3, 16, number(rng, 64))[int(rng.integers(4))]
    stride = (0, 64, size * 4, number(rng, memory))[int(rng.integers(4))] if rows > 1 else 0
    return number(rng, memory // step) * step, stride, size


def attributes(rng: np.random.Generator, kernel: str) -> dict[str, Any]:
    """What the kernel takes, seldom something else; numbers and arrays, most of them in range."""

    def array(low: int, high: int) -> Array:
        size = (1, 2, 8, 3)[int(rng.integers(4))]
        return rng.integers(low, high, size).astype(np.int32 if rng.random() < 0.97 else np.int64)

    count = (1, 2, 5)[int(rng.integers(3))]
    made: dict[str, Any] = {
        "mu": array(0, 32768) if rng.random() < 0.7 else number(rng, 32767),
        "shift": number(rng, 40),
        "bits": number(rng, 16),
        "block": 1 + number(rng, 3),
        "overshoot": number(rng, 255),
        "thresholds": array(0, 99),
        "mask_block": 1 + number(rng, 3),
        "table": TANH_TABLE,
        "breaks": np.arange(count, dtype=np.int32) * 1000,
        "values": rng.integers(0, 65536, count).astype(np.int32),
        "slopes": np.append(rng.integers(0, 65536, count - 1), 0).astype(np.int32),
        "centre": number(rng, 65536),
        "item_bytes": (1, 2, 4, 8)[int(rng.integers(4))],
        "skip_zeros": bool(rng.random() < 0.5),
        "inner": 0 if rng.random() < 0.8 else number(rng, 5),
        "groups": 1 if rng.random() < 0.8 else number(rng, 4),
        "number": 0 if rng.random() < 0.8 else number(rng, 2),
        "code_mu": number(rng, 32767),
        "code_shift": number(rng, 40),
        "code_bits": 2 + number(rng, 6),
    }
    names = next((n for start, n in TAKES.items() if kernel.startswith(start)), ())
    if kernel.endswith("_f32") and not kernel.startswith("linear"):
        names = ()
    other = set(names) ^ {str(rng.choice(list(made)))} if rng.random() < 0.05 else names
    return {name: made[name] for name in other}


def weights_of(rng: np.random.Generator, seed: int) -> native.Weights:
    """Both products of four terms, and those of a network."""
    weights = native.Weights()
    v, u = (stored_codes(rng.integers(-9, 9, shape).astype(np.int8)) for shape in ((4, 8), (8, 4)))
    weights.add_codes(v, 8, 32, None, None, 8, 1, False)
    weights.add_codes(replace(u, by_columns=True), 8, 32, None, None, 4, 1, False)
    for product in cached_case(seed % 24).program.products.values():
        if product.link is not None:
            taps = None if product.windows is None else product.windows.taps.astype(np.int32)
            stored = stored_matrix(product, skip_zeros=bool(rng.random() < 0.5))
            bits = (32, 64)[int(rng.integers(2))]
            weights.add_codes(stored, product.link.bits, bits, None, taps, product.inputs, 1)
    return weights


def random_plan(seed: int) -> None:
    """Calls that the loader takes run; the others are refused one by one."""
    rng = np.random.default_rng(seed)
    weights = weights_of(rng, seed)
    rows = (1, 1, 2, number(rng, 9))[int(rng.integers(4))]
    state, scratch = 64 * (1 + int(rng.integers(16))), 64 * (1 + int(rng.integers(64)))
    try:
        plan = native.Plan(weights, True, rows, state, scratch)
    except (*REFUSED, TypeError):
        return
    taken = False
    for _ in range(int(rng.integers(1, 40))):
        if not taken or rng.random() < 0.05:
            attempt(plan.begin_stage, bool(rng.random() < 0.1))
        places = [
            [place(rng, state + scratch, rows) for _ in range(n)]
            for n in (int(rng.integers(1, 4)), (1, 1, 3)[int(rng.integers(3))])
        ]
        if rng.random() < 0.7:  # elements of one size
            size = int(rng.integers(1, 20))
            places = [[(offset, stride, size) for offset, stride, _ in given] for given in places]
        kernel, site = int(rng.integers(len(KERNELS) + 1)), number(rng, 3) - 1
        attrs = attributes(rng, [*KERNELS, ""][kernel])
        ahead = bool(rng.random() < 0.5)
        call = (kernel, site, *places, attrs, ahead)
        name = [*KERNELS, ""][kernel]
        if name.startswith(CODES) and rng.random() < 0.98:  # of what an encoder makes
            if name.startswith("accumulate"):
                continue
            size = places[0][0][2]
            encode = {"mu": number(rng, 32767), "shift": 8, "bits": 2}
            source = (*place(rng, state + scratch, rows)[:2], size)
            if not attempt(
                plan.add_call, NAMES.index("quantize"), -1, [source], places[0][:1], encode, ahead
            ):
                continue
        taken = attempt(plan.add_call, *call) or taken
        attempt(plan.add_slot, place(rng, state, rows), 4, rng.bytes(32))
    if attempt(plan.finish, (0, 0, 8), (64, 0, 8)) and rows == 1:
        stream = native.Stream(plan, plan)
        for _ in range(3):
            stream.step(rng.normal(size=8))
        stream.run(rng.normal(size=(5, 8)))


def attempt(call: Callable[..., object], *given: Any) -> bool:
    try:
        call(*given)
    except (*REFUSED, TypeError, KeyError):
        return False
    return True


def main(what: str, first: int, count: int) -> None:
    case = {"artefacts": damaged_artefact, "plans": random_plan}[what]
    np.seterr(all="ignore")
    for seed in range(first, first + count):
        print(what, seed, flush=True)
        case(seed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
