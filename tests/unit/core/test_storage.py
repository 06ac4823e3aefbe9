"""Packed codes against a loop over bits; weights that are damaged or hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.fixed import Scale
from modelflex.core.part import Part
from modelflex.core.storage import (
    pack_bits,
    pack_codes,
    read_json_object,
    read_weight,
    unpack_bits,
    unpack_codes,
    weight_tensors,
)
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix, float_weight
from modelflex.errors import UserError


def bits_of(value: int, bits: int) -> list[int]:
    return [(value >> i) & 1 for i in range(bits)]


def packed_slowly(values: list[int], bits: int) -> bytes:
    stream = [bit for value in values for bit in bits_of(value, bits)]
    stream += [0] * (-len(stream) % 8)
    return bytes(
        sum(bit << i for i, bit in enumerate(stream[k : k + 8])) for k in range(0, len(stream), 8)
    )


@st.composite
def values_of_bits(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 32))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=40)), bits


@given(values_of_bits())
def test_packing_equals_a_loop_over_bits(case: tuple[list[int], int]) -> None:
    values, bits = case
    packed = pack_bits(np.array(values, np.uint32), bits)
    assert packed.tobytes() == packed_slowly(values, bits)
    assert unpack_bits(packed, len(values), bits).tolist() == values


@pytest.mark.parametrize("bits", range(2, 17))
def test_packing_across_chunks(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelflex.core.storage._CHUNK", 16)
    values = np.random.default_rng(bits).integers(0, 2**bits, 77)
    packed = pack_bits(values, bits)
    assert packed.tobytes() == packed_slowly(values.tolist(), bits)
    assert unpack_bits(packed, 77, bits).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("bits", "odd"), [*((b, odd) for b in range(2, 17) for odd in (False, True)), (32, False)]
)
def test_every_grid_round_trips_in_its_bytes(bits: int, odd: bool) -> None:
    top = 2**bits - 1 if odd else 2 ** (bits - 1) - 1
    codes = np.random.default_rng(bits).integers(-top, top + 1, (3, 5, 2))
    codes = codes | 1 if odd else codes
    codes.flat[:2] = -top, top
    part = Part(np.clip(codes, -top, top), bits, Scale.nearest(0.5), 3, odd)
    packed = pack_codes(part)
    assert packed.nbytes == part.code_bytes
    assert np.array_equal(unpack_codes(packed, (3, 5, 2), bits, odd), part.codes)


@pytest.mark.parametrize(("code", "odd"), [(4, False), (-4, False), (2, True), (9, True)])
def test_codes_off_the_grid_are_refused(code: int, odd: bool) -> None:
    with pytest.raises(ValueError, match="not on the grid of 3 bits"):
        pack_codes(Part(np.array([[code]]), 3, Scale.nearest(1.0), 1, odd))


def integer_weight() -> Matrix:
    rng = np.random.default_rng(0)
    part = Part(rng.integers(-7, 8, (6, 5), np.int32), 4, Scale.nearest(rng.random(3) + 0.1), 2)
    bias = Part(rng.integers(-127, 128, 6), 8, Scale.power_of_two(-5), 6)
    return Matrix((part,), bias, (Link(8, Scale.nearest(1 / 100)),), 1, "dense")


def test_a_weight_round_trips_with_the_bytes_it_states() -> None:
    weight = integer_weight()
    tensors, entry = weight_tensors("a.w", weight)
    assert sum(t.nbytes for t in tensors.values()) == weight.nbytes
    again = read_weight("a.w", json.loads(json.dumps(entry)), tensors, 1)
    assert tensors == {}
    assert np.array_equal(again.dense(), weight.dense())
    assert np.array_equal(again.bias_value(), weight.bias_value())
    assert again.links[0].step == weight.links[0].step


def damage(where: str, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A weight's tensors and entry with one thing replaced; `where` is a tensor or a dotted key."""
    tensors, entry = weight_tensors("w", integer_weight())
    if where in tensors:
        tensors[where] = value
        return tensors, entry
    spot: Any = entry
    *path, last = where.split(".")
    for key in path:
        spot = spot[int(key) if key.isdigit() else key]
    spot[last] = value
    return tensors, entry


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("numeric", "complex", "'float' or 'integer'"),
        ("numeric", 3, "type str"),
        ("layout", "spiral", "'spiral'; expected one of dense, circulant"),
        ("layout", "circulant", r"shape \(6, 5\)"),
        ("parts", [], "0 parts"),
        ("parts.0.shape", [10**9, 10**9], "500000000000000000 bytes"),
        ("parts.0.shape", [10**400, 1], "positive sizes"),
        ("parts.0.shape", [6.0, 5], "positive sizes"),
        ("parts.0.shape", [-6, -5], "positive sizes"),
        ("parts.0.bits", 17, "17 bits"),
        ("parts.0.bits", True, "type int"),
        ("parts.0.rows_per_scale", 4, "6 rows in all"),
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
        ("links.0.bits", 1, "1 bits"),
        ("links.0.mantissa", 0, "a mantissa of 1"),
        ("links.0.exponent", 10**6, "an exponent of"),
        ("links.0.activity", {"method": "telepathy"}, "unknown activity 'telepathy'"),
        ("links.0.activity", {"method": "delta", "threshold": -1.0}, "delta threshold is -1"),
        ("links.0.activity", {"method": "delta", "treshold": 1.0}, "did you mean 'threshold'"),
        ("links.0.activity", "delta", "type dict"),
    ],
)
def test_damaged_weights_are_refused_in_one_line(where: str, value: Any, message: str) -> None:
    tensors, entry = damage(where, value)
    with pytest.raises(UserError, match=message) as caught:
        read_weight("w", entry, tensors, 1)
    assert "\n" not in str(caught.value)


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
    weight = Matrix((part,), None, (Link(8, Scale.nearest(1.0)),), 1, "dense")
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
