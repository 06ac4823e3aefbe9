"""Topology files: read as SCALE-Sim 3.0.0 reads them, written so that it reads the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.platforms.systolic import topology
from modelflex.platforms.systolic.topology import (
    MAX_BYTES,
    MAX_LAYERS,
    Kind,
    read_topology,
    write_layout,
    write_topology,
)
from modelflex.platforms.systolic.workload import Convolution, Gemm, Workload

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
GEMM = "Layer, M, N, K,\n"
LOADED = {
    "conv_nets/Googlenet.csv": 58, "conv_nets/Resnet18.csv": 21, "conv_nets/alexnet.csv": 5,
    "conv_nets/alexnet_full.csv": 5, "mlperf_legacy/Alexnet.csv": 8,
    "mlperf_legacy/Googlenet.csv": 58, "rnn_tables/CharacterLanguageModelling.csv": 5,
    "rnn_tables/DeepBenchLSTM.csv": 25, "rnn_tables/DeepSpeech.csv": 6,
    "rnn_tables/DeepSpeech2.csv": 6, "rnn_tables/LanguageModelling.csv": 5,
    "rnn_tables/MachineTranslation.csv": 15, "rnn_tables/Sentimental_seqCNN.csv": 4,
    "rnn_tables/Sentimental_seqLSTM_short.csv": 8, "rnn_tables/gnmt.csv": 17,
    "rnn_tables/google_translate_dec.csv": 8, "rnn_tables/google_translate_enc.csv": 9,
    "rnn_tables/handwriting_rec.csv": 2, "rnn_tables/melody_extraction_detection.csv": 2,
}  # fmt: skip
"""File → layers; SCALE-Sim itself fails on the two with a line of commas only."""
LETTERS = (
    "{}:2: IFMAP Width is 'B'; expected a whole number from 1 to 2^40; "
    "10 more broken rows (lines 3, 4, 5, 6, 7, …)"
)
REFUSED = {
    "rnn_tables/LSTM.csv": LETTERS,
    "rnn_tables/LSTM_template.csv": LETTERS,
    "rnn_tables/Sentimental_seqLSTM.csv": (
        "{}:3: 0 numbers after 'Sentimental_seqLSTM'; expected 7: IFMAP Height, IFMAP Width, "
        "Filter Height, Filter Width, Channels, Num Filter, Strides; 1 more broken row (line 29)"
    ),
}


def saved(folder: Path, text: str | bytes) -> Path:
    path = folder / "net.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def message(path: Path, kind: Kind | None = None) -> str:
    with pytest.raises(UserError) as caught:
        read_topology(path, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(str(path))


# What SCALE-Sim does with a file, in a few lines: the heading and what follows the last comma of a
# row are dropped, cells count by position.


def scale_sim_rows(path: Path) -> list[list[str]]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return [[cell.strip() for cell in line.split(",")[:-1]] for line in lines if line]


NAMES = st.text(
    st.characters(exclude_characters=",", exclude_categories=["C", "Z"]), min_size=1, max_size=20
)
SIZES = st.integers(1, 300)


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    name = draw(NAMES)
    height, width = draw(SIZES), draw(SIZES)
    channels = 1 if "DP" in name else draw(SIZES)
    return Convolution(
        name, height, width, draw(st.integers(1, height)), draw(st.integers(1, width)), channels,
        draw(SIZES), draw(SIZES), draw(SIZES),
    )  # fmt: skip


GEMMS = st.builds(
    Gemm, NAMES, st.integers(1, 2**20), st.integers(1, 2**15), st.integers(1, 2**15)
)  # fmt: skip
NETS = st.lists(convolutions(), min_size=1, max_size=8) | st.lists(GEMMS, min_size=1, max_size=8)


@given(NETS)
def test_what_is_written_is_read_again_and_by_scale_sim(layers: list[Workload]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.csv"
        write_topology(layers, path)
        assert read_topology(path) == layers
        assert list(Path(folder).iterdir()) == [path]
        for layer, cells in zip(layers, scale_sim_rows(path), strict=True):
            sizes = [int(cell) for cell in cells[1:]]
            assert cells[0] == layer.name
            if isinstance(layer, Gemm):
                assert sizes == [layer.m, layer.n, layer.k]
            else:
                assert isinstance(layer, Convolution)
                assert sizes[:7] == [
                    layer.height, layer.width, layer.filter_height, layer.filter_width,
                    layer.channels, layer.filters, layer.stride_height,
                ]  # fmt: skip
                same = layer.stride_width == layer.stride_height
                assert sizes[7:] == ([] if same else [layer.stride_width])


@given(NETS)
def test_a_layout_has_twenty_numbers_for_each_layer(layers: list[Workload]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layout.csv"
        write_layout(layers, path)
        rows = scale_sim_rows(path)
        assert [row[0] for row in rows] == [layer.name for layer in layers]
        for row in rows:
            # SCALE-Sim makes as many layers of a name with 'DP' as the fifth number says.
            assert len(row) == 21
            assert row[5] == "1"
            assert all(cell.isdecimal() for cell in row[1:])


def test_every_table_is_loaded_or_refused(cnn_tables: Path) -> None:
    files = {str(path.relative_to(cnn_tables)) for path in cnn_tables.rglob("*.csv")}
    assert files == LOADED.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", LOADED)
def test_tables_that_load(cnn_tables: Path, name: str, tmp_path: Path) -> None:
    layers = read_topology(cnn_tables / name)
    assert len(layers) == LOADED[name]
    assert {type(layer) for layer in layers} == {Gemm if "gnmt" in name else Convolution}
    write_topology(layers, tmp_path / "copy.csv")
    assert read_topology(tmp_path / "copy.csv") == layers


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_are_refused(cnn_tables: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read_topology(cnn_tables / name)
    assert str(caught.value) == REFUSED[name].format(cnn_tables / name)


@pytest.mark.parametrize(
    "text",
    [
        GEMM + "a, 2, 3, 4,\n",
        GEMM + "a,2,3,4",
        "\n" + GEMM + "\n a ,\t2, 003 ,4 ,  \n\n",
        GEMM.replace("\n", "\r\n") + "a,2,3,4,\r\n",
        "\ufeff" + GEMM + ",,,,,\na,2,3,4,1:1,\n",
        GEMM + "a,2,3,4,1:1",
        GEMM + "a,2,3,4,,,,\n",
        "anything\na,2,3,4,\n",
        "L,m,n,k,Sparsity,\na,2,3,4,\n",
    ],
)
def test_spellings_of_one_product(tmp_path: Path, text: str) -> None:
    assert read_topology(saved(tmp_path, text)) == [Gemm("a", 2, 3, 4)]


@pytest.mark.parametrize(
    ("row", "strides"),
    [
        ("c,9,8,3,2,4,5,2,", (2, 2)),
        ("c,9,8,3,2,4,5,2", (2, 2)),
        ("c,9,8,3,2,4,5,2,1:1,", (2, 2)),
        ("c,9,8,3,2,4,5,2,3,", (2, 3)),
        ("c,9,8,3,2,4,5,2,3,1:1", (2, 3)),
        ("c,9,8,3,2,4,5,2,2", (2, 2)),
    ],
)
def test_spellings_of_a_convolution(tmp_path: Path, row: str, strides: tuple[int, int]) -> None:
    expected = [Convolution("c", 9, 8, 3, 2, 4, 5, *strides)]
    for heading in (CONV, "Layers,\n", "Layer, IFMAP, IFMAP, Filter Height,\n"):
        assert read_topology(saved(tmp_path, heading + row + "\n")) == expected
    assert read_topology(saved(tmp_path, GEMM + row + "\n"), "conv") == expected


def test_a_depth_wise_row_is_one_layer_a_channel(tmp_path: Path) -> None:
    path = saved(tmp_path, CONV + "conv_DP1, 6, 6, 3, 3, 3, 2, 1,\nb, 6, 6, 3, 3, 3, 2, 1,\n")
    layers = read_topology(path)
    names = ["conv_DP1Channel_0", "conv_DP1Channel_1", "conv_DP1Channel_2"]
    assert layers[:3] == [Convolution(name, 6, 6, 3, 3, 1, 2) for name in names]
    assert layers[3:] == [Convolution("b", 6, 6, 3, 3, 3, 2)]
    write_topology(layers, path)
    assert read_topology(path) == layers
    assert read_topology(saved(tmp_path, GEMM + "DP,2,3,4,\n")) == [Gemm("DP", 2, 3, 4)]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("c, 1, B, 1, 1, H, H, 1,", "IFMAP Width is 'B'; expected a whole number from 1 to 2^40"),
        ("c, 1, 1, 1, ,1 2, 2, 1,", "Filter Width is ''; expected"),
        ("c,9,8,0,2,4,5,2,", "Filter Height is '0'; expected"),
        ("c,9,8,3,2,-4,5,2,", "Channels is '-4'; expected"),
        ("c,9,8,3,2,4.0,5,2,", "Channels is '4.0'; expected"),
        ("c,9,8,3,2,1e3,5,2,", "Channels is '1e3'; expected"),
        ("c,9,8,3,2,1_0,5,2,", "Channels is '1_0'; expected"),
        ("c,9,8,3,2,٤,5,2,", r"Channels is '\u0664'; expected"),
        ("c,9,8,3,2,²,5,2,", r"Channels is '\xb2'; expected"),
        ("c,9,8,3,2,4,5,,", "6 numbers after 'c'; expected 7: IFMAP Height"),
        ("heading,", "0 numbers after 'heading'; expected 7: IFMAP Height"),
        ("c,9,8,3,2,4,5,2,2,2,", "9 numbers after 'c'; expected 7"),
        (",9,8,3,2,4,5,2,", "the layer's name is ''; expected printable text"),
        ("a\x1b[2J,9,8,3,2,4,5,2,", r"the layer's name is 'a\x1b[2J'; expected printable text"),
        ("c,9,8,3,2,4,5,2,2:4,", "sparsity '2:4', which is not modelled; expected '1:1'"),
        ("c,9,8,3,2,4,5,2,:,", "sparsity ':', which is not modelled"),
        ("c,9,8,10,2,4,5,2,", "layer 'c': the filter's height is 10, the input's 9; expected"),
        ("c,9,8,3,10,4,5,2,", "layer 'c': the filter's width is 10, the input's 8; expected"),
        ("c,9,8,3,2,4,5,2,3", "stride width '3' is not followed by a comma: SCALE-Sim drops it"),
        (f"c,{2**40},{2**40},1,1,1,1,1,", "layer 'c': M×N×K ="),
        (f"c,9,8,3,2,{2**40 + 1},5,2,", "Channels is '1099511627777'; expected"),
        (f"c,9,8,3,2,{'9' * 5000},5,2,", f"Channels is '{'9' * 40}\\u2026'; expected"),
        (f"DP,9,8,3,2,{MAX_LAYERS + 1},5,2,", f"{MAX_LAYERS + 1} channels of a depth-wise layer"),
    ],
)
def test_broken_rows(tmp_path: Path, row: str, told: str) -> None:
    good = "ok,9,8,3,2,4,5,2,\n"
    assert message(saved(tmp_path, CONV + good + row + "\n")).startswith(f":3: {told}")
    assert read_topology(saved(tmp_path, CONV + good))  # the rest of the file is in order


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            "a,1,2,\nb,1,2,3,\nc,x,2,3,\n",
            ":2: 2 numbers after 'a'; expected 3: M, N, K; 1 more broken row (line 4)",
        ),
        (
            "a,1,2,\n\nc,x,2,3,\nd,\n",
            ":2: 2 numbers after 'a'; expected 3: M, N, K; 2 more broken rows (lines 4, 5)",
        ),
        ("a,1,2,3,4,5,\n", ":2: 5 numbers after 'a'; expected 3: M, N, K"),
        ("a,2000000,2000000,2,\n", ":2: layer 'a': M×N×K = 2000000×2000000×2 overflows"),
    ],
)
def test_broken_products(tmp_path: Path, rows: str, told: str) -> None:
    assert message(saved(tmp_path, GEMM + rows)).startswith(told)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_whatever_ends_them(tmp_path: Path, end: str) -> None:
    path = saved(tmp_path, end.join([GEMM.strip(), "a,1,2,3,", "", "b,1,2,"]))
    assert message(path) == ":4: 2 numbers after 'b'; expected 3: M, N, K"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", " has no layers; expected a heading and one row a layer"),
        (",,,\n \n", " has no layers"),
        (GEMM, " has no layers"),
        ("a,2,3,4,\nb,2,3,4,\n", ":1: numbers in the first line, which SCALE-Sim skips; expected a"),
        ("Layer, M, K, N,\na,2,3,4,\n", ":1: the columns are M, K, N; expected M, N, K"),
        ("Layers\na,2,3,\n", ":2: 3 cells below a heading of unknown columns; expected name, IFMAP"),
        (GEMM.encode() + b"a,1,1,1,\nb\xe9,1,1,1,\n", ":3: bytes that are not text; expected UTF-8"),
        (b"\xff\xfea\x00", ":1: bytes that are not text; expected UTF-8"),
    ],
)  # fmt: skip
def test_files_that_are_no_topology(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert message(saved(tmp_path, text)).startswith(told)


def test_rows_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    assert "expected 7: IFMAP" in message(saved(tmp_path, GEMM + "a,2,3,4,\n"), "conv")
    assert "expected 3: M, N, K" in message(saved(tmp_path, CONV + "c,9,8,3,2,4,5,2,\n"), "gemm")


def test_unreadable_paths(tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    assert message(missing).startswith(f"cannot read the topology {missing}: No such file")
    assert message(tmp_path).startswith(f"cannot read the topology {tmp_path}: ")


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = tmp_path / "huge.csv"
    with sparse.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "is too large; expected at most" in message(sparse)
    monkeypatch.setattr(topology, "MAX_LAYERS", 3)
    rows = "".join(f"l{i},2,3,4,\n" for i in range(4))
    assert message(saved(tmp_path, GEMM + rows)) == ":5: too many layers; expected at most 3"
    two = "DP,6,6,3,3,2,2,1,\n" * 2
    assert message(saved(tmp_path, CONV + two)) == ":3: too many layers; expected at most 3"
    assert len(read_topology(saved(tmp_path, GEMM + rows[:-10]))) == 3


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([], "a topology of no layers; expected convolutions only"),
        ([Gemm("a", 1, 1, 1), Convolution("b", 1, 1, 1, 1, 1, 1)], "a topology of Convolution and"),
        ([Gemm("a,b", 1, 1, 1)], "4 numbers after 'a'; expected 3"),
        ([Gemm("a\nb", 1, 1, 1)], "layer 'a\\nb' would not be read as it is written; expected no"),
        ([Gemm(" a", 1, 1, 1)], "layer ' a' would not be read as it is written"),
        ([Gemm("", 1, 1, 1)], "the layer's name is ''"),
        ([Convolution("DP", 4, 4, 2, 2, 3, 1)], "layer 'DP' would not be read as it is written"),
        ([Convolution("b", 4, 4, 2, 2, 3, 1, batch=2)], "layer 'b' would not be read as it is"),
    ],
)
def test_layers_that_a_file_cannot_hold(tmp_path: Path, layers: list[Workload], told: str) -> None:
    path = saved(tmp_path, "before")
    for write in (write_topology, write_layout):
        with pytest.raises(UserError) as caught:
            write(layers, path)
        assert str(caught.value).startswith(told)
    assert path.read_text() == "before"


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (tmp_path / "none" / "a.csv", folder):
        with pytest.raises(UserError, match="cannot write"):
            write_topology([Gemm("a", 1, 1, 1)], path)
    assert list(tmp_path.rglob("*")) == [folder]
