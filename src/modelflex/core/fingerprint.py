"""Fingerprints of users' functions, so that figures of another version of one are never reused.

What a function computes hangs on its code, its defaults, the variables that it closes over and the
globals that it reads; those are hashed by value. Installed packages count by name and version,
the user's own modules by the content of their files.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib
import sys
import types
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis))
_READS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


def fingerprint(function: Callable[..., Any]) -> str | None:
    """SHA-256 of everything that `function` hangs on, equal in every process of one Python version.

    None where that cannot be told: for example an object with state of its own, a class of a
    script, or a method.
    """
    try:
        return _digest(_Walk().describe(function))
    except (_UnknownError, RecursionError):
        return None


def module_fingerprint(module: str, function: Callable[..., Any]) -> str | None:
    """SHA-256 of the file of the imported module that holds `function`, and of the user's modules
    that this one uses; None where there is no readable file.
    """
    try:
        texts = _module(sys.modules[module], whole=True)
    except _UnknownError:
        return None
    # A file that was changed after its import must not stand for the function in memory.
    return _digest([*texts, fingerprint(function) or ""])


class _UnknownError(Exception):
    """The content of a value cannot be told."""


def _digest(parts: Iterable[str]) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return sha.hexdigest()


# --- values --------------------------------------------------------------------------------------
class _Walk:
    """One description; what contains itself is named by the order of its discovery."""

    def __init__(self) -> None:
        self._met: dict[int, int] = {}

    def describe(self, value: Any) -> list[str]:
        """Texts that are equal exactly where values are."""
        if type(value) in _PLAIN:
            return [type(value).__name__, repr(value)]
        # Only these can close a cycle; whether equal constants are one object is up to the compiler.
        if isinstance(value, (list, dict, types.FunctionType)):
            if id(value) in self._met:
                return ["met", str(self._met[id(value)])]
            self._met[id(value)] = len(self._met)
        if isinstance(value, (np.ndarray, np.generic)):
            return _array(np.asarray(value))
        if type(value) in (list, tuple):
            return [type(value).__name__, str(len(value)), *self._all(value)]
        if type(value) is dict:
            return ["dict", str(len(value)), *self._all(x for item in value.items() for x in item)]
        if type(value) in (set, frozenset):
            return [type(value).__name__, *sorted(_digest(_Walk().describe(x)) for x in value)]
        if isinstance(value, types.CodeType):
            return self._code(value)
        if type(value) is functools.partial:
            return ["partial", *self._all((value.func, value.args, value.keywords))]
        if isinstance(value, types.ModuleType):
            return _module(value)
        return self._named(value)

    def _all(self, values: Iterable[Any]) -> list[str]:
        return [text for value in values for text in self.describe(value)]

    def _named(self, value: Any) -> list[str]:
        """Functions, and classes or functions of modules that can be told by name."""
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        name = getattr(value, "__qualname__", getattr(value, "__name__", None))
        if isinstance(value, types.FunctionType) and (module is None or not _installed(module)):
            return self._function(value)
        if isinstance(value, np.ufunc):
            return ["numpy", np.__version__, str(name)]
        if module is None or not isinstance(name, str) or "<" in name:
            raise _UnknownError
        if not isinstance(value, type) and _lookup(module, name) is not value:
            raise _UnknownError  # an instance, a bound method
        return [name, *_module(module)]

    def _function(self, function: types.FunctionType) -> list[str]:
        try:
            cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
        except ValueError:  # a variable that is not set yet
            raise _UnknownError from None
        texts = self._all(
            (function.__code__, function.__defaults__, function.__kwdefaults__, cells)
        )
        for name in sorted(_globals(function.__code__)):
            if name in function.__globals__:
                texts += [name, *self.describe(function.__globals__[name])]
        return texts

    def _code(self, code: types.CodeType) -> list[str]:
        imports = [s.argval for s in dis.get_instructions(code) if s.opname == "IMPORT_NAME"]
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        made = (code.co_code, code.co_exceptiontable, *names, counts, code.co_consts)
        return ["code", *self._all(made), *self._all(map(_imported, imports))]


def _array(value: Any) -> list[str]:
    if value.dtype.hasobject:
        raise _UnknownError
    return [str(value.dtype), str(value.shape), np.ascontiguousarray(value).tobytes().hex()]


def _globals(code: types.CodeType) -> set[str]:
    """Names of globals that a code object and those within it read."""
    steps = dis.get_instructions(code)
    names = {s.argval for s in steps if s.opname in _READS}
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            names |= _globals(value)
    return names


def _imported(name: str) -> types.ModuleType:
    """The module that a function imports when it runs."""
    try:
        return importlib.import_module(name)
    except Exception:  # a module of the user's own may fail in any way
        raise _UnknownError from None


def _lookup(module: types.ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


# --- modules -------------------------------------------------------------------------------------
def _file(module: types.ModuleType) -> Path | None:
    found = getattr(module, "__file__", None)
    return None if found is None else Path(found)


def _installed(module: types.ModuleType) -> bool:
    """Whether a module's version tells its content: the standard library, site-packages, this one."""
    top, file = module.__name__.partition(".")[0], _file(module)
    if top == "__main__":
        return False
    if top in sys.stdlib_module_names or top == "modelflex":
        return True
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(file.parts)


def _version(module: types.ModuleType) -> list[str]:
    top = module.__name__.partition(".")[0]
    if top in sys.stdlib_module_names:
        return [module.__name__, sys.version]
    found = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(found, str):
        try:
            found = version(top)
        except PackageNotFoundError:
            raise _UnknownError from None
    return [module.__name__, found]


def _module(module: types.ModuleType, whole: bool = False) -> list[str]:
    """Name and version of an installed module; else its file and those of the user's that it uses.

    Args:
        whole: the file of `module` itself counts, installed or not.
    """
    texts: list[str] = []
    todo, met = [module], {module.__name__}
    while todo:
        one = todo.pop()
        file = _file(one)
        if _installed(one) and not (whole and one is module and file is not None):
            texts += _version(one)
            continue
        if one.__name__ == "__main__" or file is None:
            raise _UnknownError
        try:
            texts += [one.__name__, file.read_bytes().hex()]
        except OSError:
            raise _UnknownError from None
        for name in sorted(_used(one) - met):
            met.add(name)
            todo.append(sys.modules[name])
    return texts


def _used(module: types.ModuleType) -> set[str]:
    """Names of the user's own modules whose contents a module holds."""
    names = set()
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, types.ModuleType) else None
        name = name or getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules and not _installed(sys.modules[name]):
            names.add(name)
    return names - {module.__name__}
