"""What a search gives, and how it is written into a folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelflex.core.files import replacing
from modelflex.core.model import Model
from modelflex.core.trial import Trial
from modelflex.errors import UserError
from modelflex.export.artefact import check_replaceable, save_artefact
from modelflex.report import write_report
from modelflex.report.summary import summary
from modelflex.search.study import Study

if sys.platform != "win32":
    import fcntl

BEST, STUDY = "best", "study.sqlite"
FILES = {"report": "report.html", "summary": "summary.json", "config": "config.json"}
"""What is written beside the study."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a search gives.

    Attributes:
        study: all trials, figures and assumptions.
        model: the compressed network of the pick, or None when no recipe is within all limits.
        folder: where everything was written, or None.
    """

    study: Study
    model: Model | None
    folder: Path | None

    @property
    def best(self) -> Trial | None:
        """The pick."""
        return self.study.best

    @property
    def missing(self) -> int:
        """Candidates that could matter but were never evaluated (after `retarget` only)."""
        return sum(trial.status == "missing" for trial in self.study.trials)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order of the space."""
        return self.study.trials

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the report, one offline HTML page."""
        write_report(self.study, Path(path))
        return Path(path)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the compressed model with its recipe and provenance.

        Raises:
            UserError: there is none, because no recipe is within all limits.
        """
        if self.model is None or self.study.best is None:
            raise UserError("no recipe is within all limits", "a pick to save", "relax a limit")
        recipe, provenance = self.study.best.recipe, self.study.provenance
        save_artefact(self.model, Path(folder), recipe=recipe, provenance=provenance)
        return Path(folder)

    def summary(self) -> dict[str, Any]:
        """The JSON object that `modelflex search --json` prints."""
        return summary(self.study, {} if self.folder is None else paths(self.folder, self.study))


def paths(folder: Path, study: Study) -> dict[str, str]:
    """Name → what is written into an output folder."""
    names = {"study": STUDY, **FILES}
    if study.best is not None:
        names["best"] = BEST
    return {name: str(folder / file) for name, file in names.items()}


def make_folder(folder: Path, files: Sequence[str] = tuple(FILES.values())) -> None:
    """Make the output folder, and check that it can be written.

    Args:
        files: what will be written beside the study.

    Raises:
        UserError: it cannot, or something else stands there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
        raise UserError(
            f"the folder {str(folder)!r} cannot be made ({error})", "a writable folder"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"the folder '{folder}' may not be written", "a writable folder")
    if not (folder / STUDY).exists():
        for name in files:
            if (folder / name).exists():
                raise UserError(
                    f"'{folder / name}' exists, but there is no study beside it",
                    "an empty folder, or the output folder of an earlier search",
                    "name another --out",
                )
    check_replaceable(folder / BEST)  # before the search, not after it


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one search; the lock ends with the process, however it ends.

    Raises:
        UserError: another search holds it.
    """
    if sys.platform == "win32":  # no such locks there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(
            f"another search is running in '{folder}'",
            "one at a time",
            "wait for it, or name another --out",
        ) from None
    try:
        yield
    finally:
        os.close(handle)


def write_all(result: Result, folder: Path, raw: Mapping[str, Any]) -> None:
    """Everything but the study's file, each file whole or not at all."""
    best = folder / BEST
    if result.model is not None:
        result.save(best)
    elif (best / "model.json").exists():
        shutil.rmtree(best)  # the pick of earlier limits
    _write_json(folder / FILES["config"], resolved(result.study, raw))
    result.report(folder / FILES["report"])
    _write_json(folder / FILES["summary"], result.summary())


def _write_json(path: Path, values: Any) -> None:
    with replacing(path) as temporary:
        text = json.dumps(values, indent=1, sort_keys=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def resolved(study: Study, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as it was understood: limits in SI units, defaults filled in."""
    return {
        **raw,
        "limits": [{"field": x.field, "kind": x.kind, "value": x.value} for x in study.limits],
        "objective": {"minimize": study.objective, "pareto_slack": study.pareto_slack},
        "platform_assumptions": study.platform,
        "seed": study.provenance["seed"],
    }
