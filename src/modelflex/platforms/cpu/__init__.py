"""The platform `cpu`: the machine that this runs on, measured."""

from modelflex.platforms.cpu.platform import Cpu

__all__ = ["Cpu"]
