"""What `modelflex simulate` prints for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelflex.core.cost import COST_UNITS
from modelflex.report.model import all_terms_text
from modelflex.report.sweep_text import show_figure
from modelflex.units import show_quantity

_OPERANDS = ("ifmap", "filter", "ofmap")


def layers_text(layers: Sequence[Mapping[str, Any]], total_cycles: int | None) -> RenderableType:
    """A row a layer, with the words that each operand moves to or from DRAM."""
    shares = ("mapping", "compute", "overall")
    heads = ("Layer", "Cycles", "Stalls", *(f"{share.capitalize()} %" for share in shares))
    rows = [
        (
            layer["name"],
            f"{layer['cycles']:,}",
            f"{layer['stall_cycles']:,}",
            *(f"{layer[f'{share}_utilization']:.3g}" for share in shares),
            *(_short(layer["dram"][operand]) for operand in _OPERANDS),
        )
        for layer in layers
    ]
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    cells = zip(*rows, strict=True)
    for head, column in zip((*heads, *(f"DRAM {o}" for o in _OPERANDS)), cells, strict=True):
        # In a narrow window a line rather wraps than loses digits or the end of a name.
        table.add_column(
            head,
            justify="left" if head == "Layer" else "right",
            min_width=max(map(cell_len, column)),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    if total_cycles is None:
        return table
    return Group(table, Text(f"{total_cycles:,} cycles in all", style="bold"))


def _short(words: int) -> str:
    """Three digits and a power of a thousand: 4325376 becomes 4.33M."""
    for power, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if words >= power:
            return f"{words / power:.3g}{name}"
    return str(words)


def priced_text(priced: Mapping[str, Any]) -> RenderableType:
    """Totals, where the energy goes, and the products."""
    cost, platform = priced["cost"], priced["platform"]
    recipe = priced["recipe"]
    label = "as it is" if recipe is None else (recipe["label"] or "recipe")
    head = f"{priced['model']} ({label}) on {platform.get('title', platform.get('name', ''))}"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if "model" in platform:
        parts.append(Text(f"Model: {platform['model']}"))
    totals = Table(box=None, pad_edge=False, show_header=False)
    for name, unit in COST_UNITS.items():
        totals.add_row(name, show_quantity(cost[name], unit))
    for name, value in cost["resources"].items() if "predicted" in priced else ():
        totals.add_row(name, _resource(name, value))
    parts += [totals, Text()]
    if priced["terms"]:
        parts.append(Text(all_terms_text(priced["terms"])))
    if cost["unpriced"]:
        parts.append(Text(f"Not priced: {cost['unpriced']}"))
    if "predicted" in priced:
        told = show_quantity(priced["predicted"]["latency_per_step_s"], "s")
        parts.append(Text(f"Measured on this machine; predicted latency_per_step_s: {told}"))
    if cost["energy_breakdown_j"]:
        energy = cost["energy_breakdown_j"]
        shares = (f"{part} {show_quantity(joules, 'J')}" for part, joules in energy.items())
        parts.append(Text("Energy of a step: " + ", ".join(shares)))
    if cost["per_op"]:
        products = Table(box=None, pad_edge=False, header_style="bold underline")
        for name in ("Product", "Latency an inference", "Energy an inference"):
            products.add_column(name, justify="left" if name == "Product" else "right")
        for site, figures in cost["per_op"].items():
            products.add_row(
                Text(site),
                show_quantity(figures["inference_latency_s"], "s"),
                show_quantity(figures.get("inference_energy_j"), "J"),
            )
        parts += [products]
    bound, where = cost["bound"] or "—", cost["residency"] or "—"
    parts.append(Text(f"Bound by: {bound}; weights: {where}; {priced['steps']:g} steps a sequence"))
    return Group(*parts)


def _resource(name: str, value: float) -> str:
    """A figure whose name ends with its unit; shares have none."""
    for end, unit in (("_bytes_per_s", "B/s"), ("_bytes", "B"), ("_s", "s")):
        if name.endswith(end):
            return show_quantity(value, unit)
    return f"{value:.3g}"


def sweep_text(found: Mapping[str, Any]) -> RenderableType:
    """Counts, the best points, and where the files are."""
    parts: list[RenderableType] = [
        Text(
            f"{found['points']:,} points, {found['infeasible']:,} of them with buffers that cannot "
            f"hold a tile; {len(found['front'])} on the Pareto front"
            f"{' (thinned)' if found['front_thinned'] else ''}",
            style="bold",
        )
    ]
    axes = [name for name, values in found["axes"].items() if len(values) > 1]
    best = {name: row for name, row in found["best"].items() if row is not None}
    if best:
        table = Table(box=None, pad_edge=False, header_style="bold underline")
        fields = [name for axis in axes for name in _FIELDS.get(axis, (axis,))]
        table.add_column("Least")
        for name in best:
            table.add_column(name, justify="right")
        table.add_row("", *(show_figure(name, row[name]) for name, row in best.items()))
        for field in fields:
            table.add_row(field, *(_value(row[field]) for row in best.values()))
        parts.append(table)
    parts += [Text(f"Note: {note}") for note in found["notes"]]
    parts += [Text(f"{name:>8}: {path}", no_wrap=True) for name, path in found["paths"].items()]
    return Group(*parts)


_FIELDS = {"array": ("rows", "columns"), "bits": ("weight_bits", "activation_bits")}
"""Axis → columns of the table, where they are not named alike."""


def _value(value: Any) -> str:
    if value is None:
        return "unlimited"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
