"""One HTML page that works without a network: its skeleton, style, script and plots."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from modelflex.report.summary import strict_json


def render_page(template: str, figures: Mapping[str, Any], **values: Any) -> str:
    """A page as text, about 5 MB: the plotting library is inside.

    Args:
        template: a file beside this one that fills the blocks of page.html.j2.
        figures: name → Plotly figure; `plot(name)` puts it in its place.
        values: what the template uses; and for the head of the page `name`, `kicker` (what kind of
            page it is), `verdict`, `success` (whether the verdict is a good one), `advice` (below
            it, if any), `tiles` (figure, text) and `notes`.
    """
    # Plotly's Python package takes a moment to load; only pages need it.
    from plotly.offline import get_plotlyjs

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    return environment.get_template(template).render(
        style=Markup(_text("style.css")),
        script=Markup(_text("page.js")),
        plotly=Markup(get_plotlyjs()),
        figures=strict_json(figures),
        **values,
    )


def _text(file: str) -> str:
    return files("modelflex.report").joinpath(file).read_text("utf-8")
