"""Where there is no compiler the package is installed all the same, runs in pure Python, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE", "csrc", "src")

pytest.importorskip("scikit_build_core", reason="building needs the development packages")
pytest.importorskip("pip", reason="building needs pip")


def run(*command: str | Path, **variables: str) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | variables
    done = subprocess.run(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_an_install_without_a_compiler_runs_in_pure_python(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation")
    said = run(*pip, "-w", tmp_path, source, CC="false", CXX="false")
    assert "will run in pure Python" in said
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    # An environment with this wheel, and everything else from the one that runs the tests.
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    shutil.unpack_archive(wheel, packages, "zip")
    (packages / "base.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    assert "pure Python" in run(python, "-I", ROOT / "scripts" / "smoke_test.py", "--pure", PATH="")
    code = (
        "from modelflex.pipeline.jobs import say_if_slow; say_if_slow(print);"
        "from modelflex.testing.recipes import cached_case; import modelflex;"
        "modelflex.compile(cached_case(0).made.model)"
    )
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    assert "pure Python" in done.stdout
    assert "UserError: the native kernels cannot be loaded" in done.stderr
