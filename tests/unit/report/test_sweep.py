"""The page of a sweep."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep import SweepSummary, run_sweep
from modelflex.platforms.systolic.sweep_config import SweepConfig, parse_sweep
from modelflex.platforms.systolic.workload import Gemm
from modelflex.report.sweep import front_figure, map_figure, render_sweep, show_figure

LAYERS = [Gemm("<script>alert(1)</script>", 1, 64, 48)]
AXES = {
    "rows": [2, 4, 8],
    "columns": [4, 8, 16, 32],
    "filter_kb": [1, 2, 16],
    "dataflow": ["os", "ws"],
}


def ran(axes: dict[str, Any], **tables: Any) -> tuple[SweepSummary, SweepConfig, dict[str, Array]]:
    config = parse_sweep({"workload": {"gemm": [[1, 1, 1]]}, "sweep": axes, **tables}, Path())
    parts: list[dict[str, Array]] = []
    found = run_sweep(config, LAYERS, parts.append)
    return found, config, {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def figures_in(page: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_the_map_is_the_least_over_all_rows() -> None:
    found, _, rows = ran(AXES, chip={})
    heat = {
        trace["xaxis"]: trace for trace in map_figure(found)["data"] if trace["type"] == "heatmap"
    }
    stars = [trace for trace in map_figure(found)["data"] if trace["type"] == "scatter"]
    for key, column, star in (("x", "latency_s", stars[0]), ("x2", "energy_j", stars[1])):
        for y, size in enumerate(AXES["rows"]):
            for x, width in enumerate(AXES["columns"]):
                here = (rows["rows"] == size) & (rows["columns"] == width)
                least = np.nanmin(rows[column][here])
                np.testing.assert_allclose(10 ** heat[key]["z"][y][x], least)
                assert show_figure(column, least) in heat[key]["text"][y][x]
        low = np.nanargmin(rows[column])
        at = AXES["columns"][star["x"][0]], AXES["rows"][star["y"][0]]
        same = np.isclose(rows[column], rows[column][low], rtol=0, atol=0)
        assert at in set(
            zip(rows["columns"][same].tolist(), rows["rows"][same].tolist(), strict=True)
        )


def test_the_front_stands_before_a_sample() -> None:
    found, config, rows = ran(AXES, chip={})
    sample, front = front_figure(found, [a for a in config.axes if a.size > 1])["data"]
    assert front["x"] == found.front["latency_s"].tolist()
    assert len(front["text"]) == len(front["x"]) > 1
    assert set(sample["x"]) <= set(rows["latency_s"].tolist())
    assert f"rows {found.front['rows'][0]}" in front["text"][0]


def test_the_page_works_offline_and_escapes_names() -> None:
    found, config, _ = ran(AXES, chip={"leakage": True})
    page = render_sweep(found, config, LAYERS, "<b>name</b>")
    assert set(figures_in(page)) == {"map", "pareto"}
    head, _, body = page.partition("<body>")
    assert "default-src 'none'" in head
    assert "&lt;b&gt;name" in head
    assert "<b>name" not in page
    assert "<script>alert(1)" not in page
    own = body.partition('id="figures"')[0]  # behind it stands the plotting library
    assert not re.search(r'(src|href)="http', own)
    assert "leakage included" in page
    assert show_figure("latency_s", found.best["latency_s"]["latency_s"]) in page


def test_cycles_and_words_are_shown_without_a_chip() -> None:
    found, config, _ = ran({"rows": [1, 2]})
    page = render_sweep(found, config, LAYERS, "plain")
    assert "least DRAM traffic" in page
    assert "Energy is that of" not in page
    assert "least latency" not in page


def test_a_page_where_nothing_fits_says_so() -> None:
    found, config, _ = ran({"filter_kb": [1], "columns": [64]})
    page = render_sweep(found, config, LAYERS, "small")
    assert "No point has buffers" in page
    assert figures_in(page) == {}


def test_long_axes_share_cells() -> None:
    found, config, _ = ran({"columns": {"from": 1, "to": 300, "step": 1}, "rows": [1, 2]})
    figure = map_figure(found)
    assert len(figure["data"][0]["z"][0]) == 128
    assert "…" in "".join(figure["layout"]["xaxis"]["ticktext"])
    assert "share a cell" in render_sweep(found, config, LAYERS, "long")
