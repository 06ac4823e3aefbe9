"""A comparison of methods: the page, and what a terminal shows."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from modelflex.core.cost import COST_UNITS
from modelflex.core.files import replacing
from modelflex.report.cells import Cell, Table, assumptions, number
from modelflex.report.compare_plot import costs_figure
from modelflex.report.page import render_page
from modelflex.report.tables import step_table
from modelflex.report.terminal import rich_table
from modelflex.report.text import DASH, metric_name, show_factor, show_metric
from modelflex.search.comparison import COSTS, EFFICIENT, NEAR, Compared, Comparison
from modelflex.units import show_quantity

_VERDICTS = {"superior": "good", "efficient": "good", "degraded": "bad"}


def write_comparison(found: Comparison, path: Path) -> None:
    """Write the page of a comparison; the file appears whole or not at all."""
    text = render_comparison(found)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render_comparison(found: Comparison) -> str:
    """The page as text, about 5 MB."""
    return render_page(
        "compare.html.j2",
        {"costs": costs_figure(found)},
        name=found.name,
        kicker="ModelFlex comparison of methods",
        verdict=_verdict(found),
        success=bool(found.best),
        advice=None,
        tiles=_tiles(found),
        notes=found.notes,
        best=best_table(found),
        rows=rows_table(found),
        break_even=_break_even_table(found),
        steps={
            _named(row): step_table(found.steps[row.family], _divergence(found))
            for row in _best(found)
            if row.family in found.steps
        },
        provenance=assumptions(found.provenance, "Of this run"),
        efficient=f"{100 * EFFICIENT:g}",
        near=f"{100 * NEAR:g}",
        task=found.task != "none",
        tested=bool(found.test),
    )


def comparison_text(found: Comparison) -> RenderableType:
    """The best of every family and the verdict, for a terminal."""
    parts: list[RenderableType] = [Text(_verdict(found), style="bold"), Text()]
    if found.best:
        parts += [rich_table(_short_table(found)), Text()]
    parts += [Text(f"Note: {note}") for note in found.notes]
    return Group(*parts)


def _divergence(found: Comparison) -> str:
    name = metric_name(found.divergence)
    return name[0].upper() + name[1:]


def _row(found: Comparison, number: int) -> Compared:
    return next(row for row in found.rows if row.number == number)


def _best(found: Comparison) -> list[Compared]:
    """The best of the families, the fewest bytes fetched first."""
    rows = [_row(found, number) for number in found.best.values()]
    return sorted(rows, key=lambda row: (row.weight_fetch_bytes_per_step, row.number))


def _verdict(found: Comparison) -> str:
    if not found.best:
        also = f" and a divergence of at most {1 - EFFICIENT:.2g}" if found.coarse else ""
        return f"No method keeps {100 * EFFICIENT:g} % of the performance{also}."
    row = _best(found)[0]
    return (
        f"At {100 * EFFICIENT:g} % or more of the performance, {_named(row)} fetches the least: "
        f"{show_factor(row.fetch_saving)} fewer weight bytes a step, {show_factor(row.memory_saving)} "
        "smaller."
    )


def _named(row: Compared) -> str:
    return f"{row.family} ({row.label})"


def _tiles(found: Comparison) -> list[tuple[str, str]]:
    counts = {v: sum(row.verdict == v for row in found.rows) for v in _VERDICTS}
    tiles = [(f"{len(found.rows):,}", "recipes evaluated")]
    return tiles + [(f"{count:,}", text) for text, count in counts.items()]


# --- tables --------------------------------------------------------------------------------------
def _relative(row: Compared) -> str:
    relative = row.relative_performance
    return f"{100 * relative:.2f} %" if math.isfinite(relative) else DASH


def _saved(row: Compared) -> tuple[float, ...]:
    """In the order of `COSTS`."""
    return row.memory_saving, row.fetch_saving, row.compute_saving


def _judged(row: Compared) -> Cell:
    return Cell(row.verdict, style=_VERDICTS[row.verdict])


def _short_table(found: Comparison) -> Table:
    """The best of the families in as few columns as tell them apart."""
    measure = metric_name(found.metric).capitalize() if found.metric else _divergence(found)
    tested = bool(found.test) and bool(found.metric)
    columns = ["Best of family", measure, *(["Test"] if tested else [])]
    columns += ["Stored", "Fetched", "MACs", "Verdict"]
    rows = []
    for row in _best(found):
        value = row.divergence if row.metric is None else row.metric
        cells = [Cell(row.family, row.label), Cell(show_metric(found.metric, value))]
        cells += [_tested(found, str(row.number))] if tested else []
        cells += [Cell(show_factor(factor)) for factor in _saved(row)]
        rows.append((*cells, Cell(row.verdict, _relative(row), style=_VERDICTS[row.verdict])))
    return Table(tuple(columns), tuple(rows), frozenset(range(1, len(columns) - 1)))


def _tested(found: Comparison, which: str) -> Cell:
    score = found.test.get(which, {}).get("metric")
    value = None if score is None else score.value
    return number(show_metric(found.metric, value), value)


def _figures(found: Comparison, row: Compared) -> list[Cell]:
    cells = [number(f"{row.divergence:.3g}", row.divergence)]
    if row.metric is not None:
        cells.append(number(show_metric(found.metric, row.metric), row.metric))
    cells.append(number(_relative(row), row.relative_performance))
    for name, saving in zip(COSTS, _saved(row), strict=True):
        value = getattr(row, name)
        cells.append(number(show_quantity(value, COST_UNITS[name]), value, show_factor(saving)))
    return [*cells, _judged(row)]


def _columns(found: Comparison) -> list[str]:
    task = [metric_name(found.metric).capitalize()] if found.metric else []
    costs = ["Stored", "Fetched a step", "MACs a step"]
    return [_divergence(found), *task, "Relative performance", *costs, "Verdict"]


def best_table(found: Comparison) -> Table:
    """The uncompressed network and the best of every family, with what naive methods reach in it and
    scores on test data.
    """
    columns = ["Family", "Recipe", *_columns(found), "Fetched, best naive"]
    tested = bool(found.test) and bool(found.metric)
    columns += [f"Test {metric_name(found.metric)}"] if tested else []
    rows = []
    for row in _best(found):
        naive = found.best_naive.get(row.family)
        fetched = None if naive is None else _row(found, naive)
        cells = [Cell(row.family), Cell(row.label), *_figures(found, row)]
        cells.append(
            Cell("all degraded", style="missing") if fetched is None else _fetched(fetched)
        )
        cells += [_tested(found, str(row.number))] if tested else []
        rows.append(tuple(cells))
    numeric = frozenset(range(2, len(columns))) - {columns.index("Verdict")}
    return Table(tuple(columns), (_uncompressed(found, tested), *rows), numeric)


def _fetched(row: Compared) -> Cell:
    value = row.weight_fetch_bytes_per_step
    return number(show_quantity(value, "B"), value, show_factor(row.fetch_saving))


def _uncompressed(found: Comparison, tested: bool) -> tuple[Cell, ...]:
    cells = [Cell("uncompressed"), Cell("float32"), number("0", 0.0)]
    if found.metric:
        value = found.baseline["metric"].value
        cells.append(number(show_metric(found.metric, value), value))
    cells.append(number("100 %", 1.0))
    for name in COSTS:
        value = getattr(found.cost, name)
        cells.append(number(show_quantity(value, COST_UNITS[name]), value))
    cells += [Cell(""), number(DASH, None)]
    return (*cells, *([_tested(found, "baseline")] if tested else []))


def rows_table(found: Comparison) -> Table:
    """All recipes, the degraded ones last, the fewest bytes fetched first."""
    columns = ("#", "Family", "Recipe", "Data", *_columns(found))
    made = tuple(
        (
            Cell(str(row.number), sort=row.number),
            Cell(row.family),
            Cell(row.label),
            Cell("fitted" if row.data_aware else "none"),
            *_figures(found, row),
        )
        for row in sorted(found.rows, key=_merit)
    )
    return Table(columns, made, frozenset({0, *range(4, len(columns) - 1)}))


def _merit(row: Compared) -> tuple[bool, float, float, int]:
    degraded = row.verdict == "degraded"
    return degraded, row.weight_fetch_bytes_per_step, row.divergence, row.number


def _break_even_table(found: Comparison) -> Table:
    rows = tuple(
        (
            Cell(row.family),
            Cell(row.label),
            Cell(row.site),
            Cell(row.layout),
            number(f"{100 * row.density:.3g} %", row.density),
            number(f"{100 * row.break_even_density:.3g} %", row.break_even_density),
            Cell(
                "smaller than dense"
                if row.density < row.break_even_density
                else "larger than dense",
                style="good" if row.density < row.break_even_density else "bad",
            ),
        )
        for row in found.break_even
    )
    columns = ("Family", "Recipe", "Product", "Layout", "Density", "Breaks even at", "Storage")
    return Table(columns, rows, frozenset({4, 5}))
