"""Stores: the only part of memdb that knows zarr and fsspec."""

from memdb.store.bases import Following
from memdb.store.cache import Cache, default_folder
from memdb.store.examples import Examples, ExampleTable
from memdb.store.places import driver_options, is_object_storage, local_path, open_storage, whereabouts
from memdb.store.scores import Scores, StoredScores
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store, require_free

__all__ = [
    "Cache",
    "ExampleTable",
    "Examples",
    "Following",
    "Scores",
    "Snapshot",
    "Store",
    "StoredScores",
    "default_folder",
    "driver_options",
    "is_object_storage",
    "local_path",
    "open_storage",
    "require_free",
    "whereabouts",
]
