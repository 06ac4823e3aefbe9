"""Convolutions over images against brute-force sums, torch, and what is known of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import FX_ONE
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.weight import Chain, float_weight
from modelflex.core.windows import MAX_TAPS, pointwise
from modelflex.errors import UserError
from modelflex.execute.gradients import backpropagate
from modelflex.execute.interpret import Interpreter, run
from modelflex.testing.generators import random_sequences
from modelflex.testing.oracle import run_integers, run_reals

IMAGE = {
    "channels": 2, "height": 5, "width": 6, "filters": 4, "kernel_height": 3, "kernel_width": 2,
    "stride_height": 2, "stride_width": 1, "padding_height": 1, "padding_width": 0, "frames": 3,
}  # fmt: skip


def extent(options: dict[str, int], side: str) -> int:
    room = options[side] + 2 * options[f"padding_{side}"] - options[f"kernel_{side}"]
    return room // options[f"stride_{side}"] + 1


def conv2d(options: dict[str, int], seed: int = 0) -> Model:
    """One convolution alone."""
    rng = np.random.default_rng(seed)
    inputs = options["channels"] * options["height"] * options["width"]
    units = options["filters"] * extent(options, "height") * extent(options, "width")
    taps = options["kernel_height"] * options["kernel_width"]
    shape = options["filters"], options["frames"] * options["channels"] * taps
    weight = float_weight(rng.normal(0, 0.3, shape), rng.normal(size=shape[0]), 1)
    layer = Layer("conv", "conv2d", inputs, units, "every", options)
    return check_model(Model("convolution", (layer,), {"conv.w": weight}, "values"))


def by_hand(model: Model, x: Any) -> Any:
    """One sequence [T, inputs] through a conv2d layer, number by number."""
    o = model.layers[0].sizes
    weight = model.weights["conv.w"]
    kernel = weight.dense().reshape(
        o["filters"], o["frames"], o["channels"], o["kernel_height"], o["kernel_width"]
    )
    images = x.reshape(len(x), o["channels"], o["height"], o["width"]).astype(float)
    made = []
    for t in range(len(x)):
        y = np.zeros((o["filters"], extent(o.options, "height"), extent(o.options, "width")))
        for f, p, q in np.ndindex(*y.shape):
            y[f, p, q] = weight.bias_value()[f]
            for frame, c, i, j in np.ndindex(*kernel.shape[1:]):
                at = t - (o["frames"] - 1) + frame
                row = p * o["stride_height"] + i - o["padding_height"]
                column = q * o["stride_width"] + j - o["padding_width"]
                if at >= 0 and 0 <= row < o["height"] and 0 <= column < o["width"]:
                    y[f, p, q] += kernel[f, frame, c, i, j] * images[at, c, row, column]
        made.append(y.ravel())
    return np.array(made)


@st.composite
def options(draw: st.DrawFn) -> dict[str, int]:
    made = {name: draw(st.integers(1, 3)) for name in ("channels", "filters", "frames")}
    for side in ("height", "width"):
        made[side] = draw(st.integers(1, 6))
        made[f"kernel_{side}"] = draw(st.integers(1, 4))
        made[f"stride_{side}"] = draw(st.integers(1, 3))
        made[f"padding_{side}"] = draw(st.integers(0, made[f"kernel_{side}"] - 1))
    assume(all(extent(made, side) > 0 for side in ("height", "width")))
    return made


@settings(max_examples=40, deadline=None)
@given(options(), st.integers(0, 99))
def test_conv2d_is_the_sum_it_is_defined_by(sizes: dict[str, int], seed: int) -> None:
    model = conv2d(sizes, seed)
    data = random_sequences(np.random.default_rng(seed), (4, 2), model.inputs)
    wanted = [by_hand(model, part) for part in np.split(data.x, [4])]
    found = run(build_program(model), data).outputs
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=0, atol=1e-5)


def test_conv2d_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    sizes = {**IMAGE, "frames": 1, "padding_width": 1}
    model = conv2d(sizes)
    data = random_sequences(np.random.default_rng(1), (5,), model.inputs)
    weight = model.weights["conv.w"]
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(data.x.reshape(5, 2, 5, 6)).double(),
        torch.from_numpy(weight.dense().reshape(4, 2, 3, 2)),
        torch.from_numpy(weight.bias_value()),
        stride=(2, 1),
        padding=(1, 1),
    )
    found = run(build_program(model), data).outputs
    np.testing.assert_allclose(found, wanted.numpy().reshape(5, -1), rtol=0, atol=1e-5)


# --- compressed ----------------------------------------------------------------------------------
def small(model: Model, activity: Any, structure: Any = "dense", bits: int = 4) -> Model:
    recipe = recipe_from_json({
        "schema": "modelflex.recipe/1",
        "rules": [{
            "weights": "*", "structure": structure, "format": {"method": "uniform", "bits": bits},
            "activation": {"bits": 8}, "activity": activity,
        }],
    })  # fmt: skip
    data = random_sequences(np.random.default_rng(7), (30, 12), model.inputs)
    return compress(model, recipe, calibrate(model, data)).model


@pytest.mark.parametrize("granularity", ["element", "block"])
@pytest.mark.parametrize("structure", ["dense", {"method": "circulant", "block": 2}])
@pytest.mark.parametrize("sizes", [IMAGE, {**IMAGE, "frames": 1}], ids=["frames", "image"])
def test_delta_of_threshold_0_changes_nothing(
    sizes: dict[str, int], structure: Any, granularity: str
) -> None:
    model = conv2d(sizes)
    data = random_sequences(np.random.default_rng(3), (8, 5), model.inputs)
    delta = {"method": "delta", "threshold": 0.0, "granularity": granularity}
    plain, held = (
        run(build_program(small(model, activity, structure)), data) for activity in ("none", delta)
    )
    np.testing.assert_array_equal(plain.outputs, held.outputs)


def test_delta_sends_the_pixels_that_changed() -> None:
    """DeltaCNN: a still image costs nothing; a pixel costs the positions that see it."""
    sizes = {**IMAGE, "frames": 1, "padding_height": 0, "stride_height": 1}
    model = small(conv2d(sizes), {"method": "delta", "threshold": 0.0})
    still = np.tile(np.random.default_rng(0).uniform(0.5, 1, (1, model.inputs)), (4, 1))
    still[3, 7] += 1.0  # row 1, column 1 of channel 0: a 3×2 kernel meets it at 2×2 positions
    first = run(build_program(model), Sequences(np.float32(still[:1]), np.array([1])))
    whole = run(build_program(model), Sequences(np.float32(still), np.array([4])))
    one, all_steps = (r.profile.sites["conv.w/0"] for r in (first, whole))
    assert all_steps.active - one.active == 4
    assert all_steps.units - one.units == 4  # each position meets it with another column
    assert one.units == 12
    assert one.active == 12 * 3 * 5


def test_a_threshold_holds_back_small_changes_and_thresholds_of_pixels_are_stored() -> None:
    model = conv2d({**IMAGE, "frames": 1})
    data = random_sequences(np.random.default_rng(3), (20, 20), model.inputs)
    sent = []
    for theta in (0.0, 0.3, 1.0):
        delta = {"method": "delta", "threshold": theta, "unit": "std", "scaled": "norm"}
        made = small(model, delta)
        (link,) = made.weights["conv.w"].links
        assert link.thresholds is not None
        assert link.thresholds.shape == (model.inputs,)
        found = run(build_program(made), data)
        assert (found.outputs * FX_ONE).tolist() == run_integers(made, data).outputs
        sent.append(found.profile.sites["conv.w/0"].active)
    assert sent[0] > sent[1] > sent[2]


def test_thresholds_of_another_number_are_refused() -> None:
    made = small(conv2d(IMAGE), {"method": "delta", "threshold": 0.1, "scaled": "norm"})
    weight: Any = made.weights["conv.w"]
    fewer = replace(weight, link=replace(weight.link, thresholds=weight.link.thresholds[1:]))
    with pytest.raises(UserError, match="has 179 thresholds; expected 180"):
        build_program(made.with_weights({"conv.w": fewer}))


def test_what_a_network_means_is_counted_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel, what each of its inputs is at each position, the results of the product and of the
    layer, and the images that are kept.
    """
    model = conv2d(IMAGE)
    columns, positions = 3 * 2 * 3 * 2, 3 * 5
    count = 4 * columns + columns * positions + 2 * 4 * positions + 2 * 60
    monkeypatch.setattr("modelflex.core.program.MAX_NUMBERS", count)
    build_program(model)
    monkeypatch.setattr("modelflex.core.program.MAX_NUMBERS", count - 1)
    with pytest.raises(UserError, match=f"means {count} numbers up to its layer 'conv'; expected"):
        build_program(model)


def test_a_product_of_too_many_results_is_refused() -> None:
    """Few numbers are stored of a thin chain, but its middle has 2¹² + 1 channels of 2¹² pixels."""
    pixels = 1 << 12
    sizes = dict.fromkeys(IMAGE, 1) | {"padding_height": 0, "padding_width": 0, "height": pixels}
    thin = [float_weight(np.ones(shape), None, 1) for shape in ((pixels + 1, 1), (1, pixels + 1))]
    made = conv2d(sizes).with_weights({"conv.w": Chain(tuple(thin))})
    with pytest.raises(UserError, match=r"'conv\.w/0' has 4097 results at 4096 positions"):
        build_program(made)


def test_the_kernel_is_fetched_once_a_step() -> None:
    made = small(conv2d(IMAGE), "none")
    product = build_program(made).products["conv.w/0"]
    data = random_sequences(np.random.default_rng(3), (6,), made.inputs)
    counts = run(build_program(made), data).profile.sites["conv.w/0"]
    assert product.positions == 3 * 5
    assert (counts.runs, counts.units, counts.active) == (6, 6 * 36, 6 * 36 * 15)


def test_a_kernel_is_fitted_to_its_patches() -> None:
    """Rounding that knows the patches (GPTQ) errs less in the outputs than rounding to the nearest."""
    model = conv2d({**IMAGE, "filters": 8, "frames": 1})
    rng = np.random.default_rng(5)
    row, column = np.mgrid[:5, :6]
    shapes = np.stack([np.ones((5, 6)), row, column, row * column]).reshape(4, -1)

    def smooth(lengths: tuple[int, ...]) -> Sequences:
        data = random_sequences(rng, lengths, 4)
        return replace(data, x=np.tile(data.x @ shapes / 9, (1, 2)).astype(np.float32))

    stats, held_out = calibrate(model, smooth((80, 80))), smooth((50,))
    wanted = run(build_program(model), held_out).outputs
    errors = []
    for rounding in ("nearest", "gptq"):
        form = {"method": "uniform", "bits": 3, "clip": "max", "rounding": rounding}
        recipe = recipe_from_json({
            "schema": "modelflex.recipe/1", "rules": [{"weights": "*", "format": form}],
        })  # fmt: skip
        found = run(build_program(compress(model, recipe, stats).model), held_out).outputs
        errors.append(float(np.mean((found - wanted) ** 2)))
    assert errors[1] < 0.8 * errors[0]


def test_streaming_carries_the_frames() -> None:
    made = small(conv2d(IMAGE), {"method": "delta", "threshold": 0.2})
    data = random_sequences(np.random.default_rng(3), (7,), made.inputs)
    interpreter = Interpreter(build_program(made))
    first = interpreter.run(Sequences(data.x[:3], np.array([3])))
    rest = interpreter.run(Sequences(data.x[3:], np.array([4])), state=first.state)
    found = np.concatenate([first.outputs, rest.outputs])
    np.testing.assert_array_equal(found, interpreter.run(data).outputs)


def test_large_maps_are_gathered_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = conv2d(IMAGE)
    data = random_sequences(np.random.default_rng(3), (6, 5), model.inputs)
    made = small(model, {"method": "delta", "threshold": 0.2})
    whole = [run(build_program(m), data) for m in (model, made)]
    monkeypatch.setattr("modelflex.core.windows.GATHERED", 1)
    for network, before in zip((model, made), whole, strict=True):
        again = run(build_program(network), data)
        np.testing.assert_allclose(again.outputs, before.outputs, rtol=0, atol=1e-6)
        assert again.profile == before.profile


# --- windows -------------------------------------------------------------------------------------
def test_scatter_is_the_transpose_of_gather() -> None:
    rng = np.random.default_rng(0)
    windows = build_program(conv2d(IMAGE)).products["conv.w/0"].windows
    assert windows is not None
    x, seen = rng.normal(size=(3, windows.size)), rng.normal(size=(3, *windows.taps.shape))
    one, other = np.sum(windows.gather(x) * seen), np.sum(x * windows.scatter(seen))
    np.testing.assert_allclose(one, other, rtol=1e-12)
    columns = rng.normal(size=windows.taps.shape[1])
    squares = np.zeros(windows.size)
    for at in windows.taps:
        for k, tap in enumerate(at):
            if tap >= 0:
                squares[tap] += columns[k] ** 2
    np.testing.assert_allclose(windows.spread_norms(columns), np.sqrt(squares))


def test_pointwise_windows_read_all_channels_of_a_position() -> None:
    windows = pointwise(3, 4)
    maps = np.arange(12).reshape(1, 12)
    np.testing.assert_array_equal(windows.gather(maps)[0], maps.reshape(3, 4).T)


# --- sizes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_width": 0}, "kernel_width of a conv2d layer is 0"),
        ({"frames": 0}, "frames of a conv2d layer is 0"),
        ({"width": 7}, "has 60 inputs; expected 70 = 2 channels"),
        ({"padding_height": 3}, "padding_height of a conv2d layer is 3; expected less than"),
        ({"filters": 5}, "has 60 units; expected 5 filters × 3 × 5 positions"),
        ({"kernel_width": 7}, "has 60 units; expected 4 filters × 3 × 0 positions"),
        ({"kernel_widht": 2}, "unknown option 'kernel_widht'; expected an option; did you mean"),
        ({"width": True}, "width is True; expected 0 …"),
        ({"width": -6}, "width is -6; expected 0 …"),
        ({"height": "5"}, "height is 5; expected 0 …"),
        ({"frames": 1 << 20}, "keeps 1048575 steps of 60 inputs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    model = conv2d(IMAGE)
    layer = replace(model.layers[0], options={**IMAGE, **change})
    with pytest.raises(UserError, match=message):
        check_model(replace(model, layers=(layer,)))


def test_options_that_must_be_stated_are_named() -> None:
    layer = Layer("c", "conv2d", 4, 4, "every", {"height": 2, "width": 2, "filters": 1})
    with pytest.raises(UserError, match="lacks options; expected kernel_height, kernel_width"):
        _ = layer.weight_shapes
    with pytest.raises(UserError, match="unknown option 'kernel'; expected an option; none"):
        _ = Layer("l", "lstm", 4, 4, "every", {"kernel": 2}).sizes


def test_maps_too_large_to_hold_are_refused() -> None:
    side = 1 << 12
    sizes = {"height": 1, "width": side, "filters": 1, "kernel_height": 1, "kernel_width": side,
             "padding_width": side - 1}  # fmt: skip
    layer = Layer("c", "conv2d", side, 2 * side - 1, "every", sizes)
    with pytest.raises(UserError, match=f"at most {MAX_TAPS} in all"):
        _ = layer.weight_shapes


@pytest.mark.parametrize(
    "structure",
    [
        {"method": "low_rank", "rank": 2, "inner_threshold": 0.2},
        {"method": "low_rank_plus_sparse", "share": 0.3},
        {"method": "circulant_plus_sparse", "block": 2},
        {"method": "row_sparse", "density": 0.25},
    ],
    ids=lambda structure: structure["method"],
)
@pytest.mark.parametrize("granularity", ["element", "block"])
def test_every_product_of_a_kernel_has_thresholds_for_the_map(
    structure: dict[str, Any], granularity: str
) -> None:
    """Sums and chains of products at many positions, with a wanted density and scaled thresholds."""
    delta = {"method": "delta", "density": 0.3, "granularity": granularity, "scaled": "norm"}
    made = small(conv2d(IMAGE), delta, structure)
    data = random_sequences(np.random.default_rng(3), (6, 4), made.inputs)
    found, wanted = run(build_program(made), data), run_integers(made, data)
    assert (found.outputs * FX_ONE).tolist() == wanted.outputs
    for site, counts in wanted.counts.items():
        assert vars(found.profile.sites[site]) == vars(counts)


def test_gradients_go_back_through_positions_and_frames() -> None:
    """Of Σ v·y in a bias below another convolution, against differences of the whole network."""
    rng = np.random.default_rng(0)
    first = conv2d({**IMAGE, "frames": 2})
    below = first.layers[0]
    inner = {
        "channels": 4, "height": 3, "width": 5, "filters": 2, "kernel_height": 2,
        "kernel_width": 3, "padding_width": 1, "frames": 2,
    }  # fmt: skip
    layers = (
        below,
        Layer("relu", "relu", below.units, below.units),
        Layer("top", "conv2d", below.units, 2 * 2 * 5, "every", inner),
    )
    top = float_weight(rng.normal(size=(2, 2 * 4 * 6)), None, 1)
    model = check_model(Model("two", layers, {**first.weights, "top.w": top}, "values"))
    data = random_sequences(rng, (5, 3), model.inputs)
    v = rng.normal(size=(8, 20))
    found = np.zeros(4)

    def visit(site: str, gradient: Any, _: Any) -> None:
        if site == "conv.w/0":
            found[:] += gradient.reshape(-1, 4, 15).sum(axis=(0, 2))

    backpropagate(build_program(model), data, lambda outputs: v, visit)
    kernel = model.weights["conv.w"]
    for f in range(4):
        sides = []
        for step in (-1e-3, 1e-3):
            bias = kernel.bias_value() + step * (np.arange(4) == f)
            moved = model.with_weights({"conv.w": float_weight(kernel.dense(), bias, 1)})
            sides.append(float(np.sum(run_reals(moved, data) * v)))
        np.testing.assert_allclose(found[f], (sides[1] - sides[0]) / 2e-3, rtol=2e-2, atol=1e-2)
