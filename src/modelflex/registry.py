"""Registries of plug-ins, filled by scanning the plug-in folders.

A cell, a method or a platform is one file in its folder; the file registers what it defines with
the decorator of its registry, and no list elsewhere names it. Packages outside ModelFlex join through
entry points of the group `modelflex.<folder>`. A plug-in that fails to load raises.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, TypeVar

from modelflex.errors import UserError, nearest

T = TypeVar("T")


class Registry:
    """Named plug-ins of one kind; the folder is scanned at the first look-up."""

    def __init__(self, noun: str, package: str) -> None:
        self.noun = noun
        self.package = package
        self._entries: dict[str, Any] = {}
        self._scanned = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a plug-in under `name`; a second plug-in of the same name raises."""

        def file(entry: T) -> T:
            if name in self._entries and self._entries[name] is not entry:
                raise ValueError(
                    f"two plug-ins of the registry '{self.package}' are named '{name}'"
                )
            self._entries[name] = entry
            return entry

        return file

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        folder = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.package):
            point.load()

    def get(self, name: str) -> Any:
        """The plug-in filed under `name`.

        Raises:
            UserError: no plug-in has this name; the message names the nearest.
        """
        self._scan()
        if name not in self._entries:
            known = list(self._entries)
            plural = self.package.rpartition(".")[2]
            raise UserError(
                f"unknown {self.noun} '{name}'", f"one of the {plural}", nearest(name, known)
            )
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        self._scan()
        return tuple(sorted(self._entries))

    def items(self) -> Iterator[tuple[str, Any]]:
        """All (name, plug-in) pairs, sorted by name."""
        return ((name, self._entries[name]) for name in self.names())

    def name_of(self, kind: type) -> str:
        """The name under which the class `kind` is filed."""
        self._scan()
        for name, entry in self._entries.items():
            if entry is kind:
                return name
        raise KeyError(f"{kind.__name__} is not a registered {self.noun}")


CELLS = Registry("cell", "modelflex.cells")
LAYERS = Registry("layer", "modelflex.layers")
STRUCTURES = Registry("structure", "modelflex.structures")
FORMATS = Registry("format", "modelflex.formats")
ACTIVITIES = Registry("activity", "modelflex.activities")
NONLINEARITIES = Registry("nonlinearity", "modelflex.nonlinearities")
REMOVALS = Registry("removal of units", "modelflex.removals")
PLATFORMS = Registry("platform", "modelflex.platforms")
