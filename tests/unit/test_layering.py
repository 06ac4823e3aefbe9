"""The floors of the architecture: a file imports lower floors only, siblings never each other.

The check reads the syntax tree of every file, so imports inside functions and under
TYPE_CHECKING count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "modelflex"
PACKAGE = "modelflex"

# One floor a line, lowest first; names joined by "+" are one unit, whose files may import each
# other. The package's __init__ is the public face, above all floors: it may import everything.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors+units+registry+_native",),
    ("core",),
    (
        "cells",
        "layers",
        "structures",
        "formats",
        "activities",
        "nonlinearities",
        "removals",
        "platforms",
    ),
    ("execute",),
    ("importers", "calibrate"),
    ("compress",),
    ("evaluate", "hosts", "export"),
    ("search", "pareto", "progressive"),
    ("report", "testing"),
    ("pipeline",),
    ("cli",),
)
PLUGIN_FLOOR = 2
FLOOR_OF = {name: i for i, units in enumerate(FLOORS) for unit in units for name in unit.split("+")}
UNIT_OF = {name: unit for units in FLOORS for unit in units for name in unit.split("+")}


def unit(module: str) -> str:
    """What a module belongs to; on the plug-in floor each file (or sub-package) stands alone."""
    parts = module.split(".")[1:]
    if FLOOR_OF[parts[0]] == PLUGIN_FLOOR:
        return ".".join(parts[:2])
    return UNIT_OF[parts[0]]


def modules(root: Path) -> dict[str, Path]:
    """The dotted name of each Python file under `root`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join((PACKAGE, *parts))] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, module of this package) for each import in the file."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            # "from a.b import c" names the module a.b.c if there is one, else something in a.b.
            targets = [name if name in known else base for name in names]
        else:
            continue
        for target in targets:
            if target == PACKAGE or target.startswith(PACKAGE + "."):
                yield node.lineno, target


def fault(module: str, target: str) -> str | None:
    """Why `module` may not import `target`, or None if it may."""
    if target == PACKAGE:
        return "imports the public face, which stands above it"
    name = target.split(".")[1]
    if name not in FLOOR_OF:
        return f"imports {target}, which is on no floor"
    if unit(module) == unit(target):
        return None
    own, other = FLOOR_OF[module.split(".")[1]], FLOOR_OF[name]
    if other > own:
        return f"on floor {own} imports {target} on floor {other}"
    if other == own:
        return f"imports its sibling {target}"
    return None


def violations(root: Path) -> list[str]:
    """One line for each import under `root` that breaks the floors, and for a cycle."""
    known = modules(root)
    found: list[str] = []
    edges: dict[str, set[str]] = {}
    for module, path in known.items():
        if module == PACKAGE:
            continue
        if module.split(".")[1] not in FLOOR_OF:
            found.append(f"{module} is on no floor")
            continue
        for line, target in imports(module, path, known):
            edges.setdefault(module, set()).add(target)
            if why := fault(module, target):
                found.append(f"{module}:{line} {why}")
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found.append("cycle: " + " -> ".join(error.args[1]))
    return found


def test_the_package_keeps_its_floors() -> None:
    assert modules(SOURCE), f"no Python files under {SOURCE}"
    assert violations(SOURCE) == []


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_sound_tree_has_no_violations(tmp_path: Path) -> None:
    files = {
        "__init__.py": "def load():\n    from modelflex import pipeline\n",
        "errors.py": "",
        "registry.py": "from modelflex.errors import UserError\n",
        "core/__init__.py": "",
        "core/graph.py": "import numpy\nfrom modelflex import errors\n",
        "core/model.py": "from .graph import Graph\n",
        "platforms/systolic/__init__.py": "from modelflex.platforms.systolic import cycles\n",
        "platforms/systolic/cycles.py": "from ...core import model\n",
        "pipeline.py": "from modelflex.core.model import Model\n",
    }
    assert violations(tree(tmp_path, files)) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"core/graph.py": "from modelflex.cells import lstm\n", "cells/lstm.py": ""},
            "modelflex.core.graph:1 on floor 1 imports modelflex.cells.lstm on floor 2",
        ),
        (
            {"errors.py": "def f():\n    import modelflex.core.graph\n"},
            "modelflex.errors:2 on floor 0 imports modelflex.core.graph on floor 1",
        ),
        (
            {"cells/lstm.py": "from . import gru\n", "cells/gru.py": ""},
            "modelflex.cells.lstm:1 imports its sibling modelflex.cells.gru",
        ),
        (
            {"structures/dense.py": "from ..formats.uniform import pack\n"},
            "modelflex.structures.dense:1 imports its sibling modelflex.formats.uniform",
        ),
        (
            {"execute/interpret.py": "from modelflex import load\n"},
            "modelflex.execute.interpret:1 imports the public face, which stands above it",
        ),
        ({"helpers.py": ""}, "modelflex.helpers is on no floor"),
        (
            {"cli.py": "import modelflex.extras.x\n"},
            "modelflex.cli:1 imports modelflex.extras.x, which is on no floor",
        ),
    ],
)
def test_each_kind_of_violation_is_found(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    assert violations(tree(tmp_path, files)) == [expected]


def test_a_cycle_within_a_package_is_found(tmp_path: Path) -> None:
    files = {"core/a.py": "from .b import x\n", "core/b.py": "import modelflex.core.a\n"}
    (found,) = violations(tree(tmp_path, files))
    assert found.startswith("cycle: ")
    assert "modelflex.core.a" in found
    assert "modelflex.core.b" in found
