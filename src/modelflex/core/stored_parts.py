"""How stored arrays and input formats lie in files: tensors, and the JSON that says what they mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from typing import Any

import numpy as np

from modelflex.core.bits import pack_bits, pack_codes, unpack_bits, unpack_codes
from modelflex.core.fixed import MANTISSA_MAX, Array, Scale
from modelflex.core.json_values import field, is_size
from modelflex.core.layout import SPARSE, index_bits
from modelflex.core.part import GRIDS, MULTIPLIER_BITS, Grid, Part
from modelflex.core.recipe import read_config
from modelflex.core.tracer import Activity, Link
from modelflex.errors import UserError
from modelflex.registry import ACTIVITIES

EXPONENT_MIN, EXPONENT_MAX = -128, 127
CODE_BITS = tuple(range(1, 17))
LINK_BITS = tuple(range(2, 17))
BIAS_BITS = (8, 16, 32)
MOST_BITS = {"odd": 8, "power": 5, "levels": 8, "signs": 8}
"""Most bits on grids whose integers grow faster than the bits; those of powers stay within 16 bits."""


def part_tensors(name: str, part: Part) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors of an integer part and the JSON entry that `read_part` needs besides them.

    Raises:
        UserError: the exponent of its scales does not fit a byte.
    """
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
    entry = {
        "shape": list(part.codes.shape),
        "bits": part.bits,
        "grid": part.grid.kind,
        "rows_per_scale": part.rows_per_scale,
    }
    if part.grid.table is not None:
        tensors[f"{name}.table"] = part.grid.table.astype(np.int8)
    if part.multipliers is not None:
        tensors[f"{name}.multipliers"] = pack_bits(part.multipliers.ravel(), MULTIPLIER_BITS)
        entry["groups"] = part.multipliers.shape[1]
    if part.index is not None:
        tensors[f"{name}.index"] = pack_bits(part.index.ravel(), part.index_bits)
        entry |= {"index_shape": list(part.index.shape), "index_bits": part.index_bits}
    return tensors, entry


def link_entry(link: Link) -> dict[str, Any]:
    """The JSON entry of a link; its thresholds are a tensor."""
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


def read_part(
    name: str, entry: Any, tensors: MutableMapping[str, Array], allowed: tuple[int, ...]
) -> Part:
    """The part that `part_tensors` stored; takes what it uses out of `tensors`.

    Args:
        allowed: bits of a code.

    Raises:
        UserError: something is missing, of another type or shape, or out of range.
    """
    where = f"part '{name}'"
    shape = field(entry, "shape", where, list)
    if not 1 <= len(shape) <= 3 or not all(is_size(n) for n in shape):
        raise UserError(f"{where} has the shape {shape}", "1 to 3 positive sizes")
    bits, kind = field(entry, "bits", where, int), field(entry, "grid", where, str)
    if bits not in allowed or kind not in GRIDS or bits > MOST_BITS.get(kind, max(allowed)):
        raise UserError(
            f"{where} has {bits} bits on the grid '{kind}'",
            f"one of {', '.join(map(str, allowed))} bits on one of {', '.join(GRIDS)} "
            f"(at most {', '.join(f'{most} for {grid}' for grid, most in MOST_BITS.items())})",
        )
    per_scale = field(entry, "rows_per_scale", where, int)
    packed = take(tensors, f"{name}.codes", np.uint8)
    # Python integers: a size that does not fit the file is found before anything is allocated.
    if packed.shape != ((math.prod(shape) * bits + 7) // 8,):
        raise UserError(
            f"tensor '{name}.codes' has the shape {packed.shape}",
            f"{(math.prod(shape) * bits + 7) // 8} bytes for {shape} codes of {bits} bits",
        )
    mantissa = take(tensors, f"{name}.mantissa", np.int16)
    exponent = take(tensors, f"{name}.exponent", np.int8)
    if mantissa.ndim != 1 or exponent.shape != (1,) or mantissa.size * per_scale != shape[0]:
        raise UserError(
            f"{where} has {mantissa.size} scales for {per_scale} rows each",
            f"{shape[0]} rows in all",
        )
    if mantissa.min() < 1:
        raise UserError(f"{where} has a scale of {mantissa.min()}", "positive scales")
    grid = Grid(kind, _read_table(name, kind, bits, shape[0], tensors))
    codes = unpack_codes(packed, tuple(shape), bits, grid)
    if kind == "symmetric" and int(codes.min()) == -(1 << (bits - 1)):
        raise UserError(f"{where} holds the code {codes.min()}", "a symmetric range of codes")
    part = Part(codes, bits, Scale(mantissa, int(exponent[0])), per_scale, grid)
    part = _with_multipliers(name, entry, part, tensors)
    return with_index(name, entry, part, tensors)


def _read_table(
    name: str, kind: str, bits: int, rows: int, tensors: MutableMapping[str, Array]
) -> Array | None:
    """The table of a grid that has one."""
    if kind not in ("levels", "signs"):
        return None
    table = take(tensors, f"{name}.table", np.int8)
    width = 1 << bits if kind == "levels" else bits
    if table.ndim != 2 or table.shape[1] != width or not table.size or rows % table.shape[0]:
        raise UserError(
            f"tensor '{name}.table' has the shape {table.shape}",
            f"tables of {width} integers for equal shares of {rows} rows",
        )
    return table


def _with_multipliers(
    name: str, entry: Mapping[str, Any], part: Part, tensors: MutableMapping[str, Array]
) -> Part:
    """The part whose groups have multipliers, if the entry says so."""
    if entry.get("groups") is None:
        return part
    groups, rows = entry["groups"], part.codes.shape[0]
    columns = part.codes.size // rows
    if not is_size(groups) or columns % groups:
        raise UserError(f"part '{name}' has {groups!r} groups", f"a divisor of {columns} columns")
    packed = take(tensors, f"{name}.multipliers", np.uint8)
    if packed.shape != ((rows * groups * MULTIPLIER_BITS + 7) // 8,):
        raise UserError(
            f"tensor '{name}.multipliers' has the shape {packed.shape}",
            f"{rows}×{groups} numbers of {MULTIPLIER_BITS} bits",
        )
    values = unpack_bits(packed, rows * groups, MULTIPLIER_BITS).reshape(rows, groups)
    if values.min() < 1:
        raise UserError(f"part '{name}' has a multiplier of 0", "1 … 63")
    grouped = replace(part, multipliers=values.astype(np.int32))
    return replace(grouped, codes=(part.codes * grouped.group_factors()).astype(np.int32))


def with_index(
    name: str, entry: Mapping[str, Any], part: Part, tensors: MutableMapping[str, Array]
) -> Part:
    """The part whose codes have places, if the entry says so."""
    if entry.get("index_shape") is None:
        return part
    shape, bits = entry["index_shape"], field(entry, "index_bits", name, int)
    sizes = isinstance(shape, list) and 2 <= len(shape) <= 3 and all(is_size(n) for n in shape)
    if not sizes or not 0 <= bits <= 31:
        raise UserError(f"part '{name}' has the index {shape!r} of {bits} bits", "2 or 3 sizes")
    packed = take(tensors, f"{name}.index", np.uint8)
    if math.prod(shape) > part.codes.size or packed.shape != ((math.prod(shape) * bits + 7) // 8,):
        raise UserError(
            f"tensor '{name}.index' has the shape {packed.shape}",
            f"bytes for {shape} numbers of {bits} bits",
        )
    index = np.zeros(shape, np.int64)
    if bits:
        index = unpack_bits(packed, math.prod(shape), bits).astype(np.int64).reshape(shape)
    return replace(part, index=index, index_bits=bits)


def check_layout(name: str, layout: str, part: Part, inputs: int) -> None:
    """Refuse a stored array that does not lie as its layout wants.

    Raises:
        UserError: another number of axes, or places out of range or used twice.
    """
    codes, index = part.codes, part.index
    wanted = 3 if layout == "circulant" else 2
    sparse = layout in SPARSE
    if codes.ndim != wanted or sparse != (index is not None):
        raise UserError(f"'{name}' has the shape {codes.shape}", f"that of a {layout} weight")
    if index is None:
        columns = codes.shape[1] * (codes.shape[2] if layout == "circulant" else 1)
        if columns != inputs:
            raise UserError(f"'{name}' has {columns} columns", f"{inputs}")
        return
    if layout == "n_m":
        fits = index.ndim == 3 and inputs % index.shape[1] == 0
        fits = fits and (codes.shape == (index.shape[0], index.shape[1] * index.shape[2]))
        span = inputs // index.shape[1]
    else:
        fits = index.ndim == 2 and codes.shape[0] % index.shape[0] == 0
        fits = fits and codes.shape[1] % index.shape[1] == 0
        width = codes.shape[1] // index.shape[1] if fits else 1
        fits = fits and inputs % width == 0
        span = inputs // width
    if not fits or part.index_bits != index_bits(span) or int(index.max()) >= span:
        raise UserError(
            f"the index of '{name}' has the shape {index.shape} for codes {codes.shape}",
            f"places below {span} for a {layout} weight of {inputs} inputs",
        )
    ordered = np.sort(index, axis=-1)
    if np.any(ordered[..., 1:] == ordered[..., :-1]):
        raise UserError(f"the index of '{name}' names a place twice", "each once")


def read_bias(name: str, entry: Any, tensors: MutableMapping[str, Array], out: int) -> Part:
    """A stored bias [out] in accumulator units.

    Raises:
        UserError: see `read_part`; another size, or a scale that is no left shift within 64 bits.
    """
    bias = read_part(name, entry, tensors, BIAS_BITS)
    if bias.codes.shape != (out,):
        raise UserError(f"'{name}' has the shape {bias.codes.shape}", f"({out},), one a row")
    scale = bias.scale
    if scale is None or scale.mantissa.tolist() != [1] or not bias.bits - 63 <= scale.exponent <= 0:
        raise UserError(f"the scale of '{name}' is no left shift within 64 bits", "a power of two")
    return bias


def read_link(
    name: str, entry: Any, tensors: MutableMapping[str, Array], inputs: int, block: int
) -> Link:
    """The link of a product with so many inputs, `block` of which share a fetch unit.

    Raises:
        UserError: bits, scale, activity or thresholds are missing, of another type, or out of range.
    """
    where = f"link '{name}'"
    bits, mantissa = field(entry, "bits", where, int), field(entry, "mantissa", where, int)
    exponent = field(entry, "exponent", where, int)
    if bits not in LINK_BITS:
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
        if not activity.resolved:
            raise UserError(
                f"{where}.activity is {method} with {rest}",
                "thresholds in units of the input",
                "compress the model again",
            )
    link = Link(bits, scale, activity)
    if activity is None or not activity.threshold_count(inputs, block):
        return link
    kind = np.uint8 if link.threshold_bytes == 1 else np.uint16
    thresholds = take(tensors, f"{name}.thresholds", kind)
    # How many there must be hangs on where the layer applies the weight: building the program checks it.
    if thresholds.ndim != 1:
        raise UserError(
            f"tensor '{name}.thresholds' has the shape {thresholds.shape}", "one dimension"
        )
    return replace(link, thresholds=thresholds.astype(np.int32))


def take(tensors: MutableMapping[str, Array], name: str, dtype: Any) -> Array:
    """Remove and return a tensor; `dtype` None takes any.

    Raises:
        UserError: it is missing or of another type.
    """
    if name not in tensors:
        raise UserError(f"tensor '{name}' is missing", "a tensor of this name beside the JSON")
    tensor = tensors.pop(name)
    if dtype is not None and tensor.dtype != dtype:
        raise UserError(f"tensor '{name}' is of type {tensor.dtype}", str(np.dtype(dtype)))
    return tensor
