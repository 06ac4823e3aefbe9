"""The reference kernels as they go into an exported folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from modelflex.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = (_PACKAGE / "csrc", _PACKAGE.parents[1] / "csrc")
"""Where the sources of the kernels lie: in an installed package, and in the repository."""
_LOCAL = re.compile(r'^#include "([a-z0-9_]+\.h)"', re.MULTILINE)


def kernel_sources(headers: Iterable[str], symbol: str) -> dict[str, str]:
    """File → text of the kernels behind `headers`, and of all that they include.

    Their functions and files get the prefix of the model, so that several models go into one program.

    Raises:
        UserError: the installation lacks the sources.
    """
    found: dict[str, str] = {}
    waiting = list(headers)
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found[file] = _read(file)
        waiting += _LOCAL.findall(found[file])
        source = file.removesuffix(".h") + ".c"
        if file.endswith(".h") and _folder().joinpath(source).is_file():
            waiting.append(source)
    return {f"{symbol}_{file}": prefixed(found[file], symbol) for file in sorted(found)}


def prefixed(text: str, symbol: str) -> str:
    """A kernel's text with the prefix of a model at its functions, types and local headers."""
    text = _LOCAL.sub(rf'#include "{symbol}_\1"', text)
    text = re.sub(r"\bMODELFLEX_(?=[A-Z0-9_]+_H\b)", f"{symbol.upper()}_", text)
    return re.sub(r"\bmf_", f"{symbol}_mf_", text)


def _folder() -> Path:
    folder = next((f for f in _FOLDERS if (f / "fixed_point.h").is_file()), None)
    if folder is None:
        raise UserError(
            "the installed package holds no C sources",
            f"the kernels in {_FOLDERS[0]}",
            "install modelflex again",
        )
    return folder


def _read(file: str) -> str:
    return (_folder() / file).read_text(encoding="utf-8")
