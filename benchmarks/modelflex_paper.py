"""The 36 solutions of the ModelFlex paper, priced by the systolic platform.

An LSTM with 32 inputs and 1024 hidden units on 32×32 BitFusion units; bits {16, 8, 4, 2} of weights
and activations × circulant block {1, 2, 4} × delta density {1, 0.6, 0.2}; at most 0.5 ms and 50 µJ
a step. The paper reports 18 feasible solutions, one of them by quantisation alone.

    python benchmarks/modelflex_paper.py
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from _common import figure, write_result

from modelflex.core.layout import circulant_geometry
from modelflex.core.products import STATE_BYTES, ProductRow, ProductTable, make_table
from modelflex.platforms.systolic import Systolic

COMMAND = "python benchmarks/modelflex_paper.py"
INPUTS, HIDDEN = 32, 1024
BITS, BLOCKS, DENSITIES = (16, 8, 4, 2), (1, 2, 4), (1.0, 0.6, 0.2)
LATENCY_LIMIT_S, ENERGY_LIMIT_J = 0.5e-3, 50e-6
PUBLISHED = {"feasible": 18, "quantisation_alone": 1}

ASSUMPTIONS = (
    f"the products of both gate weights are one: K = {INPUTS} + {HIDDEN}, N = 4·{HIDDEN}, M = 1",
    "weights are streamed from DRAM at every step, at unlimited bandwidth; the circulant block "
    "divides their bytes, not the arithmetic",
    "delta: K = ⌈1056·density⌉; encoding and rescaling run on the vector unit; "
    "the cell's own elementwise work is left out, as are scales and biases",
    "output stationary; leakage is not counted",
)


@dataclass(frozen=True)
class Setting:
    """One set of constants and what it is expected to give."""

    name: str
    label: str
    dram_energy: str
    feasible: int
    quantisation_alone: int


SETTINGS = (
    Setting("cited", "cited constants, LPDDR4 at 8 pJ/bit", "8 pJ/bit", 14, 0),
    Setting("fit", "a fit: DRAM at 4 pJ/bit, chosen to match the paper", "4 pJ/bit", 18, 1),
)


def solution(bits: int, block: int, density: float) -> ProductRow:
    """The gate product under one of the 36 solutions."""
    out, inputs = 4 * HIDDEN, INPUTS + HIDDEN
    layout = "dense" if block == 1 else "circulant"
    geo = circulant_geometry(out, inputs, block)
    active = math.ceil(inputs * density) / inputs
    state = out * STATE_BYTES["acc"] + inputs * STATE_BYTES["code"] if density < 1 else 0
    return ProductRow(
        site="lstm/gates", layout=layout, m=out, k=inputs, block=block, weight_bits=bits,
        activation_bits=bits, macs=geo.macs, stored_bytes=geo.codes * bits / 8, units=geo.units,
        unit_bytes=geo.unit_codes * bits / 8, fixed_bytes=0.0, reset_bytes=0.0, runs_per_step=1.0,
        density=active, active=active, state_bytes=state, dense_macs=out * inputs,
    )  # fmt: skip


GRID = [(bits, block, density) for bits in BITS for block in BLOCKS for density in DENSITIES]


def solutions() -> ProductTable:
    """All 36, one choice each."""
    return make_table([[solution(*point)] for point in GRID], steps=1.0)


def priced(setting: Setting) -> list[dict[str, Any]]:
    """Latency, energy and verdict of each solution."""
    platform = Systolic.from_config(
        {"dram_energy_per_bit": setting.dram_energy, "dram_bandwidth": "unlimited"}
    )
    table = solutions()
    totals = platform.combine(table, platform.price(table), np.arange(len(GRID))[:, None])
    latency, energy = totals["latency_per_step_s"], totals["energy_per_step_j"]
    feasible = (latency <= LATENCY_LIMIT_S) & (energy <= ENERGY_LIMIT_J)
    return [
        {
            "constants": setting.name,
            "bits": bits,
            "block": block,
            "density": density,
            "latency_s": float(latency[i]),
            "energy_j": float(energy[i]),
            "feasible": bool(feasible[i]),
        }
        for i, (bits, block, density) in enumerate(GRID)
    ]


def counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many solutions are feasible, and how many of those only quantise."""
    feasible = [row for row in rows if row["feasible"]]
    alone = [row for row in feasible if row["block"] == 1 and row["density"] == 1.0]
    return {"feasible": len(feasible), "quantisation_alone": len(alone)}


def show(setting: Setting, rows: list[dict[str, Any]]) -> None:
    found = counts(rows)
    print(f"\n{setting.label}")
    print("  bits block density   latency     energy")
    for row in rows:
        print(
            f"  {row['bits']:4d} {row['block']:5d} {row['density']:7.1f} "
            f"{row['latency_s'] * 1e3:6.3f} ms {row['energy_j'] * 1e6:7.1f} µJ"
            f"{'  feasible' if row['feasible'] else ''}"
        )
    print(f"  feasible: {found['feasible']} of {len(rows)} (published: {PUBLISHED['feasible']})")
    print(
        f"  with quantisation alone: {found['quantisation_alone']} "
        f"(published: {PUBLISHED['quantisation_alone']})"
    )


def main() -> None:
    print(__doc__.split("\n\n")[1])
    print("\nAssumptions:")
    for line in ASSUMPTIONS:
        print(f"- {line}")
    print("The counts do not identify the authors' model: other constants give 18 and 1 as well.")
    rows: list[dict[str, Any]] = []
    figures = []
    for setting in SETTINGS:
        mine = priced(setting)
        show(setting, mine)
        rows += mine
        for name, value in counts(mine).items():
            goal = getattr(setting, name)
            text = f"{goal} by hand; {PUBLISHED[name]} published ({setting.label})"
            figures.append(
                figure(f"{setting.name}_{name}", text, value, "solutions", value == goal, COMMAND)
            )
    content = {"assumptions": list(ASSUMPTIONS), "rows": rows, "figures": figures}
    print(f"\nwritten to {write_result('modelflex_paper', content)}")


if __name__ == "__main__":
    main()
