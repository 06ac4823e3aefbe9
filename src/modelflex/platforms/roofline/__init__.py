"""Rooflines of processors and GPUs: an upper bound on speed, where nothing better is modelled."""

from modelflex.platforms.roofline.platform import Roofline

__all__ = ["Roofline"]
