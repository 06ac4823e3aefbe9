"""Tables that are written row group by row group, and appear whole or not at all."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.files import replacing
from modelflex.core.fixed import Array
from modelflex.errors import UserError

Write = Callable[[Mapping[str, Array]], None]

_WHOLE = 1e15
"""Whole numbers below this are written without a decimal point."""


def has_parquet() -> bool:
    """Whether Parquet can be written here."""
    return importlib.util.find_spec("pyarrow") is not None


@contextmanager
def table_file(path: Path) -> Iterator[Write]:
    """A function that appends columns of equal length to a .csv or .parquet file.

    All calls give the same columns. What is not a number stays empty in CSV and is null in Parquet;
    nothing is written if there is no call.

    Raises:
        UserError: Parquet without pyarrow.
    """
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            with _parquet(temporary) as write:
                yield write
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:

                def write(columns: Mapping[str, Array]) -> None:
                    if not file.tell():
                        file.write(",".join(columns) + "\n")
                    rows = zip(*map(_texts, columns.values()), strict=True)
                    file.write("\n".join(map(",".join, rows)) + "\n")

                yield write


def _texts(values: Array) -> list[str]:
    """The shortest text that reads back as the same value."""
    if values.dtype == bool:
        return ["true" if value else "false" for value in values.tolist()]
    if values.dtype.kind != "f":
        return list(map(str, values.tolist()))
    if ((np.abs(values) < _WHOLE) & (values == np.floor(values))).all():
        return list(map(str, values.astype(np.int64).tolist()))
    texts = (repr(value).removesuffix(".0") for value in values.tolist())
    return ["" if text == "nan" else text for text in texts]


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow, which is not installed",
            "a table that ends in .csv",
            "or pip install 'modelflex[parquet]'",
        ) from None
    writer: Any = None

    def write(columns: Mapping[str, Array]) -> None:
        nonlocal writer
        table = arrow.table({n: arrow.array(v, from_pandas=True) for n, v in columns.items()})
        if writer is None:
            writer = parquet.ParquetWriter(str(path), table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()
