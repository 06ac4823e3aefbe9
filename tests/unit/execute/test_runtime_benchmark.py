"""The benchmark of the runtime: it runs, compares what it should, and the page shows its results."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelflex.execute.kernels import HAVE_NATIVE

ROOT = Path(__file__).resolve().parents[3]
BENCHMARKS = ROOT / "benchmarks"
RESULT = BENCHMARKS / "results" / "runtime.json"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return {name: importlib.import_module(f"_runtime_{name}") for name in ("report", "figures")}


@pytest.mark.skipif(not HAVE_NATIVE, reason="built without a C compiler")
def test_every_variant_runs_and_equals_the_interpreter(tmp_path: Path) -> None:
    out = tmp_path / "runtime.json"
    command = [sys.executable, str(BENCHMARKS / "runtime.py"), "--quick", "--peers", "none"]
    subprocess.run([*command, "--sizes", "9,16", "--out", str(out)], check=True, timeout=300)
    content = json.loads(out.read_text("utf-8"))
    assert not [name for name in content["missing"] if name.startswith(("lstm", "gru"))]
    assert "RTNeural" in content["missing"]
    for cell in ("lstm", "gru"):
        for mode in ("step", "sequence"):
            ours = {
                row["name"].removeprefix("ModelFlex "): row
                for row in content["rows"]
                if (row["cell"], row["mode"], row["kind"]) == (cell, mode, "ours")
            }
            assert len(ours) == 9
            for name, row in ours.items():
                assert row["median_us"] >= row["min_us"] > 0
                assert row["difference"] <= (1e-4 if name == "fp32" else 0.0)
                assert name == "fp32" or row["difference_from_float"] > 0
            assert ours["delta int8, 20 % active"]["active_share"] >= 0.2
            assert ours["circulant 8, int8, padded inputs"]["padded_inputs"] == 16
    loops = {row["name"]: row["bytes"] for row in content["rows"] if row["kind"] == "roofline"}
    assert loops["read loop, int8 bytes"] == 3 * 16 * (9 + 16)  # the GRU comes last
    assert loops["read loop, fp32 bytes"] == 4 * loops["read loop, int8 bytes"]


def row(name: str, kind: str, precision: str, median_us: float) -> dict[str, Any]:
    case = {"cell": "lstm", "inputs": 153, "units": 1024, "mode": "step"}
    return {**case, "name": name, "kind": kind, "precision": precision, "median_us": median_us}


def test_goals_are_judged_against_the_fastest_peer(modules: dict[str, ModuleType]) -> None:
    rows = [
        row("ONNX Runtime LSTM", "peer", "fp32", 1000.0),
        row("ONNX Runtime cell", "peer", "fp32", 900.0),
        row("torch int8", "peer", "int8", 500.0),
        row("OpenVINO int8", "peer", "int8", 400.0),
        row("ONNX Runtime int8", "peer", "int8", 300.0),
        row("LiteRT int8", "peer", "int8", 250.0),
        row("read loop, fp32 bytes", "roofline", "fp32", 400.0),
        row("ModelFlex fp32", "ours", "fp32", 500.0),
        row("ModelFlex int8", "ours", "int8", 225.0),
        row("ModelFlex delta int8, all active", "ours", "delta", 270.0),
    ]
    found = {f["name"]: (f["value"], f["met"]) for f in modules["figures"].figures(rows, "command")}
    name = "LSTM (153,1024), streaming step, "
    assert found == {
        f"{name}fp32 over ONNX Runtime fp32 (ONNX Runtime cell)": (1.8, True),
        f"{name}int8 over ONNX Runtime fp32 (ONNX Runtime cell)": (4.0, True),
        f"{name}int8 over the best int8 peer (LiteRT int8)": (pytest.approx(250 / 225), False),
        f"{name}fp32: share of the read roofline": (80.0, False),
        "delta int8, all columns active, over dense int8, streaming step, slowest case "
        "(LSTM (153,1024))": (pytest.approx(1.2), False),
    }


def test_no_goal_is_met_while_a_peer_is_missing(modules: dict[str, ModuleType]) -> None:
    rows = [row("ModelFlex int8", "ours", "int8", 1.0)]
    rows += [row(name, "peer", "int8", 250.0) for name in ("torch", "ONNX Runtime", "OpenVINO")]
    (found,) = (
        f for f in modules["figures"].figures(rows, "c") if "over the best int8" in f["name"]
    )
    assert found["name"].endswith("(torch); not measured: LiteRT")
    assert not found["met"]
    rows.append(row("LiteRT", "peer", "int8", 250.0))
    (found,) = (
        f for f in modules["figures"].figures(rows, "c") if "over the best int8" in f["name"]
    )
    assert found["met"]


def test_the_page_shows_the_results(modules: dict[str, ModuleType]) -> None:
    report = modules["report"]
    content, page = json.loads(RESULT.read_text("utf-8")), report.PAGE.read_text("utf-8")
    assert report.filled(page, content) == page
    for cell in ("lstm", "gru"):
        for mode in ("step", "sequence"):
            kept = report.DOCS / f"images/runtime_{cell}_{mode}.svg"
            assert report.plot(content["rows"], cell, mode) == kept.read_text("utf-8")
