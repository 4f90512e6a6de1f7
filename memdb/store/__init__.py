"""One store: its documents, arrays and models. The only part of memdb that knows Zarr."""

from memdb.store.base import BaseAccess
from memdb.store.examples import Examples, ExampleTable
from memdb.store.score_tables import Scores, StoredScores
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store, require_free

__all__ = [
    "BaseAccess",
    "ExampleTable",
    "Examples",
    "Scores",
    "Snapshot",
    "Store",
    "StoredScores",
    "require_free",
]
