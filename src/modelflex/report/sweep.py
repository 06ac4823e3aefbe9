"""The page of a sweep: best points, a heat map and the Pareto front, without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from modelflex.platforms.systolic.sweep import SweepSummary
from modelflex.platforms.systolic.sweep_config import Axis, SweepConfig
from modelflex.platforms.systolic.sweep_found import bins
from modelflex.platforms.systolic.workload import Workload
from modelflex.report import sweep_chip
from modelflex.report.cells import Cell, Table
from modelflex.report.page import render_page
from modelflex.report.sweep_plots import Figure, front_figure, map_figure
from modelflex.report.sweep_text import FIGURES, axis_name, place_on, records_of, show_figure

_ADVICE: Final = (
    "Each buffer must hold the operands that the array works on at once: larger buffers, fewer rows "
    "or columns, or narrower operands make them fit."
)
_FRONT_ROWS: Final = 300
_SHOWN_VALUES: Final = 24


def render_sweep(
    found: SweepSummary, config: SweepConfig, layers: Sequence[Workload], name: str
) -> str:
    """The page of a sweep as text, about 5 MB.

    Raises:
        UserError: the chip's specs cannot be read any more.
    """
    varied = [axis for axis in config.axes if axis.size > 1]
    columns = [*found.objectives, *(c for c in found.best if c not in found.objectives)]
    chip = sweep_chip.read(config.chip)
    maps = _maps(found)
    front = front_figure(found, varied) if found.points - found.infeasible > 1 else None
    return render_page(
        "sweep.html.j2",
        maps if front is None else {**maps, "pareto": front},
        name=name,
        kicker="ModelFlex sweep · systolic array",
        verdict=_verdict(found, varied),
        success=bool(found.best),
        advice=None if found.best else _ADVICE,
        tiles=_tiles(found),
        notes=found.notes,
        found=found,
        best=_best_table(found, varied, columns),
        maps=list(maps),
        map_title=_map_title(found),
        holes=any(np.isnan(values).any() for values in found.least.values()),
        coarse=any(len(set(bins(a.size).tolist())) < a.size for a in found.map_axes),
        front=_points_table(records_of(found.front)[:_FRONT_ROWS], varied, columns),
        left_out=max(0, len(found.front.get("fits", ())) - _FRONT_ROWS),
        objectives=", ".join(FIGURES[column][0] for column in found.objectives),
        axes=_axes_table(config.axes),
        layers=_layers_table(layers),
        chip=chip.title,
        constants=chip.constants,
        priced=config.chip is not None,
        leakage=config.chip is not None and config.chip.leakage,
    )


def _maps(found: SweepSummary) -> dict[str, Figure]:
    """A heat map for each of the first two objectives, where there is anything to compare."""
    if not found.best or all(axis.size == 1 for axis in found.map_axes):
        return {}
    return {f"map-{column}": map_figure(found, column) for column in found.least}


def _map_title(found: SweepSummary) -> str:
    values = " and ".join(FIGURES[column][0] for column in found.least)
    axes = " and ".join(axis_name(axis) for axis in found.map_axes if axis.size > 1)
    return f"Least {values} over {axes}"


def _verdict(found: SweepSummary, varied: Sequence[Axis]) -> str:
    if not found.best:
        return "No point has buffers that hold what one fold needs."
    column, row = next(iter(found.best.items()))
    return f"Least {FIGURES[column][0]}: {show_figure(column, row[column])} at {_describe(row, varied)}."


def _describe(row: Mapping[str, Any], varied: Sequence[Axis]) -> str:
    parts = [f"{axis_name(a)} {place_on(row, a)}" for a in varied]
    return ", ".join(parts) or "the only point"


def _tiles(found: SweepSummary) -> list[tuple[str, str]]:
    tiles = [_counted(found.points, "of the grid")]
    if found.infeasible:
        tiles.append(_counted(found.infeasible, "without room for a tile"))
    for column in found.objectives[:2]:
        if column in found.best:
            text = show_figure(column, found.best[column][column])
            tiles.append((text, f"least {FIGURES[column][0]}"))
    if found.best:
        tiles.append(_counted(len(found.front["fits"]), "on the Pareto front"))
    return tiles


def _counted(points: int, text: str) -> tuple[str, str]:
    return f"{points:,}", f"point{'' if points == 1 else 's'} {text}"


def _points_table(
    records: Sequence[Mapping[str, Any]], varied: Sequence[Axis], columns: Sequence[str]
) -> Table:
    """A row a point: where it lies on the axes, and its figures."""
    rows = tuple(
        (
            *(_axis_cell(record, a) for a in varied),
            *(Cell(show_figure(c, record[c]), sort=record[c]) for c in columns),
        )
        for record in records
    )
    headings = [axis_name(a) for a in varied] + [FIGURES[c][0] for c in columns]
    return Table(tuple(headings), rows, frozenset(range(len(headings))))


def _best_table(found: SweepSummary, varied: Sequence[Axis], columns: Sequence[str]) -> Table:
    table = _points_table(list(found.best.values()), varied, columns)
    heads = [Cell(f"least {FIGURES[column][0]}") for column in found.best]
    rows = tuple((head, *row) for head, row in zip(heads, table.rows, strict=True))
    return Table(("", *table.columns), rows, frozenset(range(1, len(table.columns) + 1)))


def _axis_cell(row: Mapping[str, Any], axis: Axis) -> Cell:
    value = row[next(iter(axis.columns))]
    return Cell(place_on(row, axis), sort=None if isinstance(value, str) else min(value, 1e300))


def _axes_table(axes: Sequence[Axis]) -> Table:
    rows = []
    for each in axes:
        labels = each.labels()
        shown = ", ".join(labels[:_SHOWN_VALUES])
        if len(labels) > _SHOWN_VALUES:
            shown += f", … {labels[-1]} ({len(labels):,} values)"
        rows.append((Cell(axis_name(each)), Cell(shown)))
    return Table(("Axis", "Values"), tuple(rows))


def _layers_table(layers: Sequence[Workload]) -> Table:
    rows = tuple(
        (Cell(layer.name), *(Cell(f"{int(size):,}") for size in layer.shape[:3]))
        for layer in layers
    )
    return Table(("Layer", "M", "N", "K"), rows, frozenset((1, 2, 3)))
