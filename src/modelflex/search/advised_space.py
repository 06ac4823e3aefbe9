"""The search space for users who give none: the methods that advice puts first, and naive ones."""

from __future__ import annotations

from typing import Any

from modelflex.core.model import Model
from modelflex.core.stats import Stats
from modelflex.search.advise import GRAIN, Advice, Reads, Suggestion, advise, what_is_read

ROUNDS = 3
"""Of recalibration."""
NAIVE = {"scales": "tensor", "clip": "max", "rounding": "nearest"}
HELD = {"method": "delta", "unit": "std", "granularity": "block"}
NAIVE_THRESHOLDS = (0.0, 0.2, 0.4, 0.6)

Grid = dict[str, Any]


def default_grids(model: Model, stats: Stats) -> list[Grid]:
    """Grids for `read_space`: by the advice on a network, each method with every format and threshold."""
    return advised_grids(model, advise(model, stats))


def advised_grids(model: Model, advice: Advice) -> list[Grid]:
    """Quantisation alone, each structure and the removal that are advised, and the naive space."""
    reads = what_is_read(model)
    bits, held = _bits(advice), _held(advice, reads)
    grids = [_grid("quantisation", reads, {"bits": [*bits, 8], "held": held}, {"method": "dense"})]
    circulant, low_rank = advice.of("circulant"), advice.of("low_rank")
    if circulant is not None:
        blocks = [b for b in (2, 4, 8) if _divides(model, reads, b)]
        shared = {"method": "circulant", "block": "$block"}
        grids.append(
            _grid("circulant", reads, {"bits": bits, "block": blocks, "held": held}, shared)
        )
    if low_rank is not None:
        share = float(low_rank.settings["share"])
        shares = [round(share * f, 3) for f in (0.75, 1.0, 1.5) if share * f <= 0.6]
        factors = {"method": "low_rank", "share": "$share"}
        grids.append(
            _grid("low rank", reads, {"bits": bits, "share": shares, "held": held}, factors)
        )
    removal = advice.of("obs")
    if removal is not None:
        sizes = _sizes(model, removal)
        kept = [
            {"layers": name, "removal": {"method": "obs", "units": f"$units.{name}"}}
            for name in sizes[0]
        ]
        vary = {"bits": bits, "units": sizes, "held": held}
        grids.append(_grid("units", reads, vary, {"method": "dense"}) | {"layers": kept})
    return [*grids, _naive(reads)]


def _bits(advice: Advice) -> list[int]:
    """The bits that are advised and the next ones."""
    quantised = advice.of("uniform")
    first = 4 if quantised is None else int(quantised.settings["bits"])
    return [first, first + 1]


def _held(advice: Advice, reads: Reads) -> list[Any]:
    """Activities of the weights of recurrent layers: none, and delta where it is advised."""
    delta = advice.of("delta")
    if delta is None or not (reads.units or reads.inputs):
        return ["none"]
    first = float(delta.settings["threshold"])
    return ["none", *(HELD | {"threshold": round(first * f, 3)} for f in (1.0, 2.0, 3.0))]


def _divides(model: Model, reads: Reads, block: int) -> bool:
    return all(n % block == 0 for name in reads.units for n in model.weights[name].shape)


def _sizes(model: Model, removal: Suggestion) -> list[dict[str, int]]:
    """Units that stay in each layer: those that are advised, and fewer."""
    units = {layer.name: layer.units for layer in model.layers}
    sizes = [
        {
            name: min(units[name], GRAIN * max(1, round(stay * factor / GRAIN)))
            for name, stay in removal.settings["units"].items()
        }
        for factor in (1.0, 0.7, 0.5)
    ]
    return [size for i, size in enumerate(sizes) if size not in sizes[:i]]


def _grid(name: str, reads: Reads, vary: dict[str, Any], structure: dict[str, Any]) -> Grid:
    """A data-aware grid: `structure` for the weights that read hidden units, dense for the others."""
    form = {"method": "uniform", "bits": "$bits", "scales": "gate"}
    plain = {"method": "dense", "fit": "least_squares"}
    units = plain if structure["method"] == "dense" else structure
    cells = bool(reads.units or reads.inputs)
    moving = {"format": form, "activity": "$held"}
    still = {"structure": plain, "format": form | {"scales": "row"}}
    rules = [
        *({"weights": w, "structure": units} | moving for w in _patterns(reads, reads.units)),
        *({"weights": w, "structure": plain} | moving for w in _patterns(reads, reads.inputs)),
        *({"weights": w} | still for w in _patterns(reads, (*reads.symbols, *reads.others))),
    ]
    used = {k: v for k, v in vary.items() if cells or k != "held"}
    return {"name": name, "vary": used, "rules": rules, "recalibrate": ROUNDS if cells else 0}


def _naive(reads: Reads) -> Grid:
    """Min–max per tensor, rounded to the nearest, with delta at thresholds without regard to the data."""
    form = {"method": "uniform", "bits": "$bits"} | NAIVE
    moving = _patterns(reads, (*reads.units, *reads.inputs))
    held = HELD | {"threshold": "$theta"}
    rules = [
        *({"weights": w, "format": form, "activity": held} for w in moving),
        *(
            {"weights": w, "format": form}
            for w in _patterns(reads, (*reads.symbols, *reads.others))
        ),
    ]
    vary: dict[str, Any] = {"bits": [2, 3, 4, 8]}
    if moving:
        vary["theta"] = list(NAIVE_THRESHOLDS)
    return {"name": "naive", "vary": vary, "rules": rules}


def _patterns(reads: Reads, names: tuple[str, ...]) -> list[str]:
    """Patterns for weights: "*.w_h" where all of that name are among them, else their full names."""
    others = {n.rsplit(".", 1)[1] for n in reads.all if n not in names}
    shorts = [n.rsplit(".", 1)[1] for n in names]
    made = (n if s in others else f"*.{s}" for n, s in zip(names, shorts, strict=True))
    return list(dict.fromkeys(made))
