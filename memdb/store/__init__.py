"""One store: its documents, arrays and models. The only part of memdb that knows Zarr."""

from memdb.store.access import Access
from memdb.store.examples import Examples, ExampleTable
from memdb.store.score_tables import Scores, StoredScores
from memdb.store.snapshot import Snapshot
from memdb.store.store import Store, require_free

__all__ = [
    "Access",
    "ExampleTable",
    "Examples",
    "Scores",
    "Snapshot",
    "Store",
    "StoredScores",
    "require_free",
]
