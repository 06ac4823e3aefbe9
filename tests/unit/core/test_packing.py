"""Time-major packing of ragged sequences."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.core.data import Sequences
from modelflex.core.packing import make_packing
from modelflex.errors import UserError

lengths_lists = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(lengths_lists)
def test_unpack_is_the_inverse_of_pack(lengths: list[int]) -> None:
    total = sum(lengths)
    x = np.arange(total * 2).reshape(total, 2)
    packing = make_packing(np.array(lengths))
    np.testing.assert_array_equal(packing.unpack(packing.pack(x)), x)
    assert sorted(packing.rows.tolist()) == list(range(total))


@given(lengths_lists)
def test_rows_of_a_step_lie_together_longest_first(lengths: list[int]) -> None:
    packing = make_packing(np.array(lengths))
    starts = np.cumsum([0, *lengths])
    expected = []
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    assert packing.order.tolist() == order
    for t in range(max(lengths)):
        alive = [i for i in order if lengths[i] > t]
        assert packing.alive[t] == len(alive)
        assert packing.offsets[t] == len(expected)
        expected += [int(starts[i]) + t for i in alive]
    assert packing.offsets[-1] == len(expected)
    assert packing.rows.tolist() == expected


def test_packing_takes_memory_for_the_rows_only() -> None:
    """One long sequence among many short ones; [T_max, N] would be 400 MB."""
    lengths = np.ones(20_000, np.int64)
    lengths[7] = 20_000
    tracemalloc.start()
    packing = make_packing(lengths)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert packing.alive.tolist() == [20_000] + [1] * 19_999
    assert peak < 20e6


def test_taking_sequences() -> None:
    lengths = np.array([2, 1, 3])
    x = np.arange(6, dtype=np.float32)[:, None]
    every = Sequences(x, lengths, np.arange(6))
    assert every.take(np.array([2, 0])).x.ravel().tolist() == [3, 4, 5, 0, 1]
    assert every.take(np.array([2, 0])).y.tolist() == [3, 4, 5, 0, 1]
    one = Sequences(x, lengths, np.array([7, 8, 9]))
    assert one.take(np.array([2, 0])).y.tolist() == [9, 7]
    assert Sequences(x, lengths).take(np.array([1])).y is None
    assert (one.count, one.steps, one.mean_length) == (3, 6, 2.0)


def test_targets_follow_when_every_sequence_has_one_step() -> None:
    """Then [N] and [ΣT] targets are the same thing."""
    ones = Sequences(np.arange(3.0)[:, None], np.ones(3, np.int64), np.array([5, 6, 7]))
    assert ones.take(np.array([2, 0])).y.tolist() == [7, 5]


def test_digests_tell_content_apart() -> None:
    x, lengths = np.zeros((4, 1), np.float32), np.array([2, 2])
    digests = {
        Sequences(x, lengths).digest,
        Sequences(x + 1, lengths).digest,
        Sequences(x, np.array([1, 3])).digest,
        Sequences(x, lengths, np.array([0, 1])).digest,
        Sequences(x.reshape(2, 2), np.array([1, 1])).digest,
    }
    assert len(digests) == 5
    assert Sequences(x.copy(), lengths.copy()).digest in digests


BAD_LENGTHS: dict[str, tuple[Any, str]] = {
    "too few": (np.array([1, 2]), "sum to 3; expected 4"),
    "too many": (np.array([3, 3]), "sum to 6; expected 4"),
    "too long": (np.array([5]), "5 … 5; expected 1 … 4"),
    "an empty one": (np.array([4, 0]), "leave out empty"),
    "below zero": (np.array([5, -1]), "-1 … 5"),
    "floats": (np.array([4.0]), "expected an array of integers"),
    "none": (np.array([], int), "expected an array of integers"),
    "a list": ([4], "are a list"),
    "a table": (np.array([[4]]), "expected an array of integers"),
    "nothing": (None, "are a NoneType"),
}


@pytest.mark.parametrize("name", BAD_LENGTHS)
def test_lengths_share_out_the_rows(name: str) -> None:
    lengths, message = BAD_LENGTHS[name]
    with pytest.raises(UserError, match=message):
        Sequences(np.zeros((4, 2)), lengths)
