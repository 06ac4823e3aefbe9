"""Names and numbers of generated code: nothing that a model says reaches the source as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from modelflex.core.fixed import Array

LONGEST = 32
"""Characters of a model's symbol; what is longer is cut."""
_TAKEN = re.compile(
    r"(?i)assert|complex|ctype|errno|fenv|float|inttypes|iso646|limits|locale|math|setjmp|signal|"
    r"stdarg|stdbool|stddef|stdint|stdio|stdlib|string|tgmath|time|wchar|wctype|"
    r"con|prn|aux|nul|com[0-9]|lpt[0-9]"
)
"""Headers of C99, which a file of this name would hide, and names that are no files on Windows."""
_WIDTH = 96


def symbol(name: str) -> str:
    """A model's name as the prefix of its C symbols and files: ASCII letters, digits and underscores.

    It starts with a letter, is no longer than `LONGEST`, and names no header or device.
    """
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_")
    if not text or not text[0].isalpha() or _TAKEN.fullmatch(text):
        text = f"model_{text}"[:LONGEST].rstrip("_")
    return text


def member(name: str) -> str:
    """Part of a member's or array's name: a letter, then letters, digits, underscores."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST]
    return text if text[:1].isalpha() else f"n{text}"


def remark(text: str) -> str:
    """Text for a comment: it can't end the comment, continue its line or hide a trigraph."""
    return re.sub(r"[^A-Za-z0-9_./ -]", "_", text)[:80]


def unique(name: str, taken: set[str]) -> str:
    """`name`, or with the first number that makes it new; it is taken then."""
    made, number = name, 1
    while made in taken:
        number += 1
        made = f"{name}_{number}"
    taken.add(made)
    return made


def numbers(values: Array) -> str:
    """The entries of an initialiser, some to a line; floats keep all their bits."""
    return "\n".join(_lines(_entries(values.ravel())))


def _entries(values: Array) -> Iterable[str]:
    if values.dtype.kind == "f":
        return (_float(v) for v in values.tolist())
    if values.dtype == np.int32:  # -2147483648 would be a long, negated
        return ("INT32_MIN" if v == -(2**31) else str(v) for v in values.tolist())
    if values.dtype == np.int64:
        return (f"INT64_C({v})" for v in values.tolist())
    return map(str, values.tolist())


def _float(value: float) -> str:
    """A float32 as a decimal that is read back as the same bits."""
    text = f"{value:.9g}"
    return (text if "." in text or "e" in text else f"{text}.0") + "f"


def _lines(entries: Iterable[str]) -> Iterator[str]:
    line: list[str] = []
    width = 3
    for entry in entries:
        if width + len(entry) + 2 > _WIDTH and line:
            yield f"    {' '.join(line)}"
            line, width = [], 3
        line.append(f"{entry},")
        width += len(entry) + 2
    yield f"    {' '.join(line)}"
