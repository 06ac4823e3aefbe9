"""The linear model of a step: which kind of product takes how long, with constants of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.part import FLOAT_BITS
from modelflex.core.products import ProductTable

FAST_BLOCKS: Final = (4, 8, 16)
"""Circulant blocks that the runtime multiplies as they are; others are unpacked to a dense matrix."""
PACKED_BITS: Final[Mapping[str, float]] = {
    "float32": 32,
    "wide": 16,
    "16": 16,
    "8": 8,
    "4": 4,
    "2": 2,
    "1": 1,
    **{f"circulant_{b}": 8 / b for b in FAST_BLOCKS},
    "delta_wide": 16,
    "delta_16": 16,
    "delta_8": 8,
    **{f"delta_circulant_{b}": 8 / b for b in FAST_BLOCKS},
}
"""Kind of product → bits that the runtime reads for an element of the matrix.

"wide" has codes of more than 8 bits on both sides (sums of 64 bits), "16" on one, the others on none.
"""


@dataclass(frozen=True)
class ProductTime:
    """Seconds of one kind of product: y[m] = A[m, k]·x[k].

    Attributes:
        run_s: each run.
        input_s, result_s: each input (quantised, encoded, put in order) and result (rescaled, added).
        mac_s: each element of A that is multiplied, from a cache near the core.
        most_s: each element of A at most, however many inputs are active.
    """

    run_s: float
    input_s: float
    result_s: float
    mac_s: float
    most_s: float

    def seconds(self, m: int, k: int) -> float:
        """Of a run with everything active and the weights in a near cache."""
        each = k * self.input_s + m * self.result_s
        return self.run_s + each + m * k * min(self.mac_s, self.most_s)


@dataclass(frozen=True)
class LayerTime:
    """Seconds of a layer's elementwise work: each run, each result, and those of σ and tanh beside."""

    run_s: float
    result_s: float
    function_s: float


@dataclass(frozen=True)
class Constants:
    """What was measured once on a machine.

    Attributes:
        machine: which one; see `machine.machine`.
        call_s: the call from Python.
        products: kind → times.
        layers: "float" and "integer" → times.
        read: (bytes, bytes/s) of a read loop over buffers of rising size.
    """

    machine: Mapping[str, Any]
    call_s: float
    products: Mapping[str, ProductTime]
    layers: Mapping[str, LayerTime]
    read: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; see `from_json`."""
        return asdict(self) | {"read": [list(point) for point in self.read]}

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: not such an object.
        """
        products = {kind: ProductTime(**values["products"][kind]) for kind in PACKED_BITS}
        layers = {kind: LayerTime(**values["layers"][kind]) for kind in ("float", "integer")}
        read = tuple((int(size), float(rate)) for size, rate in values["read"])
        if len(read) < 2 or min(rate for _, rate in read) <= 0:
            raise ValueError("no rates of reading")
        return cls(dict(values["machine"]), float(values["call_s"]), products, layers, read)


def product_kinds(table: ProductTable) -> Array:
    """Kind of every row's product, str [rows]; "" for elementwise rows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(table["layout"] == "dense", table["m"] * table["k"], table["macs"])
        stored = np.rint(8 * table["units"] * table["unit_bytes"] / codes)
    delta = table["state_bytes"] > 0
    weights, inputs = table["weight_bits"] > 8, table["activation_bits"] > 8
    fast = (table["layout"] == "circulant") & np.isin(table["block"], FAST_BLOCKS)
    narrow = (table["layout"] == "dense") & ~delta
    of_circulant = np.char.add("circulant_", table["block"].astype(str))
    of_few = [narrow & (stored <= bits) for bits in (1, 2, 4)]
    kinds = np.select(
        [weights & inputs, weights | inputs, fast, *of_few],
        ["wide", "16", of_circulant, "1", "2", "4"],
        "8",
    )
    kinds = np.where(delta, np.char.add("delta_", kinds), kinds)
    kinds = np.where(table["activation_bits"] == FLOAT_BITS, "float32", kinds)
    return np.where(table["layout"] == "", "", kinds)


def price_rows(table: ProductTable, constants: Constants) -> dict[str, Array]:
    """Columns [rows] of one step.

    - fixed_s: whatever lies where; work_s: multiplying, from a near cache;
    - read_bytes: of the packed matrix; held_bytes: the whole of it.
    """
    kinds = product_kinds(table)
    whole = np.zeros(table.rows)
    columns = {n: whole.copy() for n in ("fixed_s", "work_s", "read_bytes", "held_bytes")}
    size = table["m"] * table["k"]
    times = table["positions"]
    floats = bool(np.any(kinds == "float32"))
    for kind in np.unique(kinds):
        at = kinds == kind
        if kind == "":
            of = constants.layers["float" if floats else "integer"]
            seconds = of.run_s + table["m"] * of.result_s + table["functions"] * of.function_s
            columns["fixed_s"][at] = np.where(table["m"] > 0, seconds, 0.0)[at]
            continue
        p, bits = constants.products[str(kind)], PACKED_BITS[str(kind)]
        active = table["active"] if str(kind).startswith("delta") else np.ones(table.rows)
        each = table["k"] * p.input_s + table["m"] * p.result_s
        columns["fixed_s"][at] = (p.run_s + times * each)[at]
        columns["work_s"][at] = (times * size * np.minimum(active * p.mac_s, p.most_s))[at]
        columns["read_bytes"][at] = (size * bits / 8 * active)[at]
        columns["held_bytes"][at] = (size * bits / 8)[at]
    return columns
