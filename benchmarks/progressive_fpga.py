"""The FPGA model beside table 1 of Kouris et al., and how long exploring the design space takes.

    python benchmarks/progressive_fpga.py [--curves NAME.npz …] [--figures docs/images]

The published rows of the ZC706 are R = 64, C = 8320. The paper prints no numbers of terms: those of the
refined rows are fitted to its times, so only the dense row, the power and the time of one term test the
model. `--curves` joins the KL divergences of decompositions, which `_fpga_driving.py` makes, with the times
of the engine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from _common import figure, write_result
from _fpga_curves import fitting, published_steps, read_curves, speedups, timed
from _fpga_figures import quality, roofline, speedup
from _fpga_table import (
    AGGREGATES,
    COLUMNS,
    READINGS,
    SHARE,
    TABLE,
    aggregates,
    arithmetic_range,
    check_term_seconds,
    power_fit,
    reading,
    reproduced,
)

from modelflex.core.files import replacing
from modelflex.platforms.fpga.explore import explore, explore_dense

COMMAND = "python benchmarks/progressive_fpga.py"
EXPLORED, SECONDS = 10**5, 5.0
NZ = (32, 130, 1040, 4160)
STEPS = (1, 3, 5, 10, 20, 62)
RUNS = 5
ASSUMPTIONS = (
    "time is the published roofline: between two results, the tail of one step beside the terms of the "
    "next, pipelines full; the inputs are on the chip already",
    "single precision needs 8.2 GB/s (fitted to the dense row and to the time of a term), twice what the "
    "paper measured; words of 16 bits need its 4 GB/s: the table cannot tell them apart",
    "a value of a pruned v is streamed with an index of the same width",
    "terms of the refined rows are fits to the published times, rounded to whole ones",
    "power is fitted on the same five rows (two constants)",
    "each row has the design that the exploration finds for it; the paper does not print its tiles",
)


def write_figure(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def explored() -> dict[str, Any]:
    """Seconds of an exploration: the median of several."""
    engine = reading("16-bit words at 4 GB/s")
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        found = explore(engine, NZ, STEPS)
        seconds.append(time.perf_counter() - start)
    return {
        "designs": found.designs,
        "feasible": found.feasible,
        "seconds": seconds,
        "median_s": statistics.median(seconds),
    }


def joined(path: Path, folder: Path | None) -> dict[str, Any]:
    """Figures 6 and 7 for a decomposition: KL against time, speed-up against KL."""
    name = "16-bit words at 4 GB/s"
    curves, shared = read_curves(path)
    engine = replace(reading(name), shared=shared)
    points = timed(engine, curves)
    dense_s = fitting(explore_dense(engine)).time_s
    found = speedups(points, dense_s, np.geomspace(1e-6, 1, 25))
    if folder is not None:
        note = f"ZC706, {name}, R 64, C 8320; each point on its fastest design"
        write_figure(
            folder / f"fpga_quality_{path.stem}.svg",
            quality(points, "Quality against time on the FPGA model", note),
        )
        if found["targets"]:
            write_figure(
                folder / f"fpga_speedup_{path.stem}.svg",
                speedup(found["targets"], "Speed-up over the dense engine", note),
            )
    # The claims are about a v for each gate.
    claims = [] if shared else published_steps(curves, COLUMNS)
    return {"published_steps": claims, "dense_s": dense_s, **found}


def figures(rows: dict[str, Any]) -> list[dict[str, Any]]:
    exploration = rows["exploration"]
    made = [
        figure(
            f"exploration of {exploration['designs']:,} designs",
            f"≥ {EXPLORED:,} designs in ≤ {SECONDS:g} s",
            exploration["median_s"],
            "s",
            exploration["designs"] >= EXPLORED and exploration["median_s"] <= SECONDS,
            COMMAND,
        )
    ]
    for name, found in rows["readings"].items():
        agrees = not name.startswith("as printed")
        for key, label in (("seconds", "time"), ("watts", "power"), ("gops_per_w", "GOP/s/W")):
            worst = max((abs(row["deviation"][key]) for row in found), default=0.0)
            dense = found[0]["deviation"][key]
            goal = f"≤ {SHARE:.0%} in all five rows" if agrees else "none: shows the contradiction"
            made.append(
                figure(
                    f"{label}, {name}: worst of five rows (dense {dense:+.1%})",
                    goal,
                    worst,
                    "share",
                    worst <= SHARE if agrees else None,
                    COMMAND,
                )
            )
    for row in rows["aggregates"]["published times"]:
        made += [
            figure(
                f"{key} speed-up over {row['over']}",
                f"published {AGGREGATES[key]:g}×, no reading is stated",
                row[key],
                "×",
                None,
                COMMAND,
            )
            for key in AGGREGATES
        ]
    return made


def show(rows: dict[str, Any]) -> None:
    for name, found in rows["readings"].items():
        print(f"\n{name}")
        heads = ("ms", 9), ("paper", 9), ("W", 6), ("paper", 6), ("GOP/s/W", 8), ("paper", 8)
        print(f"{'row':24} {'terms':>11}", *(f"{head:>{width}}" for head, width in heads))
        for row in found:
            model, paper = row["model"], row["published"]
            terms = "" if row["steps"] is None else f"{row['steps']} ({row['fitted_steps']:.1f})"
            print(
                f"{row['name']:24} {terms:>11} {1e3 * model['seconds']:9.5f} "
                f"{1e3 * paper['seconds']:9.5f} {model['watts']:6.2f} {paper['watts']:6.2f} "
                f"{model['gops_per_w']:8.1f} {paper['gops_per_w']:8.1f}"
                f"{'' if row['within'] else '   beyond 25 %'}"
            )
    exploration = rows["exploration"]
    print(f"\n{exploration['designs']:,} designs in {exploration['median_s']:.2f} s")
    for times, found in rows["aggregates"].items():
        print(f"\nspeed-ups by {times}: largest, mean, geometric mean (published 415, 198, 76)")
        for row in found:
            values = ", ".join(
                f"{row[key]:.1f} ({row['deviation'][key]:+.0%})" for key in AGGREGATES
            )
            print(f"  {row['over']}: {values}")
    for name, found in rows["curves"].items():
        print(f"\n{name}")
        for row in found["published_steps"]:
            print(
                f"NZ {row['nz']} ({row['share']:.1%}): KL ≤ 1e-6 in {row['steps']} terms of "
                f"{row['until']}, published {row['claim']}: {row['holds']}"
            )
        for row in found["targets"]:
            print(
                f"KL ≤ {row['kl']:.1e} (test {row['check']:.1e}): {row['speedup']:.1f}× with "
                f"{row['steps']} terms of {row['nz']}, {1e6 * row['seconds']:.2f} µs"
            )
        print("aggregate", found["aggregate"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, nargs="*", default=[])
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    readings = {name: reproduced(reading(name)) for name in READINGS}
    modelled = [row["model"]["seconds"] for row in readings["16-bit words at 4 GB/s"]]
    rows: dict[str, Any] = {
        "readings": readings,
        "term_seconds": {name: check_term_seconds(reading(name)) for name in READINGS},
        "power": power_fit(),
        "aggregates": {
            "published times": aggregates([row.seconds for row in TABLE]),
            "modelled times, 16-bit words": aggregates(modelled),
        },
        "exploration": explored(),
    }
    rows["curves"] = {path.stem: joined(path, options.figures) for path in options.curves}
    if options.figures is not None:
        name = "single precision at 8.2 GB/s"
        engine, found = reading(name), readings[name]
        ranges = [arithmetic_range(engine, row) for row in found]
        text = roofline(found, ranges, engine.chip.bandwidth, name)
        write_figure(options.figures / "fpga_roofline.svg", text)
    show(rows)
    content = {"assumptions": list(ASSUMPTIONS), "rows": rows, "figures": figures(rows)}
    print(f"\nwritten: {write_result('progressive_fpga', content, options.out)}")


if __name__ == "__main__":
    main()
