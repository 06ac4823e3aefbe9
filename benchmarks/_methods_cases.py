"""Trained networks of the examples by checkpoints and calibration draws, ready to evaluate.

Compression sees calibration data, choice sees validation data, `Case.on_test` is for what was
chosen already.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _seeds import load_split, write_parts
from threadpoolctl import threadpool_limits

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Draw, Sequences
from modelflex.core.fixed import Array
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation
from modelflex.evaluate import make_task
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.registry import PLATFORMS
from modelflex.search.pricing import Pricer, baseline_cost
from modelflex.search.problem import Problem, run_network, score_network
from modelflex.search.store import Store, evaluation_key
from modelflex.search.workers import Workers

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DRAWS = (0, 1, 2)
T95 = {2: 12.706, 3: 4.303}
"""97.5 % points of Student's t for so many values."""


@dataclass(frozen=True)
class Family:
    """Checkpoints of one architecture on one task.

    Attributes:
        checkpoints: folder of weights → folder of data, relative to the example's folder.
        draw: the calibration data; every checkpoint is compressed with several draws of it.
        every: recipes are compared on every n-th validation sequence.
    """

    name: str
    example: str
    checkpoints: tuple[tuple[str, str], ...]
    draw: Draw
    task: str
    every: int = 1

    @property
    def relative(self) -> bool:
        """Whether a loss is in percent of the metric (perplexity), not in points (accuracy)."""
        return self.task == "next_symbol"


def _seeds(pattern: str, data: str, count: int = 3) -> tuple[tuple[str, str], ...]:
    return tuple((pattern.format(i), data.format(i)) for i in range(count))


NOISY = Draw(limit=150, copies=3, noise=0.7)
FAMILIES = (
    Family("vowels LSTM-128", "japanese_vowels", _seeds("weights/seed{}", "data/seed{}"), NOISY,
           "classification"),
    Family("vowels GRU-128", "japanese_vowels", _seeds("weights/gru_seed{}", "data/seed{}"), NOISY,
           "classification"),
    Family("digits LSTM-256×2", "spoken_digits", _seeds("weights/seed{}", "data"), Draw(400),
           "classification"),
    Family("Shakespeare LSTM-320", "shakespeare", _seeds("weights/seed{}", "data"), Draw(200),
           "next_symbol", every=4),
)  # fmt: skip


CONTROLS = (
    Family("vowels LSTM-7", "japanese_vowels", _seeds("weights/units7_seed{}", "data/seed{}"),
           NOISY, "classification"),
    Family("digits LSTM-16×2", "spoken_digits", _seeds("weights/units16x16_seed{}", "data"),
           Draw(400), "classification"),
    Family("Shakespeare LSTM-90", "shakespeare", _seeds("weights/units90_seed{}", "data"),
           Draw(200), "next_symbol", every=4),
)  # fmt: skip
"""Networks of about the bytes of a compressed one, trained directly."""
OTHERS = (
    Family("digits, speaker theo held out", "spoken_digits",
           (("weights/theo_seed0", "data/theo"),), Draw(400), "classification"),
    Family("digits, speaker jackson held out", "spoken_digits",
           (("weights/jackson_seed0", "data/jackson"),), Draw(400), "classification"),
    Family("digits convolution + LSTM-64", "spoken_digits", (("weights/conv_seed0", "data"),),
           Draw(300), "classification"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One checkpoint with one calibration draw."""

    family: Family
    checkpoint: str
    problem: Problem
    pricer: Pricer
    baseline: dict[str, Quality]
    fetch_bytes: float
    weight_bytes: float
    test: Sequences

    def evaluate(self, recipes: Sequence[Recipe], folder: Path, jobs: int) -> list[Evaluation]:
        """Evaluations on validation data in order; finished ones are kept in `folder`."""
        name = f"{self.family.example}-{self.checkpoint.replace('/', '-')}-{self.problem.seed}"
        store = Store(folder / f"{name}.sqlite")
        try:
            key = self.problem.key
            known = store.evaluations(key)
            todo = [r for r in recipes if evaluation_key(key, r) not in known]

            def finished(index: int, evaluation: Evaluation) -> None:
                store.put(key, todo[index], evaluation)
                known[evaluation_key(key, todo[index])] = evaluation
                done = len(recipes) - len(todo) + sum(evaluation_key(key, r) in known for r in todo)
                print(f"\r{name}: {done}/{len(recipes)} ", end="", file=sys.stderr, flush=True)

            if todo:
                with Workers(self.problem, jobs) as pool:
                    pool.evaluate(todo, finished)
            return [known[evaluation_key(key, r)] for r in recipes]
        finally:
            store.close()

    def loss(self, quality: Quality, base: Quality) -> float:
        """Points of accuracy, or percent of perplexity, that are lost."""
        if self.family.relative:
            return 100 * (quality.value / base.value - 1)
        return 100 * (base.value - quality.value)

    @cached_property
    def _original(self) -> tuple[Array, Quality, float]:
        """Outputs, metric and bytes fetched a step of the uncompressed network on test data."""
        outputs, profile = run_network(self.problem.model, self.test)
        base, _ = score_network(self.problem, self.problem.model, self.test, None)
        cost = baseline_cost(self.problem.model, profile, self.pricer.platform)
        return outputs, base["metric"], float(cost.weight_fetch_bytes_per_step or math.nan)

    def on_test(self, recipe: Recipe) -> dict[str, float]:
        """Scores and savings of a recipe on test data."""
        outputs, base, fetch_bytes = self._original
        model = compress(self.problem.model, recipe, self.problem.stats).model
        quality, profile = score_network(self.problem, model, self.test, outputs)
        pricer = Pricer(
            self.problem.model, self.problem.stats, self.pricer.platform, self.test.mean_length
        )
        cost = pricer.cost(recipe, profile)
        return {
            "baseline": base.value,
            "metric": quality["metric"].value,
            "loss": self.loss(quality["metric"], base),
            "divergence": quality["divergence"].value,
            "fetch_ratio": fetch_bytes / float(cost.weight_fetch_bytes_per_step or math.nan),
            "size_ratio": self.weight_bytes / float(cost.weight_bytes or math.nan),
            "weight_bytes": float(cost.weight_bytes or math.nan),
        }


def prepared(family: Family, folder: Path) -> list[tuple[str, Path, Path]]:
    """(name, weights, data) of the checkpoints that are there; says which are missing."""
    found = []
    for number, (weights, data) in enumerate(family.checkpoints):
        at = EXAMPLES / family.example
        if family.example == "japanese_vowels":  # each seed has a split of its own
            write_parts(load_split(number), folder / data)
            found.append((weights, at / weights, folder / data))
        elif (at / weights / "model.json").exists() and (at / data / "test.npz").exists():
            found.append((weights, at / weights, at / data))
        else:
            print(
                f"SKIPPED {family.name} {weights}: not there; `make models` trains it "
                "(MODELFLEX_DATA tells where the recordings and texts are)",
                file=sys.stderr,
            )
    return found


def load_case(family: Family, name: str, weights: Path, data: Path, seed: int) -> Case:
    """A checkpoint with the calibration draw of a seed."""
    model = load_model(weights)
    train = data / "calibration.npz"
    train = train if train.exists() else data / "train.npz"
    validation = load_sequences(data / "validation.npz")
    validation = validation.take(np.arange(0, validation.count, family.every))
    stats = calibrate(model, load_sequences(train), family.draw, seed)
    outputs, profile = run_network(model, validation)
    problem = Problem(model, stats, validation, outputs, make_task(family.task), seed)
    baseline, _ = score_network(problem, model, validation, None)
    platform = PLATFORMS.get("counts").from_config({})
    pricer = Pricer(model, stats, platform, validation.mean_length)
    cost = baseline_cost(model, profile, platform)
    return Case(
        family, name, problem, pricer, baseline,
        float(cost.weight_fetch_bytes_per_step or math.nan), float(cost.weight_bytes or math.nan),
        load_sequences(data / "test.npz"),
    )  # fmt: skip


_scored: list[tuple[Case, Recipe]] = []


def _score(number: int) -> dict[str, float]:
    case, recipe = _scored[number]
    with threadpool_limits(1):
        return case.on_test(recipe)


def on_test(cases: Sequence[Case], recipe: Recipe, jobs: int) -> list[dict[str, float]]:
    """Scores of a recipe on test data, in processes that share the cases' memory."""
    _scored[:] = [(case, recipe) for case in cases]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return pool.map(_score, range(len(cases)), chunksize=1)


@dataclass(frozen=True, eq=False)
class Table:
    """Recipes by cases, on validation data; arrays [recipes, cases]."""

    recipes: tuple[Recipe, ...]
    loss: Array
    divergence: Array
    fetch_ratio: Array
    size_ratio: Array
    seconds: Array

    def choose(self, value: Array, allowed: Array) -> int | None:
        """The recipe with the least `value` [recipes] among `allowed`; None if none is."""
        return int(np.argmin(np.where(allowed, value, np.inf))) if bool(allowed.any()) else None


def make_table(cases: Sequence[Case], recipes: Sequence[Recipe], folder: Path, jobs: int) -> Table:
    """Evaluate recipes on every case."""
    columns: dict[str, list[Any]] = {n: [] for n in ("loss", "kl", "fetch", "size", "seconds")}
    for case in cases:
        found = case.evaluate(recipes, folder, jobs)
        totals = case.pricer.price_measured(recipes, [e.profile for e in found])
        base = case.baseline["metric"]
        columns["loss"].append([case.loss(e.quality["metric"], base) for e in found])
        columns["kl"].append([e.quality["divergence"].value for e in found])
        columns["fetch"].append(case.fetch_bytes / totals["weight_fetch_bytes_per_step"])
        columns["size"].append(case.weight_bytes / totals["weight_bytes"])
        columns["seconds"].append([e.seconds for e in found])
    print(file=sys.stderr)
    arrays = {name: np.array(values, np.float64).T for name, values in columns.items()}
    return Table(
        tuple(recipes), arrays["loss"], arrays["kl"], arrays["fetch"], arrays["size"],
        arrays["seconds"],
    )  # fmt: skip


def interval(cases: Sequence[Case], values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval (Student's t) over checkpoints, each the mean of its draws; over
    draws where there is one checkpoint.
    """
    names = list(dict.fromkeys(case.checkpoint for case in cases))
    if len(names) > 1:
        values = [
            float(np.mean([v for c, v in zip(cases, values, strict=True) if c.checkpoint == name]))
            for name in names
        ]
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    half = T95[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def keep_folder(given: Path | None) -> Path:
    """Where finished evaluations are kept between runs."""
    folder = given or Path(os.environ.get("TMPDIR", "/tmp")) / "modelflex-benchmark-methods"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
