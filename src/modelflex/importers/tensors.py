"""Reading safetensors files that nobody vouches for."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from modelflex.core.fixed import Array
from modelflex.errors import UserError

READABLE = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U16", "U8")


def read_safetensors(path: Path) -> dict[str, Array]:
    """All tensors of a file by name.

    Raises:
        UserError: the file is missing, truncated or malformed, or a type has no NumPy counterpart.
    """
    if not path.is_file():
        raise UserError(f"'{path}' is no file", "a safetensors file")
    try:
        with safe_open(str(path), framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (the handle is no mapping)
                kind = file.get_slice(name).get_dtype()
                if kind not in READABLE:
                    raise UserError(
                        f"tensor '{name}' of '{path}' is of type {kind}",
                        f"one of {', '.join(READABLE)}",
                        "convert the weights to float32 before saving them",
                    )
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"'{path}' can't be read as safetensors ({error})",
            "a whole safetensors file",
            "copy or save it again",
        ) from None
