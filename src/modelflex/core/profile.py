"""Counters that every executor fills in the same way, keyed by site; platforms price them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SiteCounts:
    """What one product did during a run.

    Attributes:
        runs: how often it ran.
        units: fetch units read (columns, block columns), over all runs.
        active: input elements whose products were computed, over all runs.
    """

    runs: int
    units: int
    active: int


@dataclass(frozen=True)
class Profile:
    """Counters of a run over `steps` time steps of `sequences` sequences."""

    steps: int
    sequences: int
    sites: Mapping[str, SiteCounts] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        sites = {s: [c.runs, c.units, c.active] for s, c in self.sites.items()}
        return {"steps": self.steps, "sequences": self.sequences, "sites": sites}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Profile:
        """The inverse of `to_json`."""
        sites = {s: SiteCounts(*c) for s, c in values["sites"].items()}
        return Profile(values["steps"], values["sequences"], sites)
