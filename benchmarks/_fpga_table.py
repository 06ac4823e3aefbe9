"""Table 1 of Kouris et al. (arXiv 1905.00689): published figures of the ZC706 and those of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modelflex.platforms.fpga.chip import Chip
from modelflex.platforms.fpga.engine import GATES, Engine
from modelflex.platforms.fpga.explore import Design, explore, explore_dense
from modelflex.platforms.fpga.operators import WORDS
from modelflex.platforms.fpga.resources import dense_resources, refine_resources

ROWS, COLUMNS = 64, 8320
"""R and C of a gate: 8256 features and 64 old outputs."""


class Published(NamedTuple):
    """A row of the table; `nz` is None for the dense engine, `kl` what the row promises."""

    name: str
    nz: int | None
    kl: float | None
    seconds: float
    watts: float
    gops_per_w: float


TABLE = (
    Published("dense", None, None, 1.0620e-3, 2.72, 1.476),
    Published("SVD-4160NZ, KL ≤ .001", 4160, 1e-3, 0.36190e-3, 2.76, 4.267),
    Published("SVD-130NZ, KL ≤ .01", 130, 1e-2, 0.03924e-3, 3.20, 33.943),
    Published("SVD-130NZ, KL ≤ .1", 130, 1e-1, 0.00335e-3, 3.20, 397.713),
    Published("SVD-32NZ, KL ≤ 1", 32, 1.0, 0.00072e-3, 3.41, 1735.992),
)
ROW_S, TERM_S = 0.0166e-3, 0.0159e-3
"""Of a row of the dense product, and of a term of 4160 inputs; the paper prints 16.6^-2 and 15.9^-2 ms."""
AGGREGATES = {"largest": 415.0, "mean": 198.0, "geometric mean": 76.0}
"""Speed-ups of the abstract."""

READINGS = {
    "single precision at 8.2 GB/s": (32, "8.2 GB/s"),
    "16-bit words at 4 GB/s": (16, None),
    "as printed: single precision at 4 GB/s": (32, None),
}
"""Width of words, and bandwidth where it is not the spec's. The first two agree with the table."""
SHARE = 0.25
"""How far a row may be off."""


def reading(name: str) -> Engine:
    bits, bandwidth = READINGS[name]
    return Engine(Chip.read("zc706", bandwidth=bandwidth), WORDS[bits], ROWS, COLUMNS)


def fitted_steps(engine: Engine, row: Published) -> float | None:
    """Terms whose transfer takes the published time: the paper prints none."""
    if row.nz is None:
        return None
    return row.seconds * engine.chip.bandwidth / float(engine.term_bytes(row.nz))


def reproduced(engine: Engine) -> list[dict[str, Any]]:
    """The model's figures for each row, with the whole number of terms nearest to the fit."""
    return [_row(engine, row) for row in TABLE]


def _row(engine: Engine, row: Published) -> dict[str, Any]:
    fitted, steps = fitted_steps(engine, row), None
    if row.nz is None or fitted is None:
        design = explore_dense(engine)
    else:
        steps = max(1, round(fitted))
        ((_, _, design),) = explore(engine, [row.nz], [steps]).best
    if design is None or design.power_w is None:
        raise SystemExit(f"no design fits for {row.name}")
    gops_per_w = 1e-9 * engine.dense_ops / design.time_s / design.power_w
    found = {"seconds": design.time_s, "watts": design.power_w, "gops_per_w": gops_per_w}
    return {
        "name": row.name,
        "fitted_steps": fitted,
        "steps": steps,
        "published": {key: getattr(row, key) for key in found},
        "model": found,
        "deviation": {key: value / getattr(row, key) - 1 for key, value in found.items()},
        "within": all(abs(v / getattr(row, key) - 1) <= SHARE for key, v in found.items()),
        "latency_s": design.latency_s,
        "design": _shown(design),
    }


def _shown(design: Design) -> dict[str, Any]:
    names = (
        "row_tile", "column_tile", "bound", "intensity", "ops_per_s", "compute_ops_per_s",
        "dsp_slices", "block_rams", "luts", "flip_flops",
    )  # fmt: skip
    return {name: getattr(design, name) for name in names}


def arithmetic_range(engine: Engine, row: Mapping[str, Any]) -> tuple[float, float]:
    """Operations a second that the arithmetic of the slowest and fastest fitting design reaches."""
    (nz,) = (published.nz for published in TABLE if published.name == row["name"])
    tiles = np.arange(1, ROWS + 1)[:, None], np.arange(1, (nz or COLUMNS) + 1)[None, :]
    if nz is None:
        timing, taken = engine.dense(*tiles), dense_resources(engine, *tiles)
    else:
        timing = engine.refine(*tiles, nz, row["steps"])
        taken = refine_resources(engine, *tiles, nz)
    rates = timing.compute_ops_per_s[taken.fits(engine.chip)]
    return float(rates.min()), float(rates.max())


def power_fit() -> dict[str, Any]:
    """The two constants of the spec by least squares, residuals, and each row predicted from the others."""
    sparsity = np.array([1.0 if row.nz is None else COLUMNS / row.nz for row in TABLE])
    watts = np.array([row.watts for row in TABLE])
    matrix = np.stack([np.ones(len(TABLE)), np.log10(sparsity)], axis=1)
    constants = np.linalg.lstsq(matrix, watts, rcond=None)[0]
    left_out = []
    for i in range(len(TABLE)):
        kept = np.arange(len(TABLE)) != i
        others = np.linalg.lstsq(matrix[kept], watts[kept], rcond=None)[0]
        left_out.append(float(matrix[i] @ others - watts[i]))
    return {
        "dense_power_w": float(constants[0]),
        "power_per_decade_w": float(constants[1]),
        "rows": [row.name for row in TABLE],
        "residuals_w": (matrix @ constants - watts).tolist(),
        "residuals_w_without_the_row": left_out,
    }


def aggregate(speedups: Sequence[float] | np.ndarray[Any, Any]) -> dict[str, float]:
    """Largest, mean and geometric mean."""
    values = np.asarray(speedups, dtype=float)
    return {
        "largest": float(values.max()),
        "mean": float(values.mean()),
        "geometric mean": float(np.exp(np.log(values).mean())),
    }


def aggregates(seconds: Sequence[float]) -> list[dict[str, Any]]:
    """What the published aggregates may run over, by the times of the table's rows (dense first).

    Between the rows the speed-up is interpolated, logarithm by logarithm of the KL divergence.
    """
    speedups = seconds[0] / np.asarray(seconds[1:])
    limits = np.array([row.kl for row in TABLE[1:]], dtype=float)
    top = AGGREGATES["largest"]
    reach = float(np.exp(np.interp(math.log(top), np.log(speedups), np.log(limits))))
    targets = {
        "KL targets from .001 to where 415× is reached, by equal ratios": np.geomspace(
            limits[0], reach, 1001
        ),
        "the same targets by equal differences": np.linspace(limits[0], reach, 1001),
    }
    cases: dict[str, Any] = {
        "the three rows up to KL ≤ .1": speedups[:3],
        "all four rows": speedups,
    }
    for name, values in targets.items():
        cases[name] = np.exp(np.interp(np.log(values), np.log(limits), np.log(speedups)))
    part = round(top / float(speedups[3]) * ROWS)
    if part < ROWS:
        name = (
            f"the four rows, KL ≤ 1 beside the dense product's first {part} of {ROWS} rows (a fit)"
        )
        cases[name] = np.array([*speedups[:3], speedups[3] * part / ROWS])
    rest = 5 * AGGREGATES["mean"] - top - float(speedups[:3].sum())
    if rest > 0:
        name = (
            f"the three rows, 415× and a fifth of {rest:.0f}× that makes the mean come out (a fit)"
        )
        cases[name] = np.array([*speedups[:3], top, rest])
    found = []
    for name, values in cases.items():
        of = aggregate(values)
        off = {key: of[key] / published - 1 for key, published in AGGREGATES.items()}
        found.append({"over": name, **of, "deviation": off})
    return found


def check_term_seconds(engine: Engine) -> Mapping[str, float]:
    """Seconds of a dense row and of a term of 4160 inputs over the printed ones."""
    row_s = GATES * COLUMNS * engine.word.bits / 8 / engine.chip.bandwidth
    return {
        "dense row": row_s / ROW_S,
        "term of 4160": float(engine.term_bytes(4160)) / engine.chip.bandwidth / TERM_S,
    }
