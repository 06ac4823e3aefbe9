"""The file of a sweep: what its axes mean, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from modelflex.errors import UserError
from modelflex.platforms.systolic.sweep_config import MAX_POINTS, SweepConfig, parse_sweep

ONE = {"gemm": [[1, 2, 3]]}


def parsed(axes: dict[str, Any], **tables: Any) -> SweepConfig:
    return parse_sweep({"workload": ONE, "sweep": axes, **tables}, Path("/base"))


def values(config: SweepConfig) -> dict[str, list[Any]]:
    return {name: v.tolist() for axis in config.axes for name, v in axis.columns.items()}


def test_an_empty_sweep_is_one_point() -> None:
    config = parsed({})
    assert config.points == 1
    assert values(config) == {
        "dataflow": ["os"], "bandwidth": [math.inf], "rows": [32], "columns": [32],
        "ifmap_kb": [1024], "filter_kb": [2048], "ofmap_kb": [1024], "weight_bits": [8],
        "activation_bits": [8], "block": [1], "density": [1.0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("rows", {"from": 4, "to": 20, "step": 5}, [4, 9, 14, 19]),
        ("rows", {"from": 8, "to": 128, "factor": 2}, [8, 16, 32, 64, 128]),
        ("rows", {"from": 8, "to": 127, "factor": 2}, [8, 16, 32, 64]),
        ("rows", {"from": 7, "to": 7, "step": 1}, [7]),
        ("density", {"from": 0.1, "to": 0.7, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("density", {"from": 0.001, "to": 1, "factor": 10}, [0.001, 0.01, 0.1, 1.0]),
        ("bandwidth", ["unlimited", 0.5, 8], [0.5, 8.0, math.inf]),
        ("bandwidth", [0, 4], [4.0, math.inf]),
        ("dataflow", ["is", "os"], ["is", "os"]),
    ],
)
def test_axes(name: str, entry: Any, expected: list[Any]) -> None:
    assert values(parsed({name: entry}))[name] == expected


def test_arrays_and_bits_set_two_columns() -> None:
    config = parsed({"array": ["16x64", "8×8"], "bits": [2, 16]})
    found = values(config)
    assert [found[name] for name in ("rows", "columns")] == [[16, 8], [64, 8]]
    assert found["weight_bits"] == found["activation_bits"] == [2, 16]
    assert config.points == 4
    labels = {axis.name: axis.labels() for axis in config.axes}
    assert labels["array"] == ["16×64", "8×8"]
    assert labels["bits"] == ["2", "16"]
    assert labels["bandwidth"] == ["unlimited"]


def test_the_map_shows_the_longest_axes_unless_asked() -> None:
    axes = {"rows": [1, 2], "density": [0.1, 0.5, 1.0], "block": [1, 2, 4, 8]}
    assert [a.name for a in parsed(axes).map_axes] == ["block", "density"]
    asked = parsed(axes, output={"y": "block"}).map_axes
    assert [a.name for a in asked] == ["density", "block"]
    asked = parsed(axes, output={"x": "rows", "y": "bandwidth"}).map_axes
    assert [a.name for a in asked] == ["rows", "bandwidth"]


def test_paths_are_relative_to_the_file() -> None:
    raw = {"workload": {"model": "m"}, "sweep": {}, "chip": {"dram": "own.toml", "unit": "fixed_8"}}
    config = parse_sweep(raw, Path("/base"))
    assert config.workload.model == "/base/m"
    assert config.chip is not None
    assert (config.chip.dram, config.chip.unit) == ("/base/own.toml", "fixed_8")


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"row": [1]}, "unknown axis 'row'.*did you mean 'rows'"),
        ({"rows": []}, "rows is \\[\\]"),
        ({"rows": 32}, "rows is 32; expected a list"),
        ({"rows": [0]}, "rows has 0; expected whole numbers from 1"),
        ({"rows": [2**14 + 1]}, "from 1 to 16384"),
        ({"rows": [True]}, "rows has True"),
        ({"rows": [2.0]}, "rows has 2.0"),
        ({"rows": [4, 8, 4]}, "rows has 4 twice"),
        ({"rows": {"from": 1, "to": 4}}, "from, to, and step or factor"),
        ({"rows": {"from": 1, "to": 4, "step": 1, "factor": 2}}, "from, to, and step or factor"),
        ({"rows": {"from": 1, "to": 4, "steps": 1}}, "did you mean 'step'"),
        ({"rows": {"from": 8, "to": 4, "step": 1}}, "0 < from ≤ to"),
        ({"rows": {"from": 1, "to": 4, "factor": 1}}, "a factor above 1"),
        ({"rows": {"from": 1, "to": 4, "step": 0}}, "a step above 0"),
        ({"rows": {"from": 1, "to": 4, "step": 0.5}}, "rows.step is 0.5; expected a whole number"),
        ({"rows": {"from": 1, "to": 20000, "step": 1}}, "rows has 16385"),
        ({"density": {"from": 0.1, "to": math.nan, "step": 0.1}}, "density has nan"),
        ({"density": [0.0]}, "shares above 0, up to 1"),
        ({"density": [1.5]}, "shares above 0, up to 1"),
        ({"density": {"from": 1e-9, "to": 1, "step": 1e-9}}, "values; expected at most"),
        ({"bandwidth": [-1]}, "words a cycle"),
        ({"bandwidth": [1e-3]}, "words a cycle from 0.0039"),
        ({"bandwidth": [math.inf]}, "words a cycle"),
        ({"bandwidth": ["fast"]}, "words a cycle"),
        ({"bandwidth": [0, "unlimited"]}, "inf twice"),
        ({"dataflow": ["rs"]}, "one of os, ws, is"),
        ({"dataflow": {"from": 1, "to": 2, "step": 1}}, "a list of texts"),
        ({"dataflow": [["os"]]}, "one of os, ws, is"),
        ({"array": ["16"]}, "'16x64'"),
        ({"array": ["0x4"]}, "from 1 to"),
        ({"array": ["4x4"], "rows": [1]}, "'array' and 'rows'"),
        ({"bits": [8], "weight_bits": [8]}, "'bits' and 'weight_bits'"),
        ({"bits": [17]}, "from 1 to 16"),
        ({"block": [0]}, "from 1"),
        (
            {n: {"from": 1, "to": 300, "step": 1} for n in ("rows", "columns", "ifmap_kb")},
            f"27,000,000 points; expected at most {MAX_POINTS:,}",
        ),
    ],
)
def test_axes_that_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parsed(axes)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"sweep": {}}, "no table \\[workload\\]"),
        ({"workload": ONE}, "no table \\[sweep\\]"),
        ({"workload": ONE, "sweep": {}, "chips": {}}, "did you mean 'chip'"),
        ({"workload": ONE, "sweep": 3}, "sweep is 3"),
        ({"workload": {}, "sweep": {}}, "workload names nothing"),
        ({"workload": {"model": "m", "topology": "t"}, "sweep": {}}, "model and topology"),
        ({"workload": {"gemm": [[1, 2]]}, "sweep": {}}, "workload.gemm"),
        ({"workload": {"gemm": [[1, 2, 3.5]]}, "sweep": {}}, "workload.gemm"),
        ({"workload": {**ONE, "names": ["a", "b"]}, "sweep": {}}, "one for each of gemm's 1"),
        ({"workload": {**ONE, "batch": 2}, "sweep": {}}, "batch is given without a model"),
        ({"workload": {"model": "m", "batch": 0}, "sweep": {}}, "batch is 0"),
        ({"workload": ONE, "sweep": {}, "chip": {"clock": 1}}, "unknown key 'clock'"),
        ({"workload": ONE, "sweep": {}, "output": {"table": "a.xls"}}, ".csv or .parquet"),
        ({"workload": ONE, "sweep": {}, "output": {"table": "../a.csv"}}, ".csv or .parquet"),
        ({"workload": ONE, "sweep": {}, "output": {"x": "row"}}, "did you mean 'rows'"),
        ({"workload": ONE, "sweep": {}, "output": {"x": "rows", "y": "rows"}}, "two axes"),
    ],
)
def test_tables_that_are_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_sweep(raw, Path())
