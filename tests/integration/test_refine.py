"""The command refine: what it writes, what it tells, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex import pipeline
from modelflex.core.ladder import LADDER_JSON, read_ladder
from modelflex.core.model import Layer, Model
from modelflex.core.program import build_program
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.export.artefact import save_artefact
from modelflex.export.onnx_sequence import sequence_graph
from modelflex.progressive.climbing import all_terms

from .refusal import exit_code


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    """A small network's folder and data."""
    rng = np.random.default_rng(0)
    layers = (Layer("lstm0", "lstm", 5, 8), Layer("head", "dense", 8, 3, "last"))
    weights = {
        name: float_weight(
            rng.normal(size=shape), rng.normal(size=shape[0]), 4 if "lstm" in name else 1
        )
        for layer in layers
        for name, shape in layer.weight_shapes.items()
    }
    save_artefact(Model("small", layers, weights), tmp_path / "m", recipe=None, provenance={})
    data = tmp_path / "data.npz"
    x = rng.normal(size=(240, 5)).astype(np.float32)
    np.savez(data, x=x, lengths=np.full(30, 8), y=rng.integers(0, 3, 30))
    return tmp_path / "m", data


def test_what_is_written_is_a_model_with_its_ladder(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out = tmp_path / "out"
    command = (
        "refine",
        model,
        "--data",
        data,
        "--out",
        out,
        "--quality",
        "0.02",
        "--kept",
        "1,0.4",
    )
    assert exit_code(*command, "--task", "classification", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["met"]
    best = told["offers"][0]
    assert best["rung"]["divergence"] <= 0.02
    refined = modelflex.load(out)
    ladder = read_ladder(out / LADDER_JSON, all_terms(refined))
    assert [r.operations for r in ladder.rungs] == [r["operations"] for r in told["ladder"]]
    assert all(rung.metric is not None for rung in ladder.rungs)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert (
        exit_code(*command, "--task", "classification") == 0
    )  # replaces its own folder, with the same bytes
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert "of dense" in capsys.readouterr().out


def test_an_fpga_prices_terms(given: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, data = given
    command = ("refine", model, "--data", data, "--on", "zc706", "--deadline-s", "1e-5", "--json")
    for more in ((), ("--per-gate",)):
        assert exit_code(*command, *more) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["price_unit"] == "s"
        assert 0 < told["offers"][0]["price"] < 1e-5


@pytest.mark.skipif(not HAVE_NATIVE, reason="the native kernels were not built")
def test_the_runtime_spends_budgets_by_the_ladder(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out = tmp_path / "out"
    command = ("refine", model, "--data", data, "--out", out, "--deadline-s", "1", "--json")
    assert exit_code(*command) == 0
    assert json.loads(capsys.readouterr().out)["price_unit"] == "s"
    ladder = read_ladder(out / LADDER_JSON, all_terms(modelflex.load(out)))
    runtime = modelflex.compile(out)
    assert runtime.ladder == ladder
    rung = ladder.rungs[2]
    answer = runtime.step(np.ones(5, np.float32), budget=rung.operations)
    assert answer.terms == rung.terms
    assert answer.operations == rung.operations
    assert answer.error == pytest.approx(rung.divergence)
    first = modelflex.compile(out).step(np.ones(5, np.float32), deadline_s=0.5)
    assert first.terms == all_terms(
        modelflex.load(out)
    )  # measuring the reserve takes none of its time
    (out / LADDER_JSON).unlink()
    assert modelflex.compile(out).ladder is None
    (out / LADDER_JSON).symlink_to(out / "lost.json")
    with pytest.raises(UserError, match=r"ladder\.json' can't be read"):
        modelflex.compile(out)
    (out / LADDER_JSON).unlink()
    (out / LADDER_JSON).mkdir()
    with pytest.raises(UserError, match=r"ladder\.json' can't be read"):
        modelflex.compile(out)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--kept", "0"), "share kept"),
        (("--kept", "some"), "numbers"),
        (("--scheme", "magic"), "scheme"),
        (("--terms", "0"), "terms"),
        (("--quality", "nan"), "finite"),
        (("--operations", "-1"), "above 0"),
        (("--quality", "1", "--operations", "5"), "one of them"),
        (("--on", "nowhere", "--quality", "1"), "nowhere"),
        (("--block", "8", "--kept", "0.5"), "columns"),
        (("--bits", "8"), "compressed"),
        (("--importance", "great"), "importance"),
    ],
)
def test_mistakes_are_told_in_one_line(
    given: tuple[Path, Path],
    more: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, data = given
    assert exit_code("refine", model, "--data", data, *more) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_one_sequence_is_too_little(given: tuple[Path, Path], tmp_path: Path) -> None:
    model, _ = given
    data = tmp_path / "one.npz"
    np.savez(data, x=np.ones((4, 5), np.float32), lengths=np.array([4]))
    assert exit_code("refine", model, "--data", data) == 2


def test_operations_are_a_limit_on_any_platform(
    given: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    command = ("refine", model, "--data", data, "--operations", "500", "--json")
    assert exit_code(*command) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["offers"][0]["rung"]["operations"] <= 500
    assert exit_code(*command, "--on", "zc706") == 0
    assert json.loads(capsys.readouterr().out) == told


def test_other_commands_take_refined_models_as_they_are_or_refuse_them(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out = tmp_path / "out"
    assert exit_code("refine", model, "--data", data, "--out", out) == 0
    assert exit_code("analyze", out, "--data", data) == 2
    assert "consists of terms" in capsys.readouterr().err
    assert exit_code("simulate", out, "--platform", "cortex_m7", "--json") == 0
    priced = json.loads(capsys.readouterr().out)
    assert priced["recipe"] is None
    terms = next(iter(all_terms(modelflex.load(out)).values()))
    # A term of one v over 5 inputs and 8 old outputs, and of 32 rows; the head once in 100 steps.
    assert priced["cost"]["macs_per_step"] == pytest.approx(terms * (13 + 32) + 24 / 100)
    assert priced["terms"] == {"lstm0.w": terms}
    assert exit_code("simulate", out, "--platform", "counts", "--json") == 0
    counts = json.loads(capsys.readouterr().out)["cost"]
    assert counts["macs_per_step"] == priced["cost"]["macs_per_step"]


def test_what_a_refined_model_is_is_told_of_all_its_terms(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out = tmp_path / "out"
    assert exit_code("refine", model, "--data", data, "--out", out, "--json") == 0
    ladder = json.loads(capsys.readouterr().out)["ladder"]
    assert exit_code("analyze", out, "--json") == 0
    lstm, head = json.loads(capsys.readouterr().out)["layers"]
    (terms,) = lstm["terms"].values()
    assert lstm["macs_per_step"] == terms * (13 + 32)
    assert lstm["operations_per_step"] == ladder[-1]["operations"] == terms * (2 * (13 + 32) + 1)
    # v with its bias, u with the layer's; all float32.
    assert lstm["parameters"] == terms * (13 + 1 + 32) + 32
    assert lstm["bytes"] == 4 * lstm["parameters"]
    assert (head["terms"], head["macs_per_step"], head["operations_per_step"]) == ({}, 24, 48)
    assert exit_code("analyze", out) == 0
    assert f"those of all terms ({terms} of lstm0.w)" in capsys.readouterr().out


def test_words_that_are_too_narrow_say_what_to_do_about_it(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out, wide = tmp_path / "out", tmp_path / "wide.toml"
    assert exit_code("refine", model, "--data", data, "--out", out) == 0
    capsys.readouterr()
    assert exit_code("simulate", out, "--platform", "zc706") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "words of 16 bits: set word_bits = 32 in the table [platform] of a .toml file" in told
    wide.write_text('[platform]\nname = "fpga"\nspec = "zc706"\nword_bits = 32\n')
    assert exit_code("simulate", out, "--platform", wide) == 0
    assert "Not priced" not in capsys.readouterr().out


def test_a_sequence_in_onnx_has_no_terms(given: tuple[Path, Path]) -> None:
    model, data = given
    refined = pipeline.refine_model(model, data)[0][0].model
    with pytest.raises(UserError, match="sum of terms"):
        sequence_graph(refined, build_program(refined))
