"""Loading a trained network from whatever the user has."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelflex.core.model import Model
from modelflex.core.storage import MODEL_JSON, MODEL_TENSORS
from modelflex.errors import UserError
from modelflex.importers.folder import load_folder_model
from modelflex.importers.tensors import read_safetensors
from modelflex.importers.torch import model_from_state, module_state, read_state_file

EXPECTED = "a folder with model.json, a .safetensors, .pt or .pth file, or a torch.nn.Module"


def load_model(
    source: Any,
    *,
    head: Any = None,
    reads: str | None = None,
    output: str = "logits",
    name: str | None = None,
) -> Model:
    """Load a network. Nothing of the source is ever executed or unpickled.

    Args:
        source: a folder with model.json and model.safetensors (such as a saved artefact), or the
            path of one of these files; a state dict of torch as .safetensors, .pt or .pth; or a
            live module: torch.nn.LSTM, torch.nn.GRU, or one that holds one of them and at most one
            Linear behind it (what its `forward` does besides can't be seen).
        head: a torch.nn.Linear that follows a live module.
        reads: "last" or "every": the steps that the head reads ("last" unless there is no head); a
            model.json says so itself.
        output: "logits", "logits:K" or "values" (see `Model`); a model.json says so itself.
        name: of the model; by default that in model.json, or the file's or the module's.

    Raises:
        UserError: the file is missing, truncated, malformed or of another schema version; a layer
            is not supported; a weight is missing, left over, misshapen, or holds NaN or infinity.
    """
    if not isinstance(source, str | os.PathLike):
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(source, torch.nn.Module):
            raise UserError(f"the model is a {type(source).__name__}", EXPECTED)
        label = name or type(source).__name__.lower()
        return model_from_state(module_state(source, head), label, reads, output)
    if head is not None:
        raise UserError("a head was given for a file", "a head beside a live torch module only")
    path = Path(source)
    try:
        path = path / _in_folder(path) if path.is_dir() else path
        found = path.is_file()
    except OSError:  # a name that is too long
        found = False
    if not found:
        raise UserError(f"there is no file '{path}'", EXPECTED, "check the path")
    description = path.with_suffix(".json")
    if path.suffix == ".json" or (path.suffix == ".safetensors" and description.is_file()):
        model = load_folder_model(description)
        return model if name is None else replace(model, name=name)
    if path.suffix == ".safetensors":
        tensors = read_safetensors(path)
    elif path.suffix in (".pt", ".pth"):
        tensors = read_state_file(path)
    else:
        raise UserError(f"'{path}' is of an unknown type of file", EXPECTED)
    return model_from_state(tensors, name or path.stem, reads, output)


def _in_folder(folder: Path) -> str:
    has_tensors_only = (folder / MODEL_TENSORS).is_file() and not (folder / MODEL_JSON).exists()
    return MODEL_TENSORS if has_tensors_only else MODEL_JSON
