"""Exported C99 as text: safe names, exact numbers, stated sizes, reproducible files, safe folders."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.data import Draw, Sequences
from modelflex.core.fixed import from_fx
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.planner import make_plan
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.core.stored_parts import part_tensors
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.export import c99
from modelflex.export.c99 import export_c99, make_files
from modelflex.export.golden import STEPS, golden, step_outputs
from modelflex.export.names import given_symbol, member, numbers, remark, symbol
from modelflex.testing.generators import Case, random_case, random_model

HOSTILE = '*/ int main;\n#include "../x.h" /* ??/ \\ ü %s'


@pytest.fixture(scope="module")
def case() -> Case:
    """Two layers, a head on the last step, delta in some product."""
    found = random_case(3)
    assert not build_program(found.made.model).per_step
    return found


# --- names and numbers ---------------------------------------------------------------------------
@given(st.text(max_size=60) | st.text("a_mf9 ", min_size=20, max_size=60))
def test_a_symbol_is_a_plain_prefix(name: str) -> None:
    made = symbol(name)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", made, re.ASCII)
    assert symbol(made) == given_symbol(made) == made
    assert not re.search(r"_mf(_|$)", made)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", member(name), re.ASCII)


HEADERS = (
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdarg "
    "stdbool stddef stdint stdio stdlib string tgmath time wchar wctype unistd pthread"
)
TAKEN = "string STDIO con Lpt1 features unistd limits int double sem pthread_mutex 9lives"


@pytest.mark.parametrize("name", [*TAKEN.split(), "", "_", "../../etc"])
def test_no_file_hides_a_header_or_leaves_the_folder(name: str) -> None:
    assert symbol(name) not in TAKEN.split()
    assert "/" not in symbol(name)
    assert "." not in symbol(name)


def test_no_file_hides_what_headers_of_the_system_include() -> None:
    """Folders of exports are searched before those of the system, whose headers include one another."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on the PATH")
    text = "#include <" + ">\n#include <".join(f"{h}.h" for h in HEADERS.split()) + ">\n"
    done = subprocess.run(
        ["cc", "-M", "-x", "c", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    direct = {Path(p).stem for p in done.stdout.split() if Path(p).parent.name == "include"}
    assert set(HEADERS.split()) <= direct
    assert [stem for stem in sorted(direct) if symbol(stem) == stem] == []


@pytest.mark.parametrize("name", ["a b", "int", "", "a_weights", "a_mf", "9", "a" * 33, "ü", "a_"])
def test_a_chosen_name_is_taken_as_it_is_or_refused(name: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"'{symbol(name)}' would do")):
        given_symbol(name)


def exports_of(*names: str) -> list[tuple[set[str], set[str]]]:
    """Of models that differ in their names only: files in lower case, and names that a linker sees."""
    model, found = random_model(np.random.default_rng(0), ["gru"], units=2), []
    for name in names:
        files, _ = make_files(replace(model, name=name))
        code = {f: t.decode() for f, t in files.items() if f.endswith(".c")}
        text = "\n".join(t for f, t in code.items() if not f.endswith("_selftest.c"))
        linked = re.findall(
            r"^(?!static|typedef|#|/|\s)[\w ]*?\*?(\w+)(?:\(|\[)", text, re.MULTILINE
        )
        found.append(
            ({f.lower() for f in files if not f.startswith("model/")}, set(linked) - {"MF_ASSERT"})
        )
    return found


@pytest.mark.parametrize(
    "other", ["a_weights", "A_Weights", "a_selftest", "a_matrix", "a_elementwise_f32"]
)
def test_names_of_files_are_no_names_of_models(other: str) -> None:
    (one, _), (two, _) = exports_of("a", other)
    assert one & two == {"makefile"}


@pytest.mark.parametrize("other", ["a_mf", "a_mf_k", "a_k", "a_mf_mf", "a_mf_linear"])
def test_private_symbols_are_no_names_of_models(other: str) -> None:
    (_, one), (_, two) = exports_of("a", other)
    assert {"a_step", "a_mf_linear_f32"} <= one
    assert not one & two


def test_all_files_are_known_as_parts(case: Case) -> None:
    for model in (case.model, case.made.model):
        files, manifest = make_files(model)
        for stem in {f.partition(".")[0] for f in files if f.startswith(f"{manifest['symbol']}_")}:
            assert symbol(stem) != stem


@given(st.text(max_size=100))
def test_a_remark_stays_in_its_comment(text: str) -> None:
    assert not re.search(r"[*\\?\n]", remark(text))
    assert remark(text).isascii()


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40))
def test_integers_are_printed_exactly(values: list[int]) -> None:
    text = numbers(np.array(values, np.int32))
    found = [e.strip() for e in text.replace("\n", " ").split(",") if e.strip()]
    assert [-(2**31) if e == "INT32_MIN" else int(e) for e in found] == values
    assert max(map(len, text.splitlines())) <= 100


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=20)
)
def test_floats_keep_their_bits(values: list[float]) -> None:
    entries = numbers(np.array(values, np.float32)).replace("\n", " ").split(",")
    found = [e.strip() for e in entries if e.strip()]
    assert all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?f", e) for e in found)
    assert all("." in e or "e" in e for e in found)  # "1f" is no C
    back = [struct.pack("<f", float(e.rstrip("f"))) for e in found]
    assert back == [struct.pack("<f", v) for v in values]


def hostile(model: Model) -> Model:
    """The same network whose model, layers and weights have names that break out of C."""
    layers, weights = [], {}
    for number, layer in enumerate(model.layers):
        name = f"{number}{HOSTILE}"
        layers.append(replace(layer, name=name))
        for old in layer.weight_shapes:
            weights[name + old.removeprefix(layer.name)] = model.weights[old]
    return Model(HOSTILE, tuple(layers), weights, model.output)


def test_names_reach_no_source(case: Case) -> None:
    files, manifest = make_files(hostile(case.made.model))
    assert manifest["name"] == HOSTILE
    for file, content in files.items():
        assert re.fullmatch(r"(model/)?[A-Za-z0-9_]+(\.[a-z]+)?", file)
        if not file.startswith("model/"):
            text = content.decode("ascii")
            assert "??/" not in text
            code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
            assert "int main;" not in code
            assert "../" not in code


# --- content -------------------------------------------------------------------------------------
def test_the_same_model_gives_the_same_bytes(case: Case) -> None:
    assert make_files(case.made.model) == make_files(random_case(3).made.model)


def entries(text: str, name: str) -> list[int]:
    """The numbers of an array in C."""
    body = re.search(rf"{name}\[\] = {{(.*?)}};", text, re.DOTALL)
    assert body is not None
    return [int(e) for e in body[1].replace("\n", " ").split(",") if e.strip()]


def test_weights_are_the_bytes_of_the_artefact(case: Case) -> None:
    model = case.made.model
    files, manifest = make_files(model)
    text = files[f"{manifest['symbol']}_weights.c"].decode()
    compared = 0
    for site, product in build_program(model).products.items():
        name = f"{manifest['symbol']}_mf_k_{member(site)}_codes"
        by_columns = product.link is not None and product.link.activity is not None
        if f"{name}[]" in text and not (by_columns and product.layout in ("dense", "circulant")):
            tensors, _ = part_tensors("p", product.part)
            assert entries(text, name) == tensors["p.codes"].tolist()
            compared += 1
    assert compared


def test_stated_sizes_are_those_of_the_plan(case: Case) -> None:
    plan = make_plan(build_program(case.made.model), alignment=8)
    _, manifest = make_files(case.made.model)
    found = manifest["bytes"]
    # Equal arrays are stored once.
    assert 0.8 * plan.flash_bytes <= found["flash"] <= plan.flash_bytes
    assert plan.ram_bytes - 8 * len(plan.buffers) <= found["ram"] <= plan.ram_bytes


def test_golden_vectors_exercise_the_network(case: Case) -> None:
    model = case.made.model
    vectors = golden(model, build_program(model))
    assert vectors.inputs.shape == (STEPS, model.inputs)
    assert STEPS >= 50
    assert np.unique(vectors.outputs, axis=0).shape[0] > STEPS / 4


def test_outputs_after_every_step_are_those_of_the_beginnings(case: Case) -> None:
    program = build_program(case.made.model)
    data = case.data.take(np.array([0, 2]))
    expected = []
    for start, length in zip((0, data.lengths[0]), data.lengths, strict=True):
        for t in range(1, length + 1):
            part = Sequences(data.x[start : start + t], np.array([t]))
            expected.append(run(program, part).outputs[0])
    assert np.array_equal(step_outputs(program, data), expected)


def symbols() -> Model:
    """An embedding of five symbols and a head."""
    rng = np.random.default_rng(0)
    layers = (
        Layer("e", "embedding", 1, 4, options={"symbols": 5}),
        Layer("head", "dense", 4, 2),
    )
    shapes = {name: shape for layer in layers for name, shape in layer.weight_shapes.items()}
    weights = {
        name: float_weight(rng.normal(size=shape), None, 1) for name, shape in shapes.items()
    }
    return check_model(Model("symbols", layers, weights))


def test_symbols_are_golden_inputs_of_embeddings() -> None:
    model = symbols()
    x = golden(model, build_program(model)).inputs
    assert set(x.ravel()) == set(range(5))


def test_of_one_hot_inputs_a_column_is_multiplied() -> None:
    model = symbols()
    data = Sequences(np.arange(10, dtype=np.float32)[:, None] % 5, np.array([10]))
    rule = {"weights": "*", "structure": {"method": "dense"}}
    rule["format"] = {"method": "uniform", "bits": 4, "scales": "row"}
    recipe = recipe_from_json({"schema": "modelflex.recipe/1", "label": "", "rules": [rule]})
    made = compress(model, recipe, calibrate(model, data, Draw(), 0)).model
    text = make_files(made)[0]["symbols.c"].decode()
    found = dict(re.findall(r"_matrix (\w+) = {.*?\.by_columns = (\d),", text, re.DOTALL))
    assert found == {"e_w_0_matrix": "1", "head_w_0_matrix": "0"}


def test_golden_inputs_fill_the_range_of_the_codes(case: Case) -> None:
    program = build_program(case.made.model)
    link = next(p.link for p in program.products.values() if p.inputs == case.made.model.inputs)
    assert link is not None
    top = link.step * 2 ** (link.bits - 1)
    reached = np.abs(from_fx(golden(case.made.model, program).inputs)).max()
    assert 0.5 * top < reached < 4 * top


# --- folders -------------------------------------------------------------------------------------
def test_an_export_replaces_itself_and_nothing_else(case: Case, tmp_path: Path) -> None:
    out = tmp_path / "c"
    out.mkdir()  # empty
    manifest = export_c99(case.made.model, out)
    (out / "build").mkdir()
    (out / "build" / "x.o").touch()
    (out / c99.VALIDATION).touch()
    assert export_c99(case.model, out) != manifest
    assert not (out / "build").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def spoil_foreign(out: Path) -> None:
    (out / "main.c").write_text("int x;")


def spoil_altered(out: Path) -> None:
    (out / "Makefile").write_text("all:\n")


def spoil_missing(out: Path) -> None:
    (out / "model" / "model.json").unlink()


def spoil_schema(out: Path) -> None:
    path = out / c99.MANIFEST
    path.write_text(path.read_text().replace(c99.SCHEMA, "modelflex.c99/99"))


def spoil_manifest(out: Path) -> None:
    (out / c99.MANIFEST).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_foreign, "main.c is no part of it"),
        (spoil_altered, "Makefile was altered"),
        (spoil_missing, "model/model.json is missing"),
        (spoil_schema, "'modelflex.c99/1'"),
        (spoil_manifest, "exists and is no export"),
    ],
)
def test_a_changed_folder_is_kept(case: Case, tmp_path: Path, spoil: Any, message: str) -> None:
    out = tmp_path / "c"
    export_c99(case.made.model, out)
    spoil(out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=re.escape(message)):
        export_c99(case.made.model, out)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["../x.c", "/etc/passwd", "a b.c", "-o.c", "model/../../x.c"])
def test_a_manifest_leads_nowhere_else(case: Case, tmp_path: Path, name: str) -> None:
    export_c99(case.made.model, tmp_path / "c")
    path = tmp_path / "c" / c99.MANIFEST
    manifest = json.loads(path.read_text())
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="files of an export"):
        c99.read_manifest(tmp_path / "c")


@pytest.mark.parametrize("sizes", [None, [], 5, {}, {"flash": 1}, "x"])
def test_a_manifest_without_sizes_is_refused(case: Case, tmp_path: Path, sizes: Any) -> None:
    export_c99(case.made.model, tmp_path / "c")
    path = tmp_path / "c" / c99.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bytes": sizes}))
    with pytest.raises(UserError, match=r"manifest\.json': bytes"):
        c99.read_manifest(tmp_path / "c")


def test_a_manifest_without_files_is_refused(case: Case, tmp_path: Path) -> None:
    export_c99(case.made.model, tmp_path / "c")
    path = tmp_path / "c" / c99.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": {}}))
    with pytest.raises(UserError, match=r"manifest\.json' does not name"):
        c99.read_manifest(tmp_path / "c")


def test_a_link_to_itself_is_no_place(case: Case, tmp_path: Path) -> None:
    for out in (tmp_path / "loop", tmp_path / "around"):
        out.symlink_to(tmp_path / ("loop" if out.name == "loop" else "back"))
    (tmp_path / "back").symlink_to(tmp_path / "around")
    for out in (tmp_path / "loop", tmp_path / "around", tmp_path / "loop" / "inside"):
        with pytest.raises(UserError, match=r"leads to itself|can't be written|cannot read"):
            export_c99(case.made.model, out)


def test_a_folder_that_can_not_be_looked_at(case: Case, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        export_c99(case.made.model, tmp_path / ("a" * 300))
    with pytest.raises(UserError, match=r"File name too long|holds no manifest"):  # Python 3.14
        c99.read_manifest(tmp_path / ("a" * 300))


def test_a_file_that_can_not_be_read(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = export_c99(case.made.model, tmp_path / "c")

    def locked(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", locked)
    with pytest.raises(UserError, match=r"cannot read '.*Makefile': Permission denied"):
        c99.changed_files(tmp_path / "c", manifest)


def test_a_file_is_no_folder(case: Case, tmp_path: Path) -> None:
    (tmp_path / "c").touch()
    with pytest.raises(UserError, match="exists and is no export"):
        export_c99(case.made.model, tmp_path / "c")


@settings(max_examples=10)
@given(st.text(min_size=1, max_size=20))
def test_any_name_gives_plain_files(name: str) -> None:
    model = replace(random_model(np.random.default_rng(0), ["gru"], units=2), name=name)
    files, _ = make_files(model)
    assert all(re.fullmatch(r"(model/)?[A-Za-z0-9_]+(\.[a-z]+)?", file) for file in files)
