"""What `modelflex validate` shows: a table in the terminal, and a page with error against step."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from modelflex.core.fixed import FX_ONE
from modelflex.export.c99_validate import Validation
from modelflex.report.cells import Cell, Table
from modelflex.report.page import render_page
from modelflex.report.style import AWARE, LIMIT, NAIVE, axis, layout
from modelflex.units import show_quantity

Figure = dict[str, Any]
_SHOWN_OUTPUTS: Final = 4
_LEAST: Final = 1e-9
"""The smallest relative error that is drawn."""
_COLOURS: Final = (AWARE, NAIVE, "#2e8b57", "#8e4ba8")


def validation_text(found: Validation) -> RenderableType:
    """The verdict and the figures."""
    table = TerminalTable(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(found):
        table.add_row(Text(name), Text(value))
    style = "bold green" if found.passed else "bold red"
    return Group(Text(_verdict(found), style=style), table)


def render_validation(found: Validation) -> str:
    """The page as text, about 5 MB."""
    return render_page(
        "validation.html.j2",
        {"error": _error_figure(found), "outputs": _outputs_figure(found)},
        name=found.name,
        kicker="ModelFlex validation · exported C99",
        verdict=_verdict(found),
        success=found.passed,
        advice=None,
        tiles=[],
        notes=[],
        facts=Table(
            ("", ""), tuple((Cell(n), Cell(v.replace("2^-16", "2⁻¹⁶"))) for n, v in _facts(found))
        ),
        integer=found.numeric == "integer",
        tolerance=f"{found.tolerance:g}",
    )


def _verdict(found: Validation) -> str:
    steps = int(found.lengths.sum())
    if found.passed and found.numeric == "integer":
        return f"Bit-exact: all {steps:,} steps of the compiled C equal the interpreter's."
    if found.passed:
        return f"All {steps:,} steps of the compiled C are within the tolerance of {found.tolerance:g}."
    first = found.first_difference()
    if first is None:
        return "The folder's self-test failed."
    differing = int(found.differing.sum())
    return f"{differing:,} of {steps:,} steps differ, the first in sequence {first[0]} at step {first[1]}."


def _facts(found: Validation) -> list[tuple[str, str]]:
    largest = float(found.errors.max())
    error = f"{largest:.3g}"
    if found.numeric == "integer":
        error = f"{largest * FX_ONE:,.0f} units of 2^-16"
    selftest = {None: "not run", True: "passed", False: "failed"}[found.selftest]
    sizes = ", ".join(f"{name} {show_quantity(found.nbytes[name], 'B')}" for name in found.nbytes)
    return [
        ("Data", found.data),
        ("Sequences, steps", f"{found.lengths.size:,}, {int(found.lengths.sum()):,}"),
        ("Outputs a step", f"{found.expected.shape[1]}"),
        ("Steps that differ", f"{int(found.differing.sum()):,}"),
        ("Largest error", error),
        ("Self-test", selftest),
        ("Compiler", found.compiler),
        ("Bytes", sizes),
    ]


def _error_figure(found: Validation) -> Figure:
    """The largest error at each step over all sequences: whole units, or relative beside the tolerance."""
    integer = found.numeric == "integer"
    errors = found.error_by_step
    steps = list(range(errors.size))
    if integer:
        errors = errors * FX_ONE
        shown = errors[np.isfinite(errors)]
        top = max(float(shown.max(initial=0.0)), 1.0)
        span = [-0.1 * top, 1.2 * top]
        title = "largest error [units of 2⁻¹⁶]"
    else:
        shown = errors[np.isfinite(errors)]
        top = max(float(shown.max(initial=0.0)), found.tolerance)
        errors = np.maximum(errors, _LEAST)  # a logarithmic axis has no 0
        span = [float(np.log10(_LEAST)) - 0.3, float(np.log10(top)) + 0.7]
        title = "largest relative error"
    figure: Figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "error",
                "x": steps,
                # What is not finite stands at the top.
                "y": np.minimum(errors, 2 * top).tolist(),
                "line": {"color": AWARE if found.passed else LIMIT, "width": 1.5},
                "marker": {"size": 5},
                "hovertemplate": "step %{x}: %{y:.4g}<extra></extra>",
            }
        ],
        "layout": layout(320, showlegend=not integer),
    }
    if not integer:
        figure["data"].append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "tolerance",
                "x": [-0.5, errors.size - 0.5],
                "y": [found.tolerance] * 2,
                "line": {"color": LIMIT, "width": 1.5, "dash": "dash"},
                "hoverinfo": "skip",
            }
        )
    figure["layout"]["margin"] |= {"t": 20}
    figure["layout"]["xaxis"] = axis("step of a sequence", False)
    kind = {} if integer else {"tickformat": ".0e"}
    figure["layout"]["yaxis"] = axis(title, not integer, range=span, **kind)
    return figure


def _outputs_figure(found: Validation) -> Figure:
    """The first outputs over the first sequence: the interpreter's as lines, the C code's as marks."""
    steps = int(found.lengths[0])
    lines: list[Figure] = []
    for k in range(min(_SHOWN_OUTPUTS, found.expected.shape[1])):
        common = {"type": "scatter", "x": list(range(steps)), "hovertemplate": "%{y:.5g}"}
        colour = _COLOURS[k]
        line = {"mode": "lines", "name": f"{k}: interpreter", "line": {"color": colour}}
        mark = {"mode": "markers", "name": f"{k}: C", "marker": {"color": colour, "size": 5}}
        lines.append(common | line | {"y": found.expected[:steps, k].tolist()})
        finite = [v if np.isfinite(v) else None for v in found.found[:steps, k].tolist()]
        lines.append(common | mark | {"y": finite})
    figure: Figure = {"data": lines, "layout": layout(360)}
    figure["layout"]["margin"] |= {"t": 20}
    figure["layout"]["xaxis"] = axis("step of the first sequence", False)
    figure["layout"]["yaxis"] = axis("output", False)
    return figure
