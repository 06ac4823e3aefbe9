"""What `modelflex refine` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelflex.progressive.choosing import Offer
from modelflex.units import show_quantity

SHOWN: Final = 16
"""Rungs of a ladder that are shown at most."""


def refined_text(offers: Sequence[Offer], found: Mapping[str, Any]) -> RenderableType:
    """The best offer's ladder, and a row for each other offer."""
    best = offers[0]
    ladder, share = best.ladder, 1 / max(1, best.ladder.dense_operations)
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    names = (
        "Terms",
        "Operations",
        "of dense",
        ladder.divergence,
        "median",
        "90 %",
        "worst",
        "Metric",
        "",
    )
    for name in names:
        table.add_column(name, justify="right")
    thin = -(-len(ladder.rungs) // SHOWN)
    for number, rung in enumerate(ladder.rungs):
        if number % thin and rung is not best.rung and rung is not ladder.rungs[-1]:
            continue
        table.add_row(
            "+".join(str(n) for n in rung.terms.values()),
            f"{rung.operations:,}",
            f"{100 * rung.operations * share:.3g} %",
            *(f"{value:.3g}" for value in (rung.divergence, rung.median, rung.p90, rung.worst)),
            "" if rung.metric is None else f"{rung.metric:.4g}",
            "◄" if rung is best.rung else "",
        )
    parts: list[RenderableType] = [
        Text(f"{', '.join(best.settings)}: {best.label}", style="bold"),
        table,
    ]
    if len(offers) > 1:
        parts += [
            Text("Offers, the best first", style="bold"),
            _offers(offers, found["price_unit"]),
        ]
    if not best.met:
        parts.append(Text("The target is not met: the nearest is shown.", style="bold"))
    return Group(*parts)


def _offers(offers: Sequence[Offer], unit: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for name, justify in (("Terms", "right"), ("Price", "right"), ("Divergence", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("Met")
    table.add_column("Weights")
    for offer in offers:
        price = (
            f"{offer.price:,.0f} op" if unit == "operations" else show_quantity(offer.price, "s")
        )
        terms = "+".join(str(n) for n in offer.rung.terms.values())
        table.add_row(
            terms, price, f"{offer.rung.divergence:.3g}", "yes" if offer.met else "no", offer.label
        )
    return table
