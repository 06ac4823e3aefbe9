"""Values of untrusted JSON, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelflex.errors import UserError

MAX_JSON = 2**26
"""Most characters of a JSON file: descriptions and recipes; arrays lie in files of their own."""
SIZE_MAX = 2**31 - 1


def is_size(value: Any) -> bool:
    """Whether a JSON value is an integer from 1 to 2³¹ − 1."""
    return type(value) is int and 1 <= value <= SIZE_MAX


def field(entry: Any, key: str, where: str, kind: type) -> Any:
    """The value of `key` in a JSON object, of the exact type `kind`.

    Raises:
        UserError: no object, no such key, or another type.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise UserError(f"{where} has no '{key}'", f"a JSON object with the key '{key}'")
    if type(entry[key]) is not kind:
        raise UserError(
            f"{where}: {key} is {str(entry[key])[:60]!r}", f"a value of type {kind.__name__}"
        )
    return entry[key]


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file can't be read, is larger than `MAX_JSON`, is no JSON object, repeats a
            key, holds NaN or infinity.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise UserError(f"'{path}' is too large", f"at most {MAX_JSON} characters of JSON")
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as error:
        raise UserError(f"'{path}' can't be read ({error.strerror})", "a JSON file") from None
    except RecursionError:
        raise UserError(f"'{path}' is nested too deeply", "a JSON object") from None
    except ValueError as error:
        raise UserError(
            f"'{path}' is not valid JSON ({str(error)[:120]})", "a JSON object"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"'{path}' holds a JSON {type(values).__name__}", "a JSON object")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} repeats")
    return out


def _no_constant(text: str) -> Any:
    raise ValueError(f"the number {text}")
