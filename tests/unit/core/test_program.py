"""Programs of deep networks: the work grows with the layers, not with their square."""

from __future__ import annotations

import numpy as np
import pytest

from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.weight import Weight, float_weight


def deep(layers: int) -> Model:
    made = tuple(Layer(f"dense{i}", "dense", 2, 2) for i in range(layers))
    weights = {f"{layer.name}.w": float_weight(np.eye(2), None, 1) for layer in made}
    return Model("deep", made, weights, "values")


def looks(monkeypatch: pytest.MonkeyPatch, layers: int) -> int:
    """How often a weight is asked for its links while a model is checked and its program built."""
    count, links = 0, Weight.links.fget
    assert links is not None

    def counted(self: Weight) -> object:
        nonlocal count
        count += 1
        return links(self)

    with monkeypatch.context() as patched:
        patched.setattr(Weight, "links", property(counted))
        build_program(check_model(deep(layers)))
    return count


def test_twice_the_layers_are_twice_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(monkeypatch, 40) == 2 * looks(monkeypatch, 20)
