"""Calibration: what every weight of the uncompressed network sees."""

from __future__ import annotations

import numpy as np

from modelflex.core.data import Draw, Sequences
from modelflex.core.fixed import FX_BITS
from modelflex.core.model import Model
from modelflex.core.program import build_program, check_symbols_read, input_symbols
from modelflex.core.stats import SiteStats, Stats, spread
from modelflex.core.weight import Terms
from modelflex.errors import UserError
from modelflex.execute.gradients import importances
from modelflex.execute.interpret import Interpreter

FX_RANGE = 2.0 ** (31 - FX_BITS)
SMALLEST_PEAK = 2.0**-9
GRADIENT_STEPS = 5000
"""Time steps over which gradients are taken: enough for mean squares, and a second or two at most."""
ALL = Draw()


def check_range(sequences: Sequences, where: str) -> None:
    """Refuse data that saturate when they enter integer programs.

    Raises:
        UserError: a value at or beyond ±2¹⁵.
    """
    peak = float(np.abs(sequences.x).max(initial=0.0))
    if peak >= FX_RANGE:
        raise UserError(
            f"{where} holds the value {peak:.3g}", f"less than {FX_RANGE:g}", "standardise the data"
        )


def calibrate(model: Model, sequences: Sequences, draw: Draw = ALL, seed: int = 0) -> Stats:
    """Run the uncompressed network and keep the input of every weight.

    Args:
        draw: which of the sequences are used, and whether they are varied.
        seed: of the draw.

    Raises:
        UserError: the model is already compressed or consists of terms, the sequences hold no symbols where
            it takes them, or an input of a weight never differs from zero.
    """
    if model.numeric != "float":
        raise UserError(f"model '{model.name}' is already compressed", "the uncompressed model")
    if any(isinstance(weight, Terms) for weight in model.weights.values()):
        raise UserError(
            f"model '{model.name}' consists of terms", "the model before it was refined"
        )
    check_symbols_read(sequences.x, model, "calibration data")
    if draw.copies and input_symbols(model) is not None:
        raise UserError(
            f"calibration_copies is {draw.copies} for a model of symbols", "0: they bear no noise"
        )
    sequences = draw.apply(sequences, seed)
    program = build_program(model)
    run = Interpreter(program).run(sequences, capture=True)
    found = importances(program, some_sequences(sequences, GRADIENT_STEPS), model.output, seed)
    once = {layer.name for layer in model.layers if layer.reads == "last"}
    sites = {}
    for site, trace in run.inputs.items():
        name = site.rsplit("/", 1)[0]
        single = name.rsplit(".", 1)[0] in once
        peak = float(np.abs(trace).max(initial=0.0))
        if peak == 0.0:
            raise UserError(
                f"the input of '{name}' is zero at every calibration step",
                "data that drive the network",
            )
        if not SMALLEST_PEAK <= peak < FX_RANGE:
            raise UserError(
                f"the input of '{name}' reaches {peak:.3g}",
                f"a largest value from {SMALLEST_PEAK:g} to {FX_RANGE:g}, what 32-bit fixed point resolves",
                "standardise the data and train on that",
            )
        lengths = np.ones(trace.shape[0], np.int64) if single else sequences.lengths
        sites[name] = SiteStats(trace, lengths, spread(trace), peak, found[site])
    return Stats(sequences, run.outputs, sites)


def some_sequences(sequences: Sequences, steps: int) -> Sequences:
    """Evenly spaced sequences of at most about `steps` in all; a single longer one is cut."""
    if sequences.steps <= steps:
        return sequences
    count = max(1, int(steps / sequences.mean_length))
    chosen = sequences.take(np.unique(np.linspace(0, sequences.count - 1, count).astype(int)))
    if chosen.steps <= 2 * steps:
        return chosen
    first = min(int(chosen.lengths[0]), steps)
    return Sequences(chosen.x[:first], np.array([first]))
