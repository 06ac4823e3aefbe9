"""Errors of stored values are weighted by curvature; its unit must not matter."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.core.rounding import by_groups, error_weights
from modelflex.registry import FORMATS
from modelflex.testing.generators import all_configs


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", FORMATS.names())
def test_codes_do_not_hang_on_the_unit_of_the_inputs(name: str, masked: bool) -> None:
    """Inputs of a millionth of the size ask for the same codes and scales."""
    rng = np.random.default_rng(0)
    values, inputs = rng.normal(size=(8, 12)), rng.normal(size=(40, 12))
    hessian = inputs.T @ inputs / 40
    mask = rng.random(values.shape) < 0.5 if masked else None
    for config in all_configs(FORMATS.get(name)):
        part = config.encode(values, hessian, 4, mask)
        small = config.encode(values, hessian * 2.0**-40, 4, mask)
        np.testing.assert_array_equal(small.codes, part.codes)
        np.testing.assert_allclose(small.row_scales(), part.row_scales(), rtol=1e-3)


def test_error_weights_are_multiples_of_the_mean_curvature() -> None:
    """Weights average to one over the columns; nothing is said of what is not stored."""
    hessian = np.diag([1.0, 3.0, 8.0]) * 1e-9
    mask = np.array([[True, False, True]])
    weights = error_weights((2, 3), hessian, None)
    np.testing.assert_allclose(weights.mean(axis=1), 1.0)
    np.testing.assert_allclose(weights[0, 2] / weights[0, 1], 8.04 / 3.04)
    assert error_weights((1, 3), hessian, mask)[0, 1] == 0.0


def test_groups_are_runs_of_values_beside_their_own_weights() -> None:
    """Half a row each: value (row, column) stands with the weight of its column, 0 where masked."""
    values = np.arange(12.0).reshape(2, 6)
    hessian, mask = np.diag(np.arange(1.0, 7.0)), values != 8.0
    grouped, weights = by_groups(values, hessian, mask, 4)
    assert grouped.shape == weights.shape == (4, 3)
    whole = error_weights((1, 6), hessian, None)[0]
    for group, place in np.ndindex(4, 3):
        number = group * 3 + place
        assert grouped[group, place] == number
        assert weights[group, place] == (0.0 if number == 8 else whole[number % 6])
