"""An import of what is in a folder."""

from __future__ import annotations

import pytest

import memdb


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Import what is in a folder into a store of some name; what was imported, and the store opened."""
    monkeypatch.chdir(tmp_path)

    def imported(path, store="s.zarr", **said):
        done = memdb.import_file(path, store, **said)
        return done, memdb.open(store)

    return imported
