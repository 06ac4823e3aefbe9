"""Writing models as source code or ONNX, and comparing what was written with the interpreter."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from modelflex.core.files import replacing
from modelflex.core.model import Model
from modelflex.errors import UserError, nearest
from modelflex.export.c99 import MODEL, VALIDATION, export_c99
from modelflex.export.c99_validate import Validation, check_folder, validate_c99
from modelflex.export.onnx import export_onnx, export_onnx_sequence
from modelflex.importers.data import check_task, load_sequences
from modelflex.importers.models import load_model
from modelflex.report.validation import render_validation

EXPORTS: Final[Mapping[str, Callable[[Model, Path, str | None], Mapping[str, Any]]]] = {
    "c99": export_c99,
    "onnx": export_onnx,
    "onnx-sequence": export_onnx_sequence,
}
"""Format → what writes a model into a folder or file and says what it wrote."""


def export_model(
    source: Any, out: Path, form: str = "c99", name: str | None = None
) -> Mapping[str, Any]:
    """Write a saved or a trained model in another form; what was written (C99: its manifest).

    Args:
        source: what `load_model` takes, such as the artefact of a search.
        form: of `EXPORTS`.
        name: the prefix of C files and symbols, or of the graph; None for one that is made of the model's.

    Raises:
        UserError: an unknown form, what the loader refuses, or what the form can't hold.
    """
    if form not in EXPORTS:
        raise UserError(f"unknown format '{form}'", "a format", nearest(form, list(EXPORTS)))
    return EXPORTS[form](load_model(source), out, name)


def validate_export(
    folder: Path, data: Any = None, compiler: str | None = None, page: Path | None = None
) -> tuple[Validation, Path]:
    """Compile an exported folder, compare it with the interpreter step by step, and write the page.

    Args:
        data: sequences, as `load_sequences` takes them; None for the golden vectors.
        compiler: the command of a C compiler; None for $CC, or the first that is found.
        page: where the page goes; None for the folder itself.

    Raises:
        UserError: the folder or the data are not as they should be, the page can't be written, there is
            no compiler, or the code does not compile.
    """
    page = folder / VALIDATION if page is None else page
    check_folder(folder)
    if not os.access(page.parent, os.W_OK):  # known before minutes of compiling and running
        raise UserError(f"cannot write {page}", "a place for the page", "name one with --out")
    model = load_model(folder / MODEL)
    sequences, label = None, "golden vectors"
    if data is not None:
        sequences = check_task(load_sequences(data), model, "none")
        label = Path(data).name if isinstance(data, str | Path) else "given data"
    found = validate_c99(folder, model, sequences, label, compiler)
    with replacing(page) as temporary:
        temporary.write_text(render_validation(found), encoding="utf-8")
    return found, page
