"""How a sweep's columns, axes and rows are named and shown to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep_config import Axis
from modelflex.units import show_quantity

FIGURES: Final = {
    "latency_s": ("latency", "s"),
    "energy_j": ("energy", "J"),
    "area_m2": ("area", "mm²"),
    "edp_js": ("energy × latency", "J·s"),
    "cycles": ("cycles", ""),
    "dram_bytes": ("DRAM traffic", "B"),
    "units": ("units", ""),
}
"""Column → (name, unit on axes)."""


def show_figure(column: str, value: float) -> str:
    """A text for people."""
    unit = FIGURES[column][1]
    if unit in ("s", "J"):
        return show_quantity(value, unit)
    if column == "area_m2":
        return f"{1e6 * value:.4g} mm²"
    if column == "edp_js":
        return f"{value:.4g} J·s"
    return f"{value:,.0f} {unit}".rstrip()


def axis_name(axis: Axis) -> str:
    """The axis as it stands in headings."""
    return axis.name.replace("_kb", " kB").replace("_", " ")


def place_on(row: Mapping[str, Any], axis: Axis) -> str:
    """The row's value on an axis."""
    values = {name: np.array([row[name]]) for name in axis.columns}
    return Axis(axis.name, values).labels()[0]


def records_of(columns: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Columns as a list of rows."""
    values = [column.tolist() for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
