"""A comparison made by hand, as a page and in terminals of two widths."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from rich.console import Console

from modelflex.core.cost import Cost
from modelflex.core.quality import Quality
from modelflex.report.compare import (
    best_table,
    comparison_text,
    render_comparison,
    rows_table,
    write_comparison,
)
from modelflex.report.compare_plot import FLOOR, costs_figure
from modelflex.report.tables import step_table
from modelflex.search.comparison import BreakEven, Compared, Comparison, fronts
from modelflex.search.study import Step

NASTY = "</script><b onclick=alert(1)>[bold]x & y</b><!--"
BASE = Cost(weight_bytes=400e3, weight_fetch_bytes_per_step=300e3, macs_per_step=71_750.0)
LONG = "blocks of 4, density 5 %, least squares, 4 bits, Δ 0.4 σ"


def row(number: int, family: str, label: str, saved: float, **more: Any) -> Compared:
    costs = {
        "weight_bytes": 400e3 / saved,
        "weight_fetch_bytes_per_step": 300e3 / saved,
        "macs_per_step": 71_750.0,
    }
    given: dict[str, Any] = {
        "twin": None, "data_aware": True, "divergence": 0.01, "metric": 0.975,
        "relative_performance": 0.995, "memory_saving": saved, "fetch_saving": saved,
        "compute_saving": 1.0, "verdict": "efficient",
    }  # fmt: skip
    return Compared(number=number, family=family, label=label, **(costs | given | more))


def make_comparison() -> Comparison:
    rows = (
        row(0, "format: uniform", "2 bits, scale a gate", 16.0, twin=3),
        row(1, "structure: circulant_plus_sparse", LONG, 20.0, divergence=0.0),
        row(2, "hybrid: units", NASTY, 64.0, verdict="superior", relative_performance=1.0),
        row(3, "format: uniform", "2 bits, naive", 15.0, data_aware=False, verdict="efficient"),
        row(4, "hybrid: units", "12.5 % of units, 2 bits", 640.0, divergence=2.5, metric=0.2,
            relative_performance=0.2, verdict="degraded"),
    )  # fmt: skip

    def accuracy(value: float) -> Quality:
        return Quality("accuracy", "max", value, (math.nan, math.nan), 63)

    return Comparison(
        name=f"vowels {NASTY}",
        task="classification",
        metric="accuracy",
        direction="max",
        divergence="kl",
        baseline={"metric": accuracy(0.98)},
        cost=BASE,
        rows=rows,
        fronts=fronts(rows),
        coarse=False,
        best={"format: uniform": 0, "structure: circulant_plus_sparse": 1, "hybrid: units": 2},
        best_naive={"format: uniform": 3},
        break_even=(
            BreakEven(
                "structure: row_sparse", "density 20 %", "lstm0.w_h/0", "row_sparse", 0.2, 0.4
            ),
            BreakEven(
                "structure: row_sparse", "density 50 %", "lstm0.w_h/0", "row_sparse", 0.5, 0.4
            ),
        ),
        steps={
            "hybrid: units": (
                Step("float32, dense", 400e3, 300e3, None, None, 0.0, 71_750.0),
                Step("number format", 100e3, 60e3, None, None, 0.01, 71_750.0),
            )
        },
        test={
            "baseline": {"metric": accuracy(0.981)},
            "0": {"metric": accuracy(0.972)},
            "1": {"metric": accuracy(0.961)},
            "2": {"metric": accuracy(0.953)},
        },
        provenance={"seed": 0, "versions": {"modelflex": "1"}},
        notes=(f"a note: {NASTY}",),
    )


class Page(HTMLParser):
    """Texts, attributes and the figures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.figures: dict[str, Any] = {}
        self._script: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append(dict(attrs))
        if tag in ("script", "style"):
            self._script = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script == "figures":
            self.figures = json.loads(data)
        elif self._script is None and data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def found() -> Comparison:
    return make_comparison()


@pytest.fixture(scope="module")
def page(found: Comparison) -> Page:
    return Page(render_comparison(found))


def shown(found: Comparison, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(comparison_text(found))
    return file.getvalue().splitlines()


# --- tables --------------------------------------------------------------------------------------
def test_the_best_stand_below_the_uncompressed_and_the_fewest_bytes_first(
    found: Comparison,
) -> None:
    table = best_table(found)
    assert [line[0].text for line in table.rows] == [
        "uncompressed",
        "hybrid: units",
        "structure: circulant_plus_sparse",
        "format: uniform",
    ]
    column = {name: [line[i] for line in table.rows] for i, name in enumerate(table.columns)}
    assert [c.text for c in column["Accuracy"]] == ["98.00 %", "97.50 %", "97.50 %", "97.50 %"]
    assert [c.text for c in column["Test accuracy"]] == ["98.10 %", "95.30 %", "96.10 %", "97.20 %"]
    assert [c.text for c in column["Stored"]] == ["400 kB", "6.25 kB", "20 kB", "25 kB"]
    assert [c.note for c in column["Stored"]] == ["", "64×", "20×", "16×"]
    assert [c.text for c in column["MACs a step"]] == ["71.75 k"] * 4
    naive = column["Fetched, best naive"]
    assert [c.text for c in naive] == ["—", "all degraded", "all degraded", "20 kB"]
    assert naive[-1].note == "15×"
    assert {len(line) for line in table.rows} == {len(table.columns)}


def test_of_all_recipes_the_degraded_stand_last_and_the_fewest_bytes_first(
    found: Comparison,
) -> None:
    table = rows_table(found)
    column = {name: [line[i] for line in table.rows] for i, name in enumerate(table.columns)}
    assert [c.text for c in column["#"]] == ["2", "1", "0", "3", "4"]
    assert [c.sort for c in column["Fetched a step"]] == [300e3 / n for n in (64, 20, 16, 15, 640)]
    assert [c.text for c in column["Data"]] == ["fitted"] * 3 + ["none", "fitted"]


def test_factors_of_steps_are_against_the_step_before(found: Comparison) -> None:
    table = step_table(found.steps["hybrid: units"], "KL")
    assert table.columns == ("Step", "Fetched a step", "Stored", "MACs a step", "KL")
    texts = [cell.text for cell in table.rows[1]]
    assert texts == ["number format", "60 kB", "100 kB", "71.75 k", "0.01"]
    assert [cell.note for cell in table.rows[1]] == ["", "÷ 5", "÷ 4", "", ""]


def test_steps_show_latency_and_energy_where_they_are_known() -> None:
    steps = (Step("a", 8.0, 8.0, 1e-3, 1e-6, 0.0), Step("b", 4.0, 4.0, 5e-4, 1e-6, 0.0))
    table = step_table(steps, "KL")
    assert table.columns[1:] == (
        "Fetched a step", "Stored", "Latency a step", "Energy a step", "KL"
    )  # fmt: skip


# --- page ----------------------------------------------------------------------------------------
def test_the_page_tells_what_was_found(page: Page) -> None:
    text = " ".join(page.texts)
    for wanted in (
        "fetches the least: 64× fewer weight bytes a step, 64× smaller.",
        "5 recipes evaluated 1 superior 3 efficient 1 degraded",
        "keeps at least 99 %",
        "smaller than dense",
        "larger than dense",
        "number format",
        LONG,
    ):
        assert wanted in text, wanted


def test_texts_from_outside_stay_texts(page: Page) -> None:
    assert not any("onclick" in attributes for attributes in page.attributes)
    assert sum(NASTY in text for text in page.texts) >= 4
    hovers = [t for trace in page.figures["costs"]["data"] for t in trace.get("text", ())]
    assert any("&lt;b onclick" in text for text in hovers)
    assert not any("<b onclick" in text for text in hovers)


def test_plotly_takes_the_figure_and_every_row_is_in_every_panel(page: Page) -> None:
    figure = page.figures["costs"]
    go.Figure(figure)
    points: dict[str, int] = {}
    for trace in figure["data"]:
        if trace["mode"] == "markers":
            points[trace["xaxis"]] = points.get(trace["xaxis"], 0) + len(trace["x"])
    assert points == dict.fromkeys(("x", "x2", "x3", "x4", "x5", "x6"), 5)
    names = [trace["name"] for trace in figure["data"] if trace["showlegend"]]
    assert len(set(names)) == len(names)
    assert set(names) == {trace["name"] for trace in figure["data"]}


def test_a_divergence_of_zero_is_drawn_on_the_logarithmic_axis(found: Comparison) -> None:
    figure = costs_figure(found)
    assert figure["layout"]["yaxis"]["type"] == "log"
    above = [trace for trace in figure["data"] if trace["yaxis"] in ("y", "y2", "y3")]
    assert min(v for trace in above for v in trace["y"]) == FLOOR


def test_panels_do_not_overlap(found: Comparison) -> None:
    panels = costs_figure(found)["layout"]
    for letter, count in (("x", 3), ("y", 2)):
        domains = {tuple(panels[k]["domain"]) for k in panels if k.startswith(f"{letter}axis")}
        ends = [end for domain in sorted(domains) for end in domain]
        assert len(domains) == count
        assert ends == sorted(ends)
        assert 0 <= ends[0] <= ends[-1] <= 1


@pytest.mark.parametrize("metric", ["accuracy", "perplexity"])
def test_ticks_of_logarithmic_axes_are_written_in_full(found: Comparison, metric: str) -> None:
    """plotly writes a lone 2 or 5 between powers of ten where no format is given."""
    direction = "max" if metric == "accuracy" else "min"
    panels = costs_figure(replace(found, metric=metric, direction=direction))["layout"]
    formats = {
        key: panel["tickformat"]
        for key, panel in panels.items()
        if "axis" in key and panel["type"] == "log"
    }
    assert {formats[key] for key in formats if key.startswith("x")} == {"~s"}
    assert {formats[key] for key in formats if key.startswith("y")} == {"~g"}
    assert len(formats) == 6 + (3 if metric == "accuracy" else 6)


@pytest.mark.parametrize(("direction", "edge"), [("max", 0.98 * 0.99), ("min", 0.98 / 0.99)])
def test_a_line_tells_what_is_degraded(found: Comparison, direction: str, edge: float) -> None:
    figure = costs_figure(replace(found, direction=direction))
    lines = [t for t in figure["data"] if t["name"] == "99 % of the performance"]
    assert [trace["y"] for trace in lines] == [[pytest.approx(edge)] * 2] * 3


def test_without_a_task_there_is_no_metric(found: Comparison) -> None:
    rows = tuple(replace(r, metric=None) for r in found.rows)
    none = replace(
        found, task="none", metric="", baseline={}, test={"baseline": {}, "0": {}}, rows=rows
    )
    page = Page(render_comparison(none))
    assert {trace["xaxis"] for trace in page.figures["costs"]["data"]} == {"x", "x2", "x3"}
    assert "Accuracy" not in page.texts
    assert "here 1 − divergence" in " ".join(page.texts)
    lines = shown(none, 80)
    assert any(line.startswith("Best of family") and " KL " in line for line in lines)


def test_when_all_are_degraded_the_page_says_so(found: Comparison) -> None:
    none = replace(found, best={}, best_naive={}, steps={}, break_even=(), test={})
    page = Page(render_comparison(none))
    assert "No method keeps 99 % of the performance." in page.texts
    assert "The best of every family" not in page.texts
    assert shown(none, 80)[0] == "No method keeps 99 % of the performance."
    assert "divergence of at most 0.01" in shown(replace(none, coarse=True), 120)[0]


def test_the_page_is_written_whole(found: Comparison, tmp_path: Path) -> None:
    write_comparison(found, tmp_path / "comparison.html")
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.html"]
    assert "Provenance" in (tmp_path / "comparison.html").read_text(encoding="utf-8")


# --- terminal ------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_keeps_figures_whole(found: Comparison, width: int) -> None:
    lines = shown(found, width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    heading = next(line for line in lines if line.startswith("Best of family"))
    assert heading.split()[3:] == ["Accuracy", "Test", "Stored", "Fetched", "MACs", "Verdict"]
    (best,) = (line for line in lines if line.startswith("hybrid: units "))
    assert best.split()[2:] == ["97.50", "%", "95.30", "%", "64×", "64×", "1×", "superior"]


def test_marks_in_labels_are_shown_as_they_are(found: Comparison) -> None:
    assert "[bold]x" in "".join(shown(found, 120))
