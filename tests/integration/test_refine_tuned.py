"""refine --tune: one more offer, what is written of it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import modelflex
from modelflex import pipeline
from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.ladder import LADDER_JSON, read_ladder
from modelflex.core.program import build_program
from modelflex.errors import UserError
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.execute.native import FLOAT_TOLERANCE
from modelflex.export.artefact import save_artefact
from modelflex.importers.data import load_sequences
from modelflex.progressive import tuning
from modelflex.progressive.climbing import all_terms, climb
from modelflex.testing.generators import random_model, random_recipe, random_sequences

from .refusal import exit_code


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    """A small network's folder and data."""
    rng = np.random.default_rng(0)
    model = random_model(rng, ["lstm"], inputs=8, units=8, outputs=4, reads="every")
    save_artefact(model, tmp_path / "m", recipe=None, provenance={})
    data = random_sequences(rng, (20,) * 60, 8)
    np.savez(tmp_path / "data.npz", x=data.x, lengths=data.lengths)
    return tmp_path / "m", tmp_path / "data.npz"


def test_what_is_written_is_the_tuned_network_with_its_own_ladder(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    out = tmp_path / "out"
    # Within these operations no other offer comes as close as the tuned one.
    command = ("refine", model, "--data", data, "--operations", "400", "--importance", "diagonal")
    assert exit_code(*command, "--tune", "60", "--out", out, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    told = json.loads(printed.out)
    best, other = told["offers"]
    assert (best["tuning_steps"], other["tuning_steps"]) == (60, 0)
    assert best["label"] == f"{other['label']}, tuned"
    assert best["rung"]["divergence"] < other["rung"]["divergence"]
    assert json.loads((out / "provenance.json").read_text())["tuning_steps"] == 60
    refined = modelflex.load(out)
    sequences = load_sequences(data)
    judged = sequences.take(np.arange(2, 60, 3))
    dense = Interpreter(build_program(modelflex.load(model))).run(judged).outputs
    ladder = read_ladder(out / LADDER_JSON, all_terms(refined))
    assert ladder == climb(refined, dense, judged)
    if HAVE_NATIVE:
        runtime, rung = modelflex.compile(out), ladder.rungs[4]
        wanted = Interpreter(build_program(refined)).run(
            judged.take(np.array([0])), terms=rung.terms
        )
        for x, y in zip(judged.x, wanted.outputs, strict=False):
            answer = runtime.step(x, budget=rung.operations)
            assert answer.terms == rung.terms
            np.testing.assert_allclose(answer.y, y, rtol=FLOAT_TOLERANCE, atol=FLOAT_TOLERANCE)
    assert exit_code(*command, "--tune", "60") == 0
    assert "tuned" in capsys.readouterr().out


def test_without_a_rung_near_the_quality_nothing_claims_to_be_tuned(
    given: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = given
    command = ("refine", model, "--data", data, "--quality", "1e9", "--json")
    assert exit_code(*command) == 0
    without = capsys.readouterr().out
    assert exit_code(*command, "--tune", "5") == 0
    assert capsys.readouterr().out == without


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--tune", "-1"), "--tune"),
        (("--tune", "some"), "--tune"),
        (("--tune", "5", "--per-gate"), "v for each gate"),
        (("--tune", "5", "--bits", "8"), "leave the bits out"),
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


def test_compressed_networks_are_not_tuned(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = given
    model = modelflex.load(folder)
    recipe = random_recipe(np.random.default_rng(1), model)
    small = compress(model, recipe, calibrate(model, load_sequences(data))).model
    save_artefact(small, tmp_path / "small", recipe=None, provenance={})
    for more in ((), ("--bits", "8")):
        assert exit_code("refine", tmp_path / "small", "--data", data, "--tune", "5", *more) == 2
        error = capsys.readouterr().err
        assert "which is compressed" in error
        assert error.count("\n") == 1


def test_overflow_is_one_line(
    given: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = given
    monkeypatch.setattr(tuning, "RATE", 1e39)
    assert exit_code("refine", model, "--data", data, "--tune", "3") == 2
    error = capsys.readouterr().err
    assert "not finite" in error
    assert error.count("\n") == 1


def test_a_spoilt_offer_is_not_the_best(
    given: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "RATE", 1e3)
    offers, _ = pipeline.refine_model(*given, tuning_steps=3)
    assert [offer.tuning_steps for offer in offers] == [0, 3]


def test_fewer_steps_than_none_are_refused(given: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match="-1 steps"):
        pipeline.refine_model(*given, tuning_steps=-1)
