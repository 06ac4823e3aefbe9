"""Files that users bring, read with a limit, and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
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


@contextmanager
def looking_at(path: Path) -> Iterator[None]:
    """Around what only reads: that `path` can't be looked at is the user's to mend.

    Raises:
        UserError: no permission, a name that is too long, a broken disk.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read '{path}': {reason}", "a path that may be read") from None


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder in the place of `folder` that holds `files` (paths within it) and nothing else.

    It is written beside its place and then renamed, so that it appears as a whole; if that is not reached,
    the folder is as it was.

    Raises:
        UserError: it can't be written.
    """
    with looking_at(folder):
        folder = Path(os.path.realpath(folder))  # a symbolic link keeps pointing where it points
    if folder.is_symlink():
        raise UserError(f"'{folder}' is a symbolic link that leads to itself", "a folder")
    # Fixed names, so that what a killed run left behind is cleared by the next one.
    fresh, old = (folder.with_name(f".{folder.name}.{which}") for which in ("new", "old"))
    try:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, content in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            with (fresh / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"'{folder}' can't be written ({error.strerror})", "a folder that may be written"
        ) from None
    finally:
        with suppress(OSError):
            if old.exists() and not folder.exists():  # interrupted between the renamings
                old.rename(folder)
        shutil.rmtree(fresh, ignore_errors=True)


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
