"""Compression without retraining: what a recipe means for a model, and how weights are fitted to it."""

from modelflex.compress.fitting import Compression, compress

__all__ = ["Compression", "compress"]
