"""Export to C99: a folder that needs nothing but a compiler (and libm for floats)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from modelflex.core.files import looking_at, replace_folder
from modelflex.core.json_values import field, read_json_object
from modelflex.core.model import Model
from modelflex.core.planner import make_plan
from modelflex.core.program import build_program
from modelflex.errors import UserError
from modelflex.export import c99_text
from modelflex.export.artefact import json_bytes, model_files
from modelflex.export.c99_calls import CallPrinter
from modelflex.export.c99_sources import kernel_sources
from modelflex.export.golden import TOLERANCE, golden
from modelflex.export.names import given_symbol, symbol

SCHEMA: Final = "modelflex.c99/1"
MANIFEST: Final = "manifest.json"
MODEL: Final = "model"
"""The folder of the artefact, which `validate` runs."""
_FILE: Final = re.compile(r"(model/)?[A-Za-z0-9_]+(\.[a-z]+)?")
_SIZES: Final = tuple(size.name for size in fields(c99_text.Sizes))
VALIDATION: Final = "validation.html"
BUILD: Final = "build"


def export_c99(model: Model, folder: Path, name: str | None = None) -> dict[str, Any]:
    """Write a model as C99; what the folder's manifest.json holds.

    The same model gives the same bytes. The folder appears as a whole.

    Args:
        name: the prefix of files and symbols; None for one that is made of the model's name.

    Raises:
        UserError: `folder` holds anything else than an earlier export, or can't be written; a product
            has sums, codes or places that kernels can't count; a name that is no prefix.
    """
    check_replaceable(folder)
    files, manifest = make_files(model, name)
    replace_folder(folder, {**files, MANIFEST: json_bytes(manifest)})
    return manifest


def make_files(model: Model, chosen: str | None = None) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of an export without its manifest, and the manifest."""
    name = symbol(model.name) if chosen is None else given_symbol(chosen)
    program = build_program(model)
    plan = make_plan(program, alignment=c99_text.ALIGNMENT)
    printer = CallPrinter(plan, name)
    vectors = golden(model, program)
    source = c99_text.source(printer)  # prints all calls, which the other files hang on
    common = "fixed_point.h"
    saved = model_files(model)
    kernels = kernel_sources([*printer.headers, common], name)
    texts = {
        f"{name}.h": c99_text.header(printer, digest(b"".join(saved.values()))[:8]),
        f"{name}.c": source,
        f"{name}_weights.h": c99_text.weights_header(printer, f"{name}_{common}"),
        f"{name}_weights.c": c99_text.weights_source(printer),
        **kernels,
    }
    sources = sorted(file for file in texts if file.endswith(".c"))
    libm = plan.numeric == "float"
    texts["Makefile"] = c99_text.makefile(name, sources, libm)
    texts[f"{name}_selftest.c"] = c99_text.selftest(printer, vectors)
    files = {file: text.encode("ascii") for file, text in texts.items()}
    files |= {f"{MODEL}/{file}": content for file, content in saved.items()}
    manifest = {
        "schema": SCHEMA,
        "name": model.name,
        "symbol": name,
        "numeric": plan.numeric,
        "inputs": plan.inputs,
        "outputs": plan.outputs,
        "output_at_every_step": plan.per_step,
        "bytes": asdict(c99_text.sizes(printer)),
        "golden_steps": vectors.inputs.shape[0],
        "tolerance": TOLERANCE if libm else 0,
        "files": {file: digest(content) for file, content in sorted(files.items())},
    }
    return files, manifest


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an exported folder.

    Raises:
        UserError: there is none, or one of another schema.
    """
    path = folder / MANIFEST
    expected = "a folder that `modelflex export --format c99` wrote"
    with looking_at(path):
        found = path.is_file()
    if not found:
        raise UserError(f"'{folder}' holds no {MANIFEST}", expected)
    manifest = read_json_object(path)
    if manifest.get("schema") != SCHEMA:
        raise UserError(f"'{path}' is of the schema {manifest.get('schema')!r}", f"'{SCHEMA}'")
    where = f"'{path}'"
    name, files = field(manifest, "symbol", where, str), field(manifest, "files", where, dict)
    nbytes = field(manifest, "bytes", where, dict)
    if set(nbytes) != set(_SIZES) or not all(type(value) is int for value in nbytes.values()):
        raise UserError(f"{where}: bytes are {str(nbytes)[:60]}", f"those of {', '.join(_SIZES)}")
    if symbol(name) != name:
        raise UserError(f"{where}: symbol is {name[:60]!r}", "the prefix of C symbols")
    if not {f"{name}.c", f"{name}.h"} <= files.keys():
        raise UserError(f"{where} does not name {name}.c and {name}.h", "all files of an export")
    # The files are read, copied and compiled: their names must not lead elsewhere.
    odd = [file for file in files if not _FILE.fullmatch(file)]
    if odd:
        raise UserError(f"{where} names the file {odd[0][:60]!r}", "files of an export")
    return manifest


def changed_files(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Files of an exported folder that are missing or not as they were written, with a word on each."""
    found = []
    for file, expected in manifest["files"].items():
        path = folder / file
        with looking_at(path):
            if not path.is_file():
                found.append(f"{file} is missing")
            elif digest(path.read_bytes()) != expected:
                found.append(f"{file} was altered")
    return found


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an empty folder or an export as it was written.

    Raises:
        UserError: `folder` holds something else.
    """
    with looking_at(folder):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        ours = folder.is_dir() and (folder / MANIFEST).is_file()
    mend = "name another folder or move this one away"
    if not ours:
        raise UserError(
            f"'{folder}' exists and is no export", "a new folder, or an earlier export", mend
        )
    manifest = read_manifest(folder)
    known = {*manifest["files"], MANIFEST, VALIDATION}
    inside = (p.relative_to(folder) for p in sorted(folder.rglob("*")) if not p.is_dir())
    foreign = [str(p) for p in inside if p.as_posix() not in known and p.parts[0] != BUILD]
    changed = [f"{file} is no part of it" for file in foreign] + changed_files(folder, manifest)
    if changed:
        raise UserError(
            f"'{folder}' is an export that was changed: {changed[0]}", "an export as written", mend
        )
