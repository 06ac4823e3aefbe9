"""Settings of all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Before NumPy is loaded: small products are slower on several BLAS threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# The contract suites are library code; their assertions should explain themselves all the same.
pytest.register_assert_rewrite("modelflex.testing")

settings.register_profile("project", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("project")

DATA = Path(os.environ.get("MODELFLEX_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Other people's data and models, which are no part of the project."""


@pytest.fixture
def cnn_tables() -> Path:
    """Layer tables of SCALE-Sim."""
    folder = DATA / "cnn_tables"
    if not folder.is_dir():
        pytest.skip("no folder cnn_tables in MODELFLEX_DATA")
    return folder
