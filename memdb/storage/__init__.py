"""Bytes at a URL: a local disk, object storage, the web; retries, and a cache of what never changes."""

from memdb.storage.cache import Cache, default_folder
from memdb.storage.urls import driver_options, is_object_storage, local_path, open_storage, whereabouts

__all__ = [
    "Cache",
    "default_folder",
    "driver_options",
    "is_object_storage",
    "local_path",
    "open_storage",
    "whereabouts",
]
