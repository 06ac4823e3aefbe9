"""The dense structure without data."""

from __future__ import annotations

import tracemalloc

import numpy as np

from modelflex.core.fixed import Scale
from modelflex.core.tracer import Link
from modelflex.formats.uniform import Uniform
from modelflex.structures.dense import Dense
from modelflex.testing.generators import make_fit


def test_a_copy_of_a_wide_weight_needs_no_square_matrix() -> None:
    """An embedding of many symbols has far more columns than rows."""
    matrix = np.random.default_rng(0).integers(-127, 128, (4, 1 << 13)) * 0.5
    matrix[0, 0] = 63.5
    link = Link(8, Scale.nearest(0.01))
    for structure in (Dense("copy"), Dense("least_squares")):
        tracemalloc.start()
        made = structure.fit_weight(make_fit(matrix, None, Uniform(8).naive(), link))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        np.testing.assert_array_equal(made.dense(), matrix)
        assert peak < 1 << 26
