"""The six trained networks of the JapaneseVowels example, each with its split, ready to evaluate.

Compression sees calibration data, choice sees validation data; `Seed.on_test` is for what was
chosen already.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.cost import Cost
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation
from modelflex.evaluate import make_task
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.registry import PLATFORMS
from modelflex.search.config import Config, parse_config, read_toml
from modelflex.search.pricing import Pricer, baseline_cost
from modelflex.search.problem import Problem, run_network, score_network
from modelflex.search.store import Store, evaluation_key
from modelflex.search.workers import Workers

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "japanese_vowels"
SEEDS = (0, 1, 2, 3, 4, 5)
STUDENT_T95 = 2.5706
"""97.5 % point of Student's t with 5 degrees of freedom: 95 % intervals of a mean over the seeds."""

sys.path.insert(0, str(EXAMPLE))
from prepare import Parts, Ragged, load_split, write_parts  # noqa: E402

__all__ = ["EXAMPLE", "SEEDS", "Seed", "Table", "example_config", "load_split", "write_parts"]


@dataclass(frozen=True)
class OnTest:
    """What one recipe (or the uncompressed network) does on the test set of one seed."""

    accuracy: float
    divergence: float
    fetch_bytes_per_step: float


@dataclass(frozen=True, eq=False)
class Seed:
    """One network with its data. `baseline` and `cost` are those of the uncompressed network."""

    number: int
    problem: Problem
    pricer: Pricer
    platform: Platform
    baseline: dict[str, Quality]
    cost: Cost
    test: Sequences

    def evaluate(
        self, recipes: Sequence[Recipe], folder: Path, jobs: int, tell: Callable[[int], None]
    ) -> list[Evaluation]:
        """Evaluations on validation data in order; finished ones are kept in `folder`."""
        store = Store(folder / f"seed{self.number}.sqlite")
        try:
            key = self.problem.key
            known = store.evaluations(key)
            todo = [r for r in recipes if evaluation_key(key, r) not in known]

            def finished(index: int, evaluation: Evaluation) -> None:
                store.put(key, todo[index], evaluation)
                known[evaluation_key(key, todo[index])] = evaluation
                tell(len(known))

            if todo:
                with Workers(self.problem, jobs) as pool:
                    pool.evaluate(todo, finished)
            return [known[evaluation_key(key, r)] for r in recipes]
        finally:
            store.close()

    def on_test(self, recipe: Recipe | None) -> OnTest:
        """Score on the test set; None is the uncompressed network."""
        original, profile = run_network(self.problem.model, self.test)
        pricer = Pricer(
            self.problem.model, self.problem.stats, self.platform, self.test.mean_length
        )
        if recipe is None:
            quality, _ = score_network(self.problem, self.problem.model, self.test, original)
            cost = baseline_cost(self.problem.model, profile, self.platform)
        else:
            model = compress(self.problem.model, recipe, self.problem.stats).model
            quality, profile = score_network(self.problem, model, self.test, original)
            cost = pricer.cost(recipe, profile)
        return OnTest(
            quality["metric"].value,
            quality["divergence"].value,
            known(cost.weight_fetch_bytes_per_step),
        )


def known(value: float | None) -> float:
    if value is None:
        raise ValueError("a cost that every platform states is missing")
    return value


def example_config() -> Config:
    """The example's configuration; its paths are those of seed 0 and not used here."""
    return parse_config(read_toml(EXAMPLE / "modelflex.toml"), EXAMPLE)


def load_seed(number: int, config: Config) -> Seed:
    parts: Parts = load_split(number)
    model: Model = load_model(EXAMPLE / "weights" / f"seed{number}")
    validation = _sequences(parts.validation)
    name, options = config.platform
    platform: Platform = PLATFORMS.get(name).from_config(options)
    stats = calibrate(model, _sequences(parts.train), config.data.draw, config.search.seed)
    original, profile = run_network(model, validation)
    problem = Problem(
        model, stats, validation, original, make_task(config.task.kind), config.search.seed
    )
    baseline, _ = score_network(problem, model, validation, None)
    pricer = Pricer(model, stats, platform, validation.mean_length)
    cost = baseline_cost(model, profile, platform)
    return Seed(number, problem, pricer, platform, baseline, cost, _sequences(parts.test))


def _sequences(data: Ragged) -> Sequences:
    return load_sequences((data.x.astype(np.float32), data.lengths, data.y))


@dataclass(frozen=True, eq=False)
class Table:
    """Recipes by seeds, on validation data.

    Attributes:
        recipes, spaces: [recipes]; the name of the grid each came from.
        loss: accuracy lost, points [recipes, seeds].
        divergence: KL from the uncompressed network, nats [recipes, seeds].
        fetch, size: bytes fetched a step, bytes stored [recipes, seeds].
        base_fetch, base_size: of the uncompressed network [seeds].
        evaluations: by seed, then recipe.
    """

    recipes: tuple[Recipe, ...]
    spaces: tuple[str, ...]
    loss: Array
    divergence: Array
    fetch: Array
    size: Array
    base_fetch: Array
    base_size: Array
    evaluations: tuple[tuple[Evaluation, ...], ...]

    def of(self, *spaces: str) -> Array:
        """Which recipes came from these grids: bool [recipes]."""
        return np.isin(np.array(self.spaces), spaces)

    def least(self, value: Array, allowed: Array) -> int | None:
        """The recipe with the least `value` [recipes] among `allowed`; None if none is."""
        return int(np.argmin(np.where(allowed, value, np.inf))) if bool(allowed.any()) else None

    @property
    def fetch_ratio(self) -> Array:
        """Uncompressed over compressed, [recipes, seeds]."""
        return self.base_fetch / self.fetch

    @property
    def size_ratio(self) -> Array:
        """Uncompressed over compressed, [recipes, seeds]."""
        return self.base_size / self.size


def make_table(
    seeds: Sequence[Seed],
    recipes: Sequence[Recipe],
    spaces: Sequence[str],
    found: Sequence[Sequence[Evaluation]],
) -> Table:
    columns: dict[str, list[Any]] = {"loss": [], "divergence": [], "fetch": [], "size": []}
    for seed, evaluations in zip(seeds, found, strict=True):
        totals = seed.pricer.price_measured(recipes, [e.profile for e in evaluations])
        base = seed.baseline["metric"].value
        columns["loss"].append([100 * (base - e.quality["metric"].value) for e in evaluations])
        columns["divergence"].append([e.quality["divergence"].value for e in evaluations])
        columns["fetch"].append(totals["weight_fetch_bytes_per_step"])
        columns["size"].append(totals["weight_bytes"])
    table = {name: np.array(values, np.float64).T for name, values in columns.items()}
    return Table(
        tuple(recipes),
        tuple(spaces),
        table["loss"],
        table["divergence"],
        table["fetch"],
        table["size"],
        np.array([known(s.cost.weight_fetch_bytes_per_step) for s in seeds]),
        np.array([known(s.cost.weight_bytes) for s in seeds]),
        tuple(tuple(e) for e in found),
    )


def interval(values: Array) -> tuple[float, float, float]:
    """Mean over the seeds and its 95 % interval (Student's t)."""
    mean = float(np.mean(values))
    half = STUDENT_T95 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half
