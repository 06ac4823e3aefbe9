"""Configuration files of SCALE-Sim 3.0.0 (.cfg): the array, its buffers and its bandwidth.

Read are the keys that change what is counted. Keys of older versions and those without an effect
(address offsets, banks and ports of buffers without a custom layout, request buffers without
Ramulator) are let pass; features that are not modelled, and keys that are not known, are refused.

Files of SCALE-Sim 2 lack sections and keys that 3.0.0 insists on. What is missing means:

- no `UseRamulatorTrace`, no custom layout, no [sparsity]: off;
- no [layout]: `Bandwidth` is that of all three operands, as it was in SCALE-Sim 2.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast, get_args

from modelflex.core.files import read_text
from modelflex.errors import UserError, nearest
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.points import Points, one_point
from modelflex.platforms.systolic.topology import write_text

MAX_BYTES: Final = 2**16
"""Largest configuration file."""

_ARRAY: Final = "architecture_presets"
_SIZES: Final[Mapping[str, str]] = {
    "rows": "ArrayHeight",
    "columns": "ArrayWidth",
    "ifmap_kb": "IfmapSramSzkB",
    "filter_kb": "FilterSramSzkB",
    "ofmap_kb": "OfmapSramSzkB",
}
"""Field of `ScaleSimConfig` → key of the array's section."""
_SWITCHES: Final = (
    ("run_presets", "UseRamulatorTrace", "DRAM traces of Ramulator"),
    ("layout", "IfmapCustomLayout", "a custom layout of the ifmap"),
    ("layout", "FilterCustomLayout", "a custom layout of the filter"),
    ("sparsity", "SparsitySupport", "sparsity"),
)
"""(section, key, what it switches on): none of them is modelled."""
_KNOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "general": ("run_name",),
    "run_presets": (
        "InterfaceBandwidth", "UseRamulatorTrace",
        "SRAM_row_size", "SRAM_bank_size", "DRAM_row_size", "DRAM_bank_size",
    ),
    _ARRAY: (
        *_SIZES.values(), "Dataflow", "Bandwidth", "IfmapOffset", "FilterOffset", "OfmapOffset",
        "ReadRequestBuffer", "WriteRequestBuffer", "MemoryBanks",
    ),
    "layout": (
        "IfmapCustomLayout", "IfmapSRAMBankBandwidth", "IfmapSRAMBankNum", "IfmapSRAMBankPort",
        "FilterCustomLayout", "FilterSRAMBankBandwidth", "FilterSRAMBankNum", "FilterSRAMBankPort",
    ),
    "sparsity": (
        "SparsitySupport", "SparseRep", "OptimizedMapping", "BlockSize",
        "RandomNumberGeneratorSeed",
    ),
    "network_presets": ("TopologyCsvLoc",),
}  # fmt: skip


class Bandwidths(NamedTuple):
    """Words a cycle between each operand's buffer and DRAM."""

    ifmap: int
    filter: int
    ofmap: int


@dataclass(frozen=True)
class ScaleSimConfig:
    """What a configuration says of the array.

    Attributes:
        rows, columns: of the array.
        ifmap_kb, filter_kb, ofmap_kb: buffers, in units of 1024 words.
        bandwidths: of each operand (`InterfaceBandwidth` USER), or None for no limit (CALC).
        run_name: SCALE-Sim names the folder of its results so.

    Raises:
        UserError: a size below 1 or too large to count, an unknown dataflow.
    """

    rows: int
    columns: int
    dataflow: Dataflow
    ifmap_kb: int
    filter_kb: int
    ofmap_kb: int
    bandwidths: Bandwidths | None = None
    run_name: str = "modelflex"

    def __post_init__(self) -> None:
        if self.dataflow not in get_args(Dataflow):
            raise UserError(
                f"unknown dataflow '{self.dataflow}'", f"one of {', '.join(get_args(Dataflow))}"
            )
        self.to_points()

    def to_points(self) -> Points:
        """The array as the simulator takes it."""
        return one_point({name: getattr(self, name) for name in _SIZES}, self.bandwidths)


def read_config(path: Path) -> ScaleSimConfig:
    """Read a configuration of SCALE-Sim 2 or 3.

    Raises:
        UserError: an unreadable or broken file, a missing or unknown key, a value out of range, a
            feature that is not modelled; names the file and the key.
    """
    text = read_text(path, MAX_BYTES, "configuration")
    # Interpolation would let a few lines stand for gigabytes.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text, str(path))
        return _read(parser)
    except configparser.Error as error:
        reason = error.message[:300]
        raise UserError(f"{path}: {reason}", "the .cfg format of SCALE-Sim") from None
    except UserError as error:
        raise UserError(f"{path}: {error.found}", error.expected, error.mend) from None


def write_config(config: ScaleSimConfig, path: Path) -> None:
    """Write a configuration that SCALE-Sim 3.0.0 reads, and `read_config` reads as `config`.

    Raises:
        UserError: a run name that cannot name a folder; a path that cannot be written.
    """
    # SCALE-Sim hands the name to a shell.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", config.run_name):
        raise UserError(
            f"the run name is {config.run_name!r}", "letters, digits, '_', '.' and '-' only"
        )
    # Without a limit SCALE-Sim wants numbers all the same and does not use them.
    ifmap, filters, ofmap = config.bandwidths or Bandwidths(10, 10, 10)
    bank = {"Num": 1, "Port": 2}
    sections: dict[str, dict[str, object]] = {
        "general": {"run_name": config.run_name},
        _ARRAY: {
            **{key: getattr(config, field) for field, key in _SIZES.items()},
            "IfmapOffset": 0,
            "FilterOffset": 10_000_000,
            "OfmapOffset": 20_000_000,
            "Dataflow": config.dataflow,
            "Bandwidth": ofmap,
            "ReadRequestBuffer": 32,
            "WriteRequestBuffer": 32,
        },
        "layout": {
            "IfmapSRAMBankBandwidth": ifmap,
            **{f"IfmapSRAMBank{key}": value for key, value in bank.items()},
            "FilterSRAMBankBandwidth": filters,
            **{f"FilterSRAMBank{key}": value for key, value in bank.items()},
        },
        "sparsity": {},
        "run_presets": {"InterfaceBandwidth": "USER" if config.bandwidths else "CALC"},
    }
    for section, key, _ in _SWITCHES:
        sections[section][key] = False
    lines = [
        f"[{section}]\n" + "".join(f"{key}: {value}\n" for key, value in keys.items())
        for section, keys in sections.items()
    ]
    write_text(path, "\n".join(lines))


def _read(parser: configparser.ConfigParser) -> ScaleSimConfig:
    _check_known(parser)
    for section, key, feature in _SWITCHES:
        value = parser.get(section, key, fallback="false")
        switch = parser.BOOLEAN_STATES.get(value.lower())
        if switch is None:
            raise UserError(f"[{section}] {key} is '{value}'", "True or False")
        if switch:
            raise UserError(
                f"[{section}] {key} asks for {feature}, which is not modelled", f"{key}: False"
            )
    sizes = {field: _whole(key, _get(parser, _ARRAY, key)) for field, key in _SIZES.items()}
    mode = _get(parser, "run_presets", "InterfaceBandwidth")
    if mode not in ("CALC", "USER"):
        raise UserError(f"InterfaceBandwidth is '{mode}'", "CALC or USER")
    return ScaleSimConfig(
        dataflow=cast(Dataflow, _get(parser, _ARRAY, "Dataflow")),  # checked by the class
        bandwidths=_bandwidths(parser) if mode == "USER" else None,
        run_name=_get(parser, "general", "run_name"),
        **sizes,
    )


def _check_known(parser: configparser.ConfigParser) -> None:
    """A misspelt key would silently mean what a missing one means."""
    for section in parser.sections():
        if section not in _KNOWN:
            raise UserError(
                f"unknown section [{section}]", "a section", nearest(section, list(_KNOWN))
            )
        known = {key.lower(): key for key in _KNOWN[section]}
        for key in parser[section]:
            if key not in known:
                hint = nearest(key, list(known))
                raise UserError(
                    f"[{section}] has the unknown key '{key}'", "a key that is modelled", hint
                )


def _bandwidths(parser: configparser.ConfigParser) -> Bandwidths:
    texts = _get(parser, _ARRAY, "Bandwidth").split(",")
    values = {_whole("Bandwidth", text.strip()) for text in texts}
    if len(values) > 1:
        raise UserError(
            f"Bandwidth is '{', '.join(text.strip() for text in texts)}'",
            "one number, which is the ofmap's",
            "those of ifmap and filter are the bank bandwidths of [layout]",
        )
    (ofmap,) = values
    if not parser.has_section("layout"):
        return Bandwidths(ofmap, ofmap, ofmap)
    keys = ("IfmapSRAMBankBandwidth", "FilterSRAMBankBandwidth")
    ifmap, filters = (_whole(key, _get(parser, "layout", key)) for key in keys)
    return Bandwidths(ifmap, filters, ofmap)


def _get(parser: configparser.ConfigParser, section: str, key: str) -> str:
    if not parser.has_option(section, key):
        raise UserError(f"[{section}] has no {key}", f"a line '{key}: …'")
    value = parser.get(section, key).strip()
    if "%" in value:
        raise UserError(f"[{section}] {key} is '{value}'", "a value without '%'")
    return value


def _whole(key: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise UserError(f"{key} is '{text[:40]}'", "a whole number above zero")
    return int(text)
