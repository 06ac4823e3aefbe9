"""The numbers in docs/arithmetic.md against the code, and σ and tanh against the real functions."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.activities.delta import Delta
from modelflex.core import accumulators, fixed, kernels
from modelflex.core.bits import pack_codes
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array, Multiplier, Scale
from modelflex.core.model import Layer, Model
from modelflex.core.part import Grid, Part, bias_codes, pack_bias
from modelflex.core.products import program_table
from modelflex.core.program import build_program
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "arithmetic.md").read_text("utf-8")
SITE = "layer.w/0"


def table_row(name: str) -> list[str]:
    """The cells of the only row of a table that starts with `name`."""
    rows = [line for line in TEXT.splitlines() if line.startswith(f"| {name} |")]
    assert len(rows) == 1, name
    return [cell.strip() for cell in rows[0].strip("|").split("|")]


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    block = re.search(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert block
    values: dict[str, Any] = json.loads(block[1])
    return values


@pytest.fixture(scope="module")
def model(example: dict[str, Any]) -> Model:
    codes = np.array(example["codes"])
    part = Part(codes, 4, Scale.nearest(np.array(example["weight_scales_wanted"])))
    step = Scale.nearest(example["input_step_wanted"])
    weight = Matrix(part, None, Link(8, step, Delta(example["threshold"])), 1, "dense", 3)
    bias = pack_bias(np.array(example["bias_wanted"]), weight.accumulator_scale(), 8)
    layer = Layer("layer", "dense", 3, 2)
    return Model("example", (layer,), {"layer.w": weight.with_bias(bias)})


def plain(x: Scale | Multiplier) -> dict[str, Any]:
    if isinstance(x, Scale):
        return {"mantissa": x.mantissa.tolist(), "exponent": x.exponent}
    return {"mantissa": x.mantissa.tolist(), "shift": x.shift}


# --- constants -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["FX_BITS", "MANTISSA_MAX", "MAX_SHIFT"])
def test_constants(name: str) -> None:
    assert int(table_row(f"`{name}`")[1]) == getattr(fixed, name)


def test_the_accumulator_limit() -> None:
    assert int(table_row("`MAX_ACCUMULATOR`")[1]) == accumulators.MAX_ACCUMULATOR == 2**47


@pytest.mark.parametrize(
    ("label", "top", "bits"), [("2 × 8", 3, 8), ("3 × 8, 4 × 8", 7, 8), ("8 × 8", 127, 8)]
)
def test_inputs_that_binary32_allows(label: str, top: int, bits: int) -> None:
    largest = int(table_row(label)[1])
    weight_bits = 8 if top == 127 else 4
    for inputs, dtype in ((largest, np.float32), (largest + 1, np.float64)):
        part = Part(np.full((1, inputs), top), weight_bits, Scale.power_of_two(10))
        weight = Matrix(part, None, Link(bits, Scale.power_of_two(7)), 1, "dense", inputs)
        one = Model("m", (Layer("layer", "dense", inputs, 1),), {"layer.w": weight})
        run = Interpreter(build_program(one))
        found = run.linear(SITE, np.full((1, inputs), -(2 ** (bits - 1))))
        assert found.dtype == dtype
        assert int(found[0, 0]) == -inputs * top * 2 ** (bits - 1)


def test_inputs_that_16_bits_allow() -> None:
    largest = int(table_row("16 × 16")[2])
    for inputs in (largest, largest + 1):
        part = Part(np.full((1, inputs), 32767), 16, Scale.power_of_two(15))
        weight = Matrix(part, None, Link(16, Scale.power_of_two(15)), 1, "dense", inputs)
        one = Model("m", (Layer("layer", "dense", inputs, 1),), {"layer.w": weight})
        if inputs == largest:
            Interpreter(build_program(one))
        else:
            with pytest.raises(UserError, match="sums"):
                Interpreter(build_program(one))


# --- σ and tanh ----------------------------------------------------------------------------------
def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("name", "integer", "real"),
    [("tanh", kernels.tanh, np.tanh), ("sigmoid", kernels.sigmoid, sigmoid)],
)
def test_largest_errors(name: str, integer: Any, real: Any) -> None:
    """All 2²¹ inputs in [−16, 16); both functions are constant beyond."""
    v = np.arange(-(2**20), 2**20, dtype=np.int32)
    codes = integer(v)
    error = codes / 65536.0 - real(v / 65536.0)
    _, largest, at, mean = table_row(f"`{name}`")
    worst = int(np.abs(error).argmax())
    assert float(largest) == pytest.approx(np.abs(error).max(), rel=1e-4)
    assert float(mean) == pytest.approx(math.sqrt(np.mean(error**2)), rel=1e-4)
    assert float(at.strip("±−")) == pytest.approx(abs(v[worst]) / 65536, abs=1e-5)
    far = np.array([-(2**31), -(2**24), 2**24, 2**31 - 1], np.int64)
    ends = integer(far.astype(np.int32))
    assert ends.tolist() == [codes[0], codes[0], codes[-1], codes[-1]]
    limits = np.array([-1.0 if name == "tanh" else 0.0, 1.0])[[0, 0, 1, 1]]
    assert np.abs(ends / 65536.0 - limits).max() < np.abs(error).max()
    assert np.diff(codes).min() >= 0


def test_symmetry_and_range() -> None:
    v = np.arange(1, 2**20, dtype=np.int32)
    np.testing.assert_array_equal(kernels.tanh(-v), -kernels.tanh(v))
    assert set(np.unique(kernels.sigmoid(-v) + kernels.sigmoid(v))) == {65536, 65537}
    assert kernels.tanh(v).max() == 65534
    assert kernels.sigmoid(-v).min() == 1
    assert kernels.sigmoid(v).max() == 65535


# --- the worked example --------------------------------------------------------------------------
def test_the_stored_weight(example: dict[str, Any], model: Model) -> None:
    weight = model.weights["layer.w"]
    part, link, bias = weight.parts[0], weight.links[0], weight.bias
    assert bias is not None
    assert bias.scale is not None
    assert part.scale is not None
    assert plain(part.scale) == example["weight_scale"]
    assert plain(link.scale) == example["input_scale"]
    assert pack_codes(part).tobytes().hex() == example["packed_codes"]
    assert bias.codes.tolist() == example["bias_codes"]
    assert -bias.scale.exponent == example["bias_shift"]
    assert bias_codes(bias).tolist() == example["bias_acc"]
    assert pack_codes(bias).tobytes().hex() == example["packed_bias"]
    assert weight.nbytes == example["stored_bytes"]
    odd = example["odd_grid"]
    packed = pack_codes(
        Part(np.array(odd["codes"]), odd["bits"], Scale.power_of_two(0), 5, Grid("odd"))
    )
    assert packed.tobytes().hex() == odd["packed"]


def test_the_constants_of_the_product(example: dict[str, Any], model: Model) -> None:
    product = build_program(model).products[SITE]
    assert product.encode is not None
    assert product.rescale is not None
    assert product.bias is not None
    assert plain(product.encode) == example["encode"]
    assert plain(product.rescale) == example["rescale"]
    step = model.weights["layer.w"].links[0].step
    assert Delta(example["threshold"]).codes(step) == example["threshold_codes"]
    rows = np.abs(product.integers()).sum(axis=1)
    assert int(rows.max()) * 2**8 + int(np.abs(product.bias).max()) == example["accumulator_bound"]


def test_the_steps(example: dict[str, Any], model: Model) -> None:
    program = build_program(model)
    run, encode = Interpreter(program), program.products[SITE].encode
    assert encode is not None
    state: dict[str, Any] | None = None
    sent = np.zeros(3, np.int16)
    for step in example["steps"]:
        x = np.array([step["x"]], np.float32)
        assert fixed.to_fx(x)[0].tolist() == step["fx"]
        codes = kernels.quantize(fixed.to_fx(x), encode, 8)
        assert codes[0].tolist() == step["input_codes"]
        thresholds = np.full(3, example["threshold_codes"], np.int32)
        delta, _, after = kernels.delta_encode(codes, sent[None], thresholds, 1, 0, 8)
        assert delta[0].tolist() == step["delta"]
        sent = after[0]
        made = run.run(Sequences(x, np.array([1])), state=state)
        state = dict(made.state)
        assert state["layer"][f"{SITE}.sent"][0].tolist() == step["sent"] == sent.tolist()
        assert state["layer"][f"{SITE}.m"][0].tolist() == step["m"]
        assert made.profile.sites[SITE].units == step["units"]
        y = (made.outputs[0] * 65536).astype(np.int32)
        assert y.tolist() == step["y"]
        assert kernels.tanh(y).tolist() == step["tanh_y"]


def test_the_overshoot(example: dict[str, Any]) -> None:
    whole = example["overshoot_256"]
    assert int(example["overshoot"] * 2**8) == whole
    link = Link(8, Scale.nearest(example["input_step_wanted"]))
    activity = Delta(example["threshold"], overshoot=example["overshoot"])
    codes = np.array([step["input_codes"] for step in example["steps"]], np.int16)
    held, _ = activity.replay(codes, np.array([2]), 1, link)
    assert held.tolist() == example["overshoot_sent"]


def test_the_bytes(example: dict[str, Any], model: Model) -> None:
    x = np.array([step["x"] for step in example["steps"]], np.float32)
    program = build_program(model)
    profile = Interpreter(program).run(Sequences(x, np.array([2]))).profile
    table = program_table(program, profile, model)
    assert table.fetch_bytes_per_step.sum() == example["fetched_bytes_per_step"]
    assert table["state_bytes"].sum() == example["state_bytes"]
    assert table["stored_bytes"].sum() == example["stored_bytes"]


def test_the_lstm_unit(example: dict[str, Any]) -> None:
    unit = example["lstm_unit"]
    i, f, g, o = np.array(unit["preactivations_ifgo"], np.int32)[:, None]
    c = np.array([unit["c"]], np.int32)
    made = {
        "sigmoid_i": kernels.sigmoid(i),
        "sigmoid_f": kernels.sigmoid(f),
        "tanh_g": kernels.tanh(g),
        "sigmoid_o": kernels.sigmoid(o),
    }
    made["f_c"] = kernels.mul(made["sigmoid_f"], c)
    made["i_g"] = kernels.mul(made["sigmoid_i"], made["tanh_g"])
    made["c_next"] = kernels.add(made["f_c"], made["i_g"])
    made["tanh_c"] = kernels.tanh(made["c_next"])
    made["h_next"] = kernels.mul(made["sigmoid_o"], made["tanh_c"])
    assert {name: int(value[0]) for name, value in made.items()} == {
        name: unit[name] for name in made
    }
