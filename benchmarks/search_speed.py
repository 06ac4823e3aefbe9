"""How long the search of the demo takes on two cores, from the command's start to the written report.

    python benchmarks/search_speed.py
    python benchmarks/search_speed.py --runs 1 --out FILE     # does it run at all?

Every run searches afresh in a folder of its own, with two worker processes. Two searches: that of `make
demo`, where 200 recipes are compressed and run on data, as the study counts them: candidates of the
space, their naive twins and the steps of the waterfall alike; and the same with 20 kB for the weights in
place of 7.3 kB, all that fit (--exhaustive), where the candidates alone are more than 200.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from _common import figure, write_result
from _process import measure
from _runtime_host import host
from _seeds import EXAMPLE
from _speed import modelflex

COMMAND = "python benchmarks/search_speed.py"
RECIPES, SECONDS = 200, 20.0
DEMO_LIMIT, ROOMIER_LIMIT = 'weight_bytes = "7.3 kB"', 'weight_bytes = "20 kB"'


def searches() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(name, configuration, further arguments)."""
    text = (EXAMPLE / "modelflex.toml").read_text(encoding="utf-8")
    yield "demo", text, ()
    roomier = text.replace(DEMO_LIMIT, ROOMIER_LIMIT)
    if roomier == text:
        raise SystemExit(f"the example's configuration no longer says {DEMO_LIMIT}")
    yield "20 kB", roomier, ("--exhaustive",)


def searched(name: str, text: str, more: tuple[str, ...]) -> dict[str, Any]:
    """One search: seconds of the whole command, and until the study was finished (before the artefact
    and the report were written).
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("data", "weights"):
            (folder / part).symlink_to(EXAMPLE / part, target_is_directory=True)
        config, out = folder / "modelflex.toml", folder / "out"
        config.write_text(text, encoding="utf-8")
        command = modelflex("search", str(config), "--out", str(out), "--workers", "2", "--json")
        started = time.time()
        run = measure([*command, *more], folder)
        summary = json.loads(run.stdout)
        if not (out / "report.html").is_file():
            raise SystemExit(f"{name}: no report was written")
        with closing(sqlite3.connect(out / "study.sqlite")) as study:
            ((count,),) = study.execute("SELECT COUNT(*) FROM evaluation")
        best = summary["best"]
        return {
            "search": name,
            "wall_s": run.wall_s,
            "without_report_s": (out / "study.sqlite").stat().st_mtime - started,
            "peak_bytes": run.peak_bytes,
            "recipes_evaluated": count,
            "candidates": summary["counts"]["evaluated"],
            "twins": summary["counts"]["twins_evaluated"],
            "best": None if best is None else best["recipe"]["label"],
            "load_average": host()["load_average"],
        }


def figures(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The median of every search against the goal, where it evaluated as many recipes as the goal says."""
    goal = f"≥ {RECIPES} recipes in ≤ {SECONDS:.0f} s, two cores"
    for name in dict.fromkeys(row["search"] for row in rows):
        own = [row for row in rows if row["search"] == name]
        wall = statistics.median(row["wall_s"] for row in own)
        counted = "recipes_evaluated" if name == "demo" else "candidates"
        least = min(row[counted] for row in own)
        title = f"search_{name.replace(' ', '_')}"
        met = wall <= SECONDS and least >= RECIPES
        yield figure(f"{title}_wall", goal, wall, "s", met, COMMAND)
        enough = least >= RECIPES
        yield figure(f"{title}_{counted}", f"≥ {RECIPES}", least, "recipes", enough, COMMAND)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="times that each search is run")
    parser.add_argument("--out", type=Path, default=None, help="the result file")
    options = parser.parse_args()
    rows = []
    for _ in range(options.runs):
        for search in searches():
            rows.append(searched(*search))
            row = rows[-1]
            print(
                f"{row['search']:12} {row['recipes_evaluated']:4} recipes {row['wall_s']:6.1f} s, "
                f"{row['without_report_s']:6.1f} s without the report",
                flush=True,
            )
    found = list(figures(rows))
    for f in found:
        print(f"{f['name']:32} {f['value']:8.4g} {f['unit']:8} {f['goal']}: {f['met']}")
    content = {"rule": (__doc__ or "").strip(), "host": host(), "figures": found, "rows": rows}
    write_result("search_speed", content, options.out)


if __name__ == "__main__":
    main()
