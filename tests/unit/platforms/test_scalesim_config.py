"""Configuration files of SCALE-Sim: what is read, what is written, what is refused."""

from __future__ import annotations

import configparser
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.scalesim_config import (
    MAX_BYTES,
    Bandwidths,
    ScaleSimConfig,
    read_config,
    write_config,
)

OLD = """[general]
run_name = eyeriss

[architecture_presets]
ArrayHeight:    12
ArrayWidth:     14
IfmapSramSzkB:    36
FilterSramSzkB:   37
OfmapSramSzkB:    38
IfmapOffset:    0
FilterOffset:   10000000
OfmapOffset:    20000000
Dataflow : ws
Bandwidth : 10
MemoryBanks: 1

[run_presets]
InterfaceBandwidth: CALC
"""
LAYOUT = """
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 4
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 5
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
"""
SPARSITY = """
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
"""
NEW = (OLD + "UseRamulatorTrace: False\n" + LAYOUT + SPARSITY).replace("CALC", "USER")
EYERISS = ScaleSimConfig(12, 14, "ws", 36, 37, 38, None, "eyeriss")

# What SCALE-Sim 3.0.0 asks for; a missing one ends it.
REQUIRED = {
    "general": ["run_name"],
    "run_presets": ["InterfaceBandwidth", "UseRamulatorTrace"],
    "architecture_presets": [
        "ArrayHeight", "ArrayWidth", "ifmapsramszkB", "filtersramszkB", "ofmapsramszkB",
        "IfmapOffset", "FilterOffset", "OfmapOffset", "Dataflow", "Bandwidth",
        "ReadRequestBuffer", "WriteRequestBuffer",
    ],
    "layout": [
        "IfmapCustomLayout", "FilterCustomLayout", "IfmapSRAMBankBandwidth", "IfmapSRAMBankNum",
        "IfmapSRAMBankPort", "FilterSRAMBankBandwidth", "FilterSRAMBankNum", "FilterSRAMBankPort",
    ],
    "sparsity": ["SparsitySupport"],
}  # fmt: skip


def saved(folder: Path, text: str) -> Path:
    path = folder / "scale.cfg"
    path.write_text(text, encoding="utf-8")
    return path


SIZES = st.integers(1, 2**14)
CONFIGS = st.builds(
    ScaleSimConfig,
    rows=SIZES, columns=SIZES, dataflow=st.sampled_from(get_args(Dataflow)),
    ifmap_kb=SIZES, filter_kb=SIZES, ofmap_kb=SIZES,
    bandwidths=st.none() | st.builds(Bandwidths, *[st.integers(1, 10**6)] * 3),
    run_name=st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True),
)  # fmt: skip


@given(CONFIGS)
def test_what_is_written_is_read_again_and_by_scale_sim(config: ScaleSimConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.cfg"
        write_config(config, path)
        assert read_config(path) == config
        assert list(Path(folder).iterdir()) == [path]
        parser = configparser.ConfigParser()
        parser.read(path)
    got = {key: parser.get(section, key) for section, keys in REQUIRED.items() for key in keys}
    numbers = [int(got[key]) for key in REQUIRED["architecture_presets"][:5]]
    assert numbers == [
        config.rows, config.columns, config.ifmap_kb, config.filter_kb, config.ofmap_kb,
    ]  # fmt: skip
    assert (got["run_name"], got["Dataflow"]) == (config.run_name, config.dataflow)
    assert got["InterfaceBandwidth"] == ("USER" if config.bandwidths else "CALC")
    assert got["UseRamulatorTrace"] == "False"
    for key in ("IfmapCustomLayout", "FilterCustomLayout"):
        assert parser.getboolean("layout", key) is False
    assert got["SparsitySupport"].lower() == "false"
    if config.bandwidths:
        keys = ("IfmapSRAMBankBandwidth", "FilterSRAMBankBandwidth", "Bandwidth")
        assert tuple(int(got[key]) for key in keys) == config.bandwidths


def test_new_files(tmp_path: Path) -> None:
    expected = replace(EYERISS, bandwidths=Bandwidths(4, 5, 10))
    assert read_config(saved(tmp_path, NEW)) == expected
    assert read_config(saved(tmp_path, "\ufeff# a comment\n" + NEW)) == expected
    equal = NEW.replace("Bandwidth : 10", "Bandwidth : 10, 10,10")
    assert read_config(saved(tmp_path, equal)) == expected
    calc = NEW.replace("USER", "CALC")
    assert read_config(saved(tmp_path, calc)) == EYERISS


def test_old_files_lack_what_has_a_default(tmp_path: Path) -> None:
    assert read_config(saved(tmp_path, OLD)) == EYERISS
    user = saved(tmp_path, OLD.replace("CALC", "USER").replace("Bandwidth : 10", "Bandwidth : 7"))
    assert read_config(user).bandwidths == Bandwidths(7, 7, 7)


def test_points(tmp_path: Path) -> None:
    points = read_config(saved(tmp_path, OLD)).to_points()
    fields = {name: getattr(points, name).tolist() for name in points._fields[:5]}
    assert fields == {
        "rows": [12], "columns": [14], "ifmap_kb": [36], "filter_kb": [37], "ofmap_kb": [38],
    }  # fmt: skip
    assert points.bandwidth is None
    bandwidth = replace(EYERISS, bandwidths=Bandwidths(4, 5, 10)).to_points().bandwidth
    assert bandwidth is not None
    assert [words.tolist() for words in bandwidth] == [[4], [5], [10]]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "Trace: False",
            "Trace: True",
            "[run_presets] UseRamulatorTrace asks for DRAM traces of Ramulator, which is",
        ),
        (
            "IfmapCustomLayout: False",
            "IfmapCustomLayout: yes",
            "[layout] IfmapCustomLayout asks for a custom layout of the ifmap",
        ),
        (
            "FilterCustomLayout: False",
            "FilterCustomLayout: 1",
            "[layout] FilterCustomLayout asks for a custom layout of the filter",
        ),
        (
            "SparsitySupport : false",
            "SparsitySupport : true",
            "[sparsity] SparsitySupport asks for sparsity, which is not modelled",
        ),
        (
            "SparsitySupport : false",
            "SparsitySupport : nope",
            "[sparsity] SparsitySupport is 'nope'; expected True or False",
        ),
        (
            "UseRamulatorTrace: False",
            "TimeLinearModel: TPUv6e",
            "[run_presets] has the unknown key 'timelinearmodel'",
        ),
        (
            "ArrayHeight:    12",
            "ArrayHieght: 12",
            "[architecture_presets] has the unknown key 'arrayhieght'; expected a key "
            "that is modelled; did you mean 'arrayheight'?",
        ),
        ("ArrayHeight:    12", "", "[architecture_presets] has no ArrayHeight; expected a line"),
        ("ArrayHeight:    12", "ArrayHeight: 0", "rows is 0; expected a whole number from 1"),
        ("ArrayHeight:    12", "ArrayHeight: 1000000", "rows is 1000000; expected a whole"),
        ("ArrayWidth:     14", "ArrayWidth: -4", "ArrayWidth is '-4'; expected a whole number"),
        ("ArrayWidth:     14", "ArrayWidth: 14 # PEs", "ArrayWidth is '14 # PEs'; expected a"),
        ("ArrayWidth:     14", "ArrayWidth: ١٤", "ArrayWidth is '١٤'; expected a whole number"),
        ("ArrayWidth:     14", "ArrayWidth: " + "9" * 9999, "ArrayWidth is '9999"),
        ("OfmapSramSzkB:    38", "OfmapSramSzkB: 2.5", "OfmapSramSzkB is '2.5'; expected a whole"),
        ("OfmapSramSzkB:    38", "OfmapSramSzkB: 0", "ofmap_kb is 0; expected a whole number"),
        ("Dataflow : ws", "Dataflow : rs", "unknown dataflow 'rs'; expected one of os, ws, is"),
        ("Bandwidth: USER", "Bandwidth: user", "InterfaceBandwidth is 'user'; expected CALC or"),
        ("Bandwidth : 10", "Bandwidth : 10, 20", "Bandwidth is '10, 20'; expected one number"),
        ("Bandwidth : 10", "Bandwidth : 0", "bandwidth is 0; expected words a cycle"),
        ("Bandwidth : 10", "Bandwidth : 1.5", "Bandwidth is '1.5'; expected a whole number"),
        ("IfmapSRAMBankBandwidth: 4", "", "[layout] has no IfmapSRAMBankBandwidth; expected a"),
        ("[general]", "[General]", "unknown section [General]; expected a section; did you mean"),
        ("[general]", "", "File contains no section headers."),
        ("run_name = eyeriss", "run_name", "Source contains parsing errors"),
        (
            "run_name = eyeriss",
            "run_name = 50%",
            "[general] run_name is '50%'; expected a value without '%'",
        ),
        ("run_name = eyeriss", "", "[general] has no run_name; expected a line 'run_name: …'"),
        ("ArrayWidth:     14", "ArrayHeight: 14", "While reading from"),
    ],
)
def test_what_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert NEW.count(old) == 1
    path = saved(tmp_path, NEW.replace(old, new))
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert "\n" not in str(caught.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the configuration .*No such file"):
        read_config(tmp_path / "none.cfg")
    with pytest.raises(UserError, match="is too large"):
        read_config(saved(tmp_path, "#" * (MAX_BYTES + 1)))


@pytest.mark.parametrize("name", ["", "..", "a b", "a/b", "a;b", "50%", "$(x)", "a\nb", "-p"])
def test_run_names_are_folders_and_no_commands(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="the run name is"):
        write_config(replace(EYERISS, run_name=name), tmp_path / "scale.cfg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [{"rows": 0}, {"ofmap_kb": -1}, {"dataflow": "rs"}, {"bandwidths": Bandwidths(1, 1, 0)}],
)
def test_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        replace(EYERISS, **wrong)
