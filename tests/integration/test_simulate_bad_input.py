"""`modelflex simulate` with files and numbers that are wrong on purpose, or too large."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from modelflex.cli import main
from modelflex.core.spec import SPECS
from modelflex.errors import UserError
from modelflex.pipeline import table_files

from .conftest import write_model
from .refusal import one_line

WORKLOAD = "[workload]\ngemm = [[4, 8, 8]]\n[sweep]\n"
CONFIG = (
    "[general]\nrun_name = x\n[run_presets]\nInterfaceBandwidth: CALC\n[architecture_presets]\n"
    "ArrayHeight: 32\nArrayWidth: 32\nIfmapSramSzkB: 4\nFilterSramSzkB: 4\nOfmapSramSzkB: 4\n"
    "Dataflow: os\n"
)


def sweep(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "sweep.toml"
    path.write_text(text, encoding="utf-8")
    return ("simulate", "systolic", "--sweep", str(path), "--out", str(folder / "out"), "--json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bandwidth = {from = 1.0, to = 1e300, step = 1e-300}", "sweep.bandwidth has inf values"),
        ("bandwidth = {from = 1e-300, to = 1e300, factor = 1.5}", "numbers closer together"),
        ("bandwidth = {from = 5e-324, to = 1.7e308, factor = 2}", "numbers closer together"),
        (f"bandwidth = [1{'0' * 400}]", "sweep.bandwidth has 1000"),
        (f"rows = {{from = 1, to = 2, factor = 1{'0' * 400}}}", "sweep.rows.factor is 1000"),
        ("density = {from = 0.1, to = nan, step = 0.1}", "sweep.density has nan"),
        ('density = ["0.5"]', "sweep.density has '0.5'"),
        (f"rows = {'[' * 300}{']' * 300}", "sweep.rows has [[["),
        ('[output]\ntable = "a\\u0000.csv"', "plain file name"),
        (f'[output]\ntable = "{"a" * 300}.csv"', "plain file name"),
        ('[chip]\nspec = "a\\u0000.toml"', "embedded null byte"),
        ('[chip]\nsram = ""', "unknown spec ''"),
    ],
)
def test_sweeps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    line = one_line(capsys, *sweep(tmp_path, f"{WORKLOAD}{text}\n"))
    assert message in line
    assert len(line) < 2000
    assert line.isprintable()
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ('topology = "a\\u0000.csv"', "embedded null byte"),
        (f'model = "{"a" * 5000}"', "there is no file"),
    ],
)
def test_workloads_of_a_sweep(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, workload: str, message: str
) -> None:
    assert message in one_line(capsys, *sweep(tmp_path, f"[workload]\n{workload}\n[sweep]\n"))


@pytest.mark.parametrize("name", ["sweep.html", "summary.json", "points.csv"])
def test_a_folder_where_a_file_of_the_sweep_belongs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    command = sweep(tmp_path, f'{WORKLOAD}[output]\ntable = "points.csv"\n')
    assert f"{name}' is a folder" in one_line(capsys, *command)
    assert os.listdir(tmp_path / "out") == [name]


def test_a_full_disk_leaves_an_earlier_sweep_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = sweep(tmp_path, f'{WORKLOAD}rows = [4]\n[output]\ntable = "points.csv"\n')
    with pytest.raises(SystemExit):
        main(list(command))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert len(before) == 3
    write, calls = Path.write_text, []

    def full(path: Path, *arguments: Any, **options: Any) -> int:
        calls.append(path)
        if len(calls) > 1:  # the page still fits, the summary does not
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *arguments, **options)

    second = sweep(tmp_path, f'{WORKLOAD}rows = [8]\n[output]\ntable = "points.csv"\n')
    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left on device" in one_line(capsys, *second)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_table_on_a_full_disk(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*No space left"),
        table_files.table_file(tmp_path / "x.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_sweep_promises_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelflex.pipeline.sweep.run_sweep", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(list(sweep(tmp_path, WORKLOAD)))
    assert stop.value.code == 130
    assert capsys.readouterr().err.strip() == "modelflex: interrupted"
    assert not list((tmp_path / "out").iterdir())


def test_a_configuration_cannot_stand_for_gigabytes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nine keys of ten references each would be 10⁹ times the last one."""
    keys = [
        "Dataflow", "Bandwidth", "IfmapOffset", "FilterOffset", "OfmapOffset",
        "ReadRequestBuffer", "WriteRequestBuffer", "MemoryBanks", "IfmapSramSzkB",
    ]  # fmt: skip
    text = CONFIG.replace("Dataflow: os\n", "").replace("IfmapSramSzkB: 4\n", "")
    for key, following in pairwise(keys):
        text += f"{key}: {f'%({following})s' * 10}\n"
    path = tmp_path / "x.cfg"
    path.write_text(f"{text}IfmapSramSzkB: 4\n", encoding="utf-8")
    command = ("simulate", "systolic", "--config", str(path), "--gemm", "4,4,4")
    assert "a value without '%'" in one_line(capsys, *command)
    path.write_text(CONFIG.replace("os", "z" * 50_000), encoding="utf-8")
    assert len(one_line(capsys, *command)) < 2000
    path.write_text(CONFIG.replace("os", "\x1b[31m"), encoding="utf-8")
    assert "'\\x1b[31m'" in one_line(capsys, *command)
    path.write_text(CONFIG + "#" * 2**16, encoding="utf-8")
    assert "is too large" in one_line(capsys, *command)


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_bandwidth_beyond_the_counters(capsys: pytest.CaptureFixture[str], dataflow: str) -> None:
    command = ("simulate", "systolic", "--gemm", "100,400,400", "--dataflow", dataflow)
    wide = (*command, "--bandwidth", "1e300", "--compat", "scalesim-3.0.0")
    assert "overflow the counters" in one_line(capsys, *wide)


def test_many_zeros_are_a_number(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text(f"Layer, M, N, K,\na, {'0' * 9999}4, 4, 4,\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "systolic", "--topology", str(path), "--json"])
    assert not stop.value.code


@pytest.mark.parametrize("steps", [0, -1, 10**18, 10**400])
def test_steps(capsys: pytest.CaptureFixture[str], tmp_path: Path, steps: int) -> None:
    line = one_line(capsys, "simulate", str(write_model(tmp_path)), "--steps", str(steps))
    assert line.startswith("steps is")


@pytest.mark.parametrize("dataflow", ["os", "ws", "is"])
def test_a_sequence_that_overflows_the_counters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, dataflow: str
) -> None:
    path = tmp_path / "platform.toml"
    path.write_text(
        f'[platform]\nname = "systolic"\nworkload = "sequence"\nbatch = 65536\n'
        f'dataflow = "{dataflow}"\n',
        encoding="utf-8",
    )
    model = str(write_model(tmp_path))
    command = ("simulate", model, "--platform", str(path), "--json", "--steps")
    assert "overflow the counters" in one_line(capsys, *command, str(2**50))


def test_specs_of_their_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shipped = (SPECS / "bitfusion_32x32.toml").read_text(encoding="utf-8")
    assert shipped.count("value = 32\n") >= 2
    model, path = str(write_model(tmp_path)), tmp_path / "spec.toml"
    for value, message in (
        ("1" + "0" * 400, "up to 2^53"),
        ("9" * 5000, "TOML"),
        ("[" * 9999, "TOML"),
        ("9007199254740992", "at most 16384"),
    ):
        path.write_text(shipped.replace("value = 32\n", f"value = {value}\n"), encoding="utf-8")
        assert message in one_line(capsys, "simulate", model, "--platform", str(path))
    path.write_bytes(b"#" * (2**23 + 1))
    assert "is too large" in one_line(capsys, "simulate", model, "--platform", str(path))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero")
def test_a_recipe_without_end_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = write_model(tmp_path)
    line = one_line(capsys, "simulate", str(model), "--recipe", "/dev/zero")
    assert "too large" in line


def test_a_wrong_chip_leaves_no_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep, out = tmp_path / "sweep.toml", tmp_path / "out"
    sweep.write_text('[workload]\ngemm = [[1, 8, 8]]\n[sweep]\nrows = [4]\n[chip]\nspec = "nope"\n')
    line = one_line(capsys, "simulate", "systolic", "--sweep", str(sweep), "--out", str(out))
    assert "unknown spec 'nope'" in line
    assert not out.exists()
