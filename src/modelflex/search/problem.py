"""One search problem: a model, its calibration, held-out data and a task; and how a recipe is evaluated."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from modelflex.compress import Compression, Recall, compress
from modelflex.core.data import Sequences
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.profile import Profile
from modelflex.core.program import build_program
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.stats import Stats
from modelflex.core.storage import weight_tensors
from modelflex.core.trial import Evaluation
from modelflex.evaluate import Task, score
from modelflex.execute.native import execute

ARITHMETIC = "5"
"""Version of docs/arithmetic.md and of the compression methods: results of another are not reused."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that an evaluation depends on, and nothing else.

    Attributes:
        original: outputs of the uncompressed network on `validation`.
        recall: what the evaluations of a process have in common; no result hangs on it.
    """

    model: Model
    stats: Stats
    validation: Sequences
    original: Array
    task: Task
    seed: int
    recall: Recall = field(default_factory=Recall, init=False, repr=False)

    @property
    def key(self) -> str:
        """SHA-256 of the content."""
        task = f"{self.task.kind} {self.task.name} {self.task.direction} {self.task.source}"
        parts = (
            ARITHMETIC,
            version("modelflex"),
            version("numpy"),
            model_digest(self.model),
            self.stats.sequences.digest,
            self.validation.digest,
            task,
            str(self.seed),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def model_digest(model: Model) -> str:
    """SHA-256 of a model's layers and of its weights as they are stored (not of its name and notes)."""
    sha = hashlib.sha256(f"{model.layers}{model.output}".encode())
    for name, weight in sorted(model.weights.items()):
        tensors, entry = weight_tensors(name, weight)
        sha.update(f"{name} {json.dumps(entry, sort_keys=True)}".encode())
        for key, tensor in sorted(tensors.items()):
            sha.update(f"{key} {tensor.dtype} {tensor.shape}".encode())
            sha.update(np.ascontiguousarray(tensor).tobytes())
    return sha.hexdigest()


def compressed(problem: Problem, recipe: Recipe) -> Compression:
    """The problem's network, compressed by a recipe."""
    return compress(problem.model, recipe, problem.stats, problem.recall)


def run_network(model: Model, data: Sequences) -> tuple[Array, Profile]:
    """Outputs and counters of a network on data."""
    run = execute(build_program(model), data)
    return run.outputs, run.profile


def evaluate_recipe(problem: Problem, recipe: Recipe) -> Evaluation:
    """Compress by a recipe, run the integer arithmetic that ships on validation data, and score it."""
    started = time.perf_counter()
    made = compressed(problem, recipe)
    quality, profile = score_network(problem, made.model, problem.validation, problem.original)
    return Evaluation(
        quality=quality,
        profile=profile,
        weight_bytes=made.model.weight_bytes,
        coverage=made.coverage,
        rounds=made.rounds,
        weights=_weights(problem.model, made, recipe, profile),
        seconds=time.perf_counter() - started,
    )


def score_network(
    problem: Problem, model: Model, data: Sequences, original: Array | None
) -> tuple[dict[str, Quality], Profile]:
    """Qualities and counters of a network on data."""
    outputs, profile = run_network(model, data)
    return score(problem.task, model.output, outputs, original, data), profile


def _weights(
    model: Model, made: Compression, recipe: Recipe, profile: Profile
) -> dict[str, Mapping[str, Any]]:
    """What became of every weight, for the report."""
    table: dict[str, Mapping[str, Any]] = {}
    products = build_program(made.model).products
    for name, weight in made.model.weights.items():
        read = whole = 0
        for number in range(len(weight.products)):
            counts = profile.sites[f"{name}/{number}"]
            geo = products[f"{name}/{number}"].geometry
            read += counts.units * geo.unit_codes
            whole += counts.runs * geo.codes
        choice = recipe.choice(name)
        table[name] = {
            "shape": list(weight.shape),
            "bytes": weight.nbytes,
            "fetch_density": read / max(whole, 1),
            "choice": {} if choice is None else choice.to_json(),
        }
    return table
