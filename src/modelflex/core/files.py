"""Files that users bring, read with a limit, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelflex.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved there at the end, or removed if that is not reached.

    Raises:
        UserError: the path cannot be written: a folder, a name that is too long, a full disk.
    """
    if path.name in ("", ".."):
        raise UserError(f"cannot write '{path}': it is a folder", "a writable path of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}", "a writable path with room") from None
    finally:
        with suppress(OSError):  # the name itself may be what cannot be written
            temporary.unlink(missing_ok=True)


def read_text(path: Path, limit: int, what: str) -> str:
    """The text of a small file, lines ended by a newline; a byte-order mark is dropped.

    Raises:
        UserError: no such file, more than `limit` bytes, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the {what} {path}: {reason}", "a text file") from None
    if len(data) > limit:
        raise UserError(f"the {what} {path} is too large", f"at most {limit} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: bytes that are not text", "UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
