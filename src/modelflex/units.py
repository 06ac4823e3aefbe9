"""Quantities with units, as they stand in configuration files: "0.5 ms", "50 uJ", "4 MiB".

Everything inside ModelFlex is in SI units (seconds, joules, watts, bytes, hertz); only this module
reads and writes other multiples.
"""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal

from modelflex.errors import UserError

_PREFIXES = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "": 1.0}
_LARGE = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
}

UNITS: dict[str, dict[str, float]] = {
    "s": {f"{p}s": f for p, f in _PREFIXES.items()},
    "J": {f"{p}J": f for p, f in _PREFIXES.items()},
    "W": {f"{p}W": f for p, f in _PREFIXES.items()},
    "V": {f"{p}V": f for p, f in _PREFIXES.items()},
    "B": {f"{p}B": f for p, f in _LARGE.items()},
    "B/s": {f"{p}B/s": f for p, f in _LARGE.items()},
    "1/s": {f"{p}Hz": f for p, f in _LARGE.items()} | {"1/s": 1.0, "/s": 1.0},
    "": {"": 1.0},
    "%": {"": 1.0, "%": 0.01, "points": 0.01},
}

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")


def parse_quantity(value: object, unit: str, where: str) -> float:
    """Read a number in SI units from a number or a text with a unit.

    Args:
        value: 0.0005 or "0.5 ms".
        unit: the SI unit expected, a key of `UNITS`; "%" is a share, where 0.01 is 1 %.
        where: the name of the field, for the error message.

    Raises:
        UserError: not a finite number, or the unit does not measure what `unit` measures.
    """
    known = UNITS[unit]
    shown = ", ".join(u for u in known if u) or "none"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise UserError(f"{where} is {value!r}", f"a number or a text such as '1 {unit}'")
    if isinstance(value, str):
        match = _NUMBER.match(value)
        if match is None:
            raise UserError(f"{where} is '{value}'", f"a number with one of the units {shown}")
        factor = {_folded(u): f for u, f in known.items()}.get(_folded(match[2]))
        if factor is None:
            raise UserError(f"{where} has the unknown unit '{match[2]}'", f"one of {shown}")
        # In decimals: "95 %" is 0.95, not 95 times the float nearest 0.01.
        value = float(Decimal(match[1]) * Decimal(repr(factor)))
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where} is {number}", "a finite number")
    return number


def _folded(word: str) -> str:
    """One spelling of equal characters: the micro sign (U+00B5) and the Greek mu (U+03BC)."""
    return unicodedata.normalize("NFKC", word)


_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "J": ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"), (1e-12, "pJ")),
    "W": ((1.0, "W"), (1e-3, "mW"), (1e-6, "µW"), (1e-9, "nW")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "B/s": ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
    "1/s": ((1e9, "G/s"), (1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
    "": ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
}


def show_quantity(value: float | None, unit: str) -> str:
    """A text for people: 3.2e-4 s becomes '320 µs'; None becomes an em dash."""
    if value is None:
        return "—"
    for factor, name in _SCALES[unit]:
        if abs(value) >= factor:
            return f"{value / factor:.4g} {name}".rstrip()
    factor, name = _SCALES[unit][-1]
    return f"{value / factor:.4g} {name}".rstrip()
