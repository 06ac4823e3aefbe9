"""How weights lie in files: tensors (safetensors) and the JSON that says what they mean.

The tensors of a weight have exactly the bytes that `Weight.nbytes` states: packed codes (core/bits.py),
an int16 mantissa for each scale, one int8 exponent, and what tables, multipliers, indices and
thresholds there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from modelflex.core.bits import pack_bits
from modelflex.core.fixed import Array
from modelflex.core.json_values import field, is_size
from modelflex.core.layout import LAYOUTS, part_geometry
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.stored_parts import (
    CODE_BITS,
    check_layout,
    link_entry,
    part_tensors,
    read_bias,
    read_link,
    read_part,
    take,
    with_index,
)
from modelflex.core.weight import Chain, Matrix, Sum, Terms, Weight, float_weight
from modelflex.errors import UserError

MODEL_SCHEMA = "modelflex.model/1"
MODEL_JSON, MODEL_TENSORS = "model.json", "model.safetensors"
INTEGER, FLOAT = "integer", "float"
MAX_PRODUCTS = 16
TERM_LAYOUTS = ("dense", "row_sparse", "block_sparse")
"""Of V in terms: each row has the same number of places."""


# --- weights to tensors --------------------------------------------------------------------------
def weight_tensors(name: str, weight: Weight) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors of a weight and the JSON entry that `read_weight` needs besides them.

    Floats: `name` [out, in] and `name.bias` [out], float32; of terms the same of `name/0` and
    `name/1`, and `name/0.index` where V is sparse. Integers: `name/0.codes` uint8,
    `name/0.mantissa` int16 [n], `name/0.exponent` int8 [1], and the same three of `name/bias`.

    Raises:
        UserError: the weight's structure has no stored form, or a scale does not fit the format.
    """
    if isinstance(weight, Matrix) and weight.is_float:
        tensors = {name: weight.part.codes.astype(np.float32)}
        if weight.bias is not None:
            tensors[f"{name}.bias"] = weight.bias.codes.astype(np.float32)
        return tensors, {"numeric": FLOAT}
    if weight.is_float:
        return _float_terms(name, weight)
    tensors, bias, products = {}, None, []
    for number, product in enumerate(weight.products):
        more, entry = _product_tensors(f"{name}/{number}", product)
        tensors |= more
        if product.own_bias is not None and product is not weight.products[-1]:
            more, entry["bias"] = part_tensors(f"{name}/{number}/bias", product.own_bias)
            tensors |= more
        products.append(entry)
    if weight.bias is not None:
        more, bias = part_tensors(f"{name}/bias", weight.bias)
        tensors |= more
    form = _form(weight, 0)
    return tensors, {"numeric": INTEGER, "form": form, "products": products, "bias": bias}


def _form(weight: Weight, first: int) -> Any:
    """How the products are put together: a product's number, or ["chain" or "sum", …]."""
    if isinstance(weight, Matrix):
        return first
    if isinstance(weight, Chain):
        return ["chain", *range(first, first + len(weight.factors))]
    if isinstance(weight, Terms):
        return ["terms", weight.groups, first, first + 1]
    if not isinstance(weight, Sum):
        raise ValueError(f"a weight of the class {type(weight).__name__} has no stored form")
    forms = ["sum"]
    for term in weight.terms:
        forms.append(_form(term, first))
        first += len(term.products)
    return forms


def _float_terms(name: str, weight: Weight) -> tuple[dict[str, Array], dict[str, Any]]:
    """The tensors and the entry of terms in floats."""
    tensors, products = {}, []
    for number, product in enumerate(weight.products):
        part, entry = product.part, {"layout": product.layout, "inputs": product.inputs}
        tensors[f"{name}/{number}"] = part.codes.astype(np.float32)
        if part.index is not None:
            tensors[f"{name}/{number}.index"] = pack_bits(part.index.ravel(), part.index_bits)
            entry |= {"index_shape": list(part.index.shape), "index_bits": part.index_bits}
        if product.own_bias is not None:
            tensors[f"{name}/{number}.bias"] = product.own_bias.codes.astype(np.float32)
        products.append(entry)
    return tensors, {"numeric": FLOAT, "form": _form(weight, 0), "products": products}


def _product_tensors(name: str, product: Matrix) -> tuple[dict[str, Array], dict[str, Any]]:
    tensors, part = part_tensors(name, product.part)
    link = product.link
    if link is None:
        raise ValueError(f"'{name}' has integer codes but no link")
    if link.thresholds is not None:
        kind = np.uint8 if link.threshold_bytes == 1 else np.uint16
        tensors[f"{name}.thresholds"] = link.thresholds.astype(kind)
    entry = {"layout": product.layout, "inputs": product.inputs, "part": part}
    return tensors, {**entry, "link": link_entry(link)}


# --- tensors to weights --------------------------------------------------------------------------
def read_weight(
    name: str, entry: Mapping[str, Any], tensors: MutableMapping[str, Array], gates: int
) -> Matrix | Chain | Sum | Terms:
    """The weight that `weight_tensors` stored; takes what it uses out of `tensors`.

    Args:
        entry: the JSON entry; {"numeric": "float"} for an uncompressed weight of one matrix.
        gates: equal row groups of the map, as the layer's kind defines them.

    Raises:
        UserError: something is missing, of another type or shape, out of range, NaN or infinite.
    """
    if field(entry, "numeric", name, str) == FLOAT and "form" in entry:
        return _read_float_terms(name, entry, tensors, gates)
    if entry["numeric"] == FLOAT:
        matrix = take(tensors, name, None)
        return checked_float_weight(name, matrix, tensors.pop(f"{name}.bias", None), gates)
    if entry["numeric"] != INTEGER:
        raise UserError(f"weight '{name}' is {entry['numeric']!r}", f"'{FLOAT}' or '{INTEGER}'")
    products = field(entry, "products", name, list)
    if not 1 <= len(products) <= MAX_PRODUCTS:
        raise UserError(f"weight '{name}' has {len(products)} products", f"1 … {MAX_PRODUCTS}")
    read = [_read_product(f"{name}/{i}", e, tensors, gates) for i, e in enumerate(products)]
    weight = _formed(name, entry.get("form"), read)
    if weight.shape[0] % gates:
        raise UserError(f"weight '{name}' has {weight.shape[0]} rows", f"a multiple of {gates}")
    if entry.get("bias") is None:
        return weight
    return weight.with_bias(read_bias(f"{name}/bias", entry["bias"], tensors, weight.shape[0]))


def _read_float_terms(
    name: str, entry: Mapping[str, Any], tensors: MutableMapping[str, Array], gates: int
) -> Terms:
    form, products = entry["form"], field(entry, "products", name, list)
    if not isinstance(form, list) or form[:1] != ["terms"] or len(products) != 2:
        raise UserError(
            f"weight '{name}' in floats has the form {str(form)[:60]}", "['terms', groups, 0, 1]"
        )
    read = [
        _read_float_product(f"{name}/{number}", product, tensors, gates if number else 1)
        for number, product in enumerate(products)
    ]
    return _terms(name, form, read)


def _read_float_product(
    name: str, entry: Any, tensors: MutableMapping[str, Array], gates: int
) -> Matrix:
    layout, inputs = _layout_of(name, entry)
    values = finite_float32(name, take(tensors, name, None))
    if values.ndim != 2 or not values.size or values.shape[0] % gates:
        raise UserError(
            f"tensor '{name}' has the shape {values.shape}", f"rows in a multiple of {gates}"
        )
    part = with_index(name, entry, Part(values, FLOAT_BITS), tensors)
    check_layout(name, layout, part, inputs)
    bias = tensors.pop(f"{name}.bias", None)
    if bias is None:
        return Matrix(part, None, None, gates, layout, inputs)
    if bias.shape != (values.shape[0],):
        raise UserError(
            f"the bias of '{name}' has the shape {bias.shape}", f"({values.shape[0]},), one a row"
        )
    own = Part(finite_float32(f"{name}.bias", bias), FLOAT_BITS)
    return Matrix(part, own, None, gates, layout, inputs)


def _terms(name: str, form: list[Any], products: Sequence[Matrix]) -> Terms:
    """Terms of two products, if they are two and fit each other."""
    groups = form[1] if len(form) > 1 else None
    if groups is None or len(products) != 2 or not is_size(groups) or form[2:] != [0, 1]:
        raise UserError(
            f"weight '{name}' has the form {str(form)[:60]} of {len(products)} products",
            "['terms', groups, 0, 1]",
        )
    v, u = products
    if v.shape[0] != u.inputs * groups or u.shape[0] % groups or u.layout != "dense":
        raise UserError(
            f"weight '{name}' has terms of {v.shape[0]} and {u.shape[0]}×{u.inputs} rows in {groups} groups",
            "a row of the first for each group and column of the second, which is dense",
        )
    if v.layout not in TERM_LAYOUTS:
        raise UserError(
            f"weight '{name}' has terms in the layout '{v.layout}'",
            f"one of {', '.join(TERM_LAYOUTS)}",
        )
    for product in products:
        if product.link is not None and product.link.activity is not None:
            raise UserError(f"weight '{name}' has terms with an activity", "none")
    return Terms(v, u, groups)


def _formed(name: str, form: Any, products: list[Matrix]) -> Matrix | Chain | Sum | Terms:
    """Put products together; each must be used once, in order, and the sizes must fit."""
    if isinstance(form, list) and form[:1] == ["terms"]:
        return _terms(name, form, products)
    used = iter(range(len(products)))

    def build(form: Any, allowed: tuple[str, ...]) -> Matrix | Chain | Sum:
        if type(form) is int and form == next(used, None):
            return products[form]
        if not isinstance(form, list) or len(form) < 2 or form[0] not in allowed:
            raise UserError(
                f"weight '{name}' has the form {str(form)[:60]}",
                "the number of a product, or a list such as ['chain', 0, 1], all in order",
            )
        if form[0] == "chain":
            factors = tuple(_matrix(build(f, ())) for f in form[1:])
            for before, after in itertools.pairwise(factors):
                _same(name, after.inputs, before.shape[0])
            return Chain(factors)
        terms = tuple(_term(build(f, ("chain",))) for f in form[1:])
        for term in terms:
            _same(name, term.shape, terms[0].shape)
        return Sum(terms)

    weight = build(form, ("chain", "sum"))
    if next(used, None) is not None:
        raise UserError(f"weight '{name}' has products that its form does not use", "none")
    return weight


def _matrix(weight: Weight) -> Matrix:
    if not isinstance(weight, Matrix):
        raise UserError("a chain holds another chain or a sum", "products")
    return weight


def _term(weight: Weight) -> Matrix | Chain:
    if not isinstance(weight, Matrix | Chain):
        raise UserError("a sum holds another sum", "products and chains")
    return weight


def _same(name: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise UserError(
            f"weight '{name}' joins products of the sizes {found} and {wanted}", "equal ones"
        )


def _read_product(name: str, entry: Any, tensors: MutableMapping[str, Array], gates: int) -> Matrix:
    layout, inputs = _layout_of(name, entry)
    part = read_part(name, field(entry, "part", name, dict), tensors, CODE_BITS)
    check_layout(name, layout, part, inputs)
    block = part_geometry(layout, part.codes, part.index, inputs).block
    link = read_link(name, field(entry, "link", name, dict), tensors, inputs, block)
    read = Matrix(part, None, link, gates, layout, inputs)
    if entry.get("bias") is None:
        return read
    return read.with_bias(read_bias(f"{name}/bias", entry["bias"], tensors, read.shape[0]))


def _layout_of(name: str, entry: Any) -> tuple[str, int]:
    layout, inputs = field(entry, "layout", name, str), field(entry, "inputs", name, int)
    if layout not in LAYOUTS or not is_size(inputs):
        raise UserError(
            f"product '{name}' has the layout '{layout}' of {str(inputs)[:30]} inputs",
            f"one of {', '.join(LAYOUTS)}",
        )
    return layout, inputs


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
