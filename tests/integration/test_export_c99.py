"""Exported C compiled and run: warnings, sanitizers, bit-exact results, stack, several models at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelflex.cli import main
from modelflex.core.model import Model
from modelflex.export import c99
from modelflex.export.artefact import save_artefact
from modelflex.export.c99 import export_c99
from modelflex.testing.generators import (
    random_carrying_model,
    random_case,
)

from .exported import (
    CC,
    SANITIZERS,
    WARNINGS,
    carrying_model,
    compile_,
    layer_model,
    refined_carrying_model,
    run_selftest,
    sources,
)
from .refusal import one_line

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler on the PATH")

MODELS: dict[str, Callable[[], Model]] = {
    **{f"recipe {seed}": lambda seed=seed: random_case(seed).made.model for seed in (3, 8)},
    "float": lambda: random_case(3).model,
    **{kind: lambda kind=kind: layer_model(kind, 1) for kind in ("conv2d", "embedding")},
    "carries": lambda: carrying_model(1),
    "carries terms": lambda: refined_carrying_model(3),
    "carries floats": lambda: random_carrying_model(np.random.default_rng(2), ("lstm",), 2),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_self_test_passes_under_sanitizers(name: str, tmp_path: Path) -> None:
    symbol = export_c99(MODELS[name](), tmp_path / "c")["symbol"]
    command = str(CC), *WARNINGS, *SANITIZERS
    run_selftest(tmp_path / "c", symbol, *command, program=tmp_path / "selftest")


def test_the_makefile_builds_tests_and_cleans(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("no make on the PATH")
    out = tmp_path / "c"
    export_c99(MODELS["float"](), out)
    done = subprocess.run(
        ["make", "test", "library", "CFLAGS=-O0"],
        cwd=out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 outputs differ" in done.stdout
    assert (out / "build" / "librandom.a").is_file()
    assert export_c99(MODELS["float"](), out)  # what was built is no foreign file


def export_named(folder: Path, name: str, seed: int = 3, chosen: str | None = None) -> str:
    """A model of a name, exported into a folder of that; its symbol."""
    model = random_case(seed).made.model
    named = Model(name, model.layers, model.weights, model.output)
    return str(export_c99(named, folder / name, chosen)["symbol"])


def program_of(symbols: Sequence[str]) -> str:
    """A main program that uses several models."""
    text = "".join(f'#include "{n}.h"\n' for n in symbols)
    text += "".join(f"static {n}_instance instance_{n};\n" for n in symbols)
    calls = "".join(
        f"static {n}_real x{n}[{n.upper()}_INPUTS], y{n}[{n.upper()}_OUTPUTS];\n"
        f"{n}_init(&instance_{n}); {n}_step(&instance_{n}, x{n}, y{n});\n"
        for n in symbols
    )
    return f"{text}#include <math.h>\nint main(void) {{\n{calls}return 0;\n}}\n"


def test_models_go_into_one_program(tmp_path: Path) -> None:
    """Names of files, private symbols, headers and keywords; one folder after another is searched."""
    names = ["a", "a_weights", "a_mf", "math"]
    symbols = [export_named(tmp_path, name, 3 + 5 * (i % 2)) for i, name in enumerate(names)]
    symbols.append(export_named(tmp_path, "b", chosen="third"))
    (tmp_path / "main.c").write_text(program_of(symbols))
    folders = [tmp_path / name for name in (*names, "b")]
    files = [f for folder in folders for f in sources(folder)]
    searched = [f"-I{folder}" for folder in folders]
    compile_("-std=c99", "-O0", "main.c", *searched, *files, "-o", "all", folder=tmp_path)
    assert subprocess.run([tmp_path / "all"], check=False).returncode == 0


def test_two_models_of_a_name_are_told_apart(tmp_path: Path) -> None:
    """Of names that differ in case the macros are the same; the same header twice is no mistake."""
    (tmp_path / "one").mkdir()
    export_named(tmp_path / "one", "net")
    export_named(tmp_path, "NET", seed=8)
    main_c = tmp_path / "main.c"
    main_c.write_text('#include "one/net/net.h"\n#include "one/net/net.h"\n')
    compile_("-std=c99", "-fsyntax-only", str(main_c))
    main_c.write_text('#include "one/net/net.h"\n#include "NET/NET.h"\n')
    with pytest.raises(AssertionError, match=r"Two models have macros NET_.*another --name"):
        compile_("-std=c99", "-fsyntax-only", str(main_c))


# --- the commands --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved artefact, `best`, its export, `c`, and data for it."""
    folder = tmp_path_factory.mktemp("exported")
    case = random_case(3)
    save_artefact(case.made.model, folder / "best", recipe=case.recipe, provenance={})
    np.savez(folder / "data.npz", x=case.data.x, lengths=case.data.lengths)
    command = ["export", str(folder / "best"), "--format", "c99", "--out", str(folder / "c")]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """A copy of the export that may be damaged."""
    return shutil.copytree(exported / "c", tmp_path / "c")


def validate(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["validate", *map(str, arguments), "--json"])
    return int(stop.value.code or 0), json.loads(capsys.readouterr().out)


def test_validation_by_golden_vectors(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = validate(capsys, copy)
    assert code == 0
    assert found["passed"]
    assert found["selftest"]
    assert (found["steps"], found["differing_steps"], found["largest_error"]) == (64, 0, 0.0)
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert 'data-figure="error"' in page
    assert "http-equiv" in page


def test_validation_by_data(
    copy: Path, exported: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, found = validate(capsys, copy, "--data", exported / "data.npz", "--out", page)
    assert (code, found["differing_steps"], found["data"]) == (0, 0, "data.npz")
    assert (found["sequences"], found["steps"]) == (5, 36)
    assert page.is_file()
    assert not (copy / c99.VALIDATION).exists()


def alter(folder: Path, file: str, before: str, after: str) -> None:
    """Change a file and what the manifest says of it, as a damaged exporter would have."""
    path, manifest = folder / file, folder / c99.MANIFEST
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    values = json.loads(manifest.read_text())
    values["files"][file] = c99.digest(path.read_bytes())
    manifest.write_text(json.dumps(values))


def test_a_wrong_result_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter(copy, "random_elementwise.c", "random_mf_add_sat(a[i], b[i]);", "a[i] - b[i];")
    code, found = validate(capsys, copy)
    assert code == 3
    assert not found["passed"]
    assert not found["selftest"]
    assert found["first_difference"] == {"sequence": 0, "step": 0}
    assert found["largest_error"] > 0


def test_what_does_not_compile_is_said(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alter(copy, "random.c", "memset(m, 0, sizeof *m);", "memset(m, 0, sizeof *m)")
    assert "does not compile the code: random.c:" in one_line(capsys, "validate", str(copy))


def test_an_altered_file_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "random_elementwise.c").write_text("")
    assert "random_elementwise.c was altered" in one_line(capsys, "validate", str(copy))


def test_without_a_compiler_it_says_so(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line(capsys, "validate", str(copy), "--cc", "no-such-compiler")
    assert "skipped: there is no C compiler (no-such-compiler)" in line


def test_a_compiler_that_only_fails_is_named(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = one_line(capsys, "validate", str(copy), "--cc", "false")
    assert "'false' does not compile the code: it says nothing and ends with 1" in line


def test_a_page_without_a_place_is_refused_before_compiling(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = copy / "nowhere" / "page.html"
    line = one_line(capsys, "validate", str(copy), "--cc", "false", "--out", str(page))
    assert f"cannot write {page}; expected a place for the page; name one with --out" in line


def test_weights_changed_with_their_hash_are_found(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the code, and in the model that it is compared with."""
    path = copy / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    assert "model.safetensors was altered" in one_line(capsys, "validate", str(copy))
    alter(copy, "model/model.json", '"name"', '"name"')  # the manifest: all hashes are right now
    manifest = json.loads((copy / c99.MANIFEST).read_text())
    manifest["files"]["model/model.safetensors"] = c99.digest(path.read_bytes())
    (copy / c99.MANIFEST).write_text(json.dumps(manifest))
    code, found = validate(capsys, copy)
    assert (code, found["passed"], found["selftest"]) == (3, False, True)


@pytest.mark.parametrize("folder", ["best", "nowhere"])
def test_what_is_no_export_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    assert "holds no manifest.json" in one_line(capsys, "validate", str(exported / folder))


def test_data_of_another_network_are_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 2), np.float32), lengths=np.array([3]))
    line = one_line(capsys, "validate", str(copy), "--data", str(tmp_path / "x.npz"))
    assert "has 2 features" in line


def test_an_unknown_format_is_refused(
    exported: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = "export", str(exported / "best"), "--out", str(tmp_path / "x"), "--format", "c98"
    assert "did you mean 'c99'?" in one_line(capsys, *command)


def test_a_name_may_be_chosen(
    exported: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = "export", str(exported / "best"), "--out", str(tmp_path / "x"), "--name"
    assert "'model_int' would do" in one_line(capsys, *command, "int")
    with pytest.raises(SystemExit) as stop:
        main([*command, "kws"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("kws: flash")
    assert "name:" not in printed
    assert printed.endswith(f"to check it: modelflex validate {tmp_path / 'x'}\n")
    assert (tmp_path / "x" / "kws_weights.c").is_file()
    assert validate(capsys, tmp_path / "x")[0] == 0


def test_a_name_that_was_changed_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = replace(random_case(3).made.model, name="my weights")
    save_artefact(model, tmp_path / "best", recipe=None, provenance={})
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "best"), "--out", str(tmp_path / "c")])
    assert "name: my_weights_net, as the model's is no prefix of C" in capsys.readouterr().out


RUN = "from modelflex.cli import main; main()"


def test_the_same_bytes_in_another_process(exported: Path, tmp_path: Path) -> None:
    """Of both forms, whatever the hash seed, locale, working folder, time zone and number of threads are."""
    forms = ["c99", *(["onnx"] if find_spec("onnx") else [])]
    found = []
    for number, (seed, language) in enumerate((("1", "C"), ("77", "tr_TR.UTF-8"))):
        folder = tmp_path / str(number) / "ü"
        folder.mkdir(parents=True)
        variables = {
            "PYTHONHASHSEED": seed,
            "LC_ALL": language,
            "LANG": language,
            "TZ": f"UTC{number}",
            "OMP_NUM_THREADS": str(1 + number % 2),
            "OPENBLAS_NUM_THREADS": str(1 + number % 2),
        }
        for form in forms:
            command = [sys.executable, "-c", RUN, "export", str(exported / "best")]
            command += ["--format", form, "--out", form]
            subprocess.run(
                command,
                cwd=folder,
                env=os.environ | variables,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        found.append({str(p.relative_to(folder)): p.read_bytes() for p in files})
    assert len(found[0]) > 10
    assert found[0] == found[1]
