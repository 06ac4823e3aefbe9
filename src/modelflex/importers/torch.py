"""Networks of torch: state dicts by torch's tensor names, and live modules.

Row groups of torch are those of ModelFlex's cells (i, f, g, o and r, z, n), so tensors are taken as
they stand; where a cell only ever adds the results of its two weights, their biases become one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.model import MAX_NUMBERS, Layer, Model, check_model
from modelflex.core.storage import checked_float_weight, finite_float32
from modelflex.core.weight import Weight
from modelflex.errors import UserError
from modelflex.registry import CELLS

RECURRENT = re.compile(
    r"(?P<prefix>.*?)(?:weight|bias)_(?P<side>ih|hh|hr)_l\d+(?P<reverse>_reverse)?"
)
KINDS: Mapping[int, str] = {4: "lstm", 3: "gru"}
"""torch's row groups → kind of layer."""
PASSIVE = ("LSTM", "GRU", "Linear", "Dropout", "Identity")
"""Modules that mean nothing else at inference than their weights say."""
HEAD = "head"


# --- tensors by name -----------------------------------------------------------------------------
def model_from_state(
    tensors: Mapping[str, Array], name: str, reads: str | None, output: str
) -> Model:
    """A model from torch's tensors `<prefix>weight_ih_l0` … and at most one `*.weight`/`*.bias`.

    Args:
        tensors: the state dict of one LSTM or GRU (stacked or not) with at most one Linear head.
        reads: "last" or "every": which steps the head reads; None is "last" if there is a head.

    Raises:
        UserError: no or several recurrent modules; bidirectional, projected or plain RNN layers;
            tensors that are missing, left over, misshapen, NaN or infinite; no head to read "last".
    """
    recurrent, rest = _sort(tensors)
    first = recurrent.get("weight_hh_l0")
    if first is None:
        raise UserError(
            f"there is no tensor 'weight_hh_l0' among {_some(tensors)}",
            "the names of torch.nn.LSTM or torch.nn.GRU",
            "save the state_dict() of the network",
        )
    kind = _kind(first)
    layers: list[Layer] = []
    weights: dict[str, Weight] = {}
    while recurrent:
        layer, made = _recurrent_layer(kind, len(layers), recurrent)
        layers.append(layer)
        weights |= made
    if rest:
        matrix, bias = _head(rest)
        weights[f"{HEAD}.w"] = checked_float_weight(f"{HEAD}.w", matrix, bias, 1)
        layers.append(Layer(HEAD, "dense", matrix.shape[1], matrix.shape[0], reads or "last"))
    elif reads == "last":
        raise UserError(
            "the network has no head that could read the last step",
            "a Linear head for reads = 'last'",
            "give the head, or set reads = 'every'",
        )
    return check_model(Model(name, tuple(layers), weights, output))


def _sort(tensors: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """(tensors of the recurrent module without their prefix, all others)."""
    recurrent: dict[str, Array] = {}
    rest: dict[str, Array] = {}
    prefixes: set[str] = set()
    for name, tensor in tensors.items():
        match = RECURRENT.fullmatch(name)
        if match is None:
            rest[name] = tensor
            continue
        if match["reverse"] or match["side"] == "hr":
            kind = "bidirectional" if match["reverse"] else "projected"
            raise UserError(
                f"tensor '{name}' belongs to a {kind} layer",
                "one direction and no projection (proj_size = 0)",
                "leave this layer outside the model or train it without",
            )
        prefixes.add(match["prefix"])
        recurrent[name.removeprefix(match["prefix"])] = tensor
    if len(prefixes) > 1:
        raise UserError(
            f"several recurrent modules: {', '.join(sorted(prefixes))}",
            "one LSTM or GRU",
            "stack layers with num_layers, or load the modules one by one",
        )
    return recurrent, rest


def _kind(recurrent: Array) -> str:
    rows, units = recurrent.shape if recurrent.ndim == 2 else (0, 0)
    if not units or rows % units or rows // units not in KINDS:
        what = " (a plain RNN)" if rows == units else ""
        raise UserError(
            f"tensor 'weight_hh_l0' has the shape {recurrent.shape}{what}",
            "4 × hidden rows (LSTM) or 3 × hidden rows (GRU) of hidden columns",
        )
    return KINDS[rows // units]


def _recurrent_layer(
    kind: str, number: int, tensors: dict[str, Array]
) -> tuple[Layer, dict[str, Weight]]:
    """Layer `number` and its weights; takes what it uses out of `tensors`."""
    cell: Cell = CELLS.get(kind)
    found: dict[str, tuple[Array, Array | None]] = {}
    for own, side in (("w_x", "ih"), ("w_h", "hh")):
        wanted = f"weight_{side}_l{number}"
        if wanted not in tensors:
            raise UserError(f"tensor '{wanted}' is missing beside {_some(tensors)}", "whole layers")
        found[own] = tensors.pop(wanted), _bias(f"bias_{side}_l{number}", tensors)
    (w_x, b_x), (w_h, b_h) = found["w_x"], found["w_h"]
    if (b_x is None) != (b_h is None):
        raise UserError(f"recurrent layer {number} has one bias", "bias_ih and bias_hh, or none")
    if b_x is not None and b_h is not None and set(found) <= set(cell.additive):
        if b_x.shape != b_h.shape:
            shapes = f"{b_x.shape} and {b_h.shape}"
            raise UserError(f"the biases of layer {number} have the shapes {shapes}", "equal ones")
        b_x, b_h = np.add(b_x, b_h, dtype=np.float64), None
    name = f"{kind}{number}"
    weights: dict[str, Weight] = {
        f"{name}.w_x": checked_float_weight(f"weight_ih_l{number}", w_x, b_x, cell.gates["w_x"]),
        f"{name}.w_h": checked_float_weight(f"weight_hh_l{number}", w_h, b_h, cell.gates["w_h"]),
    }
    return Layer(name, kind, w_x.shape[1], w_h.shape[1]), weights


def _bias(name: str, tensors: dict[str, Array]) -> Array | None:
    return finite_float32(name, tensors.pop(name)) if name in tensors else None


def _head(rest: dict[str, Array]) -> tuple[Array, Array | None]:
    matrices = [n for n in rest if n.rpartition(".")[2] == "weight" and rest[n].ndim == 2]
    if len(matrices) == 1:
        bias = matrices[0].removesuffix("weight") + "bias"
        if set(rest) <= {matrices[0], bias}:
            return rest[matrices[0]], rest.get(bias)
    raise UserError(
        f"tensors beside the recurrent module: {_some(rest)}",
        "at most one Linear head (*.weight, *.bias)",
        "leave other layers outside the model, or describe it in a model.json",
    )


def _some(tensors: Mapping[str, Array]) -> str:
    names = sorted(tensors)
    more = [f"{len(names) - 6} more"] if len(names) > 6 else []
    return ", ".join(names[:6] + more) or "none"


# --- with torch ----------------------------------------------------------------------------------
def read_state_file(path: Path) -> dict[str, Array]:
    """The tensors of a state dict saved by torch.save; nothing but tensors is ever unpickled.

    Raises:
        UserError: torch is not installed, or the file is no plain state dict.
    """
    try:
        import torch
    except ImportError:
        raise UserError(
            f"'{path}' needs torch, which is not installed",
            "torch",
            "pip install 'modelflex[torch]', or save the weights as safetensors",
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of files that are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises a dozen types on malformed files; each means the same to the user.
        reason = str(error).strip().split("\n")[0].split(". ")[0][:160]
        raise UserError(
            f"'{path}' can't be read as a state dict ({type(error).__name__}: {reason})",
            "a file that holds tensors only",
            "save it by torch.save(network.state_dict(), path)",
        ) from None
    plain = isinstance(state, Mapping) and all(isinstance(v, torch.Tensor) for v in state.values())
    if not plain or not all(isinstance(name, str) for name in state):
        raise UserError(
            f"'{path}' holds a {type(state).__name__} of other things than tensors",
            "a plain state dict",
            "save it by torch.save(network.state_dict(), path)",
        )
    # Tensors may repeat what is stored once.
    numbers = sum(tensor.numel() for tensor in state.values())
    if numbers > MAX_NUMBERS:
        raise UserError(f"the tensors of '{path}' mean {numbers} numbers", f"at most {MAX_NUMBERS}")
    return {name: _array(name, tensor) for name, tensor in state.items()}


def module_state(module: Any, head: Any) -> dict[str, Array]:
    """The tensors of a live torch.nn.Module and of the Linear `head` (or None) that follows it.

    Raises:
        UserError: a module inside computes what ModelFlex can't see in the weights.
    """
    import torch

    if head is not None and not isinstance(head, torch.nn.Linear):
        raise UserError(f"the head is a {type(head).__name__}", "a torch.nn.Linear or None")
    supported = tuple(getattr(torch.nn, name) for name in PASSIVE)
    for name, part in module.named_modules():
        if not isinstance(part, supported) and not any(True for _ in part.children()):
            raise UserError(
                f"module '{name or type(part).__name__}' is a {type(part).__name__}",
                f"one of {', '.join(PASSIVE)}",
                "leave this layer outside the model",
            )
    state = {name: _array(name, tensor) for name, tensor in module.state_dict().items()}
    if head is not None:
        # No name in a module begins with a dot, so the head's can't hide one of the module's.
        state |= {f".{name}": _array(name, tensor) for name, tensor in head.state_dict().items()}
    return state


def _array(name: str, tensor: Any) -> Array:
    import torch

    if not tensor.is_floating_point() or tensor.is_quantized or tensor.layout != torch.strided:
        raise UserError(
            f"tensor '{name}' is of type {tensor.dtype}", "plain floating-point numbers"
        )
    if tensor.is_meta:
        raise UserError(f"tensor '{name}' has no values (meta device)", "a loaded network")
    return np.asarray(tensor.detach().cpu().to(torch.float64).numpy())
