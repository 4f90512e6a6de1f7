"""A small store of bits."""

from __future__ import annotations

import pytest
from support.stores import small_database


@pytest.fixture
def store(tmp_path):
    return small_database(tmp_path / "s.zarr", outcomes=["correct"]).store
