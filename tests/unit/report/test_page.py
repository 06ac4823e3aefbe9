from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from rich.console import Console

from modelflex.core.cost import Cost
from modelflex.errors import UserError
from modelflex.report import write_report
from modelflex.report.cells import assumptions
from modelflex.report.search import render
from modelflex.report.tables import comparison, limits
from modelflex.report.terminal import terminal_table
from modelflex.search.study import Baseline, Study

NASTY = "</script><b onclick=alert(1)>[bold]x & y</b><!--"


class Page(HTMLParser):
    """Elements, attributes and texts of a page, scripts apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.figures = ""
        self._script: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._script = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script == "figures":
            self.figures += data
        elif self._script is None and data.strip():
            self.text.append(data.strip())


@pytest.fixture(scope="module")
def page(study: Study) -> Page:
    return Page(render(study))


@pytest.fixture(scope="module")
def figures(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(page.figures)
    return found


def test_the_figures_stand_on_the_page(page: Page) -> None:
    for text in (
        "97.30 %",
        "97.03 %",
        "61.35 %",
        "95.3 – 98.8 %",
        "288.8 kB",
        "8 pJ/bit",
        "200 MHz",
    ):
        assert any(text in found for found in page.text), text
    assert "LPDDR4 <vendor> data sheet" in page.text
    assert "Frantar et al., GPTQ, ICLR 2023" in page.text


def test_texts_from_outside_stay_texts(page: Page) -> None:
    assert not any("onclick" in attrs for _, attrs in page.elements)
    assert not any(tag == "b" and attrs for tag, attrs in page.elements)
    # Name of the model, a note, a layer, a weight and a recipe carry it.
    assert sum(NASTY in text for text in page.text) >= 5


def test_texts_from_outside_stay_texts_in_hovering(figures: dict[str, Any]) -> None:
    texts = figures["pareto"]["layout"]["meta"]["hover"].values()
    assert any("&lt;b onclick=alert(1)&gt;" in t for t in texts)
    assert not any("<b onclick" in t for t in texts)


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attrs in page.elements:
        assert "src" not in attrs, tag
        assert tag not in ("link", "iframe", "img", "object", "embed", "base")
        if "href" in attrs:
            assert tag == "a"
    policy = [
        a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy
    assert "default-src 'none'" in str(policy[0])
    assert "http" not in str(policy[0])


def test_plotly_accepts_every_figure(figures: dict[str, Any]) -> None:
    assert set(figures) == {"pareto", "waterfall", "energy", "rank"}
    for figure in figures.values():
        go.Figure(figure)


def test_every_evaluated_recipe_is_drawn_once_in_each_panel(
    study: Study, figures: dict[str, Any]
) -> None:
    panels: dict[str, int] = {}
    for trace in figures["pareto"]["data"]:
        if trace["name"] in ("naive", "data-aware"):
            panels[trace["xaxis"]] = panels.get(trace["xaxis"], 0) + len(trace["x"])
    evaluated = sum(t.evaluation is not None for t in study.trials)
    assert panels == dict.fromkeys(("x", "x2", "x3", "x4", "x5", "x6"), evaluated)


def test_limits_stand_where_their_figures_say(figures: dict[str, Any]) -> None:
    lines = [s for s in figures["pareto"]["layout"]["shapes"] if s["type"] == "line"]
    at_kl = [s for s in lines if s["yref"] == "y" and s["y0"] == s["y1"]]
    assert [s["y0"] for s in at_kl] == [0.05]
    at_energy = [s for s in lines if s["xref"] == "x3" and s["x0"] == s["x1"]]
    assert [s["x0"] for s in at_energy] == [2.5e-7]
    # The accuracy axis holds errors: 97.62 % less 2 points.
    at_error = [s for s in lines if s["yref"] == "y4"]
    assert [s["y0"] for s in at_error] == [pytest.approx(1 - (0.9762 - 0.02))]


def test_what_is_not_known_is_a_dash_never_zero(study: Study) -> None:
    assert study.best is not None
    table = comparison(replace(study, best=replace(study.best, cost=Cost(weight_bytes=6600.0))))
    rows = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert rows["Energy a step"][2] == "—"
    assert rows["Energy a step"][4] == "—"
    assert rows["Latency bound by"][2] == "—"
    assert rows["KL, validation"][1] == "—"
    # Nobody's state is known: no row at all.
    assert "State carried" not in rows
    for row in rows.values():
        assert not any(text.startswith("0 ") or text in ("0", "nan", "None") for text in row[1:])


def test_why_operations_are_not_priced_stands_beside_their_share(study: Study) -> None:
    assert study.best is not None
    cost = replace(study.best.cost, coverage=0.0, unpriced="<wide> words")
    table = comparison(replace(study, best=replace(study.best, cost=cost)))
    row = next(row for row in table.rows if row[0].text == "Operations priced")
    assert (row[2].text, row[2].note) == ("0 %", "<wide> words")
    assert row[1].note == ""


def test_the_state_that_ships_stands_beside_the_one_that_is_priced(study: Study) -> None:
    assert study.best is not None
    best = replace(study.best, cost=replace(study.best.cost, state_bytes=9496.0))
    told = replace(study, best=best, exported_state_bytes=5400)
    row = next(row for row in comparison(told).rows if row[0].text == "State carried")
    assert [(cell.text, cell.note) for cell in row[1:4]] == [
        ("—", ""),
        ("9.496 kB", "5.4 kB in C"),
        ("—", ""),
    ]


def test_limits_are_met_missed_or_not_known(study: Study, without_best: Study) -> None:
    assert study.best is not None
    assert [row[2].text for row in limits(study).rows] == ["met"] * 4
    assert [row[2].text for row in limits(without_best).rows] == ["missed"]
    unknown = replace(study, best=replace(study.best, cost=Cost()))
    assert [row[2].text for row in limits(unknown).rows] == ["met", "met", "not known", "not known"]


def test_without_a_pick_the_page_says_why(without_best: Study) -> None:
    text = " ".join(Page(render(without_best)).text)
    assert "No recipe is within all limits." in text
    assert "Why nothing fits" in text
    assert "Nearest miss" in text
    assert "What each step contributes" not in text


def test_a_study_without_evaluations_still_has_a_page(study: Study) -> None:
    trials = tuple(
        replace(t, evaluation=None, status="rejected", violations=()) for t in study.trials
    )
    empty = replace(
        study,
        trials=trials,
        best=None,
        naive=None,
        steps=(),
        test={},
        limits=(),
        analysis={},
        platform={},
        provenance={},
        references={},
        baseline=Baseline({}, Cost()),
        task="none",
    )
    text = " ".join(Page(render(empty)).text)
    assert "No recipe is within all limits." in text
    assert "Quality against cost" not in text


def test_constants_are_shown_with_their_unit() -> None:
    table = assumptions(
        {
            "a": {"b": {"value": 8e-12, "unit": "J/bit"}, "n": {"value": 1024, "unit": "PEs"}},
            "c": None,
        },
        "x",
    )
    assert [tuple(cell.text for cell in row) for row in table.rows] == [
        ("a › b", "8 pJ/bit"),
        ("a › n", "1024 PEs"),
        ("c", "—"),
    ]


def test_the_file_appears_whole_or_not_at_all(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "report.html"
    write_report(study, path)
    before = path.read_text(encoding="utf-8")
    assert before.rstrip().endswith("</html>")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match="disk full"):
        write_report(replace(study, notes=()), path)
    assert path.read_text(encoding="utf-8") == before
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_terminal_shows_the_outcome_and_texts_from_outside_as_they_are(
    study: Study, without_best: Study
) -> None:
    shown = []
    for each in (study, without_best):
        console = Console(file=io.StringIO(), width=200)
        console.print(terminal_table(each))
        shown.append(console.file.getvalue())  # type: ignore[attr-defined]
    for text in ("97.30 %", "97.03 %", "61.35 %", "95.3 – 98.8 %", "met"):
        assert text in shown[0]
    assert "No recipe is within all limits." in shown[1]
    assert "85× off" in shown[1]


def test_the_terminal_does_not_read_markup(without_best: Study) -> None:
    miss = without_best.nearest[0][1]
    console = Console(file=io.StringIO(), width=250)
    console.print(terminal_table(replace(without_best, nearest=((2, miss),))))
    assert "[bold]x & y" in console.file.getvalue()  # type: ignore[attr-defined]
