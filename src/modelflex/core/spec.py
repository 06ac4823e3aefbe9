"""Spec files: the constants of one chip, each with its unit and the source it was taken from.

A spec is a TOML file: `name`, `family`, `title`, and one table for each constant:

    [dram_energy]
    value = 8
    unit = "pJ/bit"
    source = "who measured or stated it, and where"
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from modelflex.core.files import read_text
from modelflex.errors import UserError, nearest
from modelflex.units import UNITS, parse_quantity

MAX_BYTES = 2**20
"""Largest spec file."""
SPECS: Final = Path(__file__).resolve().parents[1] / "platforms" / "specs"
"""The chips that are shipped, of all families."""

_HEADER = ("name", "family", "title")
MAX_COUNT = 2**53
"""Largest whole number: floating point holds it exactly."""
_KEYS = ("value", "unit", "source")


@dataclass(frozen=True)
class SpecField:
    """What a platform family expects of one constant.

    Attributes:
        unit: an SI unit of `units.UNITS`, an SI unit per something ("J/bit"), or the word that is
            counted ("lane", "MAC/cycle"), which must then stand in the spec as it is.
        kind: "count" for whole numbers; both kinds are above zero.
        required: whether a spec without it is refused.
    """

    unit: str
    kind: Literal["number", "count"] = "number"
    required: bool = True

    @property
    def is_physical(self) -> bool:
        """Whether the unit is an SI unit, which may be written with a prefix."""
        return self.unit in UNITS or self.unit.split("/")[0] in UNITS


@dataclass(frozen=True)
class Constant:
    """One constant: `value` in the unit as written, `si` in SI units, and where it comes from."""

    value: float
    unit: str
    source: str
    si: float


@dataclass(frozen=True)
class Spec:
    """A checked spec file; optional constants that it leaves out are not in `constants`.

    `names` holds what it refers to by name, such as a technology node.
    """

    name: str
    family: str
    title: str
    constants: Mapping[str, Constant]
    names: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """The constant `name` in SI units."""
        return self.constants[name].si

    def with_constant(self, name: str, text: str, unit: str, where: str) -> Spec:
        """The same spec with one constant replaced by a quantity such as "4 pJ/bit".

        Raises:
            UserError: not a quantity in the unit, or not above zero.
        """
        si = parse_spec_quantity(text, unit, where)
        constant = Constant(si, unit, f"set by {where}", si)
        return replace(self, constants={**self.constants, name: constant})

    def to_json(self) -> dict[str, Any]:
        """The constants as they stand in the file, with unit and source."""
        return asdict(self)


def parse_spec_quantity(value: object, unit: str, where: str) -> float:
    """Read a quantity above zero in SI units; besides `units.UNITS`, units per something ("J/bit").

    Raises:
        UserError: not a finite number above zero, or a unit that does not measure the same.
    """
    base, per = (unit, "") if unit in UNITS else unit.split("/")
    if per and isinstance(value, str):
        if not value.rstrip().endswith(f"/{per}"):
            raise UserError(f"{where} is '{value}'", f"a quantity per {per}, such as '1 p{unit}'")
        value = value.rstrip().removesuffix(f"/{per}")
    si = parse_quantity(value, base, where)
    if si <= 0:
        raise UserError(f"{where} is {si:g} {unit}", "a value above zero")
    return si


def _constant(entry: Any, field: SpecField, where: str) -> Constant:
    if not isinstance(entry, dict):
        raise UserError(f"{where} is {entry!r}", "a table with value, unit and source")
    for key in entry:
        if key not in _KEYS:
            raise UserError(f"{where} has the unknown key '{key}'", "a key", nearest(key, _KEYS))
    for key in _KEYS:
        if key not in entry:
            raise UserError(f"{where} has no {key}", "value, unit and source for every constant")
    value, unit, source = entry["value"], entry["unit"], entry["source"]
    for key, text in (("unit", unit), ("source", source)):
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{where}.{key} is {text!r}", "a text that is not empty")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{where}.value is {value!r}", "a number")
    if field.kind == "count" and not (isinstance(value, int) and 0 < value <= MAX_COUNT):
        raise UserError(f"{where}.value is {value!r}", "a whole number above zero, up to 2^53")
    if field.kind == "count" or not field.is_physical:
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{where}.value is {value!r}", "a number above zero")
        if unit != field.unit:
            raise UserError(f"{where}.unit is '{unit}'", f"'{field.unit}'")
        return Constant(value, unit, source, value)
    return Constant(
        value, unit, source, parse_spec_quantity(f"{value!r} {unit}", field.unit, where)
    )


def read_spec(
    path: Path, family: str, expected: Mapping[str, SpecField], names: Sequence[str] = ()
) -> Spec:
    """Read and check a spec file of a platform family.

    Args:
        expected: the constants of the family; each that is required must be there, and no other.
        names: texts beside the header that must be there.

    Raises:
        UserError: a missing or broken file, another family, an unknown or missing constant, a
            constant without unit or source, a wrong unit, a value that is not above zero.
    """
    text = read_text(path, MAX_BYTES, "spec")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and nestings without end
        raise UserError(f"the spec {path} is not valid TOML: {error}") from None
    if isinstance(content.get("family"), str) and content["family"] != family:
        raise UserError(
            f"the spec {path} is for the family '{content['family']}'", f"the family '{family}'"
        )
    texts = [*_HEADER, *names]
    known = [*texts, *expected]
    for key in content:
        if key not in known:
            raise UserError(
                f"the spec {path} has the unknown key '{key}'", "a constant", nearest(key, known)
            )
    optional = {key for key, field in expected.items() if not field.required}
    for key in known:
        if key not in content and key not in optional:
            raise UserError(f"the spec {path} has no '{key}'", f"{', '.join(known)}")
    for key in texts:
        if not isinstance(content[key], str):
            raise UserError(f"{path}: {key} is {content[key]!r}", "a text")
    constants = {
        key: _constant(content[key], field, f"{path}: {key}")
        for key, field in expected.items()
        if key in content
    }
    return Spec(
        content["name"], family, content["title"], constants, {key: content[key] for key in names}
    )


def find_spec(folder: Path, name: str) -> Path:
    """The path of a spec: a name in `folder`, or the path of a user's own .toml file.

    Raises:
        UserError: no spec has this name; names the nearest.
    """
    if name.endswith(".toml"):
        return Path(name)
    known: Sequence[str] = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in known:
        raise UserError(
            f"unknown spec '{name}'",
            "the name of a shipped spec or the path of a .toml file",
            nearest(name, list(known)),
        )
    return folder / f"{name}.toml"
