"""The platform of this machine in a search and in `simulate`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import modelflex
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.pipeline import find_platform, price_model
from modelflex.platforms.cpu import calibration, platform
from modelflex.platforms.cpu.constants import Constants
from modelflex.testing.generators import random_model, random_sequences

pytestmark = pytest.mark.skipif(not HAVE_NATIVE, reason="built without a C compiler")

SPACE = [
    {
        "name": "bits",
        "vary": {"bits": [2, 4, 8]},
        "rules": [{"weights": "*", "format": {"method": "uniform", "bits": "$bits"}}],
    }
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Constants are kept beside nothing of the user's; few steps are timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(calibration, "ROUNDS", 2)
    monkeypatch.setattr(platform, "SECONDS", 0.0)
    monkeypatch.setattr("modelflex.platforms.cpu.timing.COLD_STEPS", 2)


def search(out: Path) -> Any:
    rng = np.random.default_rng(0)
    model = random_model(rng, ["gru"])
    data = [random_sequences(rng, [11, 7, 9], 8) for _ in range(2)]
    return modelflex.search(
        model,
        calibration=data[0],
        validation=data[1],
        task="none",
        platform="cpu",
        limits={"max": {"latency_per_step_s": "1 s"}},
        objective={"minimize": "latency_per_step_s"},
        space=SPACE,
        workers=1,
        out=out,
    )


def test_a_search_keeps_its_constants_and_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(tmp_path / "out")
    assert first.best is not None
    costs = first.study.measured
    assert set(costs) == {"baseline", "best"}
    assert any("measured" in note for note in first.study.notes)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["measured"]["best"]["latency_per_step_s"] == costs["best"].latency_per_step_s
    told = first.study.platform["constants"]

    # Another machine would be ten times as slow; what the study holds does not change.
    def slower(*given: Any) -> Constants:
        found = calibration.calibrate(*given)
        return replace(found, call_s=10 * found.call_s)

    monkeypatch.setattr(platform, "calibrate", slower)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    again = search(tmp_path / "out")
    assert again.study.platform["constants"] == told
    assert [t.cost for t in again.trials] == [t.cost for t in first.trials]
    assert again.study.measured == costs
    other = search(tmp_path / "other")
    assert other.study.platform["constants"]["call_s"] > told["call_s"]


def test_simulate_measures_a_model_as_it_is_or_by_a_recipe(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = find_platform("cpu")
    assert re.fullmatch(r"modelflex: measuring .* go to .*/cpu-\w+\.json", *caplog.messages)
    assert find_platform("cpu").constants == cpu.constants
    assert len(caplog.messages) == 1
    model, data = project.parent, project.parent / "calibration.npz"
    plain = price_model(model, cpu)
    assert plain["recipe"] is None
    assert plain["cost"]["latency_per_step_s"] > 0
    assert plain["predicted"]["latency_per_step_s"] > 0
    assert plain["cost"]["weight_bytes"] == plain["predicted"]["weight_bytes"]
    recipe = tmp_path / "recipe.json"
    rules = [{"weights": "*", "format": {"method": "uniform", "bits": 4}}]
    recipe.write_text(json.dumps({"schema": "modelflex.recipe/1", "label": "4", "rules": rules}))
    small = price_model(model, cpu, recipe=recipe, data=data)
    assert small["cost"]["weight_bytes"] < plain["cost"]["weight_bytes"] / 4
    with pytest.raises(UserError, match="without data"):
        price_model(model, cpu, recipe=recipe)
