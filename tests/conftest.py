"""Settings of all tests."""

from __future__ import annotations

import os

# Before NumPy is loaded: small products are slower on several BLAS threads.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# The contract suites are library code; their assertions should explain themselves all the same.
pytest.register_assert_rewrite("modelflex.testing")

settings.register_profile("project", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("project")
