"""The texts of `modelflex simulate` in a narrow window and in a pipe."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, RenderableType

from modelflex.core.cost import COST_UNITS
from modelflex.report.simulate import layers_text, priced_text, sweep_text

NAME = "Machine_Translation_1_gate_x"


def printed(text: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(text, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def layer(cycles: int) -> dict[str, Any]:
    shares = {f"{share}_utilization": 0.000167 for share in ("mapping", "compute", "overall")}
    dram = {"ifmap": 9216, "filter": 220_000_000_000, "ofmap": 4096}
    return {"name": NAME, "cycles": cycles, "stall_cycles": cycles - 1, **shares, "dram": dram}


def test_no_digit_and_no_name_is_cut_off() -> None:
    layers = [layer(22_039_436_981), layer(7)]
    lines = printed(layers_text(layers, 22_039_436_988)).splitlines()
    rows = [line.split() for line in lines if line.startswith(NAME)]
    shares = ["0.000167"] * 3
    assert rows == [
        [NAME, "22,039,436,981", "22,039,436,980", *shares, "9.22k", "220G", "4.1k"],
        [NAME, "7", "6", *shares, "9.22k", "220G", "4.1k"],
    ]
    assert lines[-1] == "22,039,436,988 cycles in all"


def test_best_points_have_units_and_paths_are_whole() -> None:
    row = {"rows": 16, "latency_s": 9.23e-06, "area_m2": 4.303e-06}
    path = "runs/" + "a_long_name/" * 10 + "sweep.csv"
    text = printed(
        sweep_text(
            {
                "points": 2,
                "infeasible": 0,
                "front": [row],
                "front_thinned": False,
                "axes": {"rows": ["8", "16"]},
                "best": {"latency_s": row, "area_m2": row},
                "notes": [],
                "paths": {"table": path},
            }
        )
    )
    assert "9.23 µs" in text
    assert "4.303 mm²" in text
    assert path in text


def test_a_price_that_is_a_bound_says_so() -> None:
    cost = {**dict.fromkeys(COST_UNITS), "energy_breakdown_j": {}, "per_op": {}}
    platform = {"title": "a chip", "model": "roofline: an upper bound on speed"}
    priced = {
        "model": "net",
        "recipe": None,
        "terms": {"lstm0.w": 12},
        "steps": 7.0,
        "cost": {**cost, "bound": None, "residency": None, "unpriced": None},
        "platform": platform,
    }
    text = printed(priced_text(priced))
    assert "Model: roofline: an upper bound on speed\n" in text
    assert "those of all terms (12 of lstm0.w)" in text
    assert "all terms" not in printed(priced_text({**priced, "terms": {}}))
