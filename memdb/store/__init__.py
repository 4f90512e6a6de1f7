"""Stores: the only part of memdb that knows zarr and fsspec."""

from memdb.store.examples import Examples, ExampleTable
from memdb.store.storage import open_storage
from memdb.store.store import Snapshot, Store, require_free

__all__ = ["ExampleTable", "Examples", "Snapshot", "Store", "open_storage", "require_free"]
