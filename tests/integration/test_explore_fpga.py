"""`modelflex explore-fpga` as scripts and people call it, and wrong input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelflex.cli import main

from .refusal import one_line

SHAPE = ("--rows", "16", "--columns", "200")
POINT = ("--nz", "20,200", "--steps", "3,40")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["explore-fpga", *SHAPE, *arguments])
    captured = capsys.readouterr()
    assert not stop.value.code, captured.err
    return captured.out


def test_the_json_has_all_points(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Any] = json.loads(printed(capsys, *POINT, "--json"))
    assert found["designs"] == 16 * (20 + 200) * 2
    assert 0 < found["feasible"] <= found["designs"]
    assert found["dense_ops"] == 4 * 2 * 16 * 200
    points = [(row["nz"], row["steps"]) for row in found["best"]]
    assert points == [(20, 3), (20, 40), (200, 3), (200, 40)]
    for row in found["best"]:
        design = row["design"]
        assert design["speedup"] == pytest.approx(found["dense"]["time_s"] / design["time_s"])
        assert design["gops"] == pytest.approx(1e-9 * found["dense_ops"] / design["time_s"])
        assert design["gops_per_w"] == pytest.approx(design["gops"] / design["power_w"])


def test_the_least_latency_may_be_another_design(capsys: pytest.CaptureFixture[str]) -> None:
    fast, prompt = (
        json.loads(printed(capsys, *POINT, "--objective", by, "--json"))["best"][1]["design"]
        for by in ("time", "latency")
    )
    assert fast["time_s"] <= prompt["time_s"]
    assert prompt["latency_s"] < fast["latency_s"]


def test_a_deadline_in_place_of_terms(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--nz", "20,200", "--deadline", "4 us")
    found = json.loads(printed(capsys, *options, "--json"))
    assert (found["objective"], found["deadline_s"]) == ("terms", pytest.approx(4e-6))
    for row in found["best"]:
        assert row["steps"] == row["design"]["steps"] >= 1
        assert row["design"]["latency_s"] <= 4e-6
    assert "the most terms with a latency of 4 µs at most" in printed(capsys, *options)


def test_people_get_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *POINT, "--chip", "kv260")
    lines = text.splitlines()
    assert lines[0].startswith("KV260")
    assert lines[1].split()[:4] == ["NZ", "Terms", "T_r", "T_c"]
    assert lines[2].split()[0] == "dense"
    assert [line.split()[:2] for line in lines[3:7]] == [
        ["20", "3"], ["20", "40"], ["200", "3"], ["200", "40"]
    ]  # fmt: skip
    assert "nobody measured this engine on this chip" in text


def test_points_without_a_design_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """v of 30,000 values and indices needs more block RAM than this share; v of two does not."""
    options = ("--nz", "2,30000", "--steps", "3", "--utilization", "0.3")
    wide = ("--rows", "4", "--columns", "40000")
    found = json.loads(printed(capsys, *options, *wide, "--chip", "zc706", "--json"))
    assert found["best"][0]["design"] is not None
    assert found["best"][1]["design"] is None
    assert "–" in printed(capsys, *options, *wide, "--chip", "zc706")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nz", "201", "--steps", "3"), "nz is 201; expected a whole number from 1 to 200"),
        (("--nz", "0", "--steps", "3"), "nz is 0"),
        (("--nz", "-4", "--steps", "3"), "nz is -4"),
        (("--nz", "nan", "--steps", "3"), "nz is 'nan'; expected whole numbers with commas"),
        (("--nz", "", "--steps", "3"), "nz is ''"),
        (("--nz", "3", "--steps", "0"), "steps is 0"),
        (("--nz", "3", "--steps", "1e3"), "steps is '1e3'"),
        (("--nz", "3", "--steps", "3", "--chip", "zc76"), "did you mean 'zc706'?"),
        (("--nz", "3", "--steps", "3", "--chip", "no.toml"), "no.toml"),
        (("--nz", "3", "--steps", "3", "--word-bits", "8"), "word_bits is 8"),
        (("--nz", "3", "--steps", "3", "--bandwidth", "nan"), "bandwidth is"),
        (("--nz", "3", "--steps", "3", "--bandwidth", "0 GB/s"), "bandwidth is 0"),
        (("--nz", "3", "--steps", "3", "--utilization", "nan"), "utilization is nan"),
        (("--nz", "3", "--steps", "3", "--utilization", "0.01"), "of 48 designs fits zc706"),
        (("--nz", "3", "--steps", "3", "--objective", "cost"), "one of time, latency"),
        (("--nz", "3", "--steps", "3", "--rows", "0"), "rows is 0"),
        (("--nz", "3", "--steps", "3", "--columns", "70000"), "columns is 70000"),
        (("--nz", "3"), "neither of steps and deadline given; expected one of them"),
        (("--nz", "3", "--steps", "3", "--deadline", "1 us"), "both of steps and deadline given"),
        (("--nz", "3", "--deadline", "0 us"), "deadline is 0 s"),
        (("--nz", "3", "--deadline", "nan"), "deadline is 'nan'"),
        (("--nz", "3", "--deadline", "-1 s"), "deadline is -1 s"),
        (
            ("--nz", "3", "--deadline", "1 ns"),
            "adds a term within 1 ns; expected a longer deadline",
        ),
        (("--steps", "3"), "Missing option '--nz'"),
        (("--nz", "60000", "--steps", "3", "--rows", "99999", "--columns", "60000"), "designs"),
    ],
)
def test_wrong_input_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in one_line(capsys, "explore-fpga", *SHAPE, *arguments)
