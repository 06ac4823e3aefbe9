"""ModelFlex's own files: model.json describes the network, model.safetensors holds its numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelflex.core.extension import Cell
from modelflex.core.json_values import field, is_size, read_json_object
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.recipe import method_from_json
from modelflex.core.storage import (
    FLOAT,
    MODEL_SCHEMA,
    read_weight,
)
from modelflex.core.weight import Weight
from modelflex.errors import UserError, nearest
from modelflex.importers.tensors import read_safetensors
from modelflex.registry import NONLINEARITIES

MODEL_KEYS = ("schema", "name", "layers", "output", "meta", "weights")
LAYER_KEYS = ("name", "kind", "inputs", "units", "reads", "options", "nonlinearity", "carries")


def load_folder_model(description: Path) -> Model:
    """The model of a JSON description and of the .safetensors file beside it.

    Without a "weights" section all weights are uncompressed float tensors.

    Raises:
        UserError: see `modelflex.importers.models.load_model`.
    """
    values = read_json_object(description)
    where = f"'{description}'"
    if values.get("schema") != MODEL_SCHEMA:
        raise UserError(
            f"{where} has the schema {values.get('schema')!r}",
            f"'{MODEL_SCHEMA}'",
            "save the model again with this version of ModelFlex",
        )
    _known(values, MODEL_KEYS, where)
    entries = field(values, "layers", where, list)
    layers = tuple(_read_layer(entry, f"layers[{i}]") for i, entry in enumerate(entries))
    if len({layer.name for layer in layers}) != len(layers):
        raise UserError(f"layer names repeat in {where}", "a name of its own for every layer")
    tensors = read_safetensors(description.with_suffix(".safetensors"))
    weights = _read_weights(layers, values, tensors)
    if tensors:
        raise UserError(
            f"'{description.with_suffix('.safetensors')}' holds tensors that no layer uses: "
            f"{', '.join(sorted(tensors))}",
            "only the weights of the layers",
        )
    model = check_model(
        Model(
            field(values, "name", where, str),
            layers,
            weights,
            values.get("output", "logits"),
            field(values, "meta", where, dict) if "meta" in values else {},
        )
    )
    build_program(model)  # refuses what only the program shows, before it is run
    return model


def _read_layer(entry: Any, where: str) -> Layer:
    name, kind = field(entry, "name", where, str), field(entry, "kind", where, str)
    _known(entry, LAYER_KEYS, where)
    if not re.fullmatch(r"\w+(?:[.-]\w+)*", name):
        raise UserError(f"{where} has the name {name!r}", "letters, digits, '_', '-' and '.'")
    for key in ("inputs", "units"):
        if not is_size(entry.get(key)):
            raise UserError(f"layer '{name}': {key} is {str(entry.get(key))[:30]}", "1 … 2³¹ − 1")
    options = field(entry, "options", where, dict) if "options" in entry else {}
    reads = entry.get("reads", "every")
    made = entry.get("nonlinearity")
    if made is not None:
        made = method_from_json(NONLINEARITIES, made, f"{where}.nonlinearity")
    carries = entry.get("carries", 0)
    if type(carries) is not int or not 0 <= carries < entry["inputs"]:
        raise UserError(
            f"layer '{name}': carries is {str(carries)[:30]}",
            f"0 … {entry['inputs'] - 1}, fewer than its inputs",
        )
    return Layer(name, kind, entry["inputs"], entry["units"], reads, options, made, carries)


def _read_weights(
    layers: tuple[Layer, ...], values: Mapping[str, Any], tensors: dict[str, Any]
) -> dict[str, Weight]:
    entries: Mapping[str, Any] | None = None
    if "weights" in values:
        entries = field(values, "weights", "the model", dict)
    weights: dict[str, Weight] = {}
    for layer in layers:
        plugin = layer.plugin
        gates = plugin.gates if isinstance(plugin, Cell) else {}
        for name in layer.weight_shapes:
            own = name.removeprefix(layer.name + ".")
            entry = {"numeric": FLOAT} if entries is None else field(entries, name, "weights", dict)
            weights[name] = read_weight(name, entry, tensors, gates.get(own, 1))
    if entries is not None and len(entries) != len(weights):
        extra = ", ".join(sorted(set(entries) - set(weights)))
        raise UserError(f"weights that no layer uses: {extra}", "only the weights of the layers")
    return weights


def _known(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in values:
        if key not in known:
            raise UserError(f"{where} has the unknown key '{key}'", "a key", nearest(key, known))
