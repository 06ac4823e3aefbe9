"""Rows and options drawn at random for the tests of the systolic platform."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from modelflex.core.cost import Cost
from modelflex.core.products import ProductRow, ProductTable, make_table
from modelflex.platforms.systolic import Systolic

from .systolic_by_hand import SPARSE


def product(
    site: str, m: int, k: int, *, layout: str = "dense", block: int = 1, **more: Any
) -> ProductRow:
    """A row of whole codes. A sparse one names its `macs`, stores an index of 4 bits for each, and is
    fetched as a whole.
    """
    weight_bits, macs = more.pop("weight_bits", 8), more.pop("macs", m * k)
    density = more.pop("density", more.get("active", 1.0))
    sparse = layout in SPARSE
    block = k if sparse else block
    units, codes = k // block, (m * k // block if layout == "circulant" else macs)
    bits = codes * (weight_bits + (4 if sparse else 0))
    fixed, reset = more.pop("fixed_bytes", 0.0), more.pop("reset_bytes", 0.0)
    return ProductRow(
        site=site, layout=layout, m=m, k=k, block=block, weight_bits=weight_bits,
        activation_bits=more.pop("activation_bits", 8), macs=macs,
        stored_bytes=math.ceil(bits / 8) + fixed + reset, units=units,
        unit_bytes=bits / 8 / units, fixed_bytes=fixed, reset_bytes=reset,
        runs_per_step=more.pop("runs_per_step", 1.0), density=density, dense_macs=m * k, **more,
    )  # fmt: skip


def elementwise(results: int, functions: int = 0, state: float = 0.0) -> ProductRow:
    return ProductRow(
        site="l/elementwise", layout="", m=results, k=0, block=1, weight_bits=0, activation_bits=0,
        macs=0, stored_bytes=0.0, units=0, unit_bytes=0.0, fixed_bytes=0.0, reset_bytes=0.0,
        runs_per_step=1.0, state_bytes=state, functions=functions,
    )  # fmt: skip


@st.composite
def products(draw: st.DrawFn, site: str, layouts: Sequence[str] = ("dense",)) -> ProductRow:
    """One product; a quarter are of delta, dense ones without state may be hoisted."""
    layout = draw(st.sampled_from(layouts))
    block = draw(st.sampled_from([2, 4, 8])) if layout in ("circulant", "block_sparse") else 1
    m, k = (block * draw(st.integers(1, 40 // block)) for _ in range(2))
    more: dict[str, Any] = {}
    if layout in SPARSE:
        more["macs"] = draw(st.integers(1, m * k))
    if layout == "block_sparse":
        more["shared_rows"] = block
    if draw(st.integers(0, 3)) == 0:
        more["active"] = draw(st.floats(0.01, 1))
        more["density"] = draw(st.floats(more["active"], 1))
        more["reset_bytes"] = float(draw(st.integers(1, 50)))
        more["state_bytes"] = float(draw(st.integers(1, 60)))
    else:
        more["hoistable"] = draw(st.booleans())
    return product(
        site, m, k, layout=layout, block=block, weight_bits=draw(st.integers(1, 16)),
        activation_bits=draw(st.integers(2, 16)), fixed_bytes=float(draw(st.integers(0, 9))), **more,
    )  # fmt: skip


@st.composite
def networks(
    draw: st.DrawFn, layouts: Sequence[str] = ("dense",)
) -> tuple[list[ProductRow], float]:
    """(rows, T): products of each step, perhaps one that runs once, elementwise work."""
    steps = draw(st.sampled_from([1.0, 2.0, 7.0, 15.5, 33.25]))
    rows = [draw(products(f"w{i}/0", layouts)) for i in range(draw(st.integers(1, 3)))]
    if steps > 1 and draw(st.booleans()):
        rows.append(product("head.w/0", draw(st.integers(1, 9)), 5, runs_per_step=1 / steps))
    rows.append(elementwise(draw(st.integers(1, 50)), draw(st.integers(0, 30)), 16.0))
    return rows, steps


def one(rows: Sequence[ProductRow], steps: float) -> ProductTable:
    """The table of one recipe."""
    return make_table([[row] for row in rows], steps)


@lru_cache(maxsize=1024)
def platform(spec: str, **options: Any) -> Systolic:
    """The platform with a spec and options."""
    return Systolic.from_config({"spec": spec, **options})


def cost(spec: str, rows: Sequence[ProductRow], steps: float, **options: Any) -> Cost:
    """What the platform says of one recipe."""
    return platform(spec, **options).cost(one(rows, steps))


def value(found: float | None) -> float:
    """A figure that must be there."""
    assert found is not None
    return found


OPTIONS = st.fixed_dictionaries(
    {
        "dataflow": st.sampled_from(["os", "ws", "is"]),
        "residency": st.sampled_from(["streamed", "fit", "partial"]),
        "workload": st.sampled_from(["streaming", "sequence"]),
        "batch": st.sampled_from([1, 2, 3, 5, 16]),
        "leakage": st.booleans(),
        "registers": st.booleans(),
    }
)
