"""How far a network's outputs lie from those of the uncompressed network; needs no labels."""

from __future__ import annotations

import numpy as np

from modelflex.core.fixed import Array


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
    """Divergence of every row: KL for "logits", squared relative error for "values"."""
    return (kl_divergence if output == "logits" else squared_error)(original, compressed)


def divergence_name(output: str) -> str:
    """The metric's name: "kl" or "relative_error" (the root of the mean squared relative error)."""
    return "kl" if output == "logits" else "relative_error"


def mean_divergence(output: str, rows: Array) -> float:
    """The figure that is reported: the mean KL, or the relative error."""
    mean = float(np.mean(rows))
    return mean if output == "logits" else float(np.sqrt(mean))
