"""The report in a real browser: its plots are drawn and nothing fails."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from modelflex.export.c99_validate import Validation
from modelflex.pipeline.sweep import simulate_sweep
from modelflex.report import write_report
from modelflex.report.compare import write_comparison
from modelflex.report.validation import render_validation

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=10000",
)


def _fixture(name: str = "conftest.py") -> ModuleType:
    path = Path(__file__).parents[1] / "unit" / "report" / name
    spec = spec_from_file_location("report_study", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Dom(HTMLParser):
    """What the browser holds after its scripts have run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root: dict[str, str | None] = {}
        self.drawn: dict[str, Counter[str]] = {}
        self.first_cells: list[str] = []
        self.ticks: list[str] = []
        self._tick = False
        self._plot: str | None = None
        self._rows = False
        self._cell = False
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        classes = (values.get("class") or "").split()
        if tag == "html":
            self.root = values
        elif tag == "section":
            self._plot = None
        elif tag == "table":
            self._rows = values.get("id") == "pairs-table"
        elif tag == "tr":
            self._cell = self._rows
        elif tag == "script":
            self._script = True
        if (values.get("id") or "").startswith("plot-"):
            self._plot = str(values["id"]).removeprefix("plot-")
            self.drawn[self._plot] = Counter({"plots": "js-plotly-plot" in classes})
        elif self._plot is not None:
            counts = self.drawn[self._plot]
            counts["traces"] += "trace" in classes
            counts["points"] += tag == "path" and "point" in classes
            counts["lines"] += tag == "path" and "js-line" in classes
            counts["bars"] += tag == "g" and "point" in classes
            counts["texts"] += tag == "text"
            self._tick = "xtick" in classes or (self._tick and tag == "text")

    def handle_endtag(self, tag: str) -> None:
        self._script = self._script and tag != "script"
        if tag == "table":
            self._rows = False

    def handle_data(self, data: str) -> None:
        if self._tick and data.strip():
            self.ticks.append(data.strip())
        if self._cell and not self._script and data.strip():
            self.first_cells.append(data.strip())
            self._cell = False


def open_page(path: Path, folder: Path) -> Dom:
    assert CHROMIUM is not None
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    return Dom(done.stdout.decode("utf-8"))


def test_the_plots_are_drawn_without_an_error(tmp_path: Path) -> None:
    study = _fixture().make_study()
    path = tmp_path / "report.html"
    write_report(study, path)
    dom = open_page(path, tmp_path)
    assert json.loads(dom.root.get("data-errors") or "[]") == []
    assert dom.root.get("data-ready") == "yes"
    assert {name: counts["plots"] for name, counts in dom.drawn.items()} == dict.fromkeys(
        ("pareto", "waterfall", "energy", "rank"), 1
    )
    evaluated = sum(t.evaluation is not None for t in study.trials)
    pareto = dom.drawn["pareto"]
    # Six panels, each with all recipes, two stars, two fronts and the lines to the twins.
    assert pareto["points"] >= 6 * (evaluated + 2)
    assert pareto["lines"] >= 6 * 3
    assert dom.drawn["waterfall"]["bars"] >= 2 * (len(study.steps) - 1)
    assert dom.drawn["energy"]["bars"] >= 4
    assert dom.drawn["rank"]["lines"] >= 1
    assert dom.drawn["rank"]["points"] >= 2


def test_without_a_pick_the_plots_are_drawn_too(tmp_path: Path) -> None:
    fixture = _fixture()
    path = tmp_path / "report.html"
    write_report(fixture.make_without_best(fixture.make_study()), path)
    dom = open_page(path, tmp_path)
    assert json.loads(dom.root.get("data-errors") or "[]") == []
    assert dom.drawn["pareto"]["points"] > 0
    assert "waterfall" not in dom.drawn


def test_the_plot_of_a_comparison_is_drawn(tmp_path: Path) -> None:
    found = _fixture("test_compare.py").make_comparison()
    path = tmp_path / "comparison.html"
    write_comparison(found, path)
    dom = open_page(path, tmp_path)
    assert json.loads(dom.root.get("data-errors") or "[]") == []
    assert {name: counts["plots"] for name, counts in dom.drawn.items()} == {"costs": 1}
    assert dom.drawn["costs"]["points"] >= 6 * len(found.rows)
    assert {"1k", "2k", "5k", "10k", "20k"} <= set(dom.ticks)
    assert not {"2", "5"} & set(dom.ticks)


def test_the_plots_of_a_sweep_are_drawn(tmp_path: Path) -> None:
    text = "[workload]\ngemm = [[1, 64, 48]]\n[sweep]\nrows = [2, 4]\ncolumns = [4, 8]\n[chip]\n"
    (tmp_path / "sweep.toml").write_text(text, encoding="utf-8")
    paths = simulate_sweep(tmp_path / "sweep.toml", tmp_path / "out")["paths"]
    dom = open_page(Path(paths["page"]), tmp_path)
    assert json.loads(dom.root.get("data-errors") or "[]") == []
    assert dom.root.get("data-ready") == "yes"
    assert {name: counts["plots"] for name, counts in dom.drawn.items()} == dict.fromkeys(
        ("map-latency_s", "map-energy_j", "pareto"), 1
    )
    assert dom.drawn["pareto"]["points"] >= 4


@pytest.mark.parametrize(
    ("numeric", "wrong"), [("integer", 0.0), ("integer", np.nan), ("float", 0.0), ("float", np.inf)]
)
def test_the_plots_of_a_validation_are_drawn(numeric: str, wrong: float, tmp_path: Path) -> None:
    expected = np.sin(np.arange(60.0)).reshape(30, 2)
    given = expected.copy()
    given[7, 1] += wrong
    found = Validation(
        name="<b>net",
        numeric=numeric,
        data="golden vectors",
        compiler="cc",
        lengths=np.array([20, 10]),
        found=given,
        expected=expected,
        tolerance=1e-4 if numeric == "float" else 0.0,
        nbytes={"flash": 1, "ram": 2, "state": 3, "stack": 4},
        selftest=True,
    )
    assert found.passed == (wrong == 0)
    path = tmp_path / "validation.html"
    path.write_text(render_validation(found), encoding="utf-8")
    dom = open_page(path, tmp_path)
    assert json.loads(dom.root.get("data-errors") or "[]") == []
    assert dom.root.get("data-ready") == "yes"
    assert {name: counts["plots"] for name, counts in dom.drawn.items()} == {
        "error": 1,
        "outputs": 1,
    }
    assert dom.drawn["error"]["points"] >= 20
    assert dom.drawn["error"]["lines"] >= (2 if numeric == "float" else 1)
    assert dom.drawn["outputs"]["lines"] >= 2
    assert dom.drawn["outputs"]["points"] >= 2 * 20 - (not np.isfinite(wrong))


def test_an_error_on_the_page_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(_fixture().make_study(), path)
    text = path.read_text(encoding="utf-8")
    broken = '<script>noSuchFunction()</script><img src="http://127.0.0.1:9/x.png"></body>'
    path.write_text(broken.join(text.rsplit("</body>", 1)), encoding="utf-8")
    errors = json.loads(open_page(path, tmp_path).root.get("data-errors") or "[]")
    assert any("noSuchFunction" in e for e in errors)
    assert any(e.startswith("blocked: http://127.0.0.1:9") for e in errors)


def test_the_table_sorts_by_number(tmp_path: Path) -> None:
    study = _fixture().make_study()
    path = tmp_path / "report.html"
    write_report(study, path)
    text = path.read_text(encoding="utf-8")
    click = "<script>document.querySelector('#pairs-table th:nth-child(3)').click()</script></body>"
    path.write_text(click.join(text.rsplit("</body>", 1)), encoding="utf-8")
    numbers = [int(cell) for cell in open_page(path, tmp_path).first_cells if cell != "#"]
    divergences = [study.trials[n].divergence for n in numbers]
    assert len(numbers) == 80
    assert divergences == sorted(divergences)
