"""FPGAs: an engine that refines LSTM gates term by term, its roofline and its design space."""

from modelflex.platforms.fpga.platform import Fpga

__all__ = ["Fpga"]
