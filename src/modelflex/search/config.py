"""The configuration file of a search, checked before anything runs."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, with_config

from modelflex.core.data import Draw
from modelflex.core.divergence import check_output
from modelflex.core.files import read_text
from modelflex.core.recipe import read_config
from modelflex.errors import UserError, nearest
from modelflex.search.limits import Objective, read_limits
from modelflex.search.study import Limit
from modelflex.search.workers import MAX_WORKERS

MAX_BYTES = 2**23
"""Largest configuration file."""
_TABLES = (
    "model", "data", "task", "platform", "limits", "objective", "search", "space",
)  # fmt: skip


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ModelConfig:
    """[model]: `path` of the model (relative to the file), and how a torch file is to be read."""

    path: str
    reads: Literal["last", "every"] | None = None
    output: str = "logits"

    def __post_init__(self) -> None:
        check_output(self.output, "model.output")


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class DataConfig:
    """[data]: files of sequences, relative to the configuration.

    Attributes:
        calibration: what the methods are fitted to (training sequences; labels are not used).
        validation: held-out sequences on which quality is measured and the recipe chosen.
        test: scored once, after the choice.
        calibration_limit, calibration_copies, calibration_noise: see `core.data.Draw`.
    """

    calibration: str
    validation: str
    test: str | None = None
    calibration_limit: int | None = None
    calibration_copies: int = 0
    calibration_noise: float = 0.0

    def __post_init__(self) -> None:
        self.draw  # noqa: B018 - refuses what it cannot draw

    @property
    def draw(self) -> Draw:
        """Which calibration sequences are used."""
        return Draw(self.calibration_limit, self.calibration_copies, self.calibration_noise)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class TaskConfig:
    """[task]: see `evaluate.make_task`."""

    kind: str = "classification"
    quality: str | None = None
    direction: str | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class SearchConfig:
    """[search]: seed, number of processes (0: one a core), and whether all that fits is evaluated."""

    seed: int = 0
    workers: int = 0
    exhaustive: bool = False


@dataclass(frozen=True)
class Config:
    """A checked configuration.

    Attributes:
        platform: family name and its options, for `Platform.from_config`.
        space: the grids as written, or None for the default space.
        raw, base: the tables as written, and the folder that their paths are relative to.
    """

    model: ModelConfig
    data: DataConfig
    task: TaskConfig
    platform: tuple[str, Mapping[str, Any]]
    limits: tuple[Limit, ...]
    objective: Objective
    search: SearchConfig
    space: Any
    raw: Mapping[str, Any]
    base: str


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        UserError: no such file, a too large one, or not TOML.
    """
    if not path.exists():
        raise UserError(f"there is no file '{path}'", "a TOML configuration", "check the path")
    text = read_text(path, MAX_BYTES, "configuration")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and nestings without end
        reason = str(error)[:120]
        raise UserError(f"'{path}' is not TOML ({reason})", "a TOML configuration") from None


def parse_config(raw: Mapping[str, Any], base: Path) -> Config:
    """Check the tables of a configuration; paths become absolute, relative to `base`.

    Raises:
        UserError: an unknown or missing table or key, a wrong type, unit or value, contradictions.
    """
    for name in raw:
        if name not in _TABLES:
            raise UserError(
                f"the configuration has the unknown table '{name}'",
                "a table",
                nearest(name, _TABLES),
            )
    for name in ("model", "data"):
        if name not in raw:
            raise UserError(f"the configuration has no table [{name}]", f"[{name}]")
    model = _read(ModelConfig, raw, "model")
    data = _read(DataConfig, raw, "data")
    return Config(
        model=replace(model, path=_path(model.path, base, "model.path")),
        data=replace(
            data,
            calibration=_path(data.calibration, base, "data.calibration"),
            validation=_path(data.validation, base, "data.validation"),
            test=None if data.test is None else _path(data.test, base, "data.test"),
        ),
        task=_read(TaskConfig, raw, "task"),
        platform=platform_options(raw.get("platform", {}), base),
        limits=read_limits(raw.get("limits", {})),
        objective=read_objective(raw.get("objective", {})),
        search=read_search(raw.get("search", {}), "search"),
        space=raw.get("space"),
        raw=raw,
        base=str(base.resolve()),
    )


def _path(text: str, base: Path, where: str) -> str:
    try:
        path = Path(os.path.realpath(base / text))  # loops of links are found when it is read
        path.exists()
    except (OSError, ValueError) as error:  # too long, or a NUL inside
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{where} is {text[:80]!r} ({reason})", "the path of a file") from None
    return str(path)


def _read(kind: type, raw: Mapping[str, Any], name: str) -> Any:
    return _read_table(kind, raw.get(name, {}), name)


def _read_table(kind: type, table: Any, name: str) -> Any:
    if not isinstance(table, Mapping):
        raise UserError(f"{name} is {table!r}", f"a table [{name}]")
    return read_config(kind, table, name)


def read_search(values: Any, where: str) -> SearchConfig:
    """Read [search], or the arguments of the same names of the function `where`."""
    found: SearchConfig = _read_table(SearchConfig, values, where)
    if not 0 <= found.workers <= MAX_WORKERS:
        raise UserError(f"{where}.workers is {found.workers}", f"0 (one a core) … {MAX_WORKERS}")
    if not 0 <= found.seed < 2**63:
        raise UserError(f"{where}.seed is {found.seed}", "0 … 2^63 − 1")
    return found


def read_objective(values: Any) -> Objective:
    """Read [objective]."""
    found: Objective = _read(Objective, {"objective": values}, "objective")
    return found


def platform_options(values: Any, base: Path) -> tuple[str, Mapping[str, Any]]:
    """(family, options) from [platform]; files of specs are relative to `base`."""
    if not isinstance(values, Mapping):
        raise UserError(f"platform is {values!r}", "a table [platform]")
    options = dict(values)
    name = options.pop("name", "systolic")
    if not isinstance(name, str):
        raise UserError(f"platform.name is {name!r}", "the name of a platform family")
    for option, value in options.items():
        if isinstance(value, str) and value.endswith(".toml"):
            options[option] = _path(value, base, f"platform.{option}")
    return name, options
