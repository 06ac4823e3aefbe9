"""Log-mel spectrograms of recordings, in NumPy."""

from __future__ import annotations

import numpy as np

from modelflex.core.fixed import Array
from modelflex.errors import UserError

FULL_SCALE = 32768.0  # of 16-bit PCM


def log_mel(
    pcm: Array,
    rate: float,
    bands: int = 40,
    window_s: float = 0.025,
    hop_s: float = 0.010,
    floor: float = 1e-10,
) -> Array:
    """ln max(Σ_k H[b, k]·|X[t, k]|², floor) of frames t and mel bands b, float32 [T, bands].

    X[t] is the DFT of frame t under a periodic Hann window, zero-padded to the next power of two.
    Frames hold W = round(window_s·rate) samples and start every S = round(hop_s·rate) samples:
    T = 1 + ⌊(N − W)/S⌋; a recording shorter than W is padded with zeros to one frame. H are the
    triangles of `mel_filters`. Integers are divided by 32,768; floats are taken as they are.

    Source: Davis and Mermelstein, IEEE Trans. ASSP 28(4), 1980; Young et al., The HTK Book, 5.4.

    Args:
        pcm: [N] samples, int16 or float, finite, N ≥ 1.
        rate: samples a second, Hz.
        bands: number of mel bands between 0 Hz and rate/2.
        window_s: length of a frame.
        hop_s: distance of the starts of two frames.
        floor: least power, > 0; what is quieter counts as this loud.

    Raises:
        UserError: no samples, samples that are not finite numbers, sizes that are not positive, or
            more bands than the window can tell apart.
    """
    samples = _checked(pcm)
    positive = {"rate": rate, "window_s": window_s, "hop_s": hop_s, "floor": floor}
    for name, value in positive.items():
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"{name} is {value}", "a positive number")
    window, hop = round(window_s * rate), round(hop_s * rate)
    if window < 2 or hop < 1:
        raise UserError(
            f"frames of {window_s} s every {hop_s} s are {window} samples every {hop} at {rate} Hz",
            "at least 2 samples every 1",
        )
    if samples.size < window:
        samples = np.pad(samples, (0, window - samples.size))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    size = 1 << (window - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * hann, size)) ** 2
    energy = power @ mel_filters(rate, size, bands).T
    return np.log(np.maximum(energy, floor)).astype(np.float32)


def mel_filters(rate: float, size: int, bands: int) -> Array:
    """Triangles H [bands, size/2 + 1] with peak 1 over the bins k·rate/size Hz of a DFT.

    The bands + 2 corners lie evenly on the mel scale m(f) = 2595·log₁₀(1 + f/700) from 0 Hz to
    rate/2; band b rises from corner b to corner b + 1 and falls to corner b + 2 (The HTK Book, 5.4).

    Raises:
        UserError: a band without any bin.
    """
    if bands < 1:
        raise UserError(f"{bands} mel bands", "at least 1")
    top = 2595 * np.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    bins = np.arange(size // 2 + 1) * rate / size
    low, centre, high = (corners[i : i + bands, None] for i in range(3))
    filters = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)).clip(0)
    empty = np.flatnonzero(filters.sum(axis=1) == 0)
    if empty.size:
        raise UserError(
            f"mel band {empty[0]} of {bands} holds no bin of a {size}-point spectrum at {rate} Hz",
            "fewer bands or a longer window",
        )
    return filters


def _checked(pcm: Array) -> Array:
    """The samples as float64 in −1…1 (integers) or as they are (floats)."""
    samples = np.asarray(pcm)
    if samples.ndim != 1 or samples.size == 0:
        raise UserError(f"pcm has the shape {samples.shape}", "[N] samples of one channel, N ≥ 1")
    if samples.dtype == np.int16:
        return samples / FULL_SCALE
    if not np.issubdtype(samples.dtype, np.floating):
        raise UserError(f"pcm holds {samples.dtype}", "int16 or floating-point samples")
    if not np.isfinite(samples).all():
        raise UserError("pcm holds a sample that is NaN or infinite", "finite numbers")
    return samples.astype(np.float64)
