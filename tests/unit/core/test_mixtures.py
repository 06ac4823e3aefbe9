"""Recordings between recordings, in pieces, and one set after another, against loops over single numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.fixed import Array

lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=8)


def recordings(lengths: list[int], features: int = 3, seed: int = 0) -> Sequences:
    x = np.random.default_rng(seed).normal(size=(sum(lengths), features)).astype(np.float32)
    return Sequences(x, np.array(lengths))


def split(data: Sequences) -> list[Array]:
    return np.split(data.x, np.cumsum(data.lengths)[:-1])


def stretched(recording: Array, length: int) -> Array:
    """At `length` places, evenly spaced from the first step to the last, lines between steps."""
    made = np.empty((length, recording.shape[1]))
    for row in range(length):
        place = 0.0 if length == 1 else row * (len(recording) - 1) / (length - 1)
        for column in range(recording.shape[1]):
            made[row, column] = np.interp(
                place, np.arange(len(recording)), recording[:, column].astype(np.float64)
            )
    return made


@given(lengths_lists, st.integers(1, 20), st.integers(0, 2**31 - 1))
def test_mixtures_are_weighted_means_of_one_and_of_another_stretched(
    lengths: list[int], count: int, seed: int
) -> None:
    data = recordings(lengths)
    found, parents = data.mixtures(count, seed), split(data)
    assert found.count == count
    assert found.x.dtype == np.float32
    assert found.y is None
    rng = np.random.default_rng(seed)  # the documented draw: another, then a weight
    for number, mixture in enumerate(split(found)):
        one, other = parents[number * len(lengths) // count], parents[rng.integers(len(lengths))]
        weight, second = rng.random(), stretched(other, len(one))
        np.testing.assert_allclose(mixture, weight * one + (1 - weight) * second, atol=2e-5)
        assert np.all(mixture <= np.maximum(one, second) + 1e-5)
        assert np.all(mixture >= np.minimum(one, second) - 1e-5)


@given(lengths_lists, st.integers(1, 40))
def test_first_parents_are_evenly_spaced(lengths: list[int], count: int) -> None:
    """Few of them come from all over the data, many are each recording about as often."""
    # Their lengths tell the parents.
    distinct = [length + 100 * number for number, length in enumerate(lengths)]
    data = Sequences(np.zeros((sum(distinct), 1), np.float32), np.array(distinct))
    parents = [distinct.index(length) for length in data.mixtures(count, 0).lengths]
    often = np.bincount(parents, minlength=len(lengths))
    assert often.max() - often.min() <= 1
    gaps = np.diff([-1, *parents, len(lengths)])
    assert gaps.max() <= -(-len(lengths) // count) + 1


def test_mixtures_hang_on_the_seed_alone() -> None:
    data = recordings([5, 1, 9])
    np.testing.assert_array_equal(data.mixtures(7, 3).x, data.mixtures(7, 3).x)
    assert not np.array_equal(data.mixtures(7, 3).x, data.mixtures(7, 4).x)


@given(lengths_lists, st.integers(1, 15))
def test_pieces_are_the_recordings_in_their_order(lengths: list[int], steps: int) -> None:
    data = recordings(lengths)
    found, wanted = data.cut(steps), []
    for recording in split(data):
        while len(recording):
            wanted.append(recording[:steps])
            recording = recording[steps:]
    assert found.lengths.tolist() == [len(piece) for piece in wanted]
    for piece, other in zip(split(found), wanted, strict=True):
        np.testing.assert_array_equal(piece, other)


def test_recordings_after_others() -> None:
    one, more = recordings([2, 3], seed=1), recordings([4], seed=2)
    both = one.followed_by(more)
    assert both.lengths.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(both.x, np.concatenate([one.x, more.x]))
    with pytest.raises(ValueError, match="dimension"):
        one.followed_by(recordings([2], features=4))
