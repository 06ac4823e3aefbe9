"""Topology files: the layers of a network as SCALE-Sim 3.0.0 reads them, one a row.

The first line that is not blank is a heading. Rows of a `conv` file are: name, IFMAP height and
width, filter height and width, channels, filters, stride; of a `gemm` file: name, M, N, K. A second
stride (of the columns) and a sparsity "1:1" may follow. SCALE-Sim drops what stands after the last
comma of a row, and so fails on a row that does not end in one; here the comma may be missing, unless
that leaves open whether the last number counts. Lines without anything but commas are blank.

A row of a conv file whose name contains 'DP' is depth-wise: SCALE-Sim makes it one layer a channel,
with one channel each. Such a row of a single channel keeps its name here, so that layers that were
expanded once are not renamed when they are written and read again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Literal, NamedTuple

from modelflex.core.files import read_text, replacing
from modelflex.errors import UserError
from modelflex.platforms.systolic.workload import MAX_WORDS, Convolution, Gemm, Workload

Kind = Literal["conv", "gemm"]

MAX_BYTES: Final = 2**23
"""Largest topology file."""
MAX_LAYERS: Final = 100_000
"""Most layers of a topology file, depth-wise rows expanded."""

_COLUMNS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "conv": (
        "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels", "Num Filter",
        "Strides",
    ),
    "gemm": ("M", "N", "K"),
}  # fmt: skip
_STRIDE_WIDTH: Final = "Stride Width"
_DEPTH_WISE: Final = "DP"
_LAYOUT: Final[Mapping[str, tuple[str, ...]]] = {
    "Intraline Factor": (
        "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channel", "Num Filter",
    ),
    "Intraline Order": ("IFMAP Height", "IFMAP Width", "Channel"),
    "Interline Order": ("IFMAP Height", "IFMAP Width", "Channel"),
    "Filter Intraline Order": ("Num Filter", "Channel", "Filter Height", "Filter Width"),
    "Filter Interline Order": ("Num Filter", "Channel", "Filter Height", "Filter Width"),
}  # fmt: skip
"""Numbers of a row of a layout file."""


class _Row(NamedTuple):
    """The cells of a line, empty ones at its end left out.

    Attributes:
        line: its number in the file, from 1.
        closed: it ends in a comma.
    """

    line: int
    cells: list[str]
    closed: bool


def read_topology(path: Path, kind: Kind | None = None) -> list[Workload]:
    """Read the layers of a topology file.

    Args:
        kind: what the rows are; None: gemm if the heading names M, N and K, conv if it names a
            filter, else by the number of cells of the first row.

    Returns:
        `Convolution` (conv) or `Gemm` (gemm), in the order of the file.

    Raises:
        UserError: an unreadable or too large file, no heading, no layers, or broken rows; names the
            first of them and counts the others.
    """
    rows = _rows(read_text(path, MAX_BYTES, "topology"))
    if len(rows) > MAX_LAYERS + 1:
        raise _too_many(path, rows[-1])
    header, body = rows[:1], rows[1:]
    if header and any(_number(cell) for cell in header[0].cells[1:]):
        raise UserError(
            f"{path}:{header[0].line}: numbers in the first line, which SCALE-Sim skips",
            "a heading such as 'Layer name, M, N, K,'",
        )
    if not body:
        raise UserError(f"{path} has no layers", "a heading and one row a layer")
    if kind is None:
        kind = _guess(path, header[0], body[0])
    _check_order(path, header[0], kind)
    layers: list[Workload] = []
    broken: list[tuple[int, UserError]] = []
    for row in body:
        try:
            layers += _layers(kind, row)
        except UserError as error:
            broken.append((row.line, error))
        if len(layers) > MAX_LAYERS:
            raise _too_many(path, row)
    if broken:
        line, first = broken[0]
        raise UserError(f"{path}:{line}: {first.found}", first.expected, _others(broken[1:]))
    return layers


def write_topology(layers: Sequence[Workload], path: Path) -> None:
    """Write layers of one kind so that `read_topology`, and SCALE-Sim, read the same.

    A layer whose strides differ gets a second stride, which SCALE-Sim 2 reads and 3.0.0 does not.

    Raises:
        UserError: no layers, both kinds, or a layer that a row cannot hold (a batch, a comma in the
            name, 'DP' in the name of several channels); a path that cannot be written.
    """
    kind = _kind_of(layers)
    rows = [_written(kind, layer) for layer in layers]
    columns = [*_COLUMNS[kind]]
    if any(len(row) - 1 > len(columns) for row in rows):
        columns.append(_STRIDE_WIDTH)
    _write_rows(path, [["Layer name", *columns], *rows])


def write_layout(layers: Sequence[Workload], path: Path) -> None:
    """Write the layout file without which SCALE-Sim 3.0.0 does not start: a word a line.

    Its numbers are not used unless the configuration asks for a custom layout.

    Raises:
        UserError: as `write_topology`.
    """
    kind = _kind_of(layers)
    heading, numbers = ["Layer name"], []
    for group, dimensions in _LAYOUT.items():
        heading += [f"{dimension} {group}" for dimension in dimensions]
        orders = range(len(dimensions))
        numbers += ["1" if group.endswith("Factor") else str(order) for order in orders]
    names = [_written(kind, layer)[0] for layer in layers]
    _write_rows(path, [heading, *([name, *numbers] for name in names)])


def write_text(path: Path, text: str) -> None:
    """Write a text file; it appears whole or not at all.

    Raises:
        UserError: the path cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _rows(text: str) -> list[_Row]:
    """The lines that are not blank; of too many, one more than is allowed."""
    rows = (_row(number, line) for number, line in enumerate(text.split("\n"), 1) if line)
    return list(islice((row for row in rows if row.cells), MAX_LAYERS + 2))


def _row(number: int, line: str) -> _Row:
    cells = [cell.strip() for cell in line.split(",")]
    closed = not cells[-1]
    while cells and not cells[-1]:
        cells.pop()
    return _Row(number, cells, closed)


def _guess(path: Path, header: _Row, first: _Row) -> Kind:
    names = {cell.lower() for cell in header.cells}
    if {"m", "n", "k"} <= names:
        return "gemm"
    if any("filter" in name for name in names):
        return "conv"
    kinds: dict[int, Kind] = {4: "gemm", 5: "gemm", 8: "conv", 9: "conv", 10: "conv"}
    if len(first.cells) not in kinds:
        raise UserError(
            f"{path}:{first.line}: {len(first.cells)} cells below a heading of unknown columns",
            " or ".join(f"name, {', '.join(columns)}" for columns in _COLUMNS.values()),
        )
    return kinds[len(first.cells)]


def _check_order(path: Path, header: _Row, kind: Kind) -> None:
    """Rows are read by position; a heading that tells another order would be overlooked."""
    names = [cell.upper() for cell in header.cells[1:4]]
    if kind == "gemm" and sorted(names) == ["K", "M", "N"] and names != ["M", "N", "K"]:
        raise UserError(f"{path}:{header.line}: the columns are {', '.join(names)}", "M, N, K")


def _layers(kind: Kind, row: _Row) -> Sequence[Workload]:
    """The layers of one row: several if it is depth-wise."""
    name, *values = row.cells
    if not name or not name.isprintable():
        raise UserError(f"the layer's name is {_shown(name)}", "printable text")
    columns = _COLUMNS[kind]
    sparsity = values.pop() if values and ":" in values[-1] else ""
    if sparsity not in ("", "1:1"):
        raise UserError(f"sparsity {_shown(sparsity)}, which is not modelled", "'1:1' or nothing")
    if kind == "conv" and len(values) == len(columns) + 1:
        columns = (*columns, _STRIDE_WIDTH)
        if not (row.closed or sparsity) and values[-1] != values[-2]:
            raise UserError(
                f"stride width {_shown(values[-1])} is not followed by a comma: SCALE-Sim drops it",
                "a comma at the end of the row",
            )
    if len(values) != len(columns):
        raise UserError(
            f"{len(values)} numbers after {_shown(name)}", f"{len(columns)}: {', '.join(columns)}"
        )
    sizes = [_size(column, text) for column, text in zip(columns, values, strict=True)]
    if kind == "gemm":
        return [Gemm(name, *sizes)]
    if len(sizes) == len(_COLUMNS[kind]):
        sizes.append(sizes[-1])  # one stride for both directions
    layer = Convolution(name, *sizes)
    if _DEPTH_WISE not in name or layer.channels == 1:
        return [layer]
    return list(_channels(layer))


def _channels(layer: Convolution) -> Iterator[Convolution]:
    if layer.channels > MAX_LAYERS:
        raise UserError(
            f"{layer.channels} channels of a depth-wise layer", f"at most {MAX_LAYERS} layers"
        )
    for channel in range(layer.channels):
        yield Convolution(
            f"{layer.name}Channel_{channel}", layer.height, layer.width, layer.filter_height,
            layer.filter_width, 1, layer.filters, layer.stride_height, layer.stride_width,
        )  # fmt: skip


def _number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+", text) is not None


def _size(column: str, text: str) -> int:
    # Lengths first: Python refuses to convert thousands of digits.
    digits = text.lstrip("0")
    if _number(text) and 0 < len(digits) <= len(str(MAX_WORDS)):
        size = int(digits)
        if 1 <= size <= MAX_WORDS:
            return size
    limit = f"2^{MAX_WORDS.bit_length() - 1}"
    raise UserError(f"{column} is {_shown(text)}", f"a whole number from 1 to {limit}")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else f"{text[:40]}…")


def _too_many(path: Path, row: _Row) -> UserError:
    return UserError(f"{path}:{row.line}: too many layers", f"at most {MAX_LAYERS}")


def _others(broken: list[tuple[int, UserError]]) -> str:
    if not broken:
        return ""
    lines = [str(line) for line, _ in broken]
    more = ", …" if len(lines) > 5 else ""
    noun = "row" if len(lines) == 1 else "rows"
    where = "line" if len(lines) == 1 else "lines"
    return f"{len(lines)} more broken {noun} ({where} {', '.join(lines[:5])}{more})"


def _kind_of(layers: Sequence[Workload]) -> Kind:
    kinds = {type(layer) for layer in layers}
    if kinds == {Convolution}:
        return "conv"
    if kinds == {Gemm}:
        return "gemm"
    found = " and ".join(sorted(kind.__name__ for kind in kinds)) or "no layers"
    raise UserError(f"a topology of {found}", "convolutions only, or matrix products only")


def _written(kind: Kind, layer: Workload) -> list[str]:
    """The cells of a layer's row, checked by reading them again."""
    if isinstance(layer, Convolution):
        sizes = [
            layer.height, layer.width, layer.filter_height, layer.filter_width, layer.channels,
            layer.filters, layer.stride_height,
        ]  # fmt: skip
        if layer.stride_width != layer.stride_height:
            sizes.append(layer.stride_width)
    else:
        sizes = [int(size) for size in layer.shape[:3]]
    cells = [layer.name, *map(str, sizes)]
    rows = _rows(_line(cells))
    if len(rows) != 1 or list(_layers(kind, rows[0])) != [layer]:
        raise UserError(
            f"layer {_shown(layer.name)} would not be read as it is written",
            "no batch, a plain name without commas, and 'DP' in it with one channel only",
        )
    return cells


def _line(cells: Sequence[str]) -> str:
    return f"{', '.join(cells)},\n"


def _write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    write_text(path, "".join(map(_line, rows)))
