"""The recipes from which the benchmark of the methods chooses, on validation data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from _seeds import example_config

from modelflex.core.model import Model
from modelflex.core.recipe import Recipe, recipe_from_json
from modelflex.search.space import read_space

Rules = list[dict[str, Any]]
LEAST_SQUARES = {"method": "dense", "fit": "least_squares"}
HEAD = {"method": "uniform", "bits": 4, "scales": "row"}


def recipe(rules: Rules, label: str, rounds: int, layers: Rules | None = None) -> Recipe:
    """A recipe from its JSON rules."""
    content = {"schema": "modelflex.recipe/1", "label": label, "recalibrate": rounds}
    return recipe_from_json({**content, "rules": rules, **({"layers": layers} if layers else {})})


def formats(model: Model, bits: int) -> list[Recipe]:
    """Every weight in a format of so many bits, beside 8-bit activations.

    Groups have a 6-bit multiplier for 16 (or, of 3 bits, 8) columns of a row beside their codes;
    weights whose columns they do not divide take a codebook.
    """
    uniform = {"method": "uniform", "bits": bits}
    codebook = {"method": "codebook", "bits": bits, "scales": "row"}
    tried: dict[str, Rules] = {
        "rows": [{"weights": "*", "format": {**uniform, "scales": "row"}}],
        "codebook, rows": [{"weights": "*", "format": codebook}],
    }
    for size in (16, 8) if bits == 3 else (16,):
        tried[f"groups of {size}"] = [
            {
                "weights": name,
                "format": {**uniform, "group": size} if weight.shape[1] % size == 0 else codebook,
            }
            for name, weight in model.weights.items()
        ]
    least_squares = {**LEAST_SQUARES, "ridge": 0.01}
    return [
        recipe([{**rule, "structure": least_squares} for rule in rules], f"{bits} bits, {name}", 2)
        for name, rules in tried.items()
    ]


def _delta(threshold: float, unit: str, overshoot: float, by: str = "element") -> dict[str, Any]:
    held = {"method": "delta", "threshold": threshold, "unit": unit, "overshoot": overshoot}
    return {"activity": {**held, "granularity": by}} if threshold else {}


def fewer_units(
    units: Sequence[tuple[int, ...]],
    thetas: Sequence[tuple[float, ...]],
    overshoots: Sequence[float] = (0.5,),
    bits: int = 2,
    rounds: int = 4,
) -> list[Recipe]:
    """Removal of units by layer, few bits and delta; thresholds are (x, h of each layer)."""
    form = {"method": "uniform", "bits": bits, "scales": "gate"}
    made = []
    for kept, theta, o in itertools.product(units, thetas, overshoots):
        rules: Rules = []
        for i in range(len(kept)):
            fed = _delta(theta[0], "std", o) if i == 0 else _delta(theta[i], "absolute", o)
            rules += [
                {"weights": f"lstm{i}.w_x", "structure": LEAST_SQUARES, "format": form, **fed},
                {"weights": f"lstm{i}.w_h", "structure": LEAST_SQUARES, "format": form,
                 **_delta(theta[i + 1], "absolute", o)},
            ]  # fmt: skip
        rules.append({"weights": "head.*", "structure": LEAST_SQUARES, "format": HEAD})
        removed = [
            {"layers": f"lstm{i}", "removal": {"method": "obs", "units": n}}
            for i, n in enumerate(kept)
        ]
        text = f"units {'/'.join(map(str, kept))}, {bits} bits, Δ {theta}, overshoot {o:g}"
        made.append(recipe(rules, text, rounds, removed))
    return made


def fewer_units_low_rank(
    sizes: Sequence[tuple[int, float]],
    thetas: Sequence[tuple[float, float]],
    inner: float = 0.2,
    bits: int = 2,
    rounds: int = 4,
) -> list[Recipe]:
    """One layer: removal of units, a low rank of what is left of W_h, few bits and delta.

    Args:
        sizes: (units, share of the numbers of W_h).
        thetas: of x and h, in standard deviations; `inner` between the factors.
    """
    form = {"method": "uniform", "bits": bits, "scales": "gate"}
    made = []
    for (units, share), (x, h) in itertools.product(sizes, thetas):
        factors = {"method": "low_rank", "share": share, "inner_threshold": inner}
        rules: Rules = [
            {"weights": "lstm0.w_x", "structure": LEAST_SQUARES, "format": form,
             **_delta(x, "std", 0.5)},
            {"weights": "lstm0.w_h", "structure": factors, "format": form, **_delta(h, "std", 0.5)},
            {"weights": "head.*", "structure": LEAST_SQUARES, "format": HEAD},
        ]  # fmt: skip
        removed = [{"layers": "lstm0", "removal": {"method": "obs", "units": units}}]
        text = f"units {units}, rank {100 * share:g} %, {bits} bits, Δ {x:g}, {h:g} σ"
        made.append(recipe(rules, text, rounds, removed))
    return made


def all_units(
    blocks: Sequence[int],
    thetas: Sequence[tuple[float, ...]],
    overshoots: Sequence[float] = (0.5,),
    bits: int = 2,
    rounds: int = 3,
) -> list[Recipe]:
    """Block-circulant weights (the first layer's input weight dense; of blocks of 1 all are), few
    bits, delta by blocks.
    """
    form = {"method": "uniform", "bits": bits, "scales": "gate"}
    made = []
    for block, theta, o in itertools.product(blocks, thetas, overshoots):
        circulant = {"method": "circulant", "block": block} if block > 1 else LEAST_SQUARES
        rules: Rules = []
        for i in range(len(theta) - 1):
            first = _delta(theta[0], "std", o, "block")
            fed = first if i == 0 else _delta(theta[i], "absolute", o, "block")
            rules += [
                {"weights": f"lstm{i}.w_x", "structure": LEAST_SQUARES if i == 0 else circulant,
                 "format": form, **fed},
                {"weights": f"lstm{i}.w_h", "structure": circulant, "format": form,
                 **_delta(theta[i + 1], "absolute", o, "block")},
            ]  # fmt: skip
        rules.append({"weights": "head.*", "structure": LEAST_SQUARES, "format": HEAD})
        text = f"circulant {block}, {bits} bits, Δ {theta}, overshoot {o:g}"
        made.append(recipe(rules, text, rounds))
    return made


def low_rank(
    shares: Sequence[float],
    thetas: Sequence[tuple[float, float]],
    layers: int,
    bits: int = 2,
    rounds: int = 3,
) -> list[Recipe]:
    """Low-rank weights (the first layer's input weight dense), few bits, delta on inputs and between
    the factors; thresholds are (inputs, between), in standard deviations.
    """
    form = {"method": "uniform", "bits": bits, "scales": "gate"}
    made = []
    for share, (outer, inner) in itertools.product(shares, thetas):
        factors = {"method": "low_rank", "share": share, "inner_threshold": inner}
        held = _delta(outer, "std", 0.5)
        rules: Rules = [
            {"weights": "lstm0.w_x", "structure": LEAST_SQUARES, "format": form, **held},
            *(
                {"weights": f"lstm{i}.w_{of}", "structure": factors, "format": form, **held}
                for i in range(layers)
                for of in "xh"
                if (i, of) != (0, "x")
            ),
            {"weights": "head.*", "structure": LEAST_SQUARES, "format": HEAD},
        ]
        text = f"rank {100 * share:g} %, {bits} bits, Δ {outer:g} σ, between {inner:g} σ"
        made.append(recipe(rules, text, rounds))
    return made


def characters() -> list[Recipe]:
    """3 and 4 bits in groups, with a delta on the hidden state or without."""
    made = []
    structure = {**LEAST_SQUARES, "ridge": 0.01}
    one_hot = {"method": "codebook", "bits": 4, "scales": "row"}
    head = {"method": "uniform", "bits": 4, "scales": "row", "group": 16}
    for bits, theta in itertools.product((3, 4), (0.0, 0.03, 0.06)):
        form = {"method": "uniform", "bits": bits, "scales": "row", "group": 16}
        held = _delta(theta, "absolute", 0.5)
        rules: Rules = [
            {"weights": "*.w_x", "structure": structure, "format": one_hot},
            {"weights": "*.w_h", "structure": structure, "format": form, **held},
            {"weights": "head.*", "structure": structure, "format": head, **held},
        ]
        made.append(recipe(rules, f"{bits} bits, 4 for symbols and head, Δ {theta:g}", 2))
    return made


def one_for_all(model: Model) -> list[Recipe]:
    """The same choice for every weight (structures where they fit): the space of one global choice."""
    made = []
    for block, bits, theta in itertools.product(
        (1, 2, 4, 8), (2, 3, 4), (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    ):
        form = {"method": "uniform", "bits": bits, "scales": "gate"}
        rules: Rules = []
        for name, weight in model.weights.items():
            fits = all(n % block == 0 for n in weight.shape)
            circulant = {"method": "circulant", "block": block}
            rules.append({
                "weights": name, "structure": circulant if fits else LEAST_SQUARES, "format": form,
                **_delta(0.0 if name.startswith("head") else theta, "std", 0.5, "block"),
            })  # fmt: skip
        made.append(recipe(rules, f"blocks {block}, {bits} bits, Δ {theta:g} σ", 2))
    return made


def convolutional(model: Model) -> list[Recipe]:
    """Every weight of a convolutional and recurrent network: few bits and delta between frames."""
    made = []
    for bits, theta in itertools.product((2, 3, 4), (0.0, 0.1, 0.2, 0.3)):
        form = {"method": "uniform", "bits": bits, "scales": "row"}
        rules: Rules = [
            {"weights": name, "structure": LEAST_SQUARES, "format": form,
             **_delta(0.0 if name.startswith("head") else theta, "std", 0.5)}
            for name in model.weights
        ]  # fmt: skip
        made.append(recipe(rules, f"{bits} bits, Δ {theta:g} σ", 2))
    return made


def naive() -> list[Recipe]:
    """The naive space of the main job: the published methods, activation bits = weight bits."""
    grids = [grid for grid in example_config().space if grid["name"] == "naive"]
    return [entry.recipe for entry in read_space(grids)]
