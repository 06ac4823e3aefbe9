"""How weights lie in files: tensors (safetensors) and the JSON that says what they mean.

The codes of a part are one little-endian bit stream of `bits` bits each, in row-major order: bit i
of the stream is bit i mod 8 of byte ⌊i/8⌋, and a code's lowest bit comes first. Odd grids store
(code + 2^b − 1) / 2, all others two's complement. So the tensors of a weight have exactly the bytes
that `Weight.nbytes` states: packed codes, an int16 mantissa for each scale, one int8 exponent.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.fixed import MANTISSA_MAX, Array, Scale
from modelflex.core.layout import LAYOUTS
from modelflex.core.part import Part
from modelflex.core.recipe import read_config
from modelflex.core.tracer import Activity, Link
from modelflex.core.weight import Matrix, Weight, float_weight
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES

MODEL_SCHEMA = "modelflex.model/1"
MAX_JSON = 2**26
"""Most characters of a JSON file: descriptions and recipes; arrays lie in files of their own."""
MODEL_JSON, MODEL_TENSORS = "model.json", "model.safetensors"
INTEGER, FLOAT = "integer", "float"
SIZE_MAX = 2**31 - 1
EXPONENT_MIN, EXPONENT_MAX = -128, 127
CODE_BITS = tuple(range(2, 17))
BIAS_BITS = (8, 16, 32)
_CHUNK = 1 << 16  # codes at once, which bounds memory; a multiple of 8, so chunks end on bytes


# --- bits ----------------------------------------------------------------------------------------
def pack_bits(values: Array, bits: int) -> Array:
    """Unsigned integers [n] of `bits` bits (1 … 32) → uint8 [⌈n·bits/8⌉]; spare last bits are 0."""
    out = np.empty((values.size * bits + 7) // 8, np.uint8)
    for start in range(0, values.size, _CHUNK):
        quads = values[start : start + _CHUNK].astype("<u4").view(np.uint8).reshape(-1, 4)
        ones = np.unpackbits(quads, axis=1, count=bits, bitorder="little")
        packed = np.packbits(ones, bitorder="little")
        out[start * bits // 8 :][: packed.size] = packed
    return out


def unpack_bits(packed: Array, count: int, bits: int) -> Array:
    """The inverse of `pack_bits`: uint32 [count]."""
    out = np.empty(count, np.uint32)
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        piece = packed[start * bits // 8 : ((start + n) * bits + 7) // 8]
        ones = np.unpackbits(piece, count=n * bits, bitorder="little").reshape(n, bits)
        quads = np.zeros((n, 4), np.uint8)
        quads[:, : (bits + 7) // 8] = np.packbits(ones, axis=1, bitorder="little")
        out[start : start + n] = quads.view("<u4")[:, 0]
    return out


def pack_codes(part: Part) -> Array:
    """The codes of an integer part as bytes, uint8 [code_bytes].

    Raises:
        ValueError: a code is not on the part's grid.
    """
    codes = part.codes.ravel().astype(np.int64)
    top = (1 << part.bits) - 1 if part.odd else (1 << (part.bits - 1)) - 1
    if np.abs(codes).max(initial=0) > top or (part.odd and not np.all(codes & 1)):
        raise ValueError(f"a code is not on the grid of {part.bits} bits (odd: {part.odd})")
    return pack_bits((codes + top) >> 1 if part.odd else codes & ((1 << part.bits) - 1), part.bits)


def unpack_codes(packed: Array, shape: tuple[int, ...], bits: int, odd: bool) -> Array:
    """The inverse of `pack_codes`: int32 of `shape`."""
    values = unpack_bits(packed, math.prod(shape), bits).astype(np.int64)
    codes = 2 * values - ((1 << bits) - 1) if odd else values - ((values >> (bits - 1)) << bits)
    return codes.astype(np.int32).reshape(shape)


# --- weights to tensors --------------------------------------------------------------------------
def weight_tensors(name: str, weight: Weight) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors of a weight and the JSON entry that `read_weight` needs besides them.

    Floats: `name` [out, in] and `name.bias` [out], float32. Integers: `name/0.codes` uint8,
    `name/0.mantissa` int16 [n], `name/0.exponent` int8 [1], and the same three of `name/bias`.

    Raises:
        UserError: the weight's structure has no stored form, or a scale does not fit the format.
    """
    if not isinstance(weight, Matrix):
        raise UserError(
            f"weight '{name}' has the structure {type(weight).__name__}",
            "a weight of one product",
            "only these can be saved",
        )
    if weight.is_float:
        tensors = {name: weight.parts[0].codes.astype(np.float32)}
        if weight.bias is not None:
            tensors[f"{name}.bias"] = weight.bias.codes.astype(np.float32)
        return tensors, {"numeric": FLOAT}
    tensors, part = _part_tensors(f"{name}/0", weight.parts[0])
    bias = None
    if weight.bias is not None:
        more, bias = _part_tensors(f"{name}/bias", weight.bias)
        tensors |= more
    return tensors, {
        "numeric": INTEGER,
        "layout": weight.layout,
        "parts": [part],
        "bias": bias,
        "links": [_link_entry(link) for link in weight.links],
    }


def _part_tensors(name: str, part: Part) -> tuple[dict[str, Array], dict[str, Any]]:
    scale = part.scale
    if scale is None:
        raise ValueError(f"'{name}' has integer codes but no scale")
    if not EXPONENT_MIN <= scale.exponent <= EXPONENT_MAX:
        raise UserError(
            f"the scale of '{name}' has the exponent {scale.exponent}",
            f"{EXPONENT_MIN} … {EXPONENT_MAX}",
            "bring the weights of this layer nearer to 1",
        )
    tensors = {
        f"{name}.codes": pack_codes(part),
        f"{name}.mantissa": scale.mantissa.astype(np.int16),
        f"{name}.exponent": np.array([scale.exponent], np.int8),
    }
    return tensors, {
        "shape": list(part.codes.shape),
        "bits": part.bits,
        "odd": part.odd,
        "rows_per_scale": part.rows_per_scale,
    }


def _link_entry(link: Link) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bits": link.bits,
        "mantissa": int(link.scale.mantissa[0]),
        "exponent": link.scale.exponent,
        "activity": None,
    }
    config: Any = link.activity
    if config is not None:
        method = ACTIVITIES.name_of(type(config))
        entry["activity"] = {"method": method, **dataclasses.asdict(config)}
    return entry


# --- tensors to weights --------------------------------------------------------------------------
def read_weight(
    name: str, entry: Mapping[str, Any], tensors: MutableMapping[str, Array], gates: int
) -> Matrix:
    """The weight that `weight_tensors` stored; takes what it uses out of `tensors`.

    Args:
        entry: the JSON entry; {"numeric": "float"} for an uncompressed weight.
        gates: equal row groups of the map, as the layer's kind defines them.

    Raises:
        UserError: something is missing, of another type or shape, out of range, NaN or infinite.
    """
    if field(entry, "numeric", name, str) == FLOAT:
        matrix = _take(tensors, name, None)
        return checked_float_weight(name, matrix, tensors.pop(f"{name}.bias", None), gates)
    if entry["numeric"] != INTEGER:
        raise UserError(f"weight '{name}' is {entry['numeric']!r}", f"'{FLOAT}' or '{INTEGER}'")
    layout = field(entry, "layout", name, str)
    if layout not in LAYOUTS:
        raise UserError(
            f"weight '{name}' has the layout '{layout}'", f"one of {', '.join(LAYOUTS)}"
        )
    parts, links = field(entry, "parts", name, list), field(entry, "links", name, list)
    if len(parts) != 1 or len(links) != 1:
        raise UserError(
            f"weight '{name}' has {len(parts)} parts and {len(links)} links", "one of each"
        )
    part = _read_part(f"{name}/0", parts[0], tensors, CODE_BITS)
    if part.codes.ndim != (3 if layout == "circulant" else 2):
        raise UserError(
            f"'{name}/0' has the shape {part.codes.shape}", f"that of a {layout} weight"
        )
    weight = Matrix((part,), None, (_read_link(f"{name}/0", links[0]),), gates, layout)
    if weight.shape[0] % gates:
        raise UserError(f"weight '{name}' has {weight.shape[0]} rows", f"a multiple of {gates}")
    if entry.get("bias") is None:
        return weight
    return weight.with_bias(_read_bias(f"{name}/bias", entry["bias"], tensors, weight.shape[0]))


def checked_float_weight(name: str, matrix: Array, bias: Array | None, gates: int) -> Matrix:
    """An uncompressed weight from untrusted arrays.

    Raises:
        UserError: not a matrix, a bias of another size, not floating point, NaN or infinity.
    """
    if matrix.ndim != 2 or not matrix.size or matrix.shape[0] % gates:
        rows = f" whose rows are a multiple of {gates}" if gates > 1 else ""
        raise UserError(
            f"tensor '{name}' has the shape {matrix.shape}", f"a matrix [out, in]{rows}"
        )
    if bias is not None and bias.shape != (matrix.shape[0],):
        raise UserError(
            f"the bias of '{name}' has the shape {bias.shape}", f"({matrix.shape[0]},), one a row"
        )
    checked = None if bias is None else finite_float32(f"{name}.bias", bias)
    return float_weight(finite_float32(name, matrix), checked, gates)


def finite_float32(name: str, values: Array) -> Array:
    """Floating-point `values` as float32.

    Raises:
        UserError: another type, NaN or infinity (also by overflow); says how many.
    """
    if values.dtype.kind != "f":
        raise UserError(f"tensor '{name}' is of type {values.dtype}", "floating-point numbers")
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    bad = int(np.count_nonzero(~np.isfinite(out)))
    if bad:
        nan = int(np.count_nonzero(np.isnan(out)))
        raise UserError(
            f"tensor '{name}' holds {nan} NaN and {bad - nan} infinite of {out.size} numbers",
            "finite float32 numbers",
            "repair the trained weights",
        )
    return out


def _read_part(
    name: str, entry: Any, tensors: MutableMapping[str, Array], allowed: tuple[int, ...]
) -> Part:
    where = f"part '{name}'"
    shape = field(entry, "shape", where, list)
    if not 1 <= len(shape) <= 3 or not all(is_size(n) for n in shape):
        raise UserError(f"{where} has the shape {shape}", "1 to 3 positive sizes")
    bits, odd = field(entry, "bits", where, int), field(entry, "odd", where, bool)
    if bits not in allowed:
        raise UserError(f"{where} has {bits} bits", f"one of {', '.join(map(str, allowed))}")
    per_scale = field(entry, "rows_per_scale", where, int)
    packed = _take(tensors, f"{name}.codes", np.uint8)
    # Python integers: a size that does not fit the file is found before anything is allocated.
    if packed.shape != ((math.prod(shape) * bits + 7) // 8,):
        raise UserError(
            f"tensor '{name}.codes' has the shape {packed.shape}",
            f"{(math.prod(shape) * bits + 7) // 8} bytes for {shape} codes of {bits} bits",
        )
    mantissa = _take(tensors, f"{name}.mantissa", np.int16)
    exponent = _take(tensors, f"{name}.exponent", np.int8)
    if mantissa.ndim != 1 or exponent.shape != (1,) or mantissa.size * per_scale != shape[0]:
        raise UserError(
            f"{where} has {mantissa.size} scales for {per_scale} rows each",
            f"{shape[0]} rows in all",
        )
    if mantissa.min() < 1:
        raise UserError(f"{where} has a scale of {mantissa.min()}", "positive scales")
    codes = unpack_codes(packed, tuple(shape), bits, odd)
    if not odd and int(codes.min()) == -(1 << (bits - 1)):
        raise UserError(f"{where} holds the code {codes.min()}", "a symmetric range of codes")
    return Part(codes, bits, Scale(mantissa, int(exponent[0])), per_scale, odd)


def _read_bias(name: str, entry: Any, tensors: MutableMapping[str, Array], out: int) -> Part:
    bias = _read_part(name, entry, tensors, BIAS_BITS)
    if bias.codes.shape != (out,):
        raise UserError(f"'{name}' has the shape {bias.codes.shape}", f"({out},), one a row")
    scale = bias.scale
    if scale is None or scale.mantissa.tolist() != [1] or not bias.bits - 63 <= scale.exponent <= 0:
        raise UserError(f"the scale of '{name}' is no left shift within 64 bits", "a power of two")
    return bias


def _read_link(name: str, entry: Any) -> Link:
    where = f"link '{name}'"
    bits, mantissa = field(entry, "bits", where, int), field(entry, "mantissa", where, int)
    exponent = field(entry, "exponent", where, int)
    if bits not in CODE_BITS:
        raise UserError(f"{where} has {bits} bits", "2 … 16")
    if not 1 <= mantissa <= MANTISSA_MAX or not EXPONENT_MIN <= exponent <= EXPONENT_MAX:
        raise UserError(
            f"{where} has the scale {mantissa}·2^−({exponent})",
            f"a mantissa of 1 … {MANTISSA_MAX}, an exponent of {EXPONENT_MIN} … {EXPONENT_MAX}",
        )
    scale = Scale(np.array([mantissa], np.int16), exponent)
    activity: Activity | None = None
    if entry.get("activity") is not None:
        values = field(entry, "activity", where, dict)
        method = field(values, "method", f"{where}.activity", str)
        rest = {k: v for k, v in values.items() if k != "method"}
        activity = read_config(ACTIVITIES.get(method), rest, f"{where}.activity")
    return Link(bits, scale, activity)


def _take(tensors: MutableMapping[str, Array], name: str, dtype: Any) -> Array:
    if name not in tensors:
        raise UserError(f"tensor '{name}' is missing", "a tensor of this name beside the JSON")
    tensor = tensors.pop(name)
    if dtype is not None and tensor.dtype != dtype:
        raise UserError(f"tensor '{name}' is of type {tensor.dtype}", str(np.dtype(dtype)))
    return tensor


# --- JSON ----------------------------------------------------------------------------------------
def is_size(value: Any) -> bool:
    """Whether a JSON value is an integer from 1 to 2³¹ − 1."""
    return type(value) is int and 1 <= value <= SIZE_MAX


def field(entry: Any, key: str, where: str, kind: type) -> Any:
    """The value of `key` in a JSON object, of the exact type `kind`.

    Raises:
        UserError: no object, no such key, or another type.
    """
    if not isinstance(entry, Mapping) or key not in entry:
        raise UserError(f"{where} has no '{key}'", f"a JSON object with the key '{key}'")
    if type(entry[key]) is not kind:
        raise UserError(
            f"{where}: {key} is {str(entry[key])[:60]!r}", f"a value of type {kind.__name__}"
        )
    return entry[key]


def read_json_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UserError: the file can't be read, is larger than `MAX_JSON`, is no JSON object, repeats a
            key, holds NaN or infinity.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_JSON + 1)
        if len(text) > MAX_JSON:
            raise UserError(f"'{path}' is too large", f"at most {MAX_JSON} characters of JSON")
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as error:
        raise UserError(f"'{path}' can't be read ({error.strerror})", "a JSON file") from None
    except RecursionError:
        raise UserError(f"'{path}' is nested too deeply", "a JSON object") from None
    except ValueError as error:
        raise UserError(
            f"'{path}' is not valid JSON ({str(error)[:120]})", "a JSON object"
        ) from None
    if not isinstance(values, dict):
        raise UserError(f"'{path}' holds a JSON {type(values).__name__}", "a JSON object")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(k for k in keys if keys.count(k) > 1)!r} repeats")
    return out


def _no_constant(text: str) -> Any:
    raise ValueError(f"the number {text}")
