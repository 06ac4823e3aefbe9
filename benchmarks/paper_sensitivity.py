"""What of the ModelFlex paper's 18 feasible solutions of 36, and 1 by quantisation alone, is robust.

The 36 solutions of `modelflex_paper.py`, priced with every combination of the cited constants and of
the choices that the paper leaves open; for each combination, the solutions within both limits are counted.

    python benchmarks/paper_sensitivity.py [--figure docs/images/paper_sensitivity.svg]
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from _common import figure, write_result
from _paper_figure import draw
from _paper_prices import AXES, CITED, FIT, LIMITS, NAMES, PJ, POINTS, PRICED, Prices, at, prices
from modelflex_paper import ENERGY_LIMIT_J, GRID, LATENCY_LIMIT_S, PUBLISHED

from modelflex.core.fixed import Array

COMMAND = "python benchmarks/paper_sensitivity.py"
ROBUST = 0.9
"""A verdict is called robust if it holds in at least this share of the combinations."""
ALONE = np.array([block == 1 and density == 1.0 for _, block, density in GRID])
"""Which solutions only quantise."""
ASSUMPTIONS = (
    "every combination counts the same: the shares describe this grid and are no probabilities",
    "the gate product only, both weights as one (K = 1056, N = 4096, M = 1), at 200 MHz; under delta "
    "K = ⌈1056·density⌉",
    "the circulant block divides the weights' bytes, not the arithmetic",
    "a fusion unit multiplies ¼, 1, 4, 16 pairs a cycle at 16, 8, 4, 2 bits, also where its energy is "
    "that of fixed units",
    "SRAM writes cost what reads cost; SRAM leakage, wires between banks, scales, biases and the "
    "cell's elementwise work are left out",
    "resident weights cost no DRAM access at all; DRAM and arithmetic overlap, the longer counts",
)  # fmt: skip


def verdicts(found: Prices) -> Array:
    """Whether each solution is within both limits: [levels of each axis ..., 36]."""
    energy_limits = (
        np.array([x.value for x in AXES["energy limit"]])[:, None, None] * ENERGY_LIMIT_J
    )
    latency_limits = np.array([x.value for x in AXES["latency limit"]])[:, None] * LATENCY_LIMIT_S
    within = found.energy_j[..., None, None, :] <= energy_limits
    return within & (found.latency_s[..., None, None, :] <= latency_limits)


def cited_only() -> tuple[Array, ...]:
    """Indices of the cited levels of each axis, to index a grid with."""
    return np.ix_(*([i for i, x in enumerate(AXES[a]) if x.cited] for a in NAMES))


def counts(feasible: Array) -> tuple[Array, Array]:
    """(feasible solutions, those by quantisation alone) of each combination."""
    return feasible.sum(axis=-1), feasible[..., ALONE].sum(axis=-1)


def distribution(feasible: Array) -> dict[tuple[int, int], int]:
    """(feasible, quantisation alone) → combinations that give it."""
    total, alone = counts(feasible)
    return dict(Counter(zip(total.ravel().tolist(), alone.ravel().tolist(), strict=True)))


def is_published(feasible: Array) -> Array:
    """Which combinations give the published pair."""
    total, alone = counts(feasible)
    return (total == PUBLISHED["feasible"]) & (alone == PUBLISHED["quantisation_alone"])


def published_where(feasible: Array) -> list[dict[str, Any]]:
    """Dataflow × residency × DRAM energy → share of the combinations that give the published pair.

    Args:
        feasible: the whole grid; of the other axes all levels are cited.
    """
    axes = ("dataflow", "residency", "DRAM energy")
    others = tuple(i for i, axis in enumerate(NAMES) if axis not in axes)
    shares = is_published(feasible).mean(axis=others)
    labels = [[level.label for level in AXES[axis]] for axis in axes]
    return [
        {"dataflow": d, "residency": r, "dram_energy": dict(zip(labels[2], row, strict=True))}
        for d, rows in zip(labels[0], shares.tolist(), strict=True)
        for r, row in zip(labels[1], rows, strict=True)
    ]


def solution_sets(feasible: Array) -> list[dict[str, Any]]:
    """The different sets of solutions behind the published pair, most frequent first."""
    sets, times = np.unique(feasible[is_published(feasible)], axis=0, return_counts=True)
    return [
        {"combinations": int(times[i]), "solutions": [name(j) for j in np.flatnonzero(sets[i])]}
        for i in np.argsort(-times)
    ]


def name(index: int) -> str:
    """A solution as bits/block/density."""
    bits, block, density = GRID[index]
    return f"{bits}b/{block}/{density:g}"


def by_latency_alone(found: Prices) -> dict[str, list[int]]:
    """Dataflow → the pair of counts if only the latency limit, as published, is to be met."""
    here = at(CITED, PRICED)[1:]
    pairs = (counts(latency[here] <= LATENCY_LIMIT_S) for latency in found.latency_s)
    return {x.label: [int(n) for n in p] for x, p in zip(AXES["dataflow"], pairs, strict=True)}


def tornado(feasible: Array, point: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each axis alone over all its levels around `point`: what the counts become, widest first."""
    total, alone = counts(feasible)
    base, rows = at(point), []
    for i, axis in enumerate(NAMES):
        line = (*base[:i], slice(None), *base[i + 1 :])
        levels = [
            {"level": level.label, "feasible": int(n), "quantisation_alone": int(a)}
            for level, n, a in zip(AXES[axis], total[line], alone[line], strict=True)
        ]
        rows.append({"axis": axis, "levels": levels})
    return sorted(rows, key=lambda row: -np.ptp([x["feasible"] for x in row["levels"]]))


def main_effects(feasible: Array) -> dict[str, float]:
    """Axis → share of the variance of the feasible count that the axis explains alone."""
    total, _ = counts(feasible)
    others = {a: tuple(j for j in range(len(NAMES)) if j != i) for i, a in enumerate(NAMES)}
    shares = {a: float(total.mean(axis=axes).var() / total.var()) for a, axes in others.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def stable_range(thresholds: Array, feasible_as: Array, at_value: float) -> tuple[float, float]:
    """The range around `at_value` in which no threshold lies, so that the verdicts stay.

    Args:
        thresholds: [36], where each solution becomes feasible or stops being so.
        feasible_as: [36], which of the thresholds count: those within the latency limit.
        at_value: lies inside.
    """
    counted = thresholds[feasible_as]
    return float(counted[counted <= at_value].max()), float(counted[counted > at_value].min())


def fit_ranges(found: Prices) -> dict[str, tuple[float, float]]:
    """Ranges of DRAM energy [pJ/bit] and of the energy limit [µJ] in which the fit's verdicts stay."""
    here, cited = at(FIT, PRICED), at(CITED, PRICED)
    within = found.latency_s[here] <= LATENCY_LIMIT_S
    fitted, slope = found.energy_j[here], found.energy_j[cited] - found.energy_j[here]
    step = 8 * PJ - 4 * PJ
    limits = 4 * PJ + (ENERGY_LIMIT_J - fitted) * step / slope
    return {
        "dram_energy_pj_per_bit": stable_range(limits / PJ, within, 4.0),
        "energy_limit_uj": stable_range(fitted * 1e6, within, ENERGY_LIMIT_J * 1e6),
    }


def quantisation_alone(found: Prices) -> list[dict[str, float]]:
    """The four solutions that only quantise, under the fit."""
    latency, energy = (column[at(FIT, PRICED)] for column in found)
    return [
        {
            "bits": GRID[i][0],
            "latency_ms": float(latency[i]) * 1e3,
            "energy_uj": float(energy[i]) * 1e6,
        }
        for i in np.flatnonzero(ALONE)
    ]


def study() -> dict[str, Any]:
    """Everything that is reported, as it is written to the result file."""
    found = prices()
    everything = verdicts(found)
    grids = {"cited": everything[cited_only()], "all": everything}
    grids["at_limits"] = grids["cited"][(..., *at(CITED, LIMITS), slice(None))]
    cited, at_limits = (
        grids[g].reshape(-1, len(GRID)).mean(axis=0) for g in ("cited", "at_limits")
    )
    total, alone = counts(everything)
    return {
        "assumptions": list(ASSUMPTIONS),
        "axes": {
            name: [{k: v for k, v in asdict(x).items() if k != "value"} for x in levels]
            for name, levels in AXES.items()
        },
        "combinations": {name: grid[..., 0].size for name, grid in grids.items()},
        "published": {name: int(is_published(grid).sum()) for name, grid in grids.items()},
        "published_where": published_where(everything),
        "distribution": [
            {"feasible": n, "quantisation_alone": a, "combinations": c}
            for (n, a), c in sorted(distribution(grids["cited"]).items())
        ],
        "solutions": [
            {"bits": bits, "block": block, "density": density,
             "feasible_share": float(cited[i]), "feasible_share_at_limits": float(at_limits[i]),
             **{f"feasible_under_{name}": bool(everything[at(x)][i]) for name, x in POINTS.items()}}
            for i, (bits, block, density) in enumerate(GRID)
        ],
        "published_sets": solution_sets(grids["cited"]),
        "latency_alone": by_latency_alone(found),
        "tornado": {name: tornado(everything, point) for name, point in POINTS.items()},
        "main_effects": main_effects(grids["cited"]),
        "fit_ranges": fit_ranges(found),
        "fit_quantisation_alone": quantisation_alone(found),
        "counts": {
            name: {"feasible": int(total[at(point)]), "quantisation_alone": int(alone[at(point)])}
            for name, point in POINTS.items()
        },
    }  # fmt: skip


def figures(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is compared with an expectation; what is only found has no goal."""
    rows = []
    for name, expected in {"fit": (18, 1), "rival": (18, 1), "cited": (14, 0)}.items():
        for (which, value), goal in zip(found["counts"][name].items(), expected, strict=True):
            text = f"{goal} by hand; {PUBLISHED[which]} published"
            rows.append(figure(f"{name}_{which}", text, value, "solutions", value == goal, COMMAND))
    expected_ms, expected_uj = (2.74, 0.72, 0.21, 0.08), (542, 209, 91, 43)
    for row, ms, uj in zip(found["fit_quantisation_alone"], expected_ms, expected_uj, strict=True):
        bits = row["bits"]
        for name, value, goal, unit, tolerance in (
            ("latency", row["latency_ms"], ms, "ms", 0.005),
            ("energy", row["energy_uj"], uj, "µJ", 1),
        ):
            met = abs(value - goal) <= tolerance
            text = f"{goal} {unit} by hand, ± {tolerance}"
            rows.append(figure(f"fit_{bits}_bit_{name}", text, value, unit, met, COMMAND))
    for name, hits in found["published"].items():
        share = 100 * hits / found["combinations"][name]
        rows.append(figure(f"published_share_{name}", "none", share, "%", None, COMMAND))
    return rows


def robust(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """Solutions whose verdict holds in at least `ROBUST` of the combinations, and the others."""
    groups: dict[str, list[str]] = {"feasible": [], "infeasible": [], "open": []}
    for i, row in enumerate(found["solutions"]):
        share = row["feasible_share"]
        group = "feasible" if share >= ROBUST else "infeasible" if share <= 1 - ROBUST else "open"
        groups[group].append(name(i))
    return groups


def show(found: Mapping[str, Any]) -> None:
    print(__doc__.split("\n\n")[1])
    print("\nAssumptions:", *found["assumptions"], sep="\n- ")
    print("\nAxes (* not cited: kept out of the shares unless they say so):")
    for name, levels in found["axes"].items():
        print(f"- {name}: " + ", ".join(f"{x['label']}{'' if x['cited'] else '*'}" for x in levels))
    titles = {
        "cited": "all cited constants", "all": "with the fit and the estimate too",
        "at_limits": "cited constants, limits as published",
    }  # fmt: skip
    print("\nCombinations that give 18 and 1:")
    for name, hits in found["published"].items():
        size = found["combinations"][name]
        print(f"- {titles[name]}: {hits:,} of {size:,} ({100 * hits / size:.1f} %)")
    print(
        f"\nSolutions (bits/block/density) by what holds in ≥ {ROBUST:.0%} of the cited combinations:"
    )
    for name, members in robust(found).items():
        print(f"- {name}, {len(members)}: {', '.join(members)}")
    print(
        "\nOne axis at a time, from the fit (level: feasible, quantisation alone), and the share of"
    )
    print(
        "the variance of the feasible count that the axis explains alone, over the cited combinations:"
    )
    for row in found["tornado"]["fit"]:
        cells = (f"{x['level']}: {x['feasible']}, {x['quantisation_alone']}" for x in row["levels"])
        print(f"- {row['axis']} ({found['main_effects'][row['axis']]:.1%}): " + "; ".join(cells))
    print("\nThe fit's 36 verdicts stay for", end=" ")
    ranges = found["fit_ranges"]
    print("DRAM at {:.2f} to {:.2f} pJ/bit,".format(*ranges["dram_energy_pj_per_bit"]), end=" ")
    print("energy limits of {:.1f} to {:.1f} µJ (each alone)".format(*ranges["energy_limit_uj"]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--figure", type=Path, metavar="FILE.svg", help="also draw the figure")
    options = parser.parse_args(arguments)
    found = study()
    show(found)
    print(f"\nwritten to {write_result('paper_sensitivity', {**found, 'figures': figures(found)})}")
    if options.figure:
        temporary = options.figure.with_name(f".{options.figure.name}")
        temporary.write_text(draw(found), encoding="utf-8")
        os.replace(temporary, options.figure)
        print(f"drawn to {options.figure}")


if __name__ == "__main__":
    main()
