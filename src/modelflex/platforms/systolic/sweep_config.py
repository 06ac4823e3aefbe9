"""The file of a sweep: a workload, the axes, and what the points are priced with.

Every axis is a list of values, or `{from, to, step}`, or `{from, to, factor}`; a sweep is the grid
of all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.fixed import Array
from modelflex.core.recipe import read_config
from modelflex.errors import UserError, nearest
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import MAX_BUFFER_KB, MAX_SIDE, MIN_BANDWIDTH
from modelflex.platforms.systolic.units import WIDEST_BITS

MAX_POINTS: Final = 20_000_000
"""Most points of a sweep: a table of some gigabytes."""

MAX_NAME: Final = 60
"""Most characters of a table's file name, so that no file system refuses it."""
TABLES: Final = (".csv", ".parquet")
_SECTIONS: Final = ("workload", "sweep", "chip", "output")
_RANGE: Final = ("from", "to", "step", "factor")
_ROUNDING: Final = 1e-9


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class WorkloadConfig:
    """[workload]: what every point runs; exactly one of model, topology and gemm.

    Attributes:
        model: path of a model; each weight is a product M = batch, N = outputs, K = inputs, and all
            of them run once.
        topology: path of a SCALE-Sim topology CSV.
        gemm: products [M, N, K]; `names` may name them.
        batch: M of a model's products.
    """

    model: str | None = None
    topology: str | None = None
    gemm: tuple[tuple[int, int, int], ...] = ()
    names: tuple[str, ...] = ()
    batch: int = 1

    def __post_init__(self) -> None:
        given = [name for name in ("model", "topology", "gemm") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "nothing"
            raise UserError(f"workload names {found}", "exactly one of model, topology and gemm")
        if self.names and len(self.names) != len(self.gemm):
            raise UserError(
                f"workload.names has {len(self.names)} entries",
                f"one for each of gemm's {len(self.gemm)}",
            )
        if self.batch < 1:
            raise UserError(f"workload.batch is {self.batch}", "a whole number above zero")
        if self.batch != 1 and self.model is None:
            raise UserError("workload.batch is given without a model", "M in each product")


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ChipConfig:
    """[chip]: what turns cycles and words into seconds, joules and square metres.

    Attributes:
        spec: of the systolic platform: clock, energies, accumulator width, unit; its array, buffers
            and bandwidth are what the sweep varies.
        unit, dram: an arithmetic unit and a DRAM type instead of the spec's.
        sram: a memory type whose energy hangs on each buffer's capacity, instead of the spec's
            energy; without it areas are those of the type "sram".
        leakage: whether the energy counts leakage of the units and, where `sram` is chosen, of the
            buffers.
    """

    spec: str = "bitfusion_32x32"
    unit: str | None = None
    dram: str | None = None
    sram: str | None = None
    leakage: bool = False


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class OutputConfig:
    """[output]: file name of the table (.csv or .parquet), and the axes of the heat map."""

    table: str | None = None
    x: str | None = None
    y: str | None = None

    def __post_init__(self) -> None:
        table = self.table
        if table is None:
            return
        plain = (
            Path(table).name == table and table.isprintable() and len(table.encode()) <= MAX_NAME
        )
        if not plain or Path(table).suffix not in TABLES:
            expected = "a plain file name that ends in .csv or .parquet"
            raise UserError(f"output.table is '{table}'", expected)


class Axis(NamedTuple):
    """One axis of the grid.

    Attributes:
        name: as it stands in the file.
        columns: column of the table → its values [size]; `array` and `bits` set two columns.
    """

    name: str
    columns: Mapping[str, Array]

    @property
    def size(self) -> int:
        """How many values."""
        return len(next(iter(self.columns.values())))

    def labels(self) -> list[str]:
        """The values as texts: "16×64" for an array."""
        columns = [values.tolist() for values in self.columns.values()]
        shown = columns if self.name == "array" else columns[:1]  # both of `bits` are the same
        return ["×".join(map(_label, value)) for value in zip(*shown, strict=True)]


def _label(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "unlimited" if math.isinf(value) else f"{value:.6g}"


@dataclass(frozen=True)
class SweepConfig:
    """A checked sweep.

    Attributes:
        axes: outermost first: dataflow, bandwidth (the unlimited one last), and the others.
        chip: None where points are not priced.
    """

    workload: WorkloadConfig
    axes: tuple[Axis, ...]
    chip: ChipConfig | None = None
    output: OutputConfig = field(default_factory=OutputConfig)

    @property
    def points(self) -> int:
        """Of the grid."""
        return math.prod(axis.size for axis in self.axes)

    @property
    def map_axes(self) -> tuple[Axis, Axis]:
        """(x, y) of the heat map: those asked for, else the two with the most values."""
        by_name = {axis.name: axis for axis in self.axes}
        asked = self.output.x, self.output.y
        rest = iter(
            sorted((a for a in self.axes if a.name not in asked), key=lambda axis: -axis.size)
        )
        x, y = (next(rest) if name is None else by_name[name] for name in asked)
        return x, y


class _Kind(NamedTuple):
    """What an axis takes: its columns, a value's reader, the default, and whether ranges are whole."""

    columns: tuple[str, ...]
    read: Callable[[Any, str], Any]
    default: tuple[Any, ...]
    whole: bool = True


def _whole(limit: int) -> Callable[[Any, str], int]:
    def read(value: Any, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise UserError(f"{where} has {value!r}", f"whole numbers from 1 to {limit}")
        return value

    return read


def _bandwidth(value: Any, where: str) -> float:
    if value == "unlimited":
        return math.inf
    expected = f"words a cycle from {MIN_BANDWIDTH:g}, or 0 or 'unlimited' for no limit"
    number = _number(value, where, expected)
    if number != 0 and not MIN_BANDWIDTH <= number < math.inf:
        raise UserError(f"{where} has {value!r}", expected)
    return number or math.inf


def _density(value: Any, where: str) -> float:
    expected = "shares above 0, up to 1"
    number = _number(value, where, expected)
    if not 0 < number <= 1:
        raise UserError(f"{where} has {value!r}", expected)
    return number


def _number(value: Any, where: str, expected: str) -> float:
    # math.isnan fails where an integer exceeds every float.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise UserError(f"{where} has {value!r}", expected)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _dataflow(value: Any, where: str) -> str:
    known = get_args(Dataflow)
    if value not in known:
        raise UserError(f"{where} has {value!r}", f"one of {', '.join(known)}")
    return str(value)


def _array(value: Any, where: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})[x×]([0-9]{1,6})", value) if isinstance(value, str) else None
    if match is None:
        raise UserError(f"{where} has {value!r}", "texts such as '16x64', rows × columns")
    rows, columns = (_whole(MAX_SIDE)(int(side), where) for side in match.groups())
    return rows, columns


def _bits(value: Any, where: str) -> tuple[int, int]:
    bits = _whole(WIDEST_BITS)(value, where)
    return bits, bits


_KINDS: Final[Mapping[str, _Kind]] = {
    "dataflow": _Kind(("dataflow",), _dataflow, ("os",)),
    "bandwidth": _Kind(("bandwidth",), _bandwidth, ("unlimited",), whole=False),
    "array": _Kind(("rows", "columns"), _array, ()),
    "rows": _Kind(("rows",), _whole(MAX_SIDE), (32,)),
    "columns": _Kind(("columns",), _whole(MAX_SIDE), (32,)),
    "ifmap_kb": _Kind(("ifmap_kb",), _whole(MAX_BUFFER_KB), (1024,)),
    "filter_kb": _Kind(("filter_kb",), _whole(MAX_BUFFER_KB), (2048,)),
    "ofmap_kb": _Kind(("ofmap_kb",), _whole(MAX_BUFFER_KB), (1024,)),
    "bits": _Kind(("weight_bits", "activation_bits"), _bits, ()),
    "weight_bits": _Kind(("weight_bits",), _whole(WIDEST_BITS), (8,)),
    "activation_bits": _Kind(("activation_bits",), _whole(WIDEST_BITS), (8,)),
    "block": _Kind(("block",), _whole(MAX_SIDE), (1,)),
    "density": _Kind(("density",), _density, (1.0,), whole=False),
}
"""Axes, outermost first."""

_INSTEAD: Final = {"array": ("rows", "columns"), "bits": ("weight_bits", "activation_bits")}


def parse_sweep(raw: Mapping[str, Any], base: Path) -> SweepConfig:
    """Check the tables of a file; the workload's paths become absolute, relative to `base`.

    Raises:
        UserError: an unknown or missing table or key, a value out of range, contradicting axes, more
            than `MAX_POINTS` points.
    """
    for name in raw:
        if name not in _SECTIONS:
            hint = nearest(name, _SECTIONS)
            raise UserError(f"the sweep has the unknown table '{name}'", "a table", hint)
    for name in ("workload", "sweep"):
        if name not in raw:
            raise UserError(f"the sweep has no table [{name}]", "[workload] and [sweep]")
    workload: WorkloadConfig = _section(raw, "workload", WorkloadConfig)
    config = SweepConfig(
        replace(
            workload,
            model=None if workload.model is None else str(base / workload.model),
            topology=None if workload.topology is None else str(base / workload.topology),
        ),
        _axes(_table(raw, "sweep")),
        _chip(raw, base) if "chip" in raw else None,
        _section(raw, "output", OutputConfig),
    )
    known = [axis.name for axis in config.axes]
    for key, axis in (("x", config.output.x), ("y", config.output.y)):
        if axis is not None and axis not in known:
            hint = nearest(axis, known)
            raise UserError(f"output.{key} is '{axis}'", "an axis of the sweep", hint)
    if config.output.x is not None and config.output.x == config.output.y:
        raise UserError(f"output.x and output.y are both '{config.output.x}'", "two axes")
    return config


def _table(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = raw.get(name, {})
    if not isinstance(table, Mapping):
        raise UserError(f"{name} is {table!r}", f"a table [{name}]")
    return table


def _section(raw: Mapping[str, Any], name: str, kind: type) -> Any:
    return read_config(kind, _table(raw, name), name)


def _chip(raw: Mapping[str, Any], base: Path) -> ChipConfig:
    chip: ChipConfig = _section(raw, "chip", ChipConfig)

    def found(text: str | None) -> str | None:
        return str(base / text) if text is not None and text.endswith(".toml") else text

    return replace(
        chip,
        spec=found(chip.spec) or chip.spec,
        unit=found(chip.unit),
        dram=found(chip.dram),
        sram=found(chip.sram),
    )


def _axes(table: Mapping[str, Any]) -> tuple[Axis, ...]:
    for name in table:
        if name not in _KINDS:
            hint = nearest(name, [*_KINDS])
            raise UserError(f"sweep has the unknown axis '{name}'", "an axis", hint)
    for name, others in _INSTEAD.items():
        for other in others:
            if name in table and other in table:
                raise UserError(f"sweep has '{name}' and '{other}'", "one of both")
    replaced = {other for name, others in _INSTEAD.items() if name in table for other in others}
    names = [n for n in _KINDS if n in table or (n not in _INSTEAD and n not in replaced)]
    written = {name: _written(name, table[name]) if name in table else () for name in names}
    points = math.prod(len(values) or 1 for values in written.values())
    if points > MAX_POINTS:
        limit = f"at most {MAX_POINTS:,}"
        raise UserError(f"the sweep has {points:,} points", limit, "cut it into several")
    return tuple(_axis(name, written[name] or _KINDS[name].default) for name in names)


def _axis(name: str, written: list[Any] | tuple[Any, ...]) -> Axis:
    kind, where = _KINDS[name], f"sweep.{name}"
    values = [kind.read(value, where) for value in written]
    if name == "bandwidth":
        values.sort(key=math.isinf)  # the unlimited one is simulated apart from the others
    if len(set(values)) < len(values):
        twice = next(value for i, value in enumerate(values) if value in values[:i])
        raise UserError(f"{where} has {twice!r} twice", "each value once")
    by_column = list(zip(*values, strict=True)) if len(kind.columns) == 2 else [values]
    return Axis(name, dict(zip(kind.columns, map(np.array, by_column), strict=True)))


def _written(name: str, entry: Any) -> list[Any]:
    """The values of an axis as they were written; a range becomes the numbers it means."""
    where = f"sweep.{name}"
    if isinstance(entry, Mapping):
        if name in ("dataflow", "array"):
            raise UserError(f"{where} is a range", "a list of texts")
        return _range(entry, where, _KINDS[name].whole)
    if not isinstance(entry, list) or not entry:
        raise UserError(f"{where} is {entry!r}", "a list of values, or {from, to, step | factor}")
    return entry


def _range(entry: Mapping[str, Any], where: str, whole: bool) -> list[Any]:
    for key in entry:
        if key not in _RANGE:
            raise UserError(f"{where} has the unknown key '{key}'", "a key", nearest(key, _RANGE))
    if not {"from", "to"} <= entry.keys() or ("step" in entry) == ("factor" in entry):
        keys = ", ".join(entry) or "no keys"
        raise UserError(f"{where} has {keys}", "from, to, and step or factor")
    kind = "a whole number" if whole else "a number"
    for key, value in entry.items():
        fits = isinstance(value, int) if whole else isinstance(value, int | float)
        if isinstance(value, bool) or not fits or not math.isfinite(_number(value, where, kind)):
            raise UserError(f"{where}.{key} is {value!r}", kind)
    low, high = entry["from"], entry["to"]
    by, least = ("step", 0) if "step" in entry else ("factor", 1)
    if not 0 < low <= high or entry[by] <= least:
        raise UserError(
            f"{where} goes from {low} to {high} by the {by} {entry[by]}",
            f"0 < from ≤ to and a {by} above {least}",
        )
    if by == "step":
        size = (high - low) / entry[by]
    else:  # high / low may exceed every float
        size = (math.log(high) - math.log(low)) / math.log(entry[by])
    if size >= MAX_POINTS:
        raise UserError(f"{where} has {size:,.6g} values", f"at most {MAX_POINTS:,} points")
    count = math.floor(size * (1 + _ROUNDING) + _ROUNDING) + 1
    try:
        if by == "step":
            values = [low + i * entry[by] for i in range(count)]
        else:
            values = [low * entry[by] ** i for i in range(count)]
    except OverflowError:
        raise UserError(f"{where} goes from {low} to {high}", "numbers closer together") from None
    # 0.1 + 2·0.1 is a rounding error above 0.3, and would stand so in the table.
    return values if whole else [min(float(f"{value:.12g}"), float(high)) for value in values]
