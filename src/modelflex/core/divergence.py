"""How far a network's outputs lie from those of the uncompressed network; needs no labels."""

from __future__ import annotations

import re

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

VALUES, LOGITS = "values", "logits"


def check_output(output: str, where: str = "model output") -> str:
    """What a network's outputs are: "values"; "logits", all of them; or "logits:K", the first K (2 or
    more), where what follows serves something else (predictions that are fed back, say).

    Raises:
        UserError: it is none of these.
    """
    if not isinstance(output, str) or not re.fullmatch(r"values|logits(:[0-9]{1,9})?", output):
        raise UserError(
            f"{where} is '{str(output)[:60]}'", f"one of {LOGITS}, {VALUES}, {LOGITS}:K"
        )
    if ":" in output and int(output.partition(":")[2]) < 2:
        raise UserError(f"{where} is '{output}'", "2 logits or more")
    return output


def judged(output: str, outputs: int) -> int:
    """How many of so many outputs, the first ones, are compared and judged: the logits, or all values."""
    count = output.partition(":")[2]
    return int(count) if count else outputs


def log_softmax(logits: Array) -> Array:
    """log softmax over the last axis, float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def kl_divergence(original: Array, compressed: Array) -> Array:
    """KL(p_original ‖ p_compressed) in nats of every row of logits [rows, K] → [rows]."""
    p, q = log_softmax(original), log_softmax(compressed)
    return np.maximum((np.exp(p) * (p - q)).sum(axis=-1), 0.0)


def squared_error(original: Array, compressed: Array) -> Array:
    """‖y − ŷ‖² of every row over the mean ‖y‖² of all rows, [rows]; its mean is the squared
    relative error.
    """
    power = float(np.mean(np.sum(np.square(original), axis=-1)))
    wrong = np.sum(np.square(np.asarray(original) - compressed), axis=-1)
    return wrong / power if power > 0 else wrong


def divergences(output: str, original: Array, compressed: Array) -> Array:
    """Divergence of every row: KL of the logits, or squared relative error of "values"."""
    count = judged(output, original.shape[-1])
    measure = squared_error if output == VALUES else kl_divergence
    return measure(original[..., :count], compressed[..., :count])


def divergence_name(output: str) -> str:
    """The metric's name: "kl" or "relative_error" (the root of the mean squared relative error)."""
    return "relative_error" if output == VALUES else "kl"


def mean_divergence(output: str, rows: Array) -> float:
    """The figure that is reported: the mean KL, or the relative error."""
    mean = float(np.mean(rows))
    return float(np.sqrt(mean)) if output == VALUES else mean
