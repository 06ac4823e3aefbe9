"""The study's file: one SQLite database of finished evaluations, keyed by content."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe
from modelflex.core.trial import Evaluation
from modelflex.errors import UserError

SCHEMA = "modelflex.study/1"


def evaluation_key(problem: str, recipe: Recipe) -> str:
    """Where an evaluation is filed: `problem` digests the model, data, task, seed and arithmetic."""
    return hashlib.sha256(f"{problem}\n{recipe.key}".encode()).hexdigest()


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """A JSON object; see `evaluation_from_json`."""
    return {
        "quality": {k: q.to_json() for k, q in evaluation.quality.items()},
        "profile": evaluation.profile.to_json(),
        "weight_bytes": evaluation.weight_bytes,
        "coverage": dict(evaluation.coverage),
        "rounds": list(evaluation.rounds),
        "weights": {k: dict(v) for k, v in evaluation.weights.items()},
        "seconds": evaluation.seconds,
    }


def evaluation_from_json(values: Mapping[str, Any]) -> Evaluation:
    """The inverse of `evaluation_to_json`."""
    return Evaluation(
        quality={k: Quality.from_json(q) for k, q in values["quality"].items()},
        profile=Profile.from_json(values["profile"]),
        weight_bytes=values["weight_bytes"],
        coverage=values["coverage"],
        rounds=tuple(values["rounds"]),
        weights=values["weights"],
        seconds=values["seconds"],
    )


class Store:
    """Evaluations, test scores and notes in one file; every write is committed at once."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            UserError: it is not a study, or one of another schema version.
        """
        self.path = path
        with self._reading():
            self._db = sqlite3.connect(path, timeout=30)
        try:
            self._check()
            with self._writing():
                self._create()
        except UserError:
            self.close()
            raise

    def _check(self) -> None:
        """Refuse a foreign file before anything in it is changed."""
        with self._reading():
            tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        if tables and "study" not in tables:
            raise UserError(
                f"'{self.path}' is a database of another program", "a study", "name another --out"
            )
        found = self.note("schema") if tables else None
        if found not in (None, SCHEMA):
            raise UserError(
                f"'{self.path}' has the schema {found!r}",
                f"'{SCHEMA}'",
                "search again into another folder",
            )

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        with self._db:
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS study (name TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS evaluation (key TEXT PRIMARY KEY, problem TEXT NOT NULL,"
                " recipe TEXT NOT NULL, result TEXT NOT NULL, created_s REAL NOT NULL)"
            )
            self._db.execute(
                "INSERT OR IGNORE INTO study VALUES ('schema', ?)", (json.dumps(SCHEMA),)
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"'{self.path}' is not a readable study ({type(error).__name__}: {error})",
                f"a whole file of schema {SCHEMA}",
                "move it away, or name another folder",
            ) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"'{self.path}' cannot be written ({error})",
                "a file that no other search holds, on a disk with room",
                "run the same command again: finished trials are kept",
            ) from None

    def note(self, name: str) -> Any:
        """A stored JSON value, or None."""
        with self._reading():
            row = self._db.execute("SELECT value FROM study WHERE name = ?", (name,)).fetchone()
            return None if row is None else json.loads(row[0])

    def set_note(self, name: str, value: Any) -> None:
        """Store a JSON value."""
        row = (name, json.dumps(value))
        with self._writing(), self._db:
            self._db.execute("INSERT OR REPLACE INTO study VALUES (?, ?)", row)

    def put(self, problem: str, recipe: Recipe, evaluation: Evaluation) -> None:
        """File a finished evaluation."""
        row = (
            evaluation_key(problem, recipe),
            problem,
            json.dumps(recipe.to_json()),
            json.dumps(evaluation_to_json(evaluation)),
            time.time(),
        )
        with self._writing(), self._db:
            self._db.execute("INSERT OR REPLACE INTO evaluation VALUES (?, ?, ?, ?, ?)", row)

    def evaluations(self, problem: str) -> dict[str, Evaluation]:
        """All finished evaluations of a problem, by key."""
        query = "SELECT key, result FROM evaluation WHERE problem = ?"
        with self._reading():
            rows = self._db.execute(query, (problem,)).fetchall()
            return {key: evaluation_from_json(json.loads(result)) for key, result in rows}

    def test_score(
        self,
        problem: str,
        test: str,
        recipe: Recipe | None,
        score: Callable[[], Mapping[str, Quality]],
    ) -> dict[str, Quality]:
        """Test qualities of a recipe (None: the uncompressed network), scored at the first call only."""
        content = "" if recipe is None else recipe.key
        name = "test " + hashlib.sha256(f"{problem}\n{test}\n{content}".encode()).hexdigest()
        kept = self.note(name)
        if kept is None:
            kept = {k: q.to_json() for k, q in score().items()}
            self.set_note(name, kept)
        with self._reading():
            return {k: Quality.from_json(q) for k, q in kept.items()}

    def close(self) -> None:
        """Close the file."""
        self._db.close()
