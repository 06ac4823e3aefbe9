"""Contract suites that every plug-in must pass, shipped for plug-in authors.

A suite is a class of pytest tests over a `name` (or, for whole recipes, a `seed`):

    import pytest
    from modelflex.registry import STRUCTURES
    from modelflex.testing import StructureSuite

    @pytest.mark.parametrize("name", STRUCTURES.names())
    class TestStructures(StructureSuite):
        pass

`oracle` is the integer arithmetic in plain Python; `generators` draws models, data and recipes.
"""

from __future__ import annotations

from modelflex.testing.cells import CellSuite, LayerSuite
from modelflex.testing.methods import ActivitySuite, FormatSuite, StructureSuite
from modelflex.testing.nonlinearities import NonlinearitySuite
from modelflex.testing.platforms import PlatformSuite
from modelflex.testing.recipes import RecipeSuite
from modelflex.testing.removals import RemovalSuite

__all__ = [
    "ActivitySuite",
    "CellSuite",
    "FormatSuite",
    "LayerSuite",
    "NonlinearitySuite",
    "PlatformSuite",
    "RecipeSuite",
    "RemovalSuite",
    "StructureSuite",
]
