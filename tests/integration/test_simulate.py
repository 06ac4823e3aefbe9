"""`modelflex simulate` as scripts call it: stable keys, golden numbers, wrong input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from modelflex.cli import main

from .conftest import write_model, write_project
from .refusal import one_line

GEMM = ("--rows", "32", "--cols", "32", "--gemm", "1,4096,1056", "--ifmap-kb", "1024",
        "--filter-kb", "2048", "--ofmap-kb", "1024")  # fmt: skip
COMPAT = ("--compat", "scalesim-3.0.0")

# SCALE-Sim 3.0.0 on the gate product of an LSTM with 32 inputs and 1024 units: dataflow, words a cycle
# (None: CALC), cycles, stalls, utilisation (overall, mapping, compute), SRAM, DRAM.
SCALE_SIM: list[tuple[Any, ...]] = [
    ("os", None, 143_103, 0, (2.95, 3.1, 2.95), (135168, 4325376, 12288), (1056, 4325376, 4096)),
    ("ws", None, 401_279, 0, (1.05, 100, 0.79), (135168, 4325376, 135168), (1056, 4325376, 135168)),
    ("is", None, 138_269, 0, (3.05, 3.1, 3.03), (1056, 4325376, 135168), (1056, 4325376, 135168)),
    ("os", 10, 423_775, 280_672, (1.0, 3.1, 2.95), (135168, 4325376, 12288), (33800, 5242900, 4096)),
    ("ws", 10, 2_163_869, 1_762_590, (0.2, 100, 0.79), (135168, 4325376, 135168),
     (1060, 22020180, 135168)),
    ("is", 10, 852_423, 714_154, (0.5, 3.1, 3.03), (1056, 4325376, 135168),
     (33800, 9437220, 135168)),
]  # fmt: skip
OPERANDS = ("ifmap", "filter", "ofmap")

CONVOLUTIONS = """Layer, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Num Filter, Strides,
conv, 12, 12, 3, 3, 4, 8, 1,
pointwise, 10, 10, 1, 1, 8, 16, 1,
"""


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints with --json."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert not stop.value.code, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize(
    ("dataflow", "bandwidth", "cycles", "stalls", "shares", "sram", "dram"), SCALE_SIM
)
def test_the_numbers_of_scale_sim(
    capsys: pytest.CaptureFixture[str],
    dataflow: str,
    bandwidth: int | None,
    cycles: int,
    stalls: int,
    shares: tuple[float, ...],
    sram: tuple[int, ...],
    dram: tuple[int, ...],
) -> None:
    width = () if bandwidth is None else ("--bandwidth", str(bandwidth))
    found = answer(capsys, "simulate", "systolic", *GEMM, "--dataflow", dataflow, *width, *COMPAT)
    assert (found["cycles"], found["stall_cycles"]) == (cycles, stalls)
    names = ("overall_utilization", "mapping_utilization", "compute_utilization")
    for name, share in zip(names, shares, strict=True):
        assert found[name] == pytest.approx(share, abs=0.05)
    assert tuple(found["sram"][x] for x in OPERANDS) == sram
    assert tuple(found["dram"][x] for x in OPERANDS) == dram


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_the_default_is_corrected(capsys: pytest.CaptureFixture[str], dataflow: str) -> None:
    ours = answer(capsys, "simulate", "systolic", *GEMM, "--dataflow", dataflow)
    theirs = answer(capsys, "simulate", "systolic", *GEMM, "--dataflow", dataflow, *COMPAT)
    assert ours["cycles"] == theirs["cycles"] + 1
    # Each result is written once, and each weight read once: partial sums fit into the buffer.
    assert ours["dram"]["ofmap"] == 4096
    assert ours["dram"]["filter"] == 4_325_376
    written = {"os": 4096, "ws": 135_168, "is": 135_168}[dataflow]
    assert ours["sram"]["ofmap"] == written
    assert ours["sram"]["ofmap_reads"] == written - 4096
    for memory in ("sram", "dram"):
        rates = ours[f"{memory}_words_per_cycle"]
        assert rates["filter"] == ours[memory]["filter"] / ours["cycles"]


def test_layers_of_a_topology(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(CONVOLUTIONS, encoding="utf-8")
    found = answer(capsys, "simulate", "systolic", "--topology", str(path), "--rows", "8")
    assert [layer["name"] for layer in found["layers"]] == ["conv", "pointwise"]
    assert found["total_cycles"] == sum(layer["cycles"] for layer in found["layers"])
    # os: 100 pixels on 8 rows, 8 filters on 32 columns, 36 terms: 13·1 folds of 36 + 8 + 32 − 2.
    assert found["layers"][0]["cycles"] == 13 * (36 + 38)
    four = answer(
        capsys, "simulate", "systolic", "--topology", str(path), "--rows", "8", "--batch", "4"
    )
    assert four["layers"][0]["cycles"] == 50 * (36 + 38)
    assert four["layers"][0]["dram"]["ifmap"] == 4 * found["layers"][0]["dram"]["ifmap"]
    assert four["layers"][0]["dram"]["filter"] == found["layers"][0]["dram"]["filter"]


def test_an_array_from_a_config_of_scale_sim(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "scale.cfg"
    path.write_text(
        "[general]\nrun_name = x\n[run_presets]\nInterfaceBandwidth: CALC\n"
        "[architecture_presets]\nArrayHeight: 32\nArrayWidth: 32\nIfmapSramSzkB: 1024\n"
        "FilterSramSzkB: 2048\nOfmapSramSzkB: 1024\nIfmapOffset: 0\nFilterOffset: 10000000\n"
        "OfmapOffset: 20000000\nDataflow : ws\n",
        encoding="utf-8",
    )
    found = answer(
        capsys, "simulate", "systolic", "--config", str(path), "--gemm", "1,4096,1056", *COMPAT
    )
    assert found["cycles"] == 401_279


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected one of --gemm, --topology and --sweep"),
        (("--gemm", "0,4,4"), "M is 0"),
        (("--gemm", "4,-4,4"), "N is -4"),
        (("--gemm", "4,4"), "gemm is '4,4'; expected three whole numbers M,N,K"),
        (("--gemm", "4,4,1e3"), "three whole numbers"),
        (("--gemm", "99999999999,99999999999,99999"), "overflows the counters"),
        (("--gemm", "4,4,4", "--dataflow", "rs"), "unknown dataflow 'rs'"),
        (("--gemm", "4,4,4", "--rows", "0"), "rows is 0"),
        (("--gemm", "4,4,4", "--cols", "-3"), "columns is -3"),
        (("--gemm", "4,4,4", "--ifmap-kb", "0"), "ifmap_kb is 0"),
        (("--gemm", "4,4,4", "--bandwidth", "0"), "bandwidth is 0"),
        (("--gemm", "4,4,4", "--bandwidth", "nan"), "bandwidth is nan"),
        (("--gemm", "4,4,4", "--bandwidth", "1.5", *COMPAT), "whole words a cycle"),
        (("--gemm", "4,4,4", "--compat", "scalesim-2"), "compat is 'scalesim-2'"),
        (("--gemm", "4,4,4", "--batch", "0"), "the batch is 0"),
        (("--gemm", "4,4,4", "--out", "x"), "--out is given without --sweep"),
        (("--gemm", "4,4,4", "--recipe", "x"), "--recipe belongs to a model"),
        (("--gemm", "4,4,4", "--topology", "x.csv"), "there is --gemm and --topology"),
        (("--sweep", "x.toml", "--rows", "4"), "--rows stands beside --sweep"),
        (("--topology", "missing.csv"), "missing.csv"),
        (("--gemm", "1,4096,1056", "--filter-kb", "1"), "filter of at least 33 kB"),
    ],
)
def test_nonsense_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in one_line(capsys, "simulate", "systolic", *arguments)


def test_scale_sim_accepts_a_buffer_smaller_than_a_tile(
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = ("--gemm", "1,4096,1056", "--filter-kb", "1", *COMPAT)
    assert answer(capsys, "simulate", "systolic", *small)["cycles"] == 143_103


# --- models --------------------------------------------------------------------------------------
@pytest.mark.parametrize("platform", ["systolic", "bitfusion_32x32", "cortex_m4", "roofline"])
def test_a_model_has_a_price(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, platform: str
) -> None:
    model = write_model(tmp_path, kinds=("lstm", "gru"))
    found = answer(capsys, "simulate", str(model), "--platform", platform, "--steps", "20")
    cost = found["cost"]
    assert found["steps"] == 20
    assert cost["coverage"] == 1
    assert cost["latency_s"] > 20 * cost["latency_per_step_s"]  # the head runs once
    products = {"lstm0.w_x/0", "lstm0.w_h/0", "gru1.w_x/0", "gru1.w_h/0", "head.w/0"}
    assert products < set(cost["per_op"])
    total = sum(op["inference_latency_s"] for op in cost["per_op"].values())
    assert total == pytest.approx(cost["latency_s"])


def test_a_recipe_makes_a_model_cheaper_and_delta_needs_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_project(tmp_path / "project").parent
    model = str(folder / "model.json")
    uniform = {"method": "uniform", "bits": 4}
    rule = {"weights": "*", "format": uniform, "activation": {"bits": 8}}
    recipe = folder / "recipe.json"

    def write(*rules: dict[str, Any]) -> None:
        content = {"schema": "modelflex.recipe/1", "rules": list(rules)}
        recipe.write_text(json.dumps(content), encoding="utf-8")

    whole = answer(capsys, "simulate", model)["cost"]
    write(rule)
    narrow = answer(capsys, "simulate", model, "--recipe", str(recipe))["cost"]
    assert narrow["energy_per_step_j"] < whole["energy_per_step_j"]
    assert narrow["weight_bytes"] < whole["weight_bytes"] / 2
    delta = {"method": "delta", "threshold": 0.5}
    write({**rule, "weights": "lstm0.w_h", "activity": delta}, rule)
    message = one_line(capsys, "simulate", model, "--recipe", str(recipe))
    assert "calibration data" in message
    data = ("--data", str(folder / "calibration.npz"))
    sparse = answer(capsys, "simulate", model, "--recipe", str(recipe), *data)["cost"]
    assert sparse["weight_fetch_bytes_per_step"] < narrow["weight_fetch_bytes_per_step"]


def test_a_compressed_model_is_priced_as_it_is(
    capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    out = project.parent / "out"
    best = answer(capsys, "search", str(project), "--out", str(out))["best"]
    data = ("--data", str(project.parent / "validation.npz"))
    found = answer(capsys, "simulate", str(out / "best"), *data)
    for name in ("latency_s", "energy_j", "weight_bytes", "dram_bytes_per_step"):
        assert found["cost"][name] == pytest.approx(best["cost"][name], rel=1e-9), name
    message = one_line(capsys, "simulate", str(out / "best"), "--recipe", "x.json")
    assert "is compressed already" in message


def test_a_platform_from_a_file_with_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = str(write_model(tmp_path))
    path = tmp_path / "platform.toml"
    path.write_text('[platform]\nname = "systolic"\nworkload = "sequence"\n', encoding="utf-8")
    whole = answer(capsys, "simulate", model, "--platform", str(path))
    streaming = answer(capsys, "simulate", model)
    # All steps of the input's product run as one, and read its weights once.
    assert whole["platform"]["workload"] == "sequence"
    assert whole["cost"]["latency_s"] < streaming["cost"]["latency_s"]
    assert whole["cost"]["dram_bytes_per_step"] < streaming["cost"]["dram_bytes_per_step"]
    path.write_text("x = 1\n", encoding="utf-8")
    assert "names no platform" in one_line(capsys, "simulate", model, "--platform", str(path))
    assert "unknown platform 'cortex'" in one_line(
        capsys, "simulate", model, "--platform", "cortex"
    )
    assert "--rows belongs to 'systolic'" in one_line(capsys, "simulate", model, "--rows", "3")


# --- sweeps --------------------------------------------------------------------------------------
def test_a_sweep_writes_a_table_a_page_and_a_summary(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write_model(tmp_path)
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(
        f'[workload]\nmodel = "{model.name}"\n[sweep]\nrows = [4, 8]\ncolumns = [8, 16]\n'
        'dataflow = ["os", "ws"]\nifmap_kb = [64]\nfilter_kb = [64]\nofmap_kb = [64]\n'
        'bits = [4, 8]\n[output]\ntable = "points.csv"\n',
        encoding="utf-8",
    )
    out = tmp_path / "out"
    found = answer(capsys, "simulate", "systolic", "--sweep", str(sweep), "--out", str(out))
    assert found["points"] == 16
    with (out / "points.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    least = min(rows, key=lambda row: int(row["cycles"]))
    assert int(least["cycles"]) == found["best"]["cycles"]["cycles"]
    assert (out / "sweep.html").read_text(encoding="utf-8").startswith("<!")
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == found
