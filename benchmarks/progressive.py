"""Operations to come close to a recurrent network, by what is computed first.

    python benchmarks/progressive.py [--only vowels digits characters] [--schemes ours ...] [--report]

Networks and schemes run apart replace what they measure anew in the result file; `--report` prints it and
draws the plots again.

Terms are fitted to calibration data (inputs only). Pilot (validation) data choose, for every level of
KL divergence, among the settings of a scheme; test data are scored for what was chosen. All recurrent
layers are approximated, [W_x W_h] of each as one matrix; the head stays dense. Operations are
multiplications and additions of a step (a bit plane: additions), as a share of the dense recurrent layers'.
An approximation counts as reaching a level if it and all longer ones that were looked at do; terms are
computed up to one and a half times the dense operations.

- "published": Kouris et al. (arXiv 1905.00689), the NZ of all layers that is best on pilot data for
  the level; a fixed NZ of half the columns, the paper's own choice for high quality, beside it.
- "refit": the same with one closed-form least squares for U.
- "ours": data-aware terms in closed form; what weighs errors is chosen on pilot data.
- "ours, tuned": for KL ≤ .01 and .001 the setting of "ours" that is best on pilot data, its terms fitted
  together to calibration data (inputs only), or "ours" as it is, whichever pilot data choose.
- "low rank": a fixed rank chosen offline; the truncated SVD of the matrix, and of the matrix whitened by
  its inputs, which is what "ours" is without weighing results.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, figure, write_result
from _progressive_cases import LEVELS, NETWORKS, Case, Course, cut_path, load_cases, term_path
from _progressive_cases import terms_within as within
from _progressive_plot import plot
from threadpoolctl import threadpool_limits

from modelflex.core.refinement_orders import bit_planes, column_tiles, row_tiles
from modelflex.progressive.refining import Refinement

COMMAND = "python benchmarks/progressive.py"
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
Row = dict[str, Any]
Setting = tuple[str, Callable[[Case], Course]]


def _terms(label: str, **options: Any) -> Setting:
    return label, lambda case: term_path(case, within(case, Refinement(**options), MOST))


def _published(scheme: str, *kept: float) -> tuple[Setting, ...]:
    return tuple(_terms(f"NZ {100 * k:g} %", scheme=scheme, per_gate=True, kept=k) for k in kept)


WEIGHINGS = {
    "importance of outputs": "outputs",
    "full importance": "full",
    "diagonal importance": "diagonal",
    "no importance": "none",
}
SCHEMES: Mapping[str, tuple[Setting, ...]] = {
    "dense tiles": (
        ("rows", lambda case: cut_path(case, row_tiles)),
        ("columns", lambda case: cut_path(case, lambda matrix, _: column_tiles(matrix))),
    ),
    "bit planes": (("8 bits", lambda case: cut_path(case, lambda matrix, _: bit_planes(matrix))),),
    "published": _published("published", 1.0, 0.75, 0.5, 0.25),
    "refit": _published("refit", 0.75, 0.5, 0.25),
    "low rank": (_terms("plain", scheme="published"),),
    "low rank, whitened": (_terms("inputs", importance="none"),),
    "ours": tuple(_terms(label, importance=name) for label, name in WEIGHINGS.items()),
}
HALF = "published, NZ 50 %"
TUNED = "ours, tuned"
TUNED_FOR = (0.01, 0.001)
TUNING_STEPS = {"vowels": 2000, "digits": 1000}
"""Of the networks that are small enough: a step takes 30 and 150 ms here, and half a second with the
characters."""
MOST = 1.5
"""Share of the dense operations up to which terms are computed."""
ORDER = (
    "dense tiles",
    "bit planes",
    "published",
    HALF,
    "refit",
    "low rank",
    "low rank, whitened",
    "ours",
    TUNED,
)
FACTS = {
    "vowels": {"dense tiles": (0.10, 0.60, 0.90, 0.95), "published": (0.05, 0.13, 0.37, 0.76),
               "refit": (0.05, 0.11, 0.17, 0.35), "ours": (0.05, 0.13, 0.13, 0.23)},
    "digits": {"dense tiles": (0.40, 0.70, 0.90, 0.95), "published": (0.02, 0.08, 0.23, None),
               "refit": (0.02, 0.05, 0.11, 0.23), "ours": (0.02, 0.05, 0.11, 0.11)},
    "characters": {"dense tiles": (0.40, 0.90, 0.95, 1.0), "published": (0.13, 0.40, 0.82, 1.28),
                   "refit": (0.07, 0.40, 0.60, 0.93), "ours": (0.07, 0.27, 0.60, None)},
}  # fmt: skip
"""What earlier prototypes measured on other checkpoints, with coarser settings (NZ was not searched)."""
GOALS = (
    ("vowels", 0.01, 2.0), ("digits", 0.01, 2.0), ("characters", 0.01, 1.3),
    ("vowels", 0.001, 3.0), ("digits", 0.001, 5.0),
)  # fmt: skip


def measure(case: Case, network: str, schemes: Sequence[str]) -> list[Row]:
    """Rows of one checkpoint: what each scheme needs for each level."""
    rows: list[Row] = []
    for scheme in schemes:
        settings = SCHEMES[scheme]
        started = time.perf_counter()
        made = [(label, make(case)) for label, make in settings]
        reached = [_chosen(made, level) for level in LEVELS]
        rows.append(_row(case, network, scheme, reached))
        if scheme == "published":
            half = [one for one in made if one[0] == "NZ 50 %"]
            rows.append(_row(case, network, HALF, [_chosen(half, level) for level in LEVELS]))
        if scheme == "ours" and network in TUNING_STEPS:
            made += [
                _tuned(case, network, level, reached[LEVELS.index(level)][0]) for level in TUNED_FOR
            ]
            rows.append(_row(case, network, TUNED, [_chosen(made, level) for level in LEVELS]))
        seconds = time.perf_counter() - started
        print(
            f"{case.name}: {scheme} {_shares(rows[-1]['test'])} ({seconds:.0f} s)", file=sys.stderr
        )
    return rows


def _tuned(case: Case, network: str, level: float, label: str) -> tuple[str, Course]:
    """A setting of "ours" with all its terms fitted together for a level."""
    terms = within(case, Refinement(importance=WEIGHINGS[label]), MOST)
    return f"{label}, tuned for {level:g}", term_path(case, terms, (level, TUNING_STEPS[network]))


def _chosen(made: Sequence[tuple[str, Course]], level: float) -> tuple[str, float | None, Course]:
    """(setting, share on pilot data, its course) that reaches a level first on pilot data."""
    found = [(label, course.reach(level, "pilot"), course) for label, course in made]
    return min(found, key=lambda one: np.inf if one[1] is None else one[1])


def _row(
    case: Case, network: str, scheme: str, reached: Sequence[tuple[str, float | None, Course]]
) -> Row:
    course = reached[2][2]
    return {
        "network": network,
        "checkpoint": case.name,
        "scheme": scheme,
        "settings": [label for label, _, _ in reached],
        "pilot": [share for _, share, _ in reached],
        "test": [
            course.reach(level, "test")
            for level, (_, _, course) in zip(LEVELS, reached, strict=True)
        ],
        "curve": [[round(x, 6), kl] for x, kl in course.curve("test")],
    }


def _shares(shares: Sequence[float | None]) -> str:
    return "  ".join("   –  " if s is None else f"{s:6.3f}" for s in shares)


def means(rows: Sequence[Row], network: str, scheme: str, dense: bool = False) -> list[float]:
    """Geometric means over checkpoints of the shares on test data; a level that is not reached counts
    `MOST`, the longest that is looked at.

    Args:
        dense: whether the dense product is taken where the scheme needs more.
    """
    table = [r["test"] for r in rows if (r["network"], r["scheme"]) == (network, scheme)]
    top = 1.0 if dense else MOST
    return [
        float(np.exp(np.mean([np.log(top if v is None else min(v, top)) for v in column])))
        for column in zip(*table, strict=True)
    ]


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The ratios to the published scheme: to its own operations; with the dense product in its place
    where it needs more than that; and with half the numbers kept.
    """
    found = []
    for network, level, goal in GOALS:
        place = LEVELS.index(level)
        there = {r["scheme"] for r in rows if r["network"] == network}
        if not {"ours", "published"} <= there:
            continue
        best = TUNED if TUNED in there else "ours"
        compared: list[tuple[str, bool, str, str, float | None]] = [
            ("published", False, "published with its best NZ", best, goal),
            ("published", True, "the cheaper of published and dense", best, None),
            (HALF, False, "published with NZ 50 %", best, None),
        ]
        if best == TUNED:
            compared.append(("published", False, "published with its best NZ", "ours", None))
        for scheme, dense, note, mine, wanted in compared:
            theirs, ours = (means(rows, network, s, dense)[place] for s in (scheme, mine))
            value = round(theirs / ours, 3)
            met = None if wanted is None else value >= wanted
            name = f"{network}: operations to KL ≤ {level:g}, {note} over {mine}"
            told = "reported without a goal" if wanted is None else f"≥ {wanted:g}"
            found.append(figure(name, told, value, "×", met, COMMAND))
    return found


def report(content: Mapping[str, Any]) -> None:
    """Print the table and draw the plots."""
    rows = content["rows"]
    for network in NETWORKS:
        mine = [r for r in rows if r["network"] == network]
        if not mine:
            continue
        count = len({r["checkpoint"] for r in mine})
        print(
            f"\n{network} ({count} checkpoints): share of dense operations to KL ≤ 1, .1, .01, .001"
        )
        for scheme in [s for s in ORDER if any(r["scheme"] == s for r in mine)]:
            line = f"{scheme:20}{_shares(means(rows, network, scheme))}"
            prototype = FACTS[network].get(scheme)
            print(line + ("" if prototype is None else f"   prototype {_shares(prototype)}"))
        picture = IMAGES / f"progressive_{network}.svg"
        picture.write_text(plot(mine, network), encoding="utf-8")
    for one in content["figures"]:
        print(f"{one['name']}: {one['value']} (goal {one['goal']}, met {one['met']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    for network in [] if options.report else options.only:
        with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
            cases = load_cases(network, Path(folder))
            new = [row for case in cases for row in measure(case, network, options.schemes)]
        anew = {(row["network"], row["scheme"]) for row in new}
        rows = [r for r in _stored() if (r["network"], r["scheme"]) not in anew] + new
        write_result("progressive", {"levels": LEVELS, "rows": rows, "figures": figures(rows)})
    rows = _stored()
    content = {"levels": LEVELS, "rows": rows, "figures": figures(rows)}
    write_result("progressive", content)
    report(content)
    return 0


def _stored() -> list[Row]:
    path = RESULTS / "progressive.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows


if __name__ == "__main__":
    sys.exit(main())
