"""Every shipped spec: each constant has a unit and a source; broken specs are refused."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from modelflex.core.spec import SpecField, read_spec
from modelflex.errors import UserError
from modelflex.registry import PLATFORMS

SPECS = Path(str(importlib.import_module("modelflex.platforms").__path__[0])) / "specs"
SHIPPED = sorted(SPECS.glob("*.toml"))
FIELDS = {
    "clock": SpecField("1/s"),
    "energy": SpecField("J/bit"),
    "lanes": SpecField("lane", "count"),
    "rate": SpecField("MAC/cycle", required=False),
}

SOUND = """
name = "x"
family = "toy"
title = "A toy"
[clock]
value = 200
unit = "MHz"
source = "s"
[energy]
value = 8.5
unit = "pJ/bit"
source = "s"
[lanes]
value = 4
unit = "lane"
source = "s"
"""


def test_specs_are_shipped() -> None:
    assert SHIPPED


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_constant_has_a_unit_and_a_source(path: Path) -> None:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    header = {key: content.pop(key) for key in ("name", "family", "title")}
    assert header["name"] == path.stem
    # Beside constants a spec may name things, such as the array's unit.
    texts = {name: content.pop(name) for name in list(content) if isinstance(content[name], str)}
    assert all(text.strip() for text in texts.values())
    assert content
    for name, constant in content.items():
        assert set(constant) == {"value", "unit", "source"}, name
        assert constant["unit"].strip(), name
        assert len(constant["source"].split()) >= 3, name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_spec_is_read_by_its_family(path: Path) -> None:
    family = tomllib.loads(path.read_text(encoding="utf-8"))["family"]
    for spec in (path.stem, str(path)):
        assert PLATFORMS.get(family).from_config({"spec": spec}).description["name"] == path.stem


def test_values_are_read_in_si_units(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(SOUND, encoding="utf-8")
    spec = read_spec(path, "toy", FIELDS)
    assert spec["clock"] == 200e6
    assert spec["energy"] == pytest.approx(8.5e-12)
    assert spec["lanes"] == 4
    assert spec.constants["energy"].value == 8.5


def test_optional_constants_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(SOUND, encoding="utf-8")
    assert "rate" not in read_spec(path, "toy", FIELDS).constants
    path.write_text(f"{SOUND}[rate]\nvalue = 0.5\nunit = 'MAC/cycle'\nsource = 's'\n", "utf-8")
    assert read_spec(path, "toy", FIELDS)["rate"] == 0.5


@pytest.mark.parametrize(
    ("value", "unit", "message"),
    [
        ("-1", "MAC/cycle", "rate.value is -1; expected a number above zero"),
        ("nan", "MAC/cycle", "rate.value is nan; expected a number above zero"),
        ("inf", "MAC/cycle", "rate.value is inf; expected a number above zero"),
        ("'1'", "MAC/cycle", "rate.value is '1'; expected a number"),
        ("1", "kMAC/cycle", "rate.unit is 'kMAC/cycle'; expected 'MAC/cycle'"),
    ],
)
def test_broken_optional_constants_are_refused(
    tmp_path: Path, value: str, unit: str, message: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"{SOUND}[rate]\nvalue = {value}\nunit = '{unit}'\nsource = 's'\n", "utf-8")
    with pytest.raises(UserError, match=message):
        read_spec(path, "toy", FIELDS)


@pytest.mark.parametrize(
    ("found", "replacement", "message"),
    [
        ('source = "s"\n[energy]', "[energy]", "clock has no source"),
        ('unit = "MHz"\n', "", "clock has no unit"),
        ('unit = "MHz"', 'unit = " "', "clock.unit is ' '"),
        ('unit = "MHz"', 'unit = "mW"', "unknown unit 'mW'"),
        ('unit = "pJ/bit"', 'unit = "pJ"', "expected a quantity per bit"),
        ('unit = "lane"', 'unit = "row"', "lanes.unit is 'row'; expected 'lane'"),
        ("value = 4\n", "value = 4.5\n", "lanes.value is 4.5; expected a whole number"),
        ("value = 4\n", "value = 0\n", "lanes.value is 0; expected a whole number above zero"),
        ("value = 200", "value = -200", "expected a value above zero"),
        ("value = 200", "value = nan", "clock is 'nan MHz'"),
        ("value = 200", 'value = "200"', "clock.value is '200'; expected a number"),
        ("value = 200", "value = true", "clock.value is True; expected a number"),
        ("value = 8.5", "values = 8.5", "unknown key 'values'.*did you mean 'value'"),
        ("[clock]", "[clok]", "unknown key 'clok'.*did you mean 'clock'"),
        ('title = "A toy"', "", "has no 'title'"),
        ('family = "toy"', 'family = "other"', "for the family 'other'; expected the family 'toy'"),
        ('name = "x"', "name = 3", "name is 3; expected a text"),
        ('name = "x"', "name = ", "not valid TOML"),
    ],
)
def test_broken_specs_are_refused(
    tmp_path: Path, found: str, replacement: str, message: str
) -> None:
    assert SOUND.count(found) == 1
    path = tmp_path / "x.toml"
    path.write_text(SOUND.replace(found, replacement), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_spec(path, "toy", FIELDS)


def test_a_constant_that_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    sound = SOUND.replace('[lanes]\nvalue = 4\nunit = "lane"\nsource = "s"\n', "")
    path.write_text("lanes = 4\n" + sound, encoding="utf-8")
    with pytest.raises(UserError, match="lanes is 4; expected a table"):
        read_spec(path, "toy", FIELDS)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="bytes that are not text"):
        read_spec(path, "toy", FIELDS)
