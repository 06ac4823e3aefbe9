"""The FPGA engines once more, in plain numbers and loops, and a toy chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GATES, TAIL = 4, 37

TOY: dict[str, tuple[float, str]] = {
    "clock": (100, "MHz"),
    "dram_bandwidth": (800, "MB/s"),
    "dsp_slices": (160, "slice"),
    "block_rams": (60, "block"),
    "luts": (40000, "LUT"),
    "flip_flops": (40000, "FF"),
    "dense_power": (2, "W"),
    "power_per_decade": (0.5, "W/decade"),
}


def toy_file(folder: Path, **changes: tuple[float, str] | None) -> str:
    """A spec file; a constant of None is left out."""
    kept = {name: value for name, value in (TOY | changes).items() if value is not None}
    text = 'name = "toy"\nfamily = "fpga"\ntitle = "A toy"\n'
    for name, (value, unit) in kept.items():
        text += f'[{name}]\nvalue = {value!r}\nunit = "{unit}"\nsource = "s"\n'
    path = folder / "toy.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def up(total: int, size: int) -> int:
    """How many pieces of `size` make `total`, counted."""
    pieces = 0
    while pieces * size < total:
        pieces += 1
    return pieces


def term_bytes(rows: int, columns: int, nz: int, bits: int, shared: bool = False) -> int:
    """u of four gates, values and indices of each v and its σ."""
    vectors = [nz + (nz if nz < columns else 0) + 1 for _ in range(1 if shared else GATES)]
    return (GATES * rows + sum(vectors)) * bits // 8


def refine_seconds(
    shape: tuple[int, int], tiles: tuple[int, int], nz: int, steps: int, bits: int,
    clock: float, bandwidth: float, shared: bool = False,
) -> tuple[float, float]:  # fmt: skip
    """(time between results, latency): the latter by following every term through both stages."""
    rows, columns = shape
    update, dot = up(rows, tiles[0]), up(up(nz, 4) if shared else nz, tiles[1])
    load = term_bytes(rows, columns, nz, bits, shared) / bandwidth
    state = 2 * rows * bits // 8 / bandwidth
    dots_free = updates_free = 0.0
    for _ in range(steps):
        dots_free += max(dot / clock, load)
        updates_free = max(dots_free, updates_free) + update / clock
    cycles = max(sum(max(update, dot) for _ in range(steps)), TAIL * update)
    return (
        max(cycles / clock, steps * load + state),
        updates_free + TAIL * update / clock + state,
    )


def bank(words: int, bits: int) -> tuple[int, int]:
    """(halves of block RAMs, LUTs) of one memory."""
    if words <= 64:
        return 0, 2 * bits
    return up(words, 1024) * up(bits, 18), 0


def refine_taken(
    shape: tuple[int, int], tiles: tuple[int, int], nz: int, bits: int, shared: bool = False
) -> dict[str, int]:
    """Resources, unit by unit and bank by bank."""
    mine = up(nz, 4) if shared else nz
    (rows, columns), (row_tile, column_tile) = shape, tiles
    memories: list[tuple[int, int]] = []
    multipliers = adders = 0
    for _ in range(GATES):
        multipliers += column_tile + 1 + row_tile
        adders += column_tile + row_tile
        memories += [bank(2 * up(mine, column_tile), bits)] * column_tile
        if nz < columns:
            memories += [bank(2 * up(mine, column_tile), bits)] * column_tile
            memories += [bank(columns, bits)] * up(column_tile, 2)
        memories += [bank(2 * up(rows, row_tile), bits)] * row_tile
        memories += [bank(up(rows, row_tile), 32)] * row_tile
    if nz == columns:
        banks = column_tile * (4 if shared else 1)
        memories += [bank(up(columns, banks), bits)] * banks
    adders += 3 if shared else 0
    return _with_units(bits, multipliers + row_tile, adders + row_tile, memories)


def dense_taken(shape: tuple[int, int], tiles: tuple[int, int], bits: int) -> dict[str, int]:
    """Resources of the dense engine."""
    (rows, columns), (row_tile, column_tile) = shape, tiles
    memories = [bank(up(columns, column_tile), bits)] * column_tile
    memories += [bank(up(rows, row_tile), 32)] * (GATES * row_tile)
    units = GATES * row_tile * column_tile
    taken = _with_units(bits, units + row_tile, units + row_tile, memories)
    return taken | {"flip_flops": taken["flip_flops"] + 2 * units * bits}


def _with_units(
    bits: int, multipliers: int, adders: int, memories: list[tuple[int, int]]
) -> dict[str, int]:
    floating = bits == 32
    ports = 4
    return {
        "dsp_slices": multipliers * (3 if floating else 1) + adders * (2 if floating else 0),
        "luts": multipliers * (321 if floating else 0)
        + adders * (390 if floating else 32)
        + sum(luts for _, luts in memories)
        + ports * 1500,
        "flip_flops": multipliers * (143 if floating else 0)
        + adders * (205 if floating else 32)
        + ports * 2000,
        "block_rams": sum(rams for rams, _ in memories) + ports * 4,
    }


def toy_fits(taken: dict[str, int], share: float = 1.0) -> bool:
    """Whether the toy chip holds it."""
    limits: dict[str, Any] = {name: share * TOY[name][0] for name in taken}
    limits["block_rams"] *= 2
    return all(taken[name] <= limits[name] for name in taken)
