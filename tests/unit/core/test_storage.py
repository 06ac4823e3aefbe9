"""Weights of every form in files: round trips, damaged and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.core.fixed import Array, Scale
from modelflex.core.json_values import read_json_object
from modelflex.core.part import Grid, Part
from modelflex.core.storage import read_weight, weight_tensors
from modelflex.core.tracer import Link
from modelflex.core.weight import Chain, Matrix, Sum, Weight, float_weight
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES


# --- weights of every form -----------------------------------------------------------------------
def product(
    codes: Array,
    layout: str = "dense",
    inputs: int | None = None,
    link: Link | None = None,
    **part: Any,
) -> Matrix:
    """A 4-bit product (unless `bits` says otherwise) with a scale for every other row."""
    scale = Scale.nearest(np.linspace(0.1, 1.0, codes.shape[0] // 2))
    stored = Part(codes.astype(np.int32), part.pop("bits", 4), scale, 2, **part)
    wide = codes.shape[1] if inputs is None else inputs
    return Matrix(stored, None, link or Link(8, Scale.nearest(1 / 100)), 1, layout, wide)


def integer_weight() -> Matrix:
    """6×5, dense, with a bias."""
    codes = np.random.default_rng(0).integers(-7, 8, (6, 5))
    bias = Part(np.arange(-3, 3) * 40, 8, Scale.power_of_two(-5), 6)
    return product(codes).with_bias(bias)


def held_link(count: int, bits: int) -> Link:
    """An input with a threshold of its own for every element."""
    delta = ACTIVITIES.get("delta")(0.1, scaled="norm")
    return Link(bits, Scale.nearest(1 / 100), delta, np.arange(count, dtype=np.int32))


def every_form() -> dict[str, Weight]:
    rng = np.random.default_rng(1)
    codes = rng.integers(-7, 8, (6, 8))
    signs = np.array([[1, 2, 4], [3, 5, 100]], np.int8)
    sums = Grid("signs", signs).levels(3)
    levels = np.array([[-128, -1, 0, 127], [1, 2, 3, 4]], np.int8)
    multipliers = rng.integers(1, 64, (6, 4))
    multipliers[0, 0] = 63
    rows = np.stack([rng.permutation(8)[:3] for _ in range(6)])
    blocks = np.array([[0, 3], [2, 1], [3, 0]])  # 2×2 blocks, two of four in each block row
    places = np.stack([[rng.permutation(4)[:2] for _ in range(2)] for _ in range(6)])
    down, up = product(codes[:2]), product(codes[:, :2])
    forms: dict[str, Weight] = {
        "dense": integer_weight(),
        "circulant": product(codes[:, :4].reshape(2, 4, 3), "circulant", 12),
        "row_sparse": product(codes[:, :3], "row_sparse", 8, index=rows, index_bits=3),
        "block_sparse": product(codes[:, :4], "block_sparse", 8, index=blocks, index_bits=2),
        "n_m": product(codes[:, :4], "n_m", 8, index=places, index_bits=2),
        "one block": product(
            codes[:, :4], "block_sparse", 4, index=np.zeros((3, 1), np.int64), index_bits=0
        ),
        "odd": product(codes | 1, bits=3, grid=Grid("odd")),
        "power": product(2 ** (np.abs(codes) % 7) * np.sign(codes), grid=Grid("power")),
        "levels": product(
            np.repeat(levels, 3, axis=0)[:, [0, 3, 1, 2]], bits=2, grid=Grid("levels", levels)
        ),
        "signs": product(np.repeat(sums, 3, axis=0), bits=3, grid=Grid("signs", signs)),
        "groups": product(codes * np.repeat(multipliers, 2, axis=1), multipliers=multipliers),
        "thresholds": product(codes, link=held_link(8, 8)),
        "wide thresholds": product(codes, link=held_link(8, 12)),
        "chain": Chain((down, up)),
        "sum": Sum((product(codes), Chain((down, up)), product(codes[:, ::-1]))),
    }
    bias = Part(np.arange(6) * 20, 8, Scale.power_of_two(-2), 6)
    return {name: weight.with_bias(bias) for name, weight in forms.items()}


def read_back(weight: Weight) -> Weight:
    tensors, entry = weight_tensors("a.w", weight)
    assert sum(t.nbytes for t in tensors.values()) == weight.nbytes
    again = read_weight("a.w", json.loads(json.dumps(entry)), tensors, 1)
    assert tensors == {}
    return again


@pytest.mark.parametrize(("name", "weight"), every_form().items(), ids=every_form())
def test_weights_round_trip_with_the_bytes_they_state(name: str, weight: Weight) -> None:
    again = read_back(weight)
    assert type(again) is type(weight)
    assert np.array_equal(again.dense(), weight.dense())
    assert np.array_equal(again.bias_value(), weight.bias_value())
    for one, other in zip(again.products, weight.products, strict=True):
        assert one.layout == other.layout
        assert np.array_equal(one.part.codes, other.part.codes)
        assert vars(one.link) | {"scale": 0, "thresholds": 0} == vars(other.link) | {
            "scale": 0,
            "thresholds": 0,
        }
        assert one.link.step == other.link.step
        assert np.array_equal(one.link.thresholds, other.link.thresholds)


def changed(weight: Weight, where: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A weight's tensors and entry with one thing replaced; `where` is a tensor or a dotted key."""
    tensors, entry = weight_tensors("w", weight)
    if where in tensors:
        tensors[where] = value
        return tensors, entry
    spot: Any = entry
    *path, last = where.split(".")
    for key in path:
        spot = spot[int(key) if key.isdigit() else key]
    spot[last] = value
    return tensors, entry


def refuses(weight: Weight, where: str, value: Any, message: str) -> None:
    tensors, entry = changed(weight, where, value)
    with pytest.raises(UserError, match=message) as caught:
        read_weight("w", entry, tensors, 1)
    assert "\n" not in str(caught.value)


PART, LINK = "products.0.part", "products.0.link"


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("numeric", "complex", "'float' or 'integer'"),
        ("numeric", 3, "type str"),
        ("products", [], "0 products"),
        ("products", [{}] * 17, "17 products; expected 1 … 16"),
        ("products", {}, "type list"),
        ("products.0.layout", "spiral", "'spiral' of 5 inputs; expected one of dense, circulant"),
        ("products.0.layout", "circulant", r"shape \(6, 5\)"),
        ("products.0.layout", "row_sparse", r"shape \(6, 5\)"),
        ("products.0.inputs", 4, "5 columns; expected 4"),
        ("products.0.inputs", 0, "of 0 inputs"),
        ("products.0.inputs", 10**40, "layout 'dense' of 1000"),
        (f"{PART}.shape", [10**9, 10**9], "500000000000000000 bytes"),
        (f"{PART}.shape", [10**400, 1], "positive sizes"),
        (f"{PART}.shape", [6.0, 5], "positive sizes"),
        (f"{PART}.shape", [-6, -5], "positive sizes"),
        (f"{PART}.shape", [], "positive sizes"),
        (f"{PART}.bits", 17, "17 bits"),
        (f"{PART}.bits", True, "type int"),
        (f"{PART}.grid", "triangular", "grid 'triangular'"),
        (f"{PART}.grid", 7, "type str"),
        (f"{PART}.grid", "levels", r"'w/0\.table' is missing"),
        (f"{PART}.rows_per_scale", 4, "6 rows in all"),
        (f"{PART}.groups", 3, "3 groups; expected a divisor of 5 columns"),
        (f"{PART}.groups", 5, r"'w/0\.multipliers' is missing"),
        (f"{PART}.index_shape", [6, 5], "has no 'index_bits'"),
        ("w/0.codes", np.zeros(14, np.uint8), "15 bytes"),
        ("w/0.codes", np.full(15, 0x88, np.uint8), "the code -8"),
        ("w/0.codes", np.zeros(15, np.int8), "type int8; expected uint8"),
        ("w/0.mantissa", np.zeros(3, np.int16), "positive scales"),
        ("w/0.exponent", np.zeros(2, np.int8), "scales"),
        ("bias.shape", [3], "bytes"),
        ("bias.bits", 7, "one of 8, 16, 32"),
        ("w/bias.exponent", np.array([1], np.int8), "no left shift"),
        ("w/bias.exponent", np.array([-60], np.int8), "no left shift"),
        ("w/bias.mantissa", np.array([2], np.int16), "no left shift"),
        (f"{LINK}.bits", 1, "1 bits"),
        (f"{LINK}.mantissa", 0, "a mantissa of 1"),
        (f"{LINK}.exponent", 10**6, "an exponent of"),
        (f"{LINK}.activity", {"method": "telepathy"}, "unknown activity 'telepathy'"),
        (f"{LINK}.activity", {"method": "delta", "threshold": -1.0}, "delta threshold is -1"),
        (f"{LINK}.activity", {"method": "delta", "treshold": 1.0}, "did you mean 'threshold'"),
        (f"{LINK}.activity", "delta", "type dict"),
        (
            f"{LINK}.activity",
            {"method": "delta", "density": 0.2},
            "thresholds in units of the input",
        ),
        (
            f"{LINK}.activity",
            {"method": "delta", "threshold": 0.2, "unit": "std"},
            "thresholds in units of the input",
        ),
        (
            f"{LINK}.activity",
            {"method": "delta", "threshold": 0.1, "scaled": "norm"},
            r"'w/0\.thresholds' is missing",
        ),
    ],
)
def test_damaged_weights_are_refused_in_one_line(where: str, value: Any, message: str) -> None:
    refuses(integer_weight(), where, value, message)


@pytest.mark.parametrize(
    ("form", "where", "value", "message"),
    [
        ("dense", "form", 1, "has the form 1"),
        ("dense", "form", True, "has the form True"),
        ("dense", "form", None, "has the form None"),
        ("dense", "form", ["chain"], r"has the form \['chain'\]"),
        ("dense", "form", ["product", 0, 1], r"has the form \['product'"),
        ("dense", "form", ["chain", 0, 1], "has the form 1"),
        ("chain", "form", 0, "products that its form does not use"),
        ("chain", "form", ["chain", 0], "products that its form does not use"),
        ("chain", "form", ["chain", 1, 0], "has the form 1"),
        ("chain", "form", ["chain", 0, 0], "has the form 0"),
        ("chain", "form", ["chain", ["chain", 0, 1]], r"has the form \['chain', 0, 1\]"),
        ("chain", "form", ["chain", ["sum", 0, 1]], r"has the form \['sum'"),
        ("chain", "form", ["sum", 0, 1], r"joins products of the sizes \(6, 2\) and \(2, 8\)"),
        ("sum", "form", ["sum", 0, ["chain", 1, 2]], "products that its form does not use"),
        ("sum", "form", ["sum", 0, ["sum", 1, 2], 3], r"has the form \['sum', 1, 2\]"),
        ("sum", "form", ["chain", 0, 1, 2, 3], "joins products of the sizes 8 and 6"),
        ("sum", "form", [["chain"]], r"has the form \[\['chain'\]\]"),
        ("chain", "bias.shape", [2], "bytes"),
    ],
)  # fmt: skip
def test_forms_that_do_not_fit_are_refused(form: str, where: str, value: Any, message: str) -> None:
    refuses(every_form()[form], where, value, message)


@pytest.mark.parametrize(
    ("form", "where", "value", "message"),
    [
        ("levels", "w/0.table", np.zeros((2, 3), np.int8), "tables of 4 integers"),
        ("levels", "w/0.table", np.zeros((4, 4), np.int8), "equal shares of 6 rows"),
        ("levels", "w/0.table", np.zeros((0, 4), np.int8), "equal shares of 6 rows"),
        ("levels", "w/0.table", np.zeros(8, np.int8), "tables of 4 integers"),
        ("levels", "w/0.table", np.zeros((2, 4), np.int16), "type int16; expected int8"),
        ("levels", f"{PART}.bits", 9, "9 bits on the grid 'levels'"),
        ("signs", "w/0.table", np.zeros((2, 8), np.int8), "tables of 3 integers"),
        ("odd", f"{PART}.bits", 9, "9 bits on the grid 'odd'"),
        ("power", f"{PART}.bits", 16, "16 bits on the grid 'power'"),
        ("power", f"{PART}.bits", 6, "6 bits on the grid 'power'.*5 for power"),
        ("groups", f"{PART}.groups", 0, "0 groups"),
        ("groups", f"{PART}.groups", -2, "-2 groups"),
        ("groups", f"{PART}.groups", "4", "'4' groups"),
        ("groups", f"{PART}.groups", 2, r"the shape \(18,\); expected 6×2 numbers"),
        ("groups", "w/0.multipliers", np.zeros(18, np.uint8), "a multiplier of 0"),
        ("groups", "w/0.multipliers", np.ones(17, np.uint8), r"the shape \(17,\)"),
        ("groups", "w/0.multipliers", np.ones(18, np.int32), "type int32"),
        ("row_sparse", f"{PART}.index_shape", [6, 8], r"the shape \(7,\); expected bytes for"),
        ("row_sparse", f"{PART}.index_shape", [18], r"the index \[18\]"),
        ("row_sparse", f"{PART}.index_shape", [6, -3], "2 or 3 sizes"),
        ("row_sparse", f"{PART}.index_shape", "6×3", "2 or 3 sizes"),
        ("row_sparse", f"{PART}.index_shape", [10**9, 10**9], r"the shape \(7,\)"),
        ("row_sparse", f"{PART}.index_shape", [9, 2], "places below"),
        ("row_sparse", f"{PART}.index_shape", None, r"shape \(6, 3\)"),
        ("row_sparse", f"{PART}.index_bits", 32, "of 32 bits"),
        ("row_sparse", f"{PART}.index_bits", -1, "of -1 bits"),
        ("row_sparse", f"{PART}.index_bits", 2, "bytes for"),
        ("row_sparse", "w/0.index", np.zeros(7, np.uint8), "names a place twice"),
        ("row_sparse", "w/0.index", np.zeros(8, np.uint8), r"the shape \(8,\)"),
        ("row_sparse", "products.0.inputs", 5, "places below 5"),
        ("row_sparse", "products.0.inputs", 9, "places below 9"),
        ("row_sparse", "products.0.layout", "dense", r"shape \(6, 3\)"),
        ("row_sparse", "products.0.layout", "n_m", "for a n_m weight"),
        ("block_sparse", "products.0.inputs", 7, "for a block_sparse weight of 7 inputs"),
        ("block_sparse", f"{PART}.index_shape", [2, 3], "for codes"),
        ("block_sparse", "w/0.index", np.zeros(2, np.uint8), "names a place twice"),
        ("n_m", "products.0.inputs", 9, "for a n_m weight of 9 inputs"),
        ("n_m", "products.0.inputs", 6, "places below 3"),
        ("n_m", "w/0.index", np.zeros(6, np.uint8), "names a place twice"),
        ("n_m", "products.0.layout", "block_sparse", "for a block_sparse weight"),
        ("thresholds", "w/0.thresholds", np.zeros(8, np.uint16), "type uint16; expected uint8"),
        ("thresholds", "w/0.thresholds", np.zeros((4, 2), np.uint8), "one dimension"),
        ("thresholds", f"{LINK}.bits", 12, "type uint8; expected uint16"),
    ],
)  # fmt: skip
def test_tables_groups_and_indices_that_do_not_fit_are_refused(
    form: str, where: str, value: Any, message: str
) -> None:
    refuses(every_form()[form], where, value, message)


@pytest.mark.parametrize(("name", "weight"), every_form().items(), ids=every_form())
def test_every_tensor_and_key_is_needed(name: str, weight: Weight) -> None:
    """Without a tensor, and with a key of a product missing, nothing is read."""
    tensors, entry = weight_tensors("w", weight)
    for tensor in tensors:
        rest = {n: t for n, t in tensors.items() if n != tensor}
        with pytest.raises(UserError, match=f"'{tensor}' is missing"):
            read_weight("w", entry, rest, 1)
    for key in ("layout", "inputs", "part", "link"):
        first, *others = entry["products"]
        less = {k: v for k, v in first.items() if k != key}
        with pytest.raises(UserError, match=f"has no '{key}'"):
            read_weight("w", entry | {"products": [less, *others]}, dict(tensors), 1)


def test_a_missing_tensor_is_named() -> None:
    tensors, entry = weight_tensors("w", integer_weight())
    del tensors["w/0.mantissa"]
    with pytest.raises(UserError, match=r"'w/0\.mantissa' is missing"):
        read_weight("w", entry, tensors, 1)


def test_nan_and_infinity_are_counted() -> None:
    matrix = np.ones((2, 3))
    matrix[0, 0], matrix[1, 1], matrix[1, 2] = np.nan, np.inf, 1e300  # the last overflows float32
    with pytest.raises(UserError, match="'w' holds 1 NaN and 2 infinite of 6"):
        read_weight("w", {"numeric": "float"}, {"w": matrix}, 1)


def test_a_scale_beyond_int8_exponents_is_refused() -> None:
    part = Part(np.ones((2, 2), np.int32), 4, Scale.nearest(2.0**-130), 2)
    weight = Matrix(part, None, Link(8, Scale.nearest(1.0)), 1, "dense", 2)
    with pytest.raises(UserError, match="exponent 144"):
        weight_tensors("w", weight)


def test_floats_stay_floats() -> None:
    weight = float_weight(np.eye(3), np.arange(3.0), 1)
    tensors, entry = weight_tensors("w", weight)
    assert {n: (str(t.dtype), t.nbytes) for n, t in tensors.items()} == {
        "w": ("float32", 36),
        "w.bias": ("float32", 12),
    }
    assert np.array_equal(read_weight("w", entry, tensors, 1).bias_value(), np.arange(3.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[1]", "holds a JSON list"),
        ('{"a": 1, "a": 2}', "the key 'a' repeats"),
        ('{"a": NaN}', "the number NaN"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 200_000, "nested too deeply|not valid JSON"),
        ("\xff\xfe", "not valid JSON"),
    ],
)
def test_json_that_is_no_plain_object(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        read_json_object(path)
