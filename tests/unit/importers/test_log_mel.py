"""Log-mel spectrograms against a plain DFT loop, the scale's closed form and pure tones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelflex.errors import UserError
from modelflex.importers.log_mel import log_mel, mel_filters


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def corner(i: int, bands: int, rate: float) -> float:
    return 700 * (10 ** (mel(rate / 2) * i / (bands + 1) / 2595) - 1)


def by_loops(samples, rate, bands, window, hop, size, floor):
    """The definition, one sum at a time."""
    rows = []
    for start in range(0, len(samples) - window + 1, hop):
        power = []
        for k in range(size // 2 + 1):
            re = im = 0.0
            for n in range(window):
                value = samples[start + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / window))
                re += value * math.cos(2 * math.pi * k * n / size)
                im -= value * math.sin(2 * math.pi * k * n / size)
            power.append(re * re + im * im)
        row = []
        for b in range(bands):
            low, centre, high = (corner(b + i, bands, rate) for i in range(3))
            energy = 0.0
            for k, p in enumerate(power):
                f = k * rate / size
                if low < f <= centre:
                    energy += p * (f - low) / (centre - low)
                elif centre < f < high:
                    energy += p * (high - f) / (high - centre)
            row.append(math.log(max(energy, floor)))
        rows.append(row)
    return np.array(rows)


@settings(max_examples=15, deadline=None)
@given(
    extra=st.integers(0, 40),
    hop=st.integers(3, 20),
    bands=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_equals_the_definition(extra, hop, bands, seed):
    rate, window = 1000.0, 24
    samples = np.random.default_rng(seed).normal(size=window + extra)
    found = log_mel(samples, rate, bands, window / rate, hop / rate, floor=1e-3)
    expected = by_loops(samples, rate, bands, window, hop, 32, 1e-3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_filter_centres_lie_evenly_on_the_mel_scale():
    # At 0.1 Hz a bin, every triangle peaks at a bin beside its centre.
    peaks = mel_filters(16000, 160_000, 26).argmax(axis=1) / 10
    expected = [corner(b + 1, 26, 16000) for b in range(26)]
    np.testing.assert_allclose(peaks, expected, atol=0.1)


def test_a_pure_tone_is_loudest_in_its_own_band():
    rate = 8000
    seconds = np.arange(rate) / rate
    for band in (3, 17, 38):
        tone = np.sin(2 * np.pi * corner(band + 1, 40, rate) * seconds)
        assert set(log_mel(tone, rate).argmax(axis=1)) == {band}


def test_frames_of_a_second_and_of_a_recording_shorter_than_a_window():
    assert log_mel(np.ones(8000), 8000).shape == (98, 40)  # 1 + (8000 - 200) // 80
    short = np.random.default_rng(0).normal(size=150)
    padded = np.concatenate([short, np.zeros(50)])
    np.testing.assert_array_equal(log_mel(short, 8000), log_mel(padded, 8000))


def test_integers_are_full_scale_and_silence_is_the_floor():
    samples = np.random.default_rng(0).integers(-9000, 9000, 500).astype(np.int16)
    np.testing.assert_array_equal(log_mel(samples, 8000), log_mel(samples / 32768, 8000))
    silence = log_mel(np.zeros(500, dtype=np.int16), 8000, floor=1e-4)
    np.testing.assert_allclose(silence, math.log(1e-4), rtol=1e-6)


@pytest.mark.parametrize(
    ("pcm", "options", "message"),
    [
        (np.zeros(0), {}, "shape"),
        (np.zeros((9, 2)), {}, "one channel"),
        (np.zeros(9, dtype=np.int32), {}, "int32"),
        (np.array([0.0, np.nan]), {}, "NaN"),
        (np.zeros(9), {"rate": 0}, "rate"),
        (np.zeros(9), {"hop_s": -1}, "hop_s"),
        (np.zeros(9), {"floor": np.nan}, "floor"),
        (np.zeros(9), {"window_s": 1e-5}, "samples"),
        (np.zeros(9), {"hop_s": 1e-6}, "samples"),
        (np.zeros(9), {"bands": 0}, "bands"),
        (np.zeros(9), {"bands": 200}, "no bin"),
    ],
)
def test_refuses_what_has_no_spectrogram(pcm, options, message):
    with pytest.raises(UserError, match=message):
        log_mel(pcm, **{"rate": 8000, **options})
