"""Nonlinearities against closed forms, best-approximation theory and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.core.extension import Nonlinearity
from modelflex.core.fixed import FX_ONE, Array
from modelflex.core.model import Layer, check_model
from modelflex.core.piecewise import SPAN, Piecewise, make_piecewise, piecewise
from modelflex.core.recipe import recipe_from_json
from modelflex.core.tracer import Tracer
from modelflex.errors import UserError
from modelflex.importers.models import load_model
from modelflex.nonlinearities.exact import Exact
from modelflex.nonlinearities.hard import Hard
from modelflex.nonlinearities.lut import Lut
from modelflex.nonlinearities.pwl import Pwl
from modelflex.nonlinearities.ralut import Ralut
from modelflex.search.space import read_space
from modelflex.testing.generators import random_model
from modelflex.testing.oracle import piecewise as one_by_one

ONE_UNIT = 1 / FX_ONE
V = np.arange(-SPAN, SPAN, dtype=np.int32)
STRETCH = {"tanh": 1, "sigmoid": 2}


def table(config: Nonlinearity, function: str) -> Piecewise:
    made = config.table(function)
    assert made is not None
    return made


def errors(made: Piecewise, function: str, v: Array = V) -> Array:
    """Table less function; σ(x) = ½ + ½·tanh(x/2)."""
    k = STRETCH[function]
    real = (k - 1) / 2 + np.tanh(v / FX_ONE / k) / k
    return piecewise(v, made) / FX_ONE - real


# --- the kernel and its tables -------------------------------------------------------------------
@st.composite
def rising_tables(draw: st.DrawFn) -> Piecewise:
    """Any table that a method may make: rising, below 1, flat at the end."""
    steps = draw(st.lists(st.integers(1, SPAN // 12), max_size=12))
    heights = draw(st.lists(st.integers(0, FX_ONE - 1), min_size=1, max_size=1 + len(steps)))
    values = sorted(heights + [heights[-1]] * (len(steps) + 1 - len(heights)))
    steepest = [
        min(1 << 16, ((b - a) << 16) // step)
        for a, b, step in zip(values[:-1], values[1:], steps, strict=True)
    ]
    slopes = [draw(st.integers(0, most)) for most in steepest]
    starts = np.cumsum([0, *steps])
    return make_piecewise(
        draw(st.sampled_from(["tanh", "sigmoid"])), starts, values, np.array([*slopes, 0])
    )


@given(rising_tables(), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_the_kernel_equals_a_scan_in_python_integers(made: Piecewise, drawn: list[int]) -> None:
    near = [int(b) + d for b in made.breaks for d in (-1, 0, 1)]
    x = [*drawn, *near, *(-v for v in near)]
    assert piecewise(np.array(x, np.int32), made).tolist() == [one_by_one(v, made) for v in x]


@pytest.mark.parametrize(
    ("breaks", "values", "slopes"),
    [
        ([1], [0], [0]),  # does not start at 0
        ([0, 5, 5], [0, 1, 2], [0, 0, 0]),
        ([0, SPAN + 1], [0, 1], [0, 0]),
        ([0, 5], [0], [0, 0]),
        ([0, 5], [0, 9], [0, 1]),  # climbs for ever
        ([0, 5], [9, 3], [0, 0]),  # falls
        ([0, 9], [0, 7], [65536, 0]),  # falls at the break
        ([0, 9], [0, 65536], [0, 0]),  # reaches 1
    ],
)
def test_tables_that_are_no_squashing_function_are_refused(
    breaks: list[int], values: list[int], slopes: list[int]
) -> None:
    with pytest.raises(ValueError, match=r"segment|decrease"):
        make_piecewise("tanh", *(np.array(a) for a in (breaks, values, slopes)))


# --- each method against what is known of it -----------------------------------------------------
def test_hard_functions_are_clipped_lines() -> None:
    x = V / FX_ONE
    clipped = {"tanh": np.clip(x, -1, 1), "sigmoid": np.clip(0.2 * x + 0.5, 0, 1)}
    for function, wanted in clipped.items():
        found = piecewise(V, table(Hard(), function)) / FX_ONE
        # the slope 0.2 has 16 fractional bits: 1.5e-6 of |x| ≤ 2.5 beside rounding and the top
        assert np.abs(found - wanted).max() <= 2 * ONE_UNIT
    assert Hard().max_error("tanh") == pytest.approx(1 - math.tanh(1), abs=ONE_UNIT)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@pytest.mark.parametrize(("entries", "reach"), [(16, 2), (32, 4), (128, 8), (4096, 8)])
def test_linear_tables_err_as_interpolation_does(function: str, entries: int, reach: int) -> None:
    """step²/8·max|f″| inside (max|tanh″| = 4/√27), the rest of the way to 1 beyond, and rounding."""
    k = STRETCH[function]
    error = np.abs(errors(table(Lut(entries, reach, "linear"), function), function))
    inside = np.abs(V) < k * reach * FX_ONE
    bound = (reach / entries) ** 2 / 8 * 4 / math.sqrt(27) / k
    assert 0.85 * bound - ONE_UNIT < error[inside].max() < bound + 2 * ONE_UNIT
    assert error[~inside].max(initial=0) <= (1 - math.tanh(reach)) / k + 2 * ONE_UNIT


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@pytest.mark.parametrize(("entries", "reach"), [(16, 2), (64, 4), (256, 8)])
def test_nearest_cells_err_by_half_their_rise(function: str, entries: int, reach: int) -> None:
    made, k = table(Lut(entries, reach, "nearest"), function), STRETCH[function]
    step = reach / entries
    assert np.diff(made.breaks)[1:].tolist() == [int(k * step * FX_ONE)] * (entries - 2)
    steepest = math.tanh(step / 2) / k  # from 0 to the middle of the first step
    last = (1 - math.tanh((entries - 1.5) * step)) / 2 / k
    error = np.abs(errors(made, function)).max()
    assert error == pytest.approx(max(steepest, last), rel=2e-3, abs=2 * ONE_UNIT)


@settings(max_examples=12, deadline=None)
@given(st.floats(2**-12, 2**-2), st.sampled_from(["tanh", "sigmoid"]))
def test_ralut_keeps_its_error_with_as_few_cells_as_possible(error: float, function: str) -> None:
    made, k = table(Ralut(error), function), STRETCH[function]
    assert np.abs(errors(made, function)).max() <= error
    assert made.slopes.max() == 0
    # A flat cell covers a rise of 2ε, the one around 0 only ε on each side.
    least = 1 + math.ceil((1 / k - error) / (2 * error))
    assert least <= made.segments <= math.ceil(least * (1 + 2 * ONE_UNIT / error)) + 1


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
@pytest.mark.parametrize("segments", [2, 3, 5, 8, 16])
def test_pwl_errors_are_equal_and_alternate(function: str, segments: int) -> None:
    """Each line rises above and falls below the function by the same: no other lines do better."""
    made = table(Pwl(segments), function)
    assert made.segments == segments
    positive = V[V >= 0]
    found = errors(made, function, positive)
    ends = np.append(made.breaks[1:], SPAN)
    pieces = [
        found[(positive >= a) & (positive <= b)] for a, b in zip(made.breaks, ends, strict=True)
    ]
    most = Pwl(segments).max_error(function)
    for piece in pieces:
        assert piece.max() == pytest.approx(most, abs=6 * ONE_UNIT)
        assert piece.min() == pytest.approx(-most, abs=6 * ONE_UNIT)


def test_pwl_error_falls_as_the_theory_of_free_knots_says() -> None:
    """N²·δ → (∫√|f″|)²/16 for N continuous lines with the best knots (de Boor, 1973).

    Over the whole axis the two first lines are one: N = 2n − 1, and the integral is twice that of x > 0.
    """
    x = np.linspace(0, 20, 200_001)
    root = np.sqrt(2 * np.tanh(x) / np.cosh(x) ** 2)
    limit = float(((root[1:] + root[:-1]) / 2 * np.diff(x)).sum()) ** 2 / 16
    for segments in (6, 8, 12, 16):
        found = (segments - 0.5) ** 2 * Pwl(segments).max_error("tanh")
        assert found == pytest.approx(limit, rel=0.03)


@pytest.mark.parametrize("function", ["tanh", "sigmoid"])
def test_more_memory_means_less_error(function: str) -> None:
    rows: list[list[Nonlinearity]] = [
        [Lut(n, 8, "linear") for n in (16, 64, 256)],
        [Lut(n, 8, "nearest") for n in (16, 64, 256)],
        [Ralut(e) for e in (1 / 8, 1 / 32, 1 / 128)],
        [Pwl(n) for n in (2, 4, 8, 16)],
    ]
    for row in rows:
        assert np.all(np.diff([config.max_error(function) for config in row]) < 0)
        assert np.all(np.diff([config.table_bytes for config in row]) > 0)


def test_bytes_by_hand() -> None:
    assert Exact().table_bytes == 2 * 257
    assert Hard().table_bytes == 2 * (4 + 2)
    assert Lut(64, 4, "linear").table_bytes == 2 * 2 * 65
    assert Lut(64, 4, "nearest").table_bytes == 2 * 2 * 64
    assert Pwl(8).table_bytes == 2 * 8 * (4 + 2 + 2)
    cells = [table(Ralut(1 / 32), function).segments for function in ("tanh", "sigmoid")]
    assert Ralut(1 / 32).table_bytes == 6 * sum(cells)


# --- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"method": "lut", "entries": 48}, "power of two"),
        ({"method": "lut", "range": 3}, "2, 4 or 8"),
        ({"method": "lut", "interpolation": "cubic"}, "interpolation"),
        ({"method": "ralut", "max_abs_error": 0.0}, "0.25"),
        ({"method": "ralut", "max_abs_error": math.nan}, "0.25"),
        ({"method": "pwl", "segments": 1}, "2 … 128"),
        ({"method": "pwl", "segment": 8}, "segments"),
        ({"method": "hard", "slope": 1}, "slope"),
        ({"method": "plw"}, "pwl"),
        (3, "nonlinearity"),
    ],
)
def test_bad_settings_are_refused_in_a_line(config: Any, word: str) -> None:
    recipe = _recipe(config)
    with pytest.raises(UserError, match=word) as error:
        recipe_from_json(recipe)
    assert "\n" not in str(error.value)


def _recipe(nonlinearity: Any) -> dict[str, Any]:
    return {
        "schema": "modelflex.recipe/1",
        "rules": [{"weights": "*", "format": {"method": "uniform", "bits": 8}}],
        "layers": [{"layers": "*", "nonlinearity": nonlinearity}],
    }


def test_recipes_name_a_nonlinearity() -> None:
    recipe = recipe_from_json(_recipe({"method": "lut", "entries": 256}))
    assert recipe.layers[0].nonlinearity == Lut(256)
    assert recipe.naive.layers == recipe.layers
    assert recipe.key != recipe_from_json(_recipe("exact")).key
    (made,) = read_space([{k: v for k, v in _recipe("pwl").items() if k != "schema"}])
    assert "* pwl 8" in made.recipe.label


def test_floats_compute_exact_functions_only(tmp_path: Path) -> None:
    model = random_model(np.random.default_rng(0), ["lstm"])
    first, *rest = model.layers
    sizes = first.name, first.kind, first.inputs, first.units
    odd = type(model)(
        model.name, (Layer(*sizes, nonlinearity=Hard()), *rest), model.weights, model.output
    )
    with pytest.raises(UserError, match="nonlinearity"):
        check_model(odd)
    with pytest.raises(ValueError, match="float"):
        Tracer("float", {"tanh": table(Hard(), "tanh")})


def test_a_damaged_nonlinearity_in_a_model_file_is_refused(tmp_path: Path) -> None:
    layer = (
        '{"name": "a", "kind": "lstm", "inputs": 2, "units": 2, "nonlinearity": {"method": "x"}}'
    )
    path = tmp_path / "model.json"
    path.write_text(f'{{"schema": "modelflex.model/1", "name": "m", "layers": [{layer}]}}')
    with pytest.raises(UserError, match="nonlinearity 'x'"):
        load_model(tmp_path)
