"""A sweep from its file to the files it writes."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.pipeline.sweep import read_workload, simulate_sweep
from modelflex.pipeline.table_files import table_file
from modelflex.platforms.systolic.sweep_config import WorkloadConfig, parse_sweep
from modelflex.search.config import read_toml

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SWEEP = """
[workload]
gemm = [[1, 64, 48], [2, 10, 64]]
[sweep]
rows = [4, 8]
columns = { from = 4, to = 64, factor = 4 }
filter_kb = [1, 64]
density = [0.5, 1.0]
bandwidth = [3, "unlimited"]
dataflow = ["os", "ws"]
[chip]
[output]
table = "points.csv"
"""


def written(folder: Path, text: str = SWEEP) -> Path:
    path = folder / "small.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_table_page_and_summary_of_a_sweep(tmp_path: Path) -> None:
    out = tmp_path / "out" / "here"
    told: list[tuple[int, int]] = []
    summary = simulate_sweep(written(tmp_path), out, lambda *at: told.append(at))
    names = sorted(p.name for p in out.iterdir())
    assert names == ["points.csv", "summary.json", "sweep.html"]
    assert json.loads((out / "summary.json").read_text("utf-8")) == summary
    assert summary["points"] == 96 == told[-1][0] == told[-1][1]
    with (out / "points.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 96
    assert sum(row["fits"] == "false" for row in rows) == summary["infeasible"] > 0
    assert {row["bandwidth"] for row in rows} == {"3", "inf"}
    assert all((row["latency_s"] == "") == (row["fits"] == "false") for row in rows)
    fastest = min(float(row["latency_s"]) for row in rows if row["fits"] == "true")
    assert summary["best"]["latency_s"]["latency_s"] == fastest
    assert [layer["n"] for layer in summary["layers"]] == [64, 10]
    assert (out / "sweep.html").stat().st_size > 10**6


def test_a_model_is_its_weights_and_a_topology_its_layers(tmp_path: Path) -> None:
    folder = EXAMPLES / "japanese_vowels" / "weights" / "seed0"
    layers = read_workload(WorkloadConfig(model=str(folder), batch=3))
    described = json.loads((folder / "model.json").read_text("utf-8"))
    sizes = [tuple(map(int, layer.shape[:3])) for layer in layers]
    assert {m for m, _, _ in sizes} == {3}
    heads = [(layer["units"], layer["inputs"]) for layer in described["layers"]]
    assert sizes[-1][1:] == heads[-1]  # the dense head as well
    path = tmp_path / "net.csv"
    path.write_text("Layer, M, N, K,\na, 1, 2, 3,\nb, 4, 5, 6,\n", encoding="utf-8")
    found = read_workload(WorkloadConfig(topology=str(path)))
    assert [tuple(map(int, layer.shape[:3])) for layer in found] == [(1, 2, 3), (4, 5, 6)]


def test_the_example_has_more_than_a_hundred_thousand_points() -> None:
    path = EXAMPLES / "systolic_sweep" / "sweep.toml"
    assert parse_sweep(read_toml(path), path.parent).points > 100_000


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_interrupted_leaves_nothing(
    tmp_path: Path, error: type[BaseException], suffix: str
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")

    def stop(done: int, total: int) -> None:
        raise error

    text = SWEEP.replace(".csv", suffix)
    with pytest.raises(error):
        simulate_sweep(written(tmp_path, text), tmp_path / "out", stop)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_earlier_table_survives_an_interruption(tmp_path: Path) -> None:
    path, out = written(tmp_path), tmp_path / "out"
    simulate_sweep(path, out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_sweep(path, out, stop)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_parquet_without_pyarrow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"modelflex\[parquet\]"):
        simulate_sweep(written(tmp_path, SWEEP.replace(".csv", ".parquet")), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


COLUMNS: dict[str, Any] = {
    "name": np.array(["os", "ws", "is"]),
    "fits": np.array([True, False, True]),
    "count": np.array([1, 2**40, 3]),
    "whole": np.array([1.0, 3e20, 2.0**53]),
    "share": np.array([0.1, math.nan, 3.0]),
    "limit": np.array([math.inf, 0.5, -0.0]),
}


def test_parquet_holds_the_columns(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet  # type: ignore[import-not-found, unused-ignore]

    path = tmp_path / "t.parquet"
    with table_file(path) as write:
        write(COLUMNS)
        write(COLUMNS)
    table = parquet.read_table(path)
    assert table.column_names == list(COLUMNS)
    assert parquet.ParquetFile(path).num_row_groups == 2
    assert table["share"].to_pylist() == [0.1, None, 3.0] * 2
    for name in ("name", "fits", "count", "whole", "limit"):
        assert table[name].to_pylist() == COLUMNS[name].tolist() * 2


@given(
    columns=st.integers(0, 8).flatmap(
        lambda n: st.fixed_dictionaries(
            {
                "a": st.lists(st.floats(), min_size=n, max_size=n),
                "b": st.lists(st.integers(-5, 2**53).map(float), min_size=n, max_size=n),
            }
        )
    ),
    cut=st.integers(0, 8),
)
def test_csv_reads_back_as_written_wherever_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, list[float]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    whole = {name: np.array(values) for name, values in columns.items()}
    texts = []
    for cuts in ([slice(None)], [slice(0, cut), slice(cut, None)]):
        with table_file(folder / "t.csv") as write:
            for part in cuts:
                if len(whole["a"][part]):
                    write({name: values[part] for name, values in whole.items()})
        texts.append((folder / "t.csv").read_text("utf-8"))
    assert texts[0] == texts[1]
    rows = list(csv.DictReader(texts[0].splitlines()))
    for name, values in whole.items():
        read = [float(row[name] or "nan") for row in rows]
        np.testing.assert_array_equal(read, values)


def test_pyarrow_decides_the_default_table(tmp_path: Path) -> None:
    text = SWEEP.split("[output]")[0]
    summary = simulate_sweep(written(tmp_path, text), tmp_path / "out")
    suffix = ".parquet" if importlib.util.find_spec("pyarrow") else ".csv"
    assert Path(summary["paths"]["table"]).name == f"sweep{suffix}"
