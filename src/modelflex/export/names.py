"""Names and numbers of generated code: nothing that a model says reaches the source as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

LONGEST = 32
"""Characters of a model's symbol; what is longer is cut."""
_HEADERS = re.compile(
    r"(?i)aio|alloca|argp|arpa|assert|byteswap|complex|ctype|dirent|dlfcn|elf|endian|err|errno|error|"
    r"fcntl|features|fenv|float|fmtmsg|fnmatch|ftw|getopt|glob|grp|iconv|inttypes|iso646|langinfo|"
    r"libgen|libintl|limits|link|locale|malloc|math|memory|monetary|mqueue|ndbm|netdb|newlib|nl_types|"
    r"paths|poll|printf|process|pthread|pwd|reent|regex|resolv|sched|search|semaphore|setjmp|signal|"
    r"spawn|stdalign|stdarg|stdatomic|stdbit|stdbool|stdc_predef|stdckdint|stddef|stdint|stdio|stdlib|"
    r"stdnoreturn|string|strings|stropts|sys|syslimits|syslog|tar|term|termios|tgmath|threads|time|trace|uchar|"
    r"ucontext|ulimit|unctrl|unistd|utime|utmpx|values|wait|wchar|wctype|windows|winsock|wordexp|"
    r"con|prn|aux|nul|com[0-9]|lpt[0-9]"
)
"""Headers of C, POSIX and common C libraries, which a file of this name would hide, and names that are no
files on Windows."""
_FUNCTIONS = re.compile(r"(?i)sem|mtx|pthread_[a-z_]+")
"""Prefixes with which the C library has an `_init` of its own."""
_KEYWORDS = re.compile(
    r"auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|"
    r"long|register|restrict|return|short|signed|sizeof|static|struct|switch|typedef|union|unsigned|void|"
    r"volatile|while"
)
_PARTS = re.compile(
    r"(?i).*_(weights|selftest|fixed_point|matrix|matrix_products|matrix_tiles|elementwise|"
    r"elementwise_f32|piecewise)"
)
"""Names that are those of the files of another model: `a_weights` beside `a`."""
_WIDTH = 96


def symbol(name: str) -> str:
    """A model's name as the prefix of its C symbols and files: ASCII letters, digits and underscores.

    It starts with a letter, is no longer than `LONGEST`, names no keyword, header or device, and is no name
    that another model's files and private symbols (`..._mf_...`) have.
    """
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_")
    taken = (_HEADERS, _FUNCTIONS, _KEYWORDS)
    if not text[:1].isalpha() or any(pattern.fullmatch(text) for pattern in taken):
        text = f"model_{text}"[:LONGEST].rstrip("_")
    if _PARTS.fullmatch(text):
        text = f"{text[: LONGEST - len('_net')].rstrip('_')}_net"
    return re.sub(r"(?i)_mf(?=_|$)", "_fm", text)


def given_symbol(name: str) -> str:
    """A prefix that the user chose, as it stands.

    Raises:
        UserError: it is none, or one that `symbol` avoids.
    """
    if symbol(name) != name:
        raise UserError(
            f"the name '{name}' can't begin C symbols and files",
            f"at most {LONGEST} ASCII letters, digits and underscores, none of C's own names",
            f"'{symbol(name)}' would do",
        )
    return name


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
