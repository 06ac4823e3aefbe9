"""The benchmark of the FPGA model: curves are joined, claims are judged, and the page shows its numbers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from modelflex.core.refinement import decompose
from modelflex.platforms.fpga.engine import Engine

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = ROOT / "benchmarks"
PAGE = (ROOT / "docs" / "fpga.md").read_text("utf-8")
MODULES = ("_fpga_table", "_fpga_curves", "_fpga_figures")


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    sys.path.insert(0, str(BENCHMARKS))
    yield SimpleNamespace(**{name[6:]: import_module(name) for name in MODULES})
    sys.path.remove(str(BENCHMARKS))
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """Exponentials: NZ 4160 reaches 1e-6 with its 13th term, NZ 166 not before its 121st."""
    terms = np.arange(1, 131)
    rows = [(4160, n, 2 * np.exp(-1.2 * n)) for n in terms if n <= 40]
    rows += [(166, n, 2 * np.exp(-0.12 * n)) for n in terms]
    rows += [(0, n, 2 * (1 - n / 64)) for n in range(64, 0, -1)]
    nz, steps, kl = (np.array(column) for column in zip(*rows, strict=True))
    path = tmp_path / "curves.npz"
    np.savez(path, nz=nz, steps=steps, kl=kl, check=2 * kl, shared=False)
    return path


def test_the_command_writes_results_and_figures(tmp_path: Path, curves: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(BENCHMARKS / "progressive_fpga.py"), "--out", str(out)]
    more = ["--figures", str(tmp_path), "--curves", str(curves)]
    subprocess.run([*command, *more], check=True, timeout=300, capture_output=True)
    content = json.loads(out.read_text("utf-8"))
    assert all(
        set(f) == {"name", "goal", "value", "unit", "met", "command"} for f in content["figures"]
    )
    assert content["rows"]["exploration"]["designs"] >= 10**5
    judged = content["rows"]["curves"]["curves"]["published_steps"]
    assert [(row["nz"], row["steps"], row["holds"]) for row in judged] == [
        (166, 121, True), (4160, 13, True)
    ]  # fmt: skip
    assert all(
        row["check"] <= 2 * row["kl"] for row in content["rows"]["curves"]["curves"]["targets"]
    )
    for name in ("roofline", "quality_curves", "speedup_curves"):
        assert len(list(ElementTree.parse(tmp_path / f"fpga_{name}.svg").iter())) > 30


def test_claims_that_a_curve_breaks_or_cannot_tell(bench: SimpleNamespace) -> None:
    def judged(nz: int, kl: list[float]) -> bool | None:
        curve = bench.curves.Curve(nz, np.arange(1, len(kl) + 1), np.array(kl), np.array(kl))
        (row,) = bench.curves.published_steps([curve], 8320)
        return row["holds"]

    assert judged(8320, [1e-2] * 14) is False
    assert judged(8320, [1e-2] * 13) is None
    assert judged(8320, [1e-2] * 13 + [1e-7]) is True
    assert judged(166, [1e-2] * 20 + [1e-7]) is False
    assert judged(166, [1e-2] * 75) is True
    assert judged(166, [1e-2] * 74) is None


def test_a_target_is_reached_for_good(bench: SimpleNamespace) -> None:
    """A curve that rises again has not reached it."""
    curve = bench.curves.Curve(
        5, np.array([1, 2, 4, 8]), np.array([1.0, 0.1, 0.5, 0.1]), np.zeros(4)
    )
    assert bench.curves.steps_to(curve, 0.2) == 8
    assert bench.curves.steps_to(curve, 0.6) == 2
    assert bench.curves.steps_to(curve, 0.05) is None


def test_speedups_take_the_fastest_point_that_is_good_enough(bench: SimpleNamespace) -> None:
    slow = bench.curves.Timed(
        bench.curves.Curve(9, np.array([1, 2]), np.array([0.1, 0.01]), np.array([7.0, 8.0])),
        np.array([5.0, 10.0]),
    )
    fast = bench.curves.Timed(
        bench.curves.Curve(3, np.array([7, 8]), np.array([0.3, 0.05]), np.array([5.0, 6.0])),
        np.array([1.0, 4.0]),
    )
    dense = bench.curves.Timed(
        bench.curves.Curve(None, np.array([1]), np.array([0.0]), np.array([0.0])), np.array([0.1])
    )
    found = bench.curves.speedups([slow, fast, dense], 20.0, np.array([0.001, 0.01, 0.05, 1.0]))
    points = [(row["nz"], row["steps"], row["speedup"], row["check"]) for row in found["targets"]]
    assert points == [(9, 2, 2.0, 8.0), (3, 8, 5.0, 6.0), (3, 7, 20.0, 5.0)]
    aggregate = found["aggregate"]
    assert aggregate == pytest.approx(
        {"largest": 20.0, "mean": 9.0, "geometric mean": 200 ** (1 / 3)}
    )


def test_dense_rows_take_their_share_of_the_time(bench: SimpleNamespace) -> None:
    engine: Engine = bench.table.reading("16-bit words at 4 GB/s")
    curve = bench.curves.Curve(None, np.array([16, 32, 64]), np.array([1.0, 0.5, 0.0]), np.zeros(3))
    (timed,) = bench.curves.timed(engine, [curve])
    assert timed.seconds == pytest.approx(4 * curve.steps * 8320 * 2 / 4e9, rel=1e-3)


@pytest.mark.parametrize("heading", ["Words of 16 bits", "Single precision at"])
def test_the_page_shows_the_models_numbers(bench: SimpleNamespace, heading: str) -> None:
    lines = PAGE.partition(heading)[2].split("\n\n")[1].splitlines()[2:]
    name = {"W": "16-bit words at 4 GB/s", "S": "single precision at 8.2 GB/s"}[heading[0]]
    rows = bench.table.reproduced(bench.table.reading(name))
    assert len(lines) == len(rows) == 5
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row["name"]
        assert all(abs(off) <= 0.25 for off in row["deviation"].values())
        shown = [float(cell) for cell in cells[2:]]
        for i, (key, unit) in enumerate((("seconds", 1e3), ("watts", 1), ("gops_per_w", 1))):
            assert shown[2 * i] == pytest.approx(unit * row["model"][key], rel=6e-3)
            assert shown[2 * i + 1] == pytest.approx(unit * row["published"][key], rel=1e-6)
        if row["steps"] is not None:
            assert cells[1] == f"{row['steps']} ({row['fitted_steps']:.1f})"


def test_the_page_shows_the_aggregates(bench: SimpleNamespace) -> None:
    lines = PAGE.partition("| over | largest |")[2].split("\n\n")[0].splitlines()[2:]
    found = bench.table.aggregates([row.seconds for row in bench.table.TABLE])
    assert len(lines) == len(found) == 6
    for line, row in zip(lines, found, strict=True):
        shown = [float(re.match(r"[\d.]+", cell.strip())[0]) for cell in line.split("|")[2:5]]  # type: ignore[index]
        assert shown == pytest.approx([row[key] for key in bench.table.AGGREGATES], rel=5e-3)


def test_the_power_fit_is_that_of_the_spec(bench: SimpleNamespace) -> None:
    fit = bench.table.power_fit()
    chip = bench.table.reading("16-bit words at 4 GB/s").chip
    assert fit["dense_power_w"] == pytest.approx(chip.dense_w, abs=5e-4)
    assert fit["power_per_decade_w"] == pytest.approx(chip.decade_w, abs=5e-4)
    assert max(map(abs, fit["residuals_w_without_the_row"])) < 0.06


@pytest.mark.parametrize("groups", [1, 4])
def test_prefixes_of_the_driving_network_are_those_of_whole_matrices(
    tmp_path: Path, groups: int
) -> None:
    """A small network of the same kind: term after term against the sum's matrix in one piece."""
    sys.path[:0] = [str(BENCHMARKS), str(ROOT / "examples" / "driving")]
    driving, recurrent = import_module("_fpga_driving"), import_module("recurrent")
    del sys.path[:2]
    rng = np.random.default_rng(0)
    w, bias, head, head_bias = (
        rng.normal(size=size).astype(np.float32) for size in ((12, 25), 12, (6, 3), 6)
    )
    network = recurrent.Recurrent(w, bias, head, head_bias)
    np.save(tmp_path / "features_pilot.npy", rng.normal(size=(5, 7, 20)).astype(np.float16))
    part = driving.Clips(network, tmp_path / "features_pilot.npy")
    factors = decompose(w, terms=4, kept=9, groups=groups, scheme="published")
    found = [kl for (kl,) in driving.prefixes(network, factors, [part])]
    for n, kl in enumerate(found, 1):
        outputs = network.run(part.features, factors.matrix(n), bias + factors.bias(n))
        expected = recurrent.divergences(part.exact, outputs).mean()
        assert kl == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    assert driving.dense_rows(network, 3, [part]) == [0.0]
    assert driving.dense_rows(network, 1, [part])[0] > 0
