"""The memory that a test takes."""

from __future__ import annotations

import tracemalloc

import pytest


@pytest.fixture
def peak():
    """Measure what was taken at most, in bytes, since it was called first."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
