"""What `modelflex analyze` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelflex.units import show_quantity


def analysis_text(found: Mapping[str, Any]) -> RenderableType:
    """A table of the layers, totals and hidden-state rank; `found` is what `analyze` returns."""
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for name in ("Layer", "Kind", "Inputs", "Units", "Runs", "Parameters", "MACs a run", "Bytes"):
        table.add_column(name, justify="left" if name in ("Layer", "Kind", "Runs") else "right")
    for layer in found["layers"]:
        table.add_row(
            Text(layer["name"]),
            Text(layer["kind"]),
            str(layer["inputs"]),
            str(layer["units"]),
            layer["runs"],
            f"{layer['parameters']:,}",
            f"{layer['macs_per_step']:,}",
            show_quantity(layer["bytes"], "B"),
        )
    total = f"{found['parameters']:,} parameters, {show_quantity(found['weight_bytes'], 'B')}"
    parts: list[RenderableType] = [Text(f"{found['name']}: {total}", style="bold"), table]
    counts = {name: n for layer in found["layers"] for name, n in layer["terms"].items()}
    if counts:
        parts.append(Text(all_terms_text(counts)))
    for name, rank in found["hidden_rank"].items():
        parts.append(
            Text(
                f"Hidden state of {name}: {rank['rank_90']} of {rank['units']} directions hold 90 % of "
                f"its energy, {rank['rank_99']} hold 99 %."
            )
        )
    if not found["hidden_rank"]:
        parts.append(Text("Give --data to see the rank of the hidden states.", style="dim"))
    return Group(*parts)


def all_terms_text(counts: Mapping[str, int]) -> str:
    """Says of which terms figures are; `counts` has weight → all its terms."""
    each = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return f"Operations and bytes are those of all terms ({each}); a step with fewer computes and reads less."
