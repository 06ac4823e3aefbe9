"""Compare the SCALE-Sim 3.0.0 mode of the systolic simulator with SCALE-Sim itself, on random layers.

    python scripts/compare_scalesim.py --python ENV/bin/python --cases 300 --seed 0

ENV is an environment with scalesim==3.0.0 and numpy==1.26.4. Every difference is printed; the exit
code is 1 if there is one. `--golden FILE` writes the cases and what SCALE-Sim reports for them.
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import _scalesim

NOTE = (
    "Reported by SCALE-Sim 3.0.0 (PyPI scalesim==3.0.0, numpy==1.26.4) for random layers; "
    "made with scripts/compare_scalesim.py --golden."
)


def write_golden(path: Path, cases: list[dict[str, Any]], reports: list[dict[str, Any]]) -> None:
    """Cases and reports as JSON, a case a line."""
    lines = [
        json.dumps({**case, "reported": report}, separators=(",", ":"))
        for case, report in zip(cases, reports, strict=True)
    ]
    text = f'{{"note": {json.dumps(NOTE)}, "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    made = path.with_name(path.name + ".new")
    made.write_text(text, encoding="utf-8")
    os.replace(made, path)


def main() -> int:
    """Run both on random cases; 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter that has scalesim 3.0.0")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--golden", type=Path, help="write cases and reports to this file")
    options = parser.parse_args()
    cases = _scalesim.random_cases(options.cases, options.seed)
    reports = _scalesim.simulate(options.python, cases)
    theirs_s = sum(report.pop("seconds", 0.0) for report in reports)
    if options.golden:
        write_golden(options.golden, cases, reports)
    _scalesim.ours(cases[0])  # imports, which are not measured
    equal = failed = 0
    ours_s = 0.0
    for case, report in zip(cases, reports, strict=True):
        if "error" in report:
            failed += 1
            print("SCALE-Sim failed:", report["error"], json.dumps(case))
            continue
        started = time.perf_counter()
        found = _scalesim.ours(case)
        ours_s += time.perf_counter() - started
        wrong = _scalesim.differences(found, report)
        equal += not wrong
        if wrong:
            print(json.dumps(case), "(ours, SCALE-Sim):", wrong)
    compared = len(cases) - failed
    print(
        f"{equal} of {compared} equal; {failed} failed in SCALE-Sim; "
        f"SCALE-Sim {theirs_s:.1f} s, ours {ours_s:.2f} s"
    )
    return 0 if equal == compared else 1


if __name__ == "__main__":
    sys.exit(main())
