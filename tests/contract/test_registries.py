"""The shipped suites over every entry of every registry: a new plug-in file joins by itself."""

from __future__ import annotations

from typing import Any

import pytest

from modelflex.core.platform import MeasuredPlatform
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.registry import (
    ACTIVITIES,
    CELLS,
    FORMATS,
    LAYERS,
    NONLINEARITIES,
    PLATFORMS,
    REMOVALS,
    STRUCTURES,
)
from modelflex.testing import (
    ActivitySuite,
    CellSuite,
    FormatSuite,
    LayerSuite,
    NonlinearitySuite,
    PlatformSuite,
    RecipeSuite,
    RemovalSuite,
    StructureSuite,
)

SEEDS = range(24)


@pytest.mark.parametrize("name", STRUCTURES.names())
class TestStructures(StructureSuite):
    pass


@pytest.mark.parametrize("name", FORMATS.names())
class TestFormats(FormatSuite):
    pass


@pytest.mark.parametrize("name", ACTIVITIES.names())
class TestActivities(ActivitySuite):
    pass


@pytest.mark.parametrize("name", CELLS.names())
class TestCells(CellSuite):
    pass


@pytest.mark.parametrize("name", LAYERS.names())
class TestLayers(LayerSuite):
    pass


@pytest.mark.parametrize("name", NONLINEARITIES.names())
class TestNonlinearities(NonlinearitySuite):
    pass


@pytest.mark.parametrize("name", REMOVALS.names())
class TestRemovals(RemovalSuite):
    pass


def platform(name: str) -> Any:
    unbuilt = issubclass(PLATFORMS.get(name), MeasuredPlatform) and not HAVE_NATIVE
    mark = pytest.mark.skipif(unbuilt, reason="built without a C compiler")
    return pytest.param(name, marks=mark)


@pytest.mark.parametrize("name", [platform(name) for name in PLATFORMS.names()])
class TestPlatforms(PlatformSuite):
    pass


@pytest.mark.parametrize("seed", SEEDS)
class TestRecipes(RecipeSuite):
    @pytest.mark.skipif(not HAVE_NATIVE, reason="built without a C compiler")
    def test_native_kernels_equal_numpy(self, seed: int) -> None:
        super().test_native_kernels_equal_numpy(seed)


def test_every_registry_has_entries() -> None:
    methods = (STRUCTURES, FORMATS, ACTIVITIES, NONLINEARITIES, REMOVALS)
    for registry in (*methods, CELLS, LAYERS, PLATFORMS):
        assert registry.names(), registry.package
