"""Compression without retraining: what a recipe means for a model, and how weights are fitted to it."""

from modelflex.compress.fitting import Compression, compress
from modelflex.compress.recall import Recall

__all__ = ["Compression", "Recall", "compress"]
