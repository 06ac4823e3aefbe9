"""Quantities with units."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError, nearest
from modelflex.units import UNITS, parse_quantity, show_quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("0.5 ms", "s", 5e-4),
        ("50 uJ", "J", 5e-5),
        ("50µJ", "J", 5e-5),
        ("4 MiB", "B", 4 * 2**20),
        ("8 kB", "B", 8000.0),
        ("1e3 MB/s", "B/s", 1e9),
        ("200 MHz", "1/s", 2e8),
        ("30 /s", "1/s", 30.0),
        ("50 μJ", "J", 5e-5),  # U+03BC, the Greek letter
        ("5 ㎲", "s", 5e-6),
        ("1 points", "%", 0.01),
        ("5 %", "%", 0.05),
        ("95 %", "%", 0.95),
        ("0.95", "%", 0.95),
        ("8.2 ms", "s", 0.0082),
        (".5 s", "s", 0.5),
        ("-2 s", "s", -2.0),
        (" 1.5e-3 s ", "s", 1.5e-3),
        (3, "B", 3.0),
        (0.25, "", 0.25),
    ],
)
def test_readings(text: object, unit: str, value: float) -> None:
    assert parse_quantity(text, unit, "x") == value


@pytest.mark.parametrize(
    ("text", "unit", "part"),
    [
        ("5 parsec", "s", "unknown unit 'parsec'"),
        ("5 J", "s", "unknown unit 'J'"),
        ("5", "s", "unknown unit ''"),
        ("5 MS", "s", "unknown unit 'MS'"),
        ("5 %", "", "unknown unit '%'"),
        ("5 %", "B", "unknown unit '%'"),
        ("fast", "s", "'fast'"),
        ("", "s", "''"),
        ("1,5 s", "s", "unknown unit ',5 s'"),
        (True, "s", "True"),
        (None, "s", "None"),
        ([1], "s", "[1]"),
        (math.nan, "s", "nan"),
        (math.inf, "B", "inf"),
        ("1e999 s", "s", "inf"),
    ],
)
def test_refused(text: object, unit: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_quantity(text, unit, "limits.max.x")
    message = str(caught.value)
    assert part in message
    assert message.startswith("limits.max.x")
    assert "\n" not in message


@given(st.sampled_from([(u, w) for u, words in UNITS.items() for w in words]), st.floats(0, 1e6))
def test_every_unit_is_read(pair: tuple[str, str], number: float) -> None:
    unit, word = pair
    found = parse_quantity(f"{number!r} {word}", unit, "x")
    assert found == pytest.approx(number * UNITS[unit][word], rel=1e-12)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.2e-4, "s", "320 µs"), (0.0, "s", "0 ns"), (None, "s", "—"), (1.5e6, "B", "1.5 MB"),
        (12.0, "B", "12 B"), (0.1234567, "", "0.1235"), (-2e-3, "J", "-2 mJ"),
    ],
)  # fmt: skip
def test_shown(value: float | None, unit: str, text: str) -> None:
    assert show_quantity(value, unit) == text


def test_errors_are_one_line_and_survive_pickling() -> None:
    import pickle

    error = UserError("a\nb  c", "d\te", "f")
    assert str(error) == "a b c; expected d e; f"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.exit_code) == (str(error), 2)
    assert nearest("latency", ["latency_s", "energy_j"]) == "did you mean 'latency_s'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
