"""Advice: which methods to try first on a network, from its hidden states, sizes and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from modelflex.compress.choices import may_lose_units, weight_axes
from modelflex.compress.links import make_link, replayed_density
from modelflex.core.extension import Cell
from modelflex.core.model import Model
from modelflex.core.program import build_program, one_hot_sites
from modelflex.core.recipe import Activation, Choice
from modelflex.core.stats import Stats
from modelflex.registry import ACTIVITIES, FORMATS, STRUCTURES
from modelflex.search.analysis import hidden_rank

NARROW, MIDDLE = 0.2, 0.35
"""Shares of a state's directions that hold 90 % of its energy: of the networks of docs/methods.md,
those below the first kept their quality in 2 bits, those above the second needed 4."""
THRESHOLD = 0.2
"""A threshold of delta to begin with, in standard deviations of an input."""
BUSY = 0.7
"""Share of inputs sent at that threshold above which delta saves too little."""
GRAIN = 8
"""Layers keep a multiple of so many units."""
BLOCKS = (2, 4, 8)
SURVEY = (
    "Rezk et al., Recurrent Neural Networks: An Embedded Computing Perspective, IEEE Access 8, 2020"
)


@dataclass(frozen=True)
class Suggestion:
    """One method to try.

    Attributes:
        axis, method: "structure", "format", "activity" or "removal", and its registered name.
        settings: values to begin with.
        factor: how many times fewer bytes are fetched a step, about, by this method alone.
        reason: why, with the figures that it hangs on.
        source: who found that it works.
    """

    axis: str
    method: str
    settings: Mapping[str, Any]
    factor: float
    reason: str
    source: str


@dataclass(frozen=True)
class Advice:
    """What to try first on a network.

    Attributes:
        model: its name.
        states: of how many directions the hidden states are, for people.
        suggestions: what saves most first.
        avoid: method → why not to begin with it.
    """

    model: str
    states: str
    suggestions: tuple[Suggestion, ...]
    avoid: Mapping[str, str]

    def of(self, method: str) -> Suggestion | None:
        """The suggestion of a method, if it is one."""
        return next((s for s in self.suggestions if s.method == method), None)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Reads:
    """What the weights of a network read.

    Attributes:
        units: weights that read the units of a recurrent layer at every step: wide and redundant.
        inputs: other weights of recurrent layers.
        symbols: those of them that read a one-hot vector, of which one column is fetched.
        others: weights of layers without a state, and those that run once a sequence.
    """

    units: tuple[str, ...]
    inputs: tuple[str, ...]
    symbols: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """All weights."""
        return (*self.units, *self.inputs, *self.symbols, *self.others)


def what_is_read(model: Model) -> Reads:
    """Sort the weights of a network by what they read."""
    cells = [layer.name for layer in model.layers if isinstance(layer.plugin, Cell)]
    once = [layer.name for layer in model.layers if layer.reads == "last"]
    hot = {site.rsplit("/", 1)[0] for site in one_hot_sites(build_program(model))}
    axes = weight_axes(model)
    groups: dict[str, list[str]] = {"units": [], "inputs": [], "symbols": [], "others": []}
    for name in model.weights:
        layer = name.rsplit(".", 1)[0]
        if name in hot:
            groups["symbols"].append(name)
        elif axes[name].columns in cells and layer not in once:
            groups["units"].append(name)
        else:
            groups["inputs" if layer in cells else "others"].append(name)
    return Reads(**{kind: tuple(names) for kind, names in groups.items()})


def advise(model: Model, stats: Stats | None) -> Advice:
    """Which methods to try first, what saves most at the front.

    Args:
        stats: from calibration data; without them only the sizes speak.
    """
    ranks = {} if stats is None else _ranks(model, stats)
    facts = _Facts(model, what_is_read(model), ranks, _fetched(model, stats))
    found = [
        _quantisation(facts),
        _removal(facts),
        _circulant(facts),
        _low_rank(facts),
        _delta(facts, stats),
    ]
    suggestions = sorted((f for f in found if isinstance(f, Suggestion)), key=lambda s: -s.factor)
    avoid = dict(f for f in found if isinstance(f, tuple))
    return Advice(model.name, facts.told, tuple(suggestions), avoid)


@dataclass(frozen=True)
class _Facts:
    """What the advice hangs on.

    Attributes:
        ranks: recurrent layer → (directions for 90 %, for 99 % of the energy, units); empty without data.
        fetched: weight → numbers of it that are read at a step.
    """

    model: Model
    reads: Reads
    ranks: Mapping[str, tuple[int, int, int]]
    fetched: Mapping[str, float]

    @property
    def narrow(self) -> float:
        """Share of the directions that hold 90 % of the energy, the widest layer's; 1 if unknown."""
        return max((r90 / units for r90, _, units in self.ranks.values()), default=1.0)

    @property
    def told(self) -> str:
        """The ranks, for people."""
        if not self.ranks:
            return "without data the rank of the hidden states is unknown"
        return ", ".join(
            f"{r90} of {units} directions hold 90 % of the energy of {name}'s state, {r99} hold 99 %"
            for name, (r90, r99, units) in self.ranks.items()
        )

    def factor(self, left: Mapping[str, float]) -> float:
        """All numbers read at a step over those with the shares `left` of some weights."""
        after = sum(n * left.get(name, 1.0) for name, n in self.fetched.items())
        return sum(self.fetched.values()) / after


def _ranks(model: Model, stats: Stats) -> dict[str, tuple[int, int, int]]:
    axes = weight_axes(model)
    found = {}
    for layer in model.layers:
        own = [n for n in layer.weight_shapes if axes[n].columns == layer.name]
        if own and isinstance(layer.plugin, Cell):
            rank = hidden_rank(stats.sites[own[0]].trace)
            found[layer.name] = (rank["rank_90"], rank["rank_99"], rank["units"])
    return found


def _fetched(model: Model, stats: Stats | None) -> dict[str, float]:
    """Numbers of every weight that are read at a step: one column of those that read symbols, and
    a share of those that run once a sequence.
    """
    once = {layer.name for layer in model.layers if layer.reads == "last"}
    steps = 1.0 if stats is None else stats.sequences.mean_length
    symbols = what_is_read(model).symbols
    found = {}
    for name, weight in model.weights.items():
        out, inputs = weight.shape
        read = out * (1 if name in symbols else inputs)
        found[name] = read / (steps if name.rsplit(".", 1)[0] in once else 1.0)
    return found


# --- one method each -----------------------------------------------------------------------------
Found = Suggestion | tuple[str, str] | None


def _quantisation(facts: _Facts) -> Suggestion:
    bits = 2 if facts.narrow <= NARROW else 3 if facts.narrow <= MIDDLE else 4
    return Suggestion(
        "format",
        "uniform",
        {"bits": bits, "scales": "gate", "rounding": "gptq", "clip": "mse"},
        32.0 / bits,
        f"fixed point hardly ever costs accuracy, activations of 8 bits cost nothing; {_bits_why(facts)}",
        f"{SURVEY}, section IV-A; Frantar et al., GPTQ, ICLR 2023",
    )


def _bits_why(facts: _Facts) -> str:
    if not facts.ranks:
        return "4 bits are safe where nothing is known of the states"
    return f"at most {facts.narrow:.0%} of the directions hold 90 % of a state's energy"


def _removal(facts: _Facts) -> Found:
    kept: dict[str, int] = {}
    for layer, (_, r99, units) in facts.ranks.items():
        stay = min(units, GRAIN * -(-r99 // GRAIN))
        if stay < 0.8 * units and may_lose_units(facts.model, layer):
            kept[layer] = stay
    if not kept:
        if facts.ranks:
            return "obs", "no units can be spared: the states use nearly all directions"
        return None
    axes = weight_axes(facts.model)
    share = {layer: stay / facts.ranks[layer][2] for layer, stay in kept.items()}
    left = {
        name: share.get(axes[name].rows, 1.0) * share.get(axes[name].columns, 1.0)
        for name in facts.model.weights
    }
    return Suggestion(
        "removal",
        "obs",
        {"units": kept},
        facts.factor(left),
        "there are more units than the states have directions (for 99 % of their energy)",
        "Hassibi and Stork, Optimal Brain Surgeon, NIPS 1992, by units, with a closed-loop refit",
    )


def _circulant(facts: _Facts) -> Found:
    shapes = [facts.model.weights[name].shape for name in facts.reads.units]
    blocks = [b for b in BLOCKS if all(n % b == 0 for shape in shapes for n in shape)]
    if not shapes:
        return None
    if facts.narrow > NARROW:
        return "circulant", "the states use too many directions for shared numbers"
    if not blocks:
        return "circulant", "no block divides all weights that read hidden units"
    block = blocks[min(1, len(blocks) - 1)]
    return Suggestion(
        "structure",
        "circulant",
        {"block": block, "fit": "least_squares"},
        facts.factor(dict.fromkeys(facts.reads.units, 1.0 / block)),
        "the weights that read hidden units are redundant; fit to the data, as means of diagonals lose "
        "too much",
        "Wang et al., C-LSTM, FPGA 2018",
    )


def _low_rank(facts: _Facts) -> Found:
    if not facts.ranks or not facts.reads.units:
        return None
    axes = weight_axes(facts.model)
    left = {}
    for name in facts.reads.units:
        out, inputs = facts.model.weights[name].shape
        rank = facts.ranks[axes[name].columns][0]
        left[name] = rank * (out + inputs) / (out * inputs)
    widest = max(left.values())
    if widest > 0.5:
        return "low_rank", "the factors would be hardly smaller than the weights"
    share = round(max(widest, 0.02), 2)
    return Suggestion(
        "structure",
        "low_rank",
        {"share": share, "fit": "whitened"},
        facts.factor(left),
        "the states lie in few directions (for 90 % of their energy)",
        "Wang et al., SVD-LLM, ICLR 2025 (whitened by the inputs)",
    )


def _delta(facts: _Facts, stats: Stats | None) -> Found:
    if stats is None:
        return None
    delta = ACTIVITIES.get("delta")(threshold=THRESHOLD, unit="std")
    uniform = FORMATS.get("uniform")(bits=8, scales="row")
    choice = Choice(STRUCTURES.get("dense")(), uniform, Activation(8), delta)
    density = {}
    for name in (*facts.reads.units, *facts.reads.inputs):
        matrix, site = facts.model.weights[name].dense(), stats.sites[name]
        link = make_link(choice, site, matrix, 1)
        planned = choice.structure.plan(*matrix.shape)[0]
        density[name] = replayed_density(planned, link, site).units[0]
    if not density:
        return None
    sizes = np.array([facts.fetched[name] for name in density])
    sent = float(np.average(list(density.values()), weights=sizes))
    if sent > BUSY:
        return "delta", f"the inputs change too fast: {sent:.0%} move by {THRESHOLD} σ at a step"
    return Suggestion(
        "activity",
        "delta",
        {"threshold": THRESHOLD, "unit": "std"},
        facts.factor(density),
        f"inputs change slowly: {sent:.0%} of them move by {THRESHOLD} standard deviations at a step",
        "Neil et al., Delta Networks for Optimized Recurrent Network Computation, ICML 2017",
    )
