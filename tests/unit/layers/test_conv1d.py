"""Convolutions over time against torch, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.testing.generators import random_sequences


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (2, 4), (3, 2)])
def test_conv1d_equals_torch(kernel: int, dilation: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    w, b = rng.normal(size=(6, kernel, 3)), rng.normal(size=6)
    layer = Layer("conv", "conv1d", 3, 6, "every", {"kernel": kernel, "dilation": dilation})
    weight = float_weight(w.reshape(6, -1), b, 1)
    model = check_model(Model("convolution", (layer,), {"conv.w": weight}, "values"))
    data = random_sequences(rng, (9,), 3)
    x = np.pad(data.x.T.astype(float), [(0, 0), ((kernel - 1) * dilation, 0)])
    wanted = torch.nn.functional.conv1d(
        torch.from_numpy(x[None]),
        torch.from_numpy(w.transpose(0, 2, 1).copy()),
        torch.from_numpy(b),
        dilation=dilation,
    )
    found = run(build_program(model), data).outputs
    np.testing.assert_allclose(found, wanted.numpy()[0].T, rtol=0, atol=1e-5)


def test_a_convolution_over_time_cannot_read_the_last_step_only() -> None:
    weight = float_weight(np.ones((4, 4)), None, 1)
    layers = (
        Layer("a", "dense", 4, 4),
        Layer("b", "conv1d", 4, 4, "last", {"kernel": 2}),
    )
    kernel = float_weight(np.ones((4, 8)), None, 1)
    with pytest.raises(UserError, match="reads 1 steps before the last, and only the last"):
        check_model(Model("m", layers, {"a.w": weight, "b.w": kernel}))


def test_a_dilation_that_would_take_a_million_ops_is_refused_at_once() -> None:
    layer = Layer("conv", "conv1d", 1, 2, "every", {"kernel": 2, "dilation": 1 << 20})
    with pytest.raises(UserError, match="keeps 1048576 steps of 1 inputs; expected at most 4096"):
        check_model(Model("m", (layer,), {"conv.w": float_weight(np.ones((2, 2)), None, 1)}))
