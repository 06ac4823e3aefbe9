"""The saved model: tensors, description, recipe and provenance in one folder, written at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy

from modelflex.core.files import looking_at, replace_folder
from modelflex.core.fixed import Array
from modelflex.core.json_values import read_json_object
from modelflex.core.ladder import LADDER_JSON, Ladder
from modelflex.core.model import Model
from modelflex.core.recipe import Recipe
from modelflex.core.storage import (
    MODEL_JSON,
    MODEL_SCHEMA,
    MODEL_TENSORS,
    weight_tensors,
)
from modelflex.errors import UserError

RECIPE_JSON, PROVENANCE_JSON = "recipe.json", "provenance.json"
FILES = frozenset((MODEL_JSON, MODEL_TENSORS, RECIPE_JSON, PROVENANCE_JSON, LADDER_JSON))


def save_artefact(
    model: Model,
    folder: Path,
    *,
    recipe: Recipe | None,
    provenance: Mapping[str, Any],
    ladder: Ladder | None = None,
) -> None:
    """Write model.safetensors, model.json and provenance.json; recipe.json and ladder.json if there is one.

    The folder appears as a whole: it is written beside its place and then renamed. The same model,
    recipe and provenance give the same bytes, and the tensors have `model.weight_bytes` bytes.
    `modelflex.importers.models.load_model` gives back a model with bit-identical results.

    Raises:
        UserError: `folder` holds something else than an artefact, can't be written, or a weight
            has no stored form.
    """
    files = {**model_files(model), PROVENANCE_JSON: json_bytes(provenance)}
    if recipe is not None:
        files[RECIPE_JSON] = json_bytes(recipe.to_json())
    if ladder is not None:
        files[LADDER_JSON] = json_bytes(ladder.to_json())
    folder = Path(folder)
    check_replaceable(folder)
    replace_folder(folder, files)


def model_files(model: Model) -> dict[str, bytes]:
    """model.safetensors and model.json.

    Raises:
        UserError: a weight has no stored form.
    """
    tensors, description = _describe(model)
    return {MODEL_TENSORS: safetensors.numpy.save(tensors), MODEL_JSON: json_bytes(description)}


def _describe(model: Model) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors: dict[str, Array] = {}
    entries: dict[str, Any] = {}
    for name, weight in model.weights.items():
        more, entries[name] = weight_tensors(name, weight)
        tensors |= more
    return tensors, {
        "schema": MODEL_SCHEMA,
        "name": model.name,
        "layers": [layer.to_json() for layer in model.layers],
        "output": model.output,
        "meta": dict(model.meta),
        "weights": entries,
    }


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """A JSON object as it lies in files: the same values give the same bytes."""
    text = json.dumps(dict(values), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an empty folder or an artefact.

    Raises:
        UserError: `folder` holds something else.
    """
    with looking_at(folder):
        if not folder.exists():
            return
        inside = {entry.name for entry in folder.iterdir()} if folder.is_dir() else {""}
    ours = inside <= FILES
    if ours and inside:
        path = folder / MODEL_JSON
        schema = read_json_object(path).get("schema") if path.is_file() else None
        ours = str(schema).startswith(MODEL_SCHEMA.partition("/")[0])
    if not ours:
        raise UserError(
            f"'{folder}' exists and is no saved model",
            "a new folder, or one that an earlier run wrote",
            "name another folder or move this one away",
        )
