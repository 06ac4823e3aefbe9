"""The page of a sweep."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex import platforms
from modelflex.core.fixed import Array
from modelflex.platforms.systolic.sweep import SweepSummary, run_sweep
from modelflex.platforms.systolic.sweep_config import ChipConfig, SweepConfig, parse_sweep
from modelflex.platforms.systolic.workload import Gemm
from modelflex.report import sweep_chip
from modelflex.report.sweep import render_sweep
from modelflex.report.sweep_plots import front_figure, map_figure
from modelflex.report.sweep_text import show_figure

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
    for column in ("latency_s", "energy_j"):
        heat, star = map_figure(found, column)["data"]
        for y, size in enumerate(AXES["rows"]):
            for x, width in enumerate(AXES["columns"]):
                here = (rows["rows"] == size) & (rows["columns"] == width)
                least = np.nanmin(rows[column][here])
                np.testing.assert_allclose(10 ** heat["z"][y][x], least)
                assert show_figure(column, least) in heat["text"][y][x]
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


def test_a_thinned_front_claims_no_more_than_it_knows() -> None:
    found, config, _ = ran(AXES)
    for thinned, claim in ((False, "point of the grid"), (True, "point that was kept")):
        page = render_sweep(replace(found, thinned=thinned), config, LAYERS, "front")
        assert f"no other {claim} is better" in page
        assert ("more points than are kept" in page) == thinned


def test_the_page_works_offline_and_escapes_names() -> None:
    found, config, _ = ran(AXES, chip={"leakage": True})
    page = render_sweep(found, config, LAYERS, "<b>name</b>")
    assert set(figures_in(page)) == {"map-latency_s", "map-energy_j", "pareto"}
    head, _, body = page.partition("<body>")
    assert "default-src 'none'" in head
    assert "&lt;b&gt;name" in head
    assert "<b>name" not in page
    assert "<script>alert(1)" not in page
    own = body.partition('id="figures"')[0]  # behind it stands the plotting library
    assert not re.search(r'(src|href)="http', own)
    assert "leakage included" in page
    assert "answered by <code>modelflex search</code>" in page
    assert show_figure("latency_s", found.best["latency_s"]["latency_s"]) in page


def test_cycles_and_words_are_shown_without_a_chip() -> None:
    found, config, _ = ran({"rows": [1, 2]})
    page = render_sweep(found, config, LAYERS, "plain")
    assert "least DRAM traffic" in page
    assert "Energy is that of" not in page
    assert "least latency" not in page
    assert "No chip was given" in page
    assert "<details>" not in page


def test_a_page_where_nothing_fits_says_so() -> None:
    found, config, _ = ran({"filter_kb": [1], "columns": [64]})
    page = render_sweep(found, config, LAYERS, "small")
    assert "No point has buffers" in page
    assert "larger buffers" in page
    assert "points on the Pareto front" not in page
    assert figures_in(page) == {}


def test_long_axes_share_cells() -> None:
    found, config, _ = ran({"columns": {"from": 1, "to": 300, "step": 1}, "rows": [1, 2]})
    figure = map_figure(found, "cycles")
    assert len(figure["data"][0]["z"][0]) == 128
    assert "…" in "".join(figure["layout"]["xaxis"]["ticktext"])
    assert "share a cell" in render_sweep(found, config, LAYERS, "long")


def test_one_axis_is_named_alone_and_one_point_has_no_plots() -> None:
    found, config, _ = ran({"rows": [1, 2, 4]})
    page = render_sweep(found, config, LAYERS, "line")
    assert "Least cycles and DRAM traffic over rows</h2>" in page
    assert not map_figure(found, "cycles")["layout"]["yaxis"]["visible"]
    found, config, _ = ran({"rows": [4]})
    page = render_sweep(found, config, LAYERS, "point")
    assert figures_in(page) == {}
    assert "<span>point of the grid</span>" in page


def test_a_constant_map_says_its_value() -> None:
    found, _, _ = ran({"rows": [1, 2], "columns": [1, 2]}, chip={})
    found.least["energy_j"][:] = 3e-9
    figure = map_figure(found, "energy_j")
    assert not figure["data"][0]["showscale"]
    assert figure["layout"]["annotations"][0]["text"] == "least energy [J]: 3 nJ in all cells"


def test_axes_below_a_decade_are_linear() -> None:
    for columns, kind in (([8, 16], "linear"), ([1, 64], "log")):
        found, config, _ = ran({"columns": columns})
        found.sample["cycles"][:] = [10, 10 * columns[1] // columns[0]]
        found.front["cycles"][:] = 10
        figure = front_figure(found, [a for a in config.axes if a.size > 1])
        assert figure["layout"]["xaxis"]["type"] == kind


PARTS = {"spec": "specs/bitfusion_32x32", "unit": "units/fusion_8_2", "sram": "memories/sram"}
DRAM = {"dram": "memories/lpddr4"}


@pytest.mark.parametrize(
    ("chosen", "leakage"),
    [({}, False), ({}, True), ({"sram": PARTS["sram"]}, True), (DRAM, False)],
)
def test_the_constants_shown_are_those_that_figures_hang_on(
    tmp_path: Path, chosen: dict[str, str], leakage: bool
) -> None:
    """Each constant of each file in turn is doubled: figures move if, and only if, it is shown."""
    files = {"spec": PARTS["spec"], "unit": PARTS["unit"]} | chosen
    names = {}
    for part, file in files.items():
        names[part] = str(tmp_path / f"{part}.toml")
        shipped = Path(platforms.__file__).parent / f"{file}.toml"
        Path(names[part]).write_text(shipped.read_text("utf-8"), encoding="utf-8")
    # Between two points of the memory type, so that both count; weight stationary, so that sums
    # are read again.
    buffers = {f"{name}_kb": [3] for name in ("ifmap", "filter", "ofmap")}
    axes = {"dataflow": ["ws"], "rows": [4], **buffers}

    def figures() -> tuple[float, ...]:
        found, _, _ = ran(axes, chip={**names, "leakage": leakage})
        return tuple(found.best["latency_s"][n] for n in ("latency_s", "energy_j", "area_m2"))

    table = sweep_chip.read(ChipConfig(**names, leakage=leakage)).constants
    shown = {row[0].text.rpartition(" › ")[::2] for row in table.rows}
    if "sram" not in chosen:  # nobody chose a type whose energy or leakage could count
        assert {name.rpartition("_")[0] for group, name in shown if group == "SRAM"} <= {"area", ""}
    before = figures()
    for part, path in names.items():
        text = Path(path).read_text("utf-8")
        group = {"spec": "", "sram": "SRAM", "dram": "DRAM"}.get(part, part)
        for name, value in re.findall(r"\[(\w+)\]\nvalue = ([\d._e-]+)", text):
            if part == "sram" and not re.search(r"_(2|4)KiB$", name):
                continue  # points of other capacities
            if name in ("brick_width", "bricks_per_side", "energy_low", "energy_high"):
                continue  # not free: fixed by how bricks fuse, and by the order of the range
            if part == "dram" and name == "energy":
                changed = re.sub(r"(\[energy(?:_high)?\]\nvalue = )[\d.]+", r"\g<1>50", text)
            else:
                twice = repr(2 * (float(value) if "." in value else int(value)))
                changed = text.replace(f"[{name}]\nvalue = {value}", f"[{name}]\nvalue = {twice}")
            assert changed != text
            Path(path).write_text(changed, encoding="utf-8")
            assert (figures() != before) == ((group, name) in shown), (part, name)
        Path(path).write_text(text, encoding="utf-8")
