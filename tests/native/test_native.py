"""The native kernels against plain Python integers, which have no width to overflow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core import kernels

native = pytest.importorskip("modelflex._native", reason="built without a C compiler")

Array = npt.NDArray[Any]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
TABLE = np.array([min(round(2**15 * math.tanh(i / 32)), 32767) for i in range(257)], np.int32)

# Random bits seldom saturate: mix in the ends, small numbers and powers of two with neighbours.
near_powers = st.builds(
    lambda sign, power, offset: max(INT32_MIN, min(INT32_MAX, sign * 2**power + offset)),
    st.sampled_from([-1, 1]),
    st.integers(0, 31),
    st.integers(-2, 2),
)
int32s = st.one_of(near_powers, st.integers(INT32_MIN, INT32_MAX), st.integers(-70000, 70000))
mantissas = st.one_of(st.integers(1, 32767), st.sampled_from([1, 16384, 32767]))
vectors = st.lists(int32s, min_size=0, max_size=40)


def rsh(a: int, s: int) -> int:
    return (a + 2 ** (s - 1)) // 2**s if s >= 1 else a * 2**-s


def clamp(a: int, bits: int) -> int:
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, a))


def tanh(x: int) -> int:
    a = min(abs(x), 2**19 - 1)
    i, f = divmod(a, 2048)
    y = 2 * int(TABLE[i]) + rsh((int(TABLE[i + 1]) - int(TABLE[i])) * f, 10)
    return -y if x < 0 else y


def sigmoid(x: int) -> int:
    return 2**15 + rsh(tanh(rsh(x, 1)), 1)


@given(vectors, mantissas, st.integers(-16, 62), st.integers(2, 16))
def test_quantize(values: list[int], mu: int, s: int, bits: int) -> None:
    out = np.empty(len(values), np.int16)
    native.quantize(np.array(values, np.int32), mu, s, bits, out=out)
    assert out.tolist() == [clamp(rsh(v * mu, s), bits) for v in values]


@st.composite
def rescale_cases(draw: st.DrawFn) -> tuple[list[list[int]], list[int], int, type]:
    dtype = draw(st.sampled_from([np.int32, np.int64, np.float32, np.float64]))
    exact_bits = {np.int32: 31, np.int64: 46, np.float32: 24, np.float64: 46}[dtype]
    limit = 2**exact_bits - 1
    accumulators = st.one_of(st.integers(-limit, limit), int32s.map(lambda v: v % limit))
    columns = draw(st.integers(1, 8))
    row = st.lists(accumulators, min_size=columns, max_size=columns)
    acc = draw(st.lists(row, min_size=1, max_size=4))
    count = draw(st.sampled_from([1, columns]))
    mu = draw(st.lists(mantissas, min_size=count, max_size=count))
    return acc, mu, draw(st.integers(0, 62)), dtype


@given(rescale_cases())
def test_rescale(case: tuple[list[list[int]], list[int], int, type]) -> None:
    acc, mu, s, dtype = case
    out = np.empty(np.shape(acc), np.int32)
    native.rescale(np.array(acc, dtype), np.array(mu, np.int32), s, out=out)
    factors = mu * (len(acc[0]) // len(mu))
    assert out.tolist() == [
        [clamp(rsh(a * m, s), 32) for a, m in zip(row, factors, strict=True)] for row in acc
    ]


@given(st.lists(st.tuples(int32s, int32s), max_size=40))
def test_add_sub_mul(pairs: list[tuple[int, int]]) -> None:
    a = np.array([p[0] for p in pairs], np.int32)
    b = np.array([p[1] for p in pairs], np.int32)
    out = np.empty_like(a)
    native.add(a, b, out=out)
    assert out.tolist() == [clamp(x + y, 32) for x, y in pairs]
    native.sub(a, b, out=out)
    assert out.tolist() == [clamp(x - y, 32) for x, y in pairs]
    native.mul(a, b, out=a)  # in place
    assert a.tolist() == [clamp(rsh(x * y, 16), 32) for x, y in pairs]


@given(vectors)
def test_tanh_and_sigmoid(values: list[int]) -> None:
    x = np.array(values, np.int32)
    out = np.empty_like(x)
    native.tanh(x, TABLE, out=out)
    assert out.tolist() == [tanh(v) for v in values]
    native.sigmoid(x, TABLE, out=x)  # in place
    assert x.tolist() == [sigmoid(v) for v in values]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    steps = draw(st.lists(st.integers(1, 2**19), max_size=20))
    breaks = [sum(steps[:i]) for i in range(len(steps) + 1)]
    values = draw(st.lists(st.integers(0, 65535), min_size=len(breaks), max_size=len(breaks)))
    slopes = draw(st.lists(st.integers(0, 65536), min_size=len(steps), max_size=len(steps)))
    return breaks, values, [*slopes, 0]


@given(vectors, tables(), st.sampled_from([0, 32768]), st.integers(-1, 1))
def test_piecewise(
    values: list[int], table: tuple[list[int], list[int], list[int]], centre: int, beside: int
) -> None:
    breaks, heights, slopes = table
    values = values + [b + beside for b in breaks] + [-b - beside for b in breaks]
    expected = []
    for x in values:
        i = max(k for k, start in enumerate(breaks) if start <= abs(x))
        y = heights[i] + rsh(slopes[i] * (abs(x) - breaks[i]), 16)
        expected.append(centre + (-y if x < 0 else y))
    x = np.array(values, np.int32)
    columns = (np.array(column, np.int32) for column in table)
    native.piecewise(x, *columns, centre, out=x)  # in place
    assert x.tolist() == expected


@st.composite
def delta_cases(draw: st.DrawFn) -> tuple[Array, Array, int, list[int], int, int]:
    bits = draw(st.sampled_from([2, 4, 8, 16]))
    codes = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 20))
    cells = st.lists(codes, min_size=rows * columns, max_size=rows * columns)
    x, x_hat = (np.array(draw(cells), np.int16).reshape(rows, columns) for _ in range(2))
    block = draw(st.integers(1, 24))
    count = -(-columns // block)
    theta = draw(st.lists(st.integers(0, 2**bits), min_size=count, max_size=count))
    return x, x_hat, block, theta, draw(st.sampled_from([0, 1, 64, 128, 255])), bits


@given(delta_cases())
def test_delta_encode(case: tuple[Array, Array, int, list[int], int, int]) -> None:
    x, x_hat, block, theta, overshoot, bits = case
    rows, columns = x.shape
    delta, sent = np.empty((rows, columns), np.int32), np.empty_like(x)
    mask = np.empty((rows, -(-columns // block)), np.uint8)
    fixed = (block, np.array(theta, np.int32), overshoot, bits)
    old_codes = x_hat.copy()
    native.delta_encode(x, x_hat, *fixed, delta=delta, mask=mask, sent=sent)
    for r in range(rows):
        for k in range(mask.shape[1]):
            new = x[r, k * block : (k + 1) * block].tolist()
            old = x_hat[r, k * block : (k + 1) * block].tolist()
            moved = [n - o for n, o in zip(new, old, strict=True)]
            send = any(moved) and max(map(abs, moved)) >= theta[k]
            assert mask[r, k] == send
            beyond = [min(abs(d), theta[k]) * overshoot // 2**8 for d in moved]
            aim = [n + b if d > 0 else n - b for n, b, d in zip(new, beyond, moved, strict=True)]
            after = [clamp(a, bits) for a in aim] if send else old
            assert sent[r, k * block : (k + 1) * block].tolist() == after
            differences = [a - o for a, o in zip(after, old, strict=True)]
            assert delta[r, k * block : (k + 1) * block].tolist() == differences
    made = tuple(a.copy() for a in (delta, mask, sent))
    native.delta_encode(x, x_hat, *fixed, delta=delta, mask=mask, sent=x_hat)  # in place
    assert all(np.array_equal(a, b) for a, b in zip(made, (delta, mask, x_hat), strict=True))
    if columns % block == 0:
        numpy = kernels.delta_encode(x, old_codes, fixed[1], block, overshoot, bits)
        assert np.array_equal(numpy[0], made[0])
        assert np.array_equal(numpy[1], np.repeat(made[1], block, axis=1))
        assert np.array_equal(numpy[2], made[2])


def test_rescale_takes_any_number_of_axes() -> None:
    acc = np.arange(24, dtype=np.int64).reshape(2, 3, 4) - 12
    mu = np.array([1, 2, 3, 4], np.int32)
    out = np.empty(acc.shape, np.int32)
    native.rescale(acc, mu, -1, out=out)
    assert out.tolist() == (acc * mu * 2).tolist()


def ints(*shape: int) -> Array:
    return np.zeros(shape, np.int32)


def test_arrays_of_another_type_layout_or_size_are_refused() -> None:
    shorts, mask = np.zeros((2, 4), np.int16), np.zeros((2, 2), np.uint8)

    def encode(block: int, mask: Array = mask, thetas: int = 2, **fixed: int) -> None:
        options = {"overshoot": 0, "bits": 8} | fixed
        arrays = {"delta": ints(2, 4), "mask": mask, "sent": shorts}
        native.delta_encode(shorts, shorts, block, ints(thetas), **options, **arrays)

    encode(2)
    for out in (np.zeros(8, np.int64), ints(16)[::2]):
        with pytest.raises(TypeError):
            native.add(ints(8), ints(8), out=out)
    locked = ints(8)
    locked.flags.writeable = False
    with pytest.raises(TypeError):
        native.add(ints(8), ints(8), out=locked)
    with pytest.raises(TypeError):
        native.rescale(np.zeros(8, np.uint64), ints(1), 0, out=ints(8))
    refused: list[tuple[str, Any]] = [
        ("shape", lambda: native.add(ints(8), ints(7), out=ints(8))),
        ("shape", lambda: native.add(ints(8), ints(8), out=ints(2, 4))),
        ("shape", lambda: native.quantize(ints(8), 1, 0, 8, out=np.zeros(7, np.int16))),
        ("bits", lambda: native.quantize(ints(4), 1, 0, 17, out=np.zeros(4, np.int16))),
        ("shift", lambda: native.quantize(ints(4), 1, 63, 8, out=np.zeros(4, np.int16))),
        ("shift", lambda: native.rescale(ints(4), ints(1), -63, out=ints(4))),
        ("mu", lambda: native.rescale(ints(2, 4), ints(2), 0, out=ints(2, 4))),
        ("table", lambda: native.tanh(ints(4), ints(256), out=ints(4))),
        ("shape", lambda: native.piecewise(ints(4), *[ints(1)] * 3, 0, ints(3))),
        ("breaks", lambda: native.piecewise(ints(4), ints(1) + 1, *[ints(1)] * 2, 0, ints(4))),
        ("breaks", lambda: native.piecewise(ints(4), *[ints(0)] * 3, 0, ints(4))),
        ("values", lambda: native.piecewise(ints(4), ints(2), ints(1), ints(2), 0, ints(4))),
        ("slope", lambda: native.piecewise(ints(4), *[ints(2)] * 2, ints(2) + 1, 0, ints(4))),
        ("mask", lambda: encode(3, mask=mask[:1])),
        ("block", lambda: encode(0)),
        ("theta", lambda: encode(2, thetas=3)),
        ("overshoot", lambda: encode(2, overshoot=256)),
        ("overshoot", lambda: encode(2, overshoot=-1)),
        ("bits", lambda: encode(2, bits=17)),
    ]
    for word, call in refused:
        with pytest.raises(ValueError, match=word):
            call()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=100), st.integers(0, 3))
def test_the_read_loop_sums_every_word_in_every_pass(words: list[int], passes: int) -> None:
    array = np.array(words, np.uint64)
    assert native.read_loop(array, passes) == passes * sum(words) % 2**64
