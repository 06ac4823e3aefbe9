"""What `modelflex explore-fpga` prints for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from modelflex.units import show_quantity

_HEADS: Final = (
    "NZ", "Terms", "T_r", "T_c", "Time", "Latency", "Speed-up", "Op/B", "Bound",
    "DSP", "BRAM", "LUT", "FF", "Power",
)  # fmt: skip


def explored_text(found: Mapping[str, Any]) -> RenderableType:
    """A row for the dense engine, and one for each NZ and number of terms."""
    chip, engine = found["chip"], found["engine"]
    head = (
        f"{chip['title']}: {engine['gates']} gates of {engine['rows']} × {engine['columns']}, "
        f"words of {engine['word_bits']} bits"
    )
    rows = [_cells("dense", "", found["dense"])]
    rows += [_cells(str(row["nz"]), str(row["steps"]), row["design"]) for row in found["best"]]
    table = Table(box=None, pad_edge=False, header_style="bold underline")
    for name, column in zip(_HEADS, zip(*rows, strict=True), strict=True):
        # In a narrow window a line rather wraps than loses digits.
        table.add_column(
            name,
            justify="left" if name == "Bound" else "right",
            min_width=max(map(cell_len, (name, *column))),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    shown = f"the least {found['objective']} of each is shown"
    if found["deadline_s"] is not None:
        shown = (
            f"the most terms with a latency of {show_quantity(found['deadline_s'], 's')} at most"
        )
    notes = [
        f"{found['designs']:,} designs, {found['feasible']:,} of them fit; {shown}",
        "Time: between two time steps, the tail of one beside the terms of the next; latency: from "
        "the first term to the result. Both are models; no engine was synthesised.",
    ]
    if chip["constants"].get("dense_power") is None:
        notes.append("Power: nobody measured this engine on this chip.")
    return Group(Text(head, style="bold"), table, *map(Text, notes))


def _cells(nz: str, steps: str, design: Mapping[str, Any] | None) -> tuple[str, ...]:
    if design is None:
        return (nz, steps, *("–" for _ in _HEADS[2:]))
    speedup = design["speedup"]
    return (
        nz,
        steps,
        str(design["row_tile"]),
        str(design["column_tile"]),
        show_quantity(design["time_s"], "s"),
        show_quantity(design["latency_s"], "s"),
        "" if speedup is None else f"{speedup:.3g}",
        f"{design['intensity']:.3g}",
        design["bound"],
        f"{design['dsp_slices']:,}",
        f"{design['block_rams']:g}",
        f"{design['luts']:,}",
        f"{design['flip_flops']:,}",
        show_quantity(design["power_w"], "W"),
    )
