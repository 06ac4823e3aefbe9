"""Systolic arrays of variable-precision units: closed forms instead of simulation."""

from modelflex.platforms.systolic.platform import Systolic

__all__ = ["Systolic"]
