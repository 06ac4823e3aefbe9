"""NumPy reference kernels of the elementwise primitives (docs/arithmetic.md), on arrays [rows, n].

They define the results; faster kernels must equal them bit for bit in integer programs.
"""

from __future__ import annotations

import numpy as np

from modelflex.core.fixed import FX_BITS, TANH_TABLE, Array, Multiplier, rounding_shift, saturate

OVERSHOOT_BITS = 8
"""An overshoot is a whole number of 2⁻⁸."""


def quantize(v: Array, multiplier: Multiplier, bits: int) -> Array:
    """fx int32 → codes int16: clamp(rsh(v·μ, s), −2^(b−1), 2^(b−1)−1)."""
    codes = rounding_shift(v.astype(np.int64) * int(multiplier.mantissa[0]), multiplier.shift)
    return np.clip(codes, -(1 << (bits - 1)), (1 << (bits - 1)) - 1).astype(np.int16)


def rescale(acc: Array, multiplier: Multiplier) -> Array:
    """Exact integers [rows, out] (any dtype) → fx int32: sat(rsh(acc·μ_row, s))."""
    repeat = acc.shape[-1] // multiplier.mantissa.size
    factors = np.repeat(multiplier.mantissa.astype(np.int64), repeat)
    return saturate(rounding_shift(acc.astype(np.int64) * factors, multiplier.shift))


def add(a: Array, b: Array) -> Array:
    """Saturating fx sum."""
    return saturate(a.astype(np.int64) + b)


def sub(a: Array, b: Array) -> Array:
    """Saturating fx difference."""
    return saturate(a.astype(np.int64) - b)


def mul(a: Array, b: Array) -> Array:
    """fx product: sat(rsh(a·b, 16))."""
    return saturate(rounding_shift(a.astype(np.int64) * b, FX_BITS))


def relu(v: Array) -> Array:
    """max(v, 0), in fx or floats."""
    return np.maximum(v, v.dtype.type(0))


def one_hot(v: Array, size: int) -> Array:
    """Indices [rows, 1], fx or floats → [rows, size]: 1 at the nearest whole number (ties upwards)."""
    fx = v.dtype == np.int32
    index = rounding_shift(v[:, 0].astype(np.int64), FX_BITS) if fx else np.floor(v[:, 0] + 0.5)
    one = v.dtype.type(1 << FX_BITS if fx else 1)
    return np.where(index[:, None] == np.arange(size), one, v.dtype.type(0))


def tanh(v: Array) -> Array:
    """fx tanh: 256 segments up to 8, linear inside, odd; |error| < 1.09e-4 (see docs/arithmetic.md)."""
    a = np.minimum(np.abs(v.astype(np.int64)), (1 << 19) - 1)
    i, f = a >> 11, a & 2047
    low = TANH_TABLE[i].astype(np.int64)
    y = 2 * low + rounding_shift((TANH_TABLE[i + 1] - low) * f, 10)
    return np.where(v < 0, -y, y).astype(np.int32)


def sigmoid(v: Array) -> Array:
    """fx σ(x) = 2¹⁵ + rsh(tanh(rsh(x, 1)), 1)."""
    half = rounding_shift(v.astype(np.int64), 1).astype(np.int32)
    return ((1 << 15) + rounding_shift(tanh(half).astype(np.int64), 1)).astype(np.int32)


def delta_encode(
    codes: Array, sent: Array, thresholds: Array, block: int, overshoot: int, bits: int
) -> tuple[Array, Array, Array]:
    """Codes and last sent codes [rows, n] int16 → (Δ int32, mask bool, sent′ int16).

    A block of `block` inputs is sent when its largest change is at least its threshold and not zero.
    Each input then moves beyond its code by `overshoot`/2⁸ of its change, of which no more than the
    threshold counts; sent′ stays a code of `bits` bits, and Δ = sent′ − sent.

    Args:
        thresholds: int32 [n / block].
        overshoot: 0 … 2⁸ − 1.
    """
    change = codes.astype(np.int32) - sent
    size, theta = np.abs(change), np.repeat(thresholds, block)
    mask = size >= np.maximum(theta, 1)
    if block > 1:
        blocks = mask.reshape(*mask.shape[:-1], -1, block).any(axis=-1)
        mask = np.repeat(blocks, block, axis=-1)
    aim = codes.astype(np.int32)
    if overshoot:
        aim += np.sign(change) * (np.minimum(size, theta) * overshoot >> OVERSHOOT_BITS)
        aim = np.clip(aim, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    after = np.where(mask, aim, sent)
    return after - sent, mask, after.astype(np.int16)


def float_sigmoid(v: Array) -> Array:
    """σ in float32, without overflow: ½ + ½·tanh(v/2)."""
    half = np.float32(0.5)
    return half + half * np.tanh(half * v)
