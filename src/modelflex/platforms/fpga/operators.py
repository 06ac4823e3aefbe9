"""Arithmetic units and memories in FPGA resources, for both widths of words.

DSP slices: a single-precision multiplier takes 3 and an adder 2 (Vivado HLS, "max_dsp" and "full_dsp",
the same on 7-series and UltraScale+); a 16-bit product and its sum take one slice. LUTs and flip-flops
of the floating-point units are typical of Vivado HLS for 7-series at 100 MHz, from memory and not verified:
they differ between versions, and DSP slices or block RAMs run out first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

RAM_WORDS: Final = 1024
RAM_BITS: Final = 18
"""Half of a block RAM: 1024 words of 18 bits (AMD UG473 and UG573)."""
LUT_WORDS: Final = 64
"""Memories of so few words are made of LUTs, two for each bit with two ports (AMD UG474, RAM64X1D)."""


class Unit(NamedTuple):
    """One arithmetic unit that takes new operands in every cycle."""

    dsp: int
    luts: int
    flip_flops: int


@dataclass(frozen=True)
class Word:
    """The words of an engine: streamed values and inputs of `bits`, sums of 32 bits.

    Attributes:
        multiplier, adder: units; an adder that accumulates products.
    """

    bits: int
    multiplier: Unit
    adder: Unit


SUM_BITS: Final = 32
WORDS: Final = {
    16: Word(
        16, Unit(1, 0, 0), Unit(0, 32, 32)
    ),  # fixed point: a DSP slice, an adder in the fabric
    32: Word(32, Unit(3, 321, 143), Unit(2, 390, 205)),  # single precision
}


def find_word(bits: int) -> Word:
    """The words of an engine by their width.

    Raises:
        UserError: no engine has such words.
    """
    if bits not in WORDS:
        raise UserError(f"word_bits is {bits!r}", f"one of {', '.join(map(str, sorted(WORDS)))}")
    return WORDS[bits]


class Memory(NamedTuple):
    """What a memory is made of: halves of block RAMs and LUTs, each an array."""

    block_rams: Array
    luts: Array


def memory(words: Array | int, bits: int) -> Memory:
    """One bank of so many words, with two ports."""
    words = np.asarray(words)
    small = words <= LUT_WORDS
    blocks = -(-words // RAM_WORDS) * -(-bits // RAM_BITS)
    return Memory(np.where(small, 0, blocks), np.where(small, 2 * bits, 0))
